"""Connectors of their own distributions: JSON Lines, and what ``portl new-connector`` writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import portl
from portl.connectors.registry import _registered
from portl.skeleton import new_connector
from tests.commands import portl_cli
from tests.pages import run_code
from tests.servers import Db

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "portl-jsonl"


def install(package: Path, into: Path) -> None:
    """Build a package and install it into a folder of its own."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(into), str(package)], check=True, timeout=120)


def own_tests(package: Path, installed: Path) -> str:
    """Run a package's own tests; return what pytest says last."""
    path = os.pathsep.join([str(installed), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "pyproject.toml", "tests"],
        cwd=package, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture
def jsonl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """JSON Lines, installed for one test."""
    target = tmp_path / "site"
    install(EXAMPLE, target)
    monkeypatch.syspath_prepend(target)
    for name in [name for name in sys.modules if name.startswith("portl_jsonl")]:
        monkeypatch.delitem(sys.modules, name)
    return target


def test_json_lines_passes_the_suite_for_connectors(jsonl: Path) -> None:
    assert "passed" in own_tests(EXAMPLE, jsonl)


def test_json_lines_go_to_postgres_and_back_through_the_entry_point(
    jsonl: Path, source: Db, destination: Db, tmp_path: Path
) -> None:
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, name text, at timestamptz, n numeric, data jsonb, tags text[], raw bytea);"
        "INSERT INTO t SELECT g, nullif('name ' || g, 'name 7'), now() + g * interval '1 day', g / 3.0,"
        " jsonb_build_object('a', g), ARRAY['x', NULL], decode(lpad(to_hex(g), 8, '0'), 'hex')"
        " FROM generate_series(1, 3000) AS g"
    )
    file = str(tmp_path / "t.jsonl")
    end = {"type": "jsonl", "path": file}
    out = portl.migrate({"source": source.end(table="t"), "destination": end, "conflict": "fail"})
    assert (out.rows_inserted, out.tables[0].route) == (3000, "rows")
    first = json.loads(Path(file).read_text(encoding="utf-8").splitlines()[0])
    assert (first["id"], first["data"], first["tags"]) == (1, {"a": 1}, ["x", None])
    types = {
        "id": "int",
        "at": "timestamptz",
        "n": "decimal",
        "data": "jsonb",
        "tags": "array of text",
        "raw": "binary",
    }
    back = portl.migrate(
        {"source": {**end, "types": types}, "destination": destination.end(table="t"), "conflict": "fail"}
    )
    assert back.rows_inserted == 3000
    assert destination.execute("SELECT * FROM t ORDER BY id") == source.execute("SELECT * FROM t ORDER BY id")


def test_reading_json_lines_is_resumed(jsonl: Path, destination: Db, tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text("".join(json.dumps({"id": n, "x": f"x{n}"}) + "\n" for n in range(2000)), encoding="utf-8")
    job = {
        "source": {"type": "jsonl", "path": str(file)}, "destination": destination.end(table="t"),
        "conflict": "fail", "chunk_rows": 100,
    }  # fmt: skip
    with pytest.raises(ZeroDivisionError):
        portl.migrate(job, observers=[lambda event: 1 // (not isinstance(event, portl.BatchCommitted))])
    result = portl.migrate(job)
    assert (result.rows_read, result.tables[0].attempt, result.tables[0].rows_before > 0) == (2000, 2, True)
    assert destination.execute("SELECT count(*), count(DISTINCT id) FROM t") == [(2000, 2000)]


def test_connectors_lists_an_installed_package(jsonl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {entry.name: entry for entry in portl.installed()}["jsonl"]
    assert (found.package, found.version, found.summary) == ("portl-jsonl", "0.1.0", "JSON Lines files")
    assert (found.source, found.destination, found.strategies, found.error) == (True, True, ("fail",), None)
    assert portl.explain("source.path")[0].meaning == "The file."


def test_a_new_connectors_tests_pass_at_once(tmp_path: Path) -> None:
    done = portl_cli("new-connector", "my-store", "--into", tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "portl-my-store"
    assert str(folder) in done.stdout
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == [
        "README.md",
        "portl_my_store/__init__.py",
        "portl_my_store/connector.py",
        "portl_my_store/plugin.py",
        "pyproject.toml",
        "tests/test_connector.py",
    ]
    install(folder, tmp_path / "site")
    assert "passed" in own_tests(folder, tmp_path / "site")


@pytest.mark.parametrize("name", ["My Store", "", "1st", "../up", "a--b", "a_b"])
def test_a_name_that_will_not_do_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(portl.ConfigError, match="expected lower-case letters, digits and dashes"):
        new_connector(name, tmp_path)


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    new_connector("twice", tmp_path)
    with pytest.raises(portl.ConfigError, match="exists already"):
        new_connector("twice", tmp_path)


PAGE = ROOT / "docs" / "connectors.md"


def test_the_connector_of_the_docs_runs(tmp_path: Path) -> None:
    run_code(PAGE, tmp_path)
    del _registered["list"]
