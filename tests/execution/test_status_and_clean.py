"""What the ledger remembers, as the library and the command line show it, and how it is removed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import portl
from tests.commands import portl_cli_in as cli
from tests.jobs import KEYED, Once, job_of
from tests.servers import Db

ROWS = 5000


@pytest.fixture
def interrupted(source: Db, destination: Db) -> dict[str, Any]:
    """A job of ten chunks of which three are done, into a table that it has made."""
    source.execute(KEYED)
    job = job_of(source.end(), destination.end(), conflict="overwrite")
    token = portl.CancelToken()
    with pytest.raises(portl.Cancelled):
        portl.migrate(job, observers=[Once(3, token.cancel)], cancel=token)
    return job


def test_status_says_how_far_a_run_came(interrupted: dict[str, Any]) -> None:
    found = portl.status(interrupted)
    assert (found.job, found.ledger) == ("faults -> public.t", "portl.migrations")
    (run,) = found.to_dict()["runs"]
    assert (run["state"], run["chunks_done"], run["chunks"], run["rows_read"]) == ("cancelled", 3, 10, 1500)
    portl.migrate(interrupted)
    (run,) = portl.status(interrupted).to_dict()["runs"]
    assert (run["state"], run["attempt"], run["chunks_done"], run["rows_inserted"]) == ("done", 2, 10, ROWS)
    assert run["error"] is None


def test_status_says_what_a_run_of_many_tables_is_at(source: Db, destination: Db, tmp_path: Path) -> None:
    for name, rows in (("large", 40_000), ("small", 10), ("third", 10)):
        source.execute(
            f"CREATE TABLE {name} (id int PRIMARY KEY); INSERT INTO {name} SELECT generate_series(1, {rows})"
        )
    source.execute("ALTER TABLE small ADD FOREIGN KEY (id) REFERENCES large")
    job: dict[str, Any] = {
        "name": "many",
        "source": source.end(),
        "destination": destination.end(),
        "tables": "all",
        "chunk_rows": 1000,
        "parallel": 1,
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job), encoding="utf-8")

    def stopped(when: Callable[[portl.Event], bool]) -> dict[str, Any]:
        token = portl.CancelToken()
        with pytest.raises(portl.Cancelled):
            portl.migrate(job, observers=[lambda e: token.cancel() if when(e) else None], cancel=token)
        found = json.loads(cli(tmp_path, "status", "job.yaml", "--json").stdout)["runs"][0]
        return {"phase": found["phase"], **{table["table"]: table["state"] for table in found["tables"]}}

    first = stopped(lambda e: isinstance(e, portl.ObjectsMade))
    assert first == {"phase": "before", "public.large": "pending", "public.small": "pending", "public.third": "pending"}
    assert "    phase: tables are created, no rows are there yet\n" in cli(tmp_path, "status", "job.yaml").stdout
    second = stopped(lambda e: isinstance(e, portl.BatchCommitted) and e.table == "public.large")
    assert (second["phase"], second["public.large"]) == ("rows", "partial")
    shown = cli(tmp_path, "status", "job.yaml").stdout
    assert "    phase: rows, and keys and indexes of the tables that have all theirs\n" in shown
    assert re.search(r"\n      public\.large: \d+ of 40 chunks, \d+,000 rows\n", shown)
    last = stopped(lambda e: isinstance(e, portl.ObjectsStarted) and "foreign key" in str(e.objects))
    assert last == {"phase": "after", "public.large": "done", "public.small": "done", "public.third": "done"}
    shown = cli(tmp_path, "status", "job.yaml").stdout
    assert "    phase: all rows are there; keys, indexes, foreign keys and other objects\n" in shown
    assert "    tables: 3 with all their rows\n" in shown
    portl.migrate(job)
    assert portl.status(job).runs[0].phase == "done"
    assert "phase" not in cli(tmp_path, "status", "job.yaml").stdout


def test_status_and_clean_on_the_command_line(interrupted: dict[str, Any], destination: Db, tmp_path: Path) -> None:
    # JSON is YAML; so is the job of these tests.
    (tmp_path / "job.yaml").write_text(json.dumps(interrupted, indent=1), encoding="utf-8")
    (tmp_path / "other.yaml").write_text("a: 1\n", encoding="utf-8")
    done = cli(tmp_path, "status", "job.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("faults -> public.t\n  ledger: portl.migrations\n")
    assert "cancelled    3 of 10 chunks, 1,500 rows\n" in done.stdout
    assert "-> running the job again resumes it" in done.stdout
    found = json.loads(cli(tmp_path, "status", "job.yaml", "--json").stdout)
    assert found["runs"][0]["chunks_done"] == 3
    done = cli(tmp_path, "clean", "job.yaml")
    left = "left (`--table` drops it): the table public.t, with 1,500 rows and without its key\n"
    assert (done.returncode, done.stderr) == (0, f"1 run removed from the ledger\n{left}")
    done = cli(tmp_path, "clean", "job.yaml", "--table")
    dropped = "dropped: the table public.t, with 1,500 rows and without its key\n"
    assert (done.returncode, done.stderr) == (0, f"0 runs removed from the ledger\n{dropped}")
    assert destination.value("SELECT to_regclass('t')") is None
    assert "no runs" in cli(tmp_path, "status", "job.yaml").stdout


def test_status_without_a_job_shows_those_of_the_folder(interrupted: dict[str, Any], tmp_path: Path) -> None:
    keys = "\n".join(f"{key}: {json.dumps(value)}" for key, value in interrupted.items())
    (tmp_path / "job.yaml").write_text(keys, encoding="utf-8")
    (tmp_path / "other.yaml").write_text("a: 1\n", encoding="utf-8")
    done = cli(tmp_path, "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("ledger:") == 1
    (tmp_path / "job.yaml").unlink()
    done = cli(tmp_path, "status")
    assert done.returncode == 2
    assert "there is no job file in this folder; name one" in done.stderr


def test_clean_keeps_the_rows_and_the_next_run_is_a_new_one(interrupted: dict[str, Any], destination: Db) -> None:
    cleaned = portl.clean(interrupted)
    assert (cleaned.runs, cleaned.removed) == (1, False)
    assert destination.value("SELECT count(*) FROM t") == 1500
    result = portl.migrate(interrupted)
    assert (result.tables[0].attempt, result.rows_unchanged, result.rows_inserted) == (1, 1500, ROWS - 1500)


def test_clean_leaves_a_job_alone_that_is_under_way(interrupted: dict[str, Any]) -> None:
    seen: list[portl.AlreadyRunning] = []

    def clean(event: portl.Event) -> None:
        if isinstance(event, portl.BatchCommitted) and not seen:
            with pytest.raises(portl.AlreadyRunning) as caught:
                portl.clean(interrupted)
            seen.append(caught.value)

    portl.migrate(interrupted, observers=[clean])
    assert "faults -> public.t" in seen[0].message


def test_a_second_run_of_a_job_ends_with_a_code_of_its_own(source: Db, destination: Db, tmp_path: Path) -> None:
    source.execute(KEYED)
    job = job_of(source.end(), destination.end(), conflict="overwrite")
    (tmp_path / "job.yaml").write_text(json.dumps(job), encoding="utf-8")
    second = Once(3, lambda: found.append(cli(tmp_path, "run", "job.yaml")))
    found: list[Any] = []
    portl.migrate(job, observers=[second])
    assert found[0].returncode == 4
    assert "another process is running the job" in found[0].stderr
    assert destination.value("SELECT count(*) FROM t") == ROWS


def test_clean_drops_no_table_that_is_finished(interrupted: dict[str, Any], destination: Db) -> None:
    portl.migrate(interrupted)
    assert portl.clean(interrupted, table=True) == portl.Cleaned(runs=1, leftover=None, removed=False)
    assert destination.value("SELECT count(*) FROM t") == ROWS


def test_where_there_is_no_ledger_status_says_why(source: Db, destination: Db) -> None:
    source.execute(KEYED)
    job = job_of(source.end(), destination.end(), ledger={"mode": "off"}, conflict="overwrite")
    found = portl.status(job)
    assert (found.ledger, found.runs) == (None, ())
    assert found.reason is not None
    with pytest.raises(portl.LedgerError, match="there is nothing to clean"):
        portl.clean(job)
