"""How runs end that are not left to run: signals, roles that may not write a ledger, caller-supplied connections."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import psycopg_pool
import pytest

import portl
from tests.commands import command, portl_cli
from tests.jobs import KEYLESS, ROWS, Once, job_of, nothing_left, rows
from tests.servers import Db

#: A trigger that takes its time, so that a run can be met in the middle.
SLOW = """
CREATE TABLE t (x int, y text);
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.001); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION slow()
"""


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 130, "interrupted by Ctrl-C"), (signal.SIGTERM, 143, "interrupted by SIGTERM")],
)
def test_a_signal_ends_a_run_in_order_and_the_next_run_resumes_it(
    source: Db, destination: Db, tmp_path: Path, parallel: int, number: int, code: int, words: str
) -> None:
    source.execute(KEYLESS)
    destination.execute(SLOW)
    job = job_of(source.end(), destination.end(), parallel=parallel)
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(job), encoding="utf-8")
    with subprocess.Popen(command("run", path), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(3000):
            if destination.value("SELECT count(*) FROM t"):
                break
            time.sleep(0.02)
        os.kill(process.pid, number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert words in said
    assert "committed before this: " in said
    assert "Traceback" not in said
    nothing_left(destination)
    destination.execute("DROP TRIGGER slow ON t")
    result = portl.migrate(job)
    assert (result.rows_inserted, result.tables[0].attempt) == (ROWS, 2)
    assert rows(destination, "t") == rows(source, "t")


def test_rejected_rows_end_a_command_with_3_and_are_taken_through_after_a_repair(
    source: Db, destination: Db, tmp_path: Path
) -> None:
    source.execute(KEYLESS)
    destination.execute("CREATE TABLE t (x int CHECK (x <> 77), y text)")
    job = job_of(source.end(), destination.end(), on_error="quarantine", quarantine={"file": str(tmp_path / "r.jsonl")})
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(job), encoding="utf-8")

    done = portl_cli("run", path)
    bad = source.value("SELECT count(*) FROM t WHERE x = 77")
    assert (done.returncode, f"{bad} rejected" in done.stdout) == (3, True), done
    assert destination.value("SELECT count(*) FROM t__rejected") == bad
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["row"]["x"] for line in lines] == ["77"] * bad
    done = portl_cli("retry-rejected", path)
    assert (done.returncode, f"{bad} rejected" in done.stdout) == (3, True), done
    destination.execute("ALTER TABLE t DROP CONSTRAINT t_x_check")
    done = portl_cli("retry-rejected", path)
    assert done.returncode == 0, done
    assert rows(destination, "t") == rows(source, "t")
    assert destination.value("SELECT count(*) FROM t__rejected") == 0
    done = portl_cli("verify", path)
    assert done.returncode == 0, done


@pytest.fixture
def modest(destination: Db) -> Iterator[dict[str, object]]:
    """The destination as a role sees it that may write to t, and make nothing."""
    name = f"modest_{destination.connection.info.dbname}"
    destination.execute(f"DROP ROLE IF EXISTS {name}; CREATE ROLE {name} LOGIN PASSWORD 'modest'")
    destination.execute(f"CREATE TABLE t (x int, y text); GRANT SELECT, INSERT ON t TO {name}")
    yield destination.end(username=name, password="modest")
    destination.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def test_a_role_that_may_not_write_a_ledger_copies_in_one_transaction(
    source: Db, destination: Db, modest: dict[str, object]
) -> None:
    source.execute(KEYLESS)
    job = job_of(source.end(), modest)
    plan = portl.plan(job)
    assert plan.problems == ()
    assert plan.tables[0].delivery.value == "whole"
    assert "one transaction" in str(plan)
    assert portl.migrate(job).rows_inserted == ROWS
    with pytest.raises(portl.PlanError, match="ledger") as caught:
        portl.migrate({**job, "ledger": {"mode": "required"}})
    assert "GRANT" in str(caught.value)


def test_the_ledger_stands_where_the_job_wants_it(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    destination.execute('CREATE SCHEMA "my ledger"')
    job = job_of(source.end(), destination.end(), ledger={"schema": "my ledger"})
    assert portl.migrate(job).rows_inserted == ROWS
    assert destination.value('SELECT count(*) FROM "my ledger".portl_chunks') == 10
    assert destination.value("SELECT to_regnamespace('portl')") is None


def caller_supplied(db: Db) -> psycopg.Connection[Any]:
    info = db.connection.info
    return psycopg.connect(
        host=info.host, port=info.port, user=info.user, dbname=info.dbname, password=db.endpoint.password
    )


def test_a_run_is_resumed_over_connections_that_are_caller_supplied(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    job = job_of(source.end(), destination.end())
    with caller_supplied(source) as reading, caller_supplied(destination) as writing:
        token = portl.CancelToken()
        with pytest.raises(portl.Cancelled):
            portl.migrate(job, source=reading, destination=writing, observers=[Once(3, token.cancel)], cancel=token)
        # The lock is given back, not only lost with its connection.
        assert destination.execute("SELECT pid FROM pg_locks WHERE locktype = 'advisory'") == []
        result = portl.migrate(job, source=reading, destination=writing)
        assert (result.rows_inserted, result.tables[0].attempt) == (ROWS, 2)
        assert reading.info.transaction_status == writing.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert rows(destination, "t") == rows(source, "t")


def test_workers_share_a_pool_that_is_caller_supplied(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    info = destination.connection.info
    keys = {"host": info.host, "port": info.port, "user": info.user, "dbname": info.dbname}
    used: set[int] = set()

    def note(connection: psycopg.Connection[Any]) -> None:
        used.add(connection.info.backend_pid)

    with psycopg_pool.ConnectionPool(
        kwargs={**keys, "password": destination.endpoint.password}, min_size=0, max_size=3, open=True, configure=note
    ) as pool:
        job = job_of(source.end(), destination.end(), parallel=3)
        assert portl.migrate(job, destination=pool).rows_inserted == ROWS
        assert 1 < len(used) <= 3
    assert rows(destination, "t") == rows(source, "t")


def test_inside_a_transaction_of_the_caller_the_callers_commit_decides(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    destination.execute("CREATE TABLE t (x int, y text)")
    job = job_of(source.end(), destination.end())
    with caller_supplied(destination) as writing:
        with writing.transaction(force_rollback=True):
            assert portl.migrate(job, destination=writing).rows_inserted == ROWS
        assert destination.value("SELECT count(*) FROM t") == 0
        with writing.transaction():
            assert portl.migrate(job, destination=writing).rows_inserted == ROWS
    assert destination.value("SELECT count(*) FROM t") == ROWS
    assert destination.value("SELECT to_regnamespace('portl')") is None


def test_two_jobs_of_one_name_into_two_tables_do_not_meet(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    first = job_of(source.end(), destination.end())
    second = {**first, "destination": {**destination.end(), "table": "u"}}
    seen: list[int] = []

    def other(event: portl.Event) -> None:
        if isinstance(event, portl.BatchCommitted) and not seen:
            seen.append(portl.migrate(second).rows_inserted)

    assert portl.migrate(first, observers=[other]).rows_inserted == ROWS
    assert seen == [ROWS]


def test_a_plan_may_be_made_while_the_job_is_under_way(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    job = job_of(source.end(), destination.end())
    plans: list[str] = []

    def look(event: portl.Event) -> None:
        if isinstance(event, portl.BatchCommitted) and len(plans) < 3:
            plans.append(str(portl.plan(job)))

    assert portl.migrate(job, observers=[look]).rows_inserted == ROWS
    assert len(plans) == 3
