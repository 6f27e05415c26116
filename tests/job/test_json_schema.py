"""The JSON Schema of the job file: it takes what portl takes, and marks what editors should mark."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

import portl
from portl.job.explain import every

pytestmark = pytest.mark.usefixtures("nothing_registered")

EXAMPLES = Path(__file__).parents[2] / "examples"
ENDS: dict[str, Any] = {
    "source": {"type": "postgres", "table": "a"},
    "destination": {"type": "postgres", "table": "b"},
}


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    found = portl.schema_of_jobs()
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_are_valid(validator: jsonschema.Draft202012Validator, path: Path) -> None:
    job = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    assert [error.message for error in validator.iter_errors(job)] == []


@pytest.mark.parametrize(
    "more",
    [
        {"conflict": "skip"},
        {"conflict": {"strategy": "merge", "columns": {"n": "sum"}}},
        {"types": {"json": "jsonb"}},
        {"types": [{"column": "a", "to": "text", "using": "a::text"}]},
        {"parallel": "auto", "batch_size": "${SIZE}"},
        {"parallel": 4, "quarantine": {"limit": 5}, "ledger": {"mode": "required"}},
        {"name": 2024},
    ],
)
def test_what_portl_takes_is_valid(
    validator: jsonschema.Draft202012Validator, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIZE", "5")
    assert [error.message for error in validator.iter_errors({**ENDS, **more})] == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"conflict": "overwrit"}, "is not valid under any"),
        ({"batch_sise": 5}, "'batch_sise' was unexpected"),
        ({"parallel": "many"}, "is not valid under any"),
        ({"source": {"type": "postgres", "tabel": "a"}}, "'tabel' was unexpected"),
        ({"source": {"type": "oracle"}}, "'oracle' is not one of"),
        ({"source": {"table": "a"}}, "'type' is a required property"),
        ({"destination": {"type": "postgres"}}, "'table' is a required property"),
        ({"atomic": "yes"}, "is not valid under any"),
    ],
)
def test_what_portl_refuses_is_marked(
    validator: jsonschema.Draft202012Validator, more: dict[str, Any], words: str
) -> None:
    found = [error.message for error in validator.iter_errors({**ENDS, **more})]
    assert any(words in message for message in found), found


def test_every_key_is_in_the_schema_with_its_meaning() -> None:
    found = json.dumps(portl.schema_of_jobs())
    for explanation in every():
        assert json.dumps(explanation.meaning) in found, explanation.key


def test_the_command_prints_it() -> None:
    command = [sys.executable, "-c", "from portl.cli import main; main()", "schema"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == portl.schema_of_jobs()
