"""The examples of docs/scheduling.md work; stand-ins take the place of the schedulers, which are not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import pytest

import portl
from tests.pages import DOCS, blocks
from tests.servers import Db

PAGE = DOCS / "scheduling.md"


@pytest.fixture
def job(source: Db, destination: Db, tmp_path: Path) -> Iterator[Path]:
    """A job at the path of the examples, which is in a folder of the test."""
    source.execute("CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users VALUES (1), (2)")
    path = tmp_path / "users.yaml"
    config = {"source": source.end(table="users"), "destination": destination.end(table="users"), "mode": "mirror"}
    path.write_text(str(config), encoding="utf-8")
    yield path
    assert destination.value("SELECT count(*) FROM users") == 2


def example(language: str, number: int, job: Path) -> str:
    return blocks(PAGE, language)[number].replace("/etc/portl/users.yaml", str(job))


def test_the_script_for_cron_fails_unless_the_job_runs_already(job: Path, tmp_path: Path) -> None:
    (tmp_path / "environment").touch()
    text = example("sh", 0, job).replace("/etc/portl", str(tmp_path)).replace("/var/log/portl", str(tmp_path))
    path = tmp_path / "nightly.sh"
    path.write_text(text, encoding="utf-8")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def nightly() -> int:
        return subprocess.run(["sh", path], env=environment, timeout=60, check=False).returncode

    codes: list[int] = []
    portl.migrate(
        job, observers=[lambda event: codes.append(nightly()) if isinstance(event, portl.TableDone) else None]
    )
    assert codes == [0]
    assert "another process is running the job" in (tmp_path / "users.log").read_text(encoding="utf-8")
    text = job.read_text(encoding="utf-8")
    job.write_text("mode: none", encoding="utf-8")
    assert nightly() == 1
    job.write_text(text, encoding="utf-8")
    assert nightly() == 0


def test_the_units_for_systemd_are_valid(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("this machine has no systemd-analyze")
    paths = []
    for text in blocks(PAGE, "ini"):
        path = tmp_path / Path(text.splitlines()[0].removeprefix("# ")).name
        path.write_text(text.replace("/opt/portl/bin/portl", sys.executable), encoding="utf-8")
        paths.append(path)
    done = subprocess.run([analyze, "verify", *paths], capture_output=True, text=True, timeout=60, check=False)
    assert [line for line in done.stderr.splitlines() if "portl-users" in line] == []


def stand_in(name: str, **names: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(names)
    return module


def decorator(**how: object) -> Callable[[Any], Any]:
    return lambda function: function


def test_the_task_for_airflow(job: Path) -> None:
    results: list[Any] = []

    def task(**how: object) -> Callable[[Any], Any]:
        return lambda function: lambda: results.append(function(run_id="scheduled__2026-01-01"))

    modules = {
        "airflow": stand_in("airflow"),
        "airflow.exceptions": stand_in("airflow.exceptions", AirflowSkipException=InterruptedError),
        "airflow.sdk": stand_in("airflow.sdk", dag=decorator, task=task),
    }
    code = compile(example(r"\{ .python .fragment \}", 0, job), "airflow", "exec")
    with mock.patch.dict(sys.modules, modules):
        exec(code, {})
        exec(code, {})
    assert results == [{"read": 2, "deleted": 0, "watermark": None}] * 2  # the same run, which is not repeated


def test_the_asset_for_dagster(job: Path) -> None:
    made = lambda *values, **names: SimpleNamespace(**names)  # noqa: E731
    names = ("RetryPolicy", "MaterializeResult", "define_asset_job", "Definitions", "ScheduleDefinition")
    dagster = stand_in("dagster", asset=decorator, AssetExecutionContext=object, **dict.fromkeys(names, made))
    found: dict[str, Any] = {}
    with mock.patch.dict(sys.modules, {"dagster": dagster}):
        exec(compile(example(r"\{ .python .fragment \}", 1, job), "dagster", "exec"), found)
    metadata = found["users"](SimpleNamespace(run_id="4f1c")).metadata
    assert metadata == {"read": 2, "deleted": 0, "watermark": None}
    assert found["defs"].schedules[0].cron_schedule == "15 2 * * *"
