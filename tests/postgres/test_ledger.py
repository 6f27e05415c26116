"""The ledger at a PostgreSQL destination, its worker sessions and its identity."""

from __future__ import annotations

import json
import os
import pickle
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import attrs
import psycopg
import psycopg_pool
import pytest
from psycopg.conninfo import make_conninfo

import portl
from portl import ChunkLine, ChunkState, LedgerConfig, LedgerMode, Run, RunState
from portl_postgres.config import Pool, PostgresDestinationConfig
from portl_postgres.destination.destination import PostgresDestination
from portl_postgres.ledger import ledger as ledger_module
from portl_postgres.ledger import location as places
from portl_postgres.ledger import locks as joblocks
from portl_postgres.ledger.ledger import PostgresLedger
from portl_postgres.ledger.locks import lock_key
from portl_postgres.sql.text import quoted
from tests.servers import Db

JOB = "orders -> public.t"


def config(db: Db, **keys: Any) -> PostgresDestinationConfig:
    password = keys.pop("password", db.endpoint.password)
    found = db.end(**{"table": "t", "pool": Pool(max_size=8), **keys})
    found["password"] = portl.Secret(str(password)) if password else None
    return PostgresDestinationConfig(**found)  # type: ignore[arg-type]


def dsn(db: Db) -> str:
    return make_conninfo(db.connection.info.dsn, password=db.endpoint.password)


@contextmanager
def opened(db: Db, handle: object | None = None, **keys: Any) -> Iterator[PostgresDestination]:
    end = PostgresDestination(config(db, **keys), handle)
    try:
        end.open(portl.Context())
        yield end
    finally:
        end.close()


def ledger_at(end: PostgresDestination, **keys: Any) -> PostgresLedger:
    found = end.ledger(LedgerConfig(**keys))
    assert isinstance(found, PostgresLedger), found
    return found


@contextmanager
def ledger(db: Db, handle: object | None = None, **keys: Any) -> Iterator[PostgresLedger]:
    with opened(db, handle, **keys) as end:
        yield ledger_at(end)


def new_run(chunks: int = 3, **keys: Any) -> Run:
    lines = tuple(ChunkLine(number=n, bounds={"from": n * 10, "to": n * 10 + 10}) for n in range(1, chunks + 1))
    keys = {"chunks": lines, "job": JOB, "identity": {"source": {"table": "a"}}, "snapshots": {1: {"at": 7}}, **keys}
    return Run(id=str(uuid.uuid4()), **keys)


def done(number: int, rows: int = 10, **keys: Any) -> ChunkLine:
    return ChunkLine(number=number, state=ChunkState.DONE, rows=rows, bytes=rows * 8, inserted=rows, **keys)


def next_attempt(run: Run) -> Run:
    attempt = run.attempt + 1
    return attrs.evolve(run, attempt=attempt, snapshots={**run.snapshots, attempt: {"at": attempt * 10}})


def made_role(db: Db, name: str, *grants: str) -> str:
    """Make a role, unless it is there, without anything but what the grants say; return its name."""
    if not db.value("SELECT count(*) FROM pg_roles WHERE rolname = %s", name):
        db.execute(f"CREATE ROLE {quoted(name)} LOGIN PASSWORD '{name}'")
    db.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    for grant in grants:
        db.execute(f"GRANT {grant} TO {quoted(name)}")
    return name


def later(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(call())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, found


def wait_until(db: Db, condition: str, *parameters: object) -> None:
    for _ in range(1000):
        if db.value(condition, *parameters):
            return
        db.execute("SELECT pg_sleep(0.01)")
    raise AssertionError(f"never came to be: {condition}")


def wait_for_a_waiter(db: Db) -> None:
    wait_until(
        db, "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )


def test_nothing_is_there_before_a_run_starts_and_everything_after(destination: Db) -> None:
    with ledger(destination) as book:
        assert book.place == "portl.migrations"
        assert book.find(JOB) is None
        assert book.runs() == []
        assert book.forget(JOB) == 0
        assert destination.value("SELECT to_regnamespace('portl')") is None
        run = new_run(source="here", destination="there", identity={"b": [1, {"a": None}], "a": "\0ä\ud800"})
        book.start(run)
        found = book.find(JOB)
    assert found is not None
    assert found.started is not None
    assert found.touched == found.started
    assert attrs.evolve(found, started=None, touched=None) == run
    assert found.holder is None


def test_chunk_lines_come_back_as_they_were_written(destination: Db) -> None:
    run = new_run(2)
    lines = [
        ChunkLine(
            number=1, bounds={"chunk": None, "left": {"from": "x\0"}}, state=ChunkState.PARTIAL, attempt=1, rows=2**40,
            bytes=2**50, batches=3, inserted=4, updated=5, unchanged=6, skipped=7, rejected=8,
        ),
        done(2, attempt=1),
    ]  # fmt: skip
    with ledger(destination) as book:
        book.start(run)
        for line in lines:
            book.record(run, line)
        found = book.lines(run)
        assert found[0] == lines[0]
        assert found[1].finished is not None
        assert attrs.evolve(found[1], finished=None) == lines[1]
        latest = book.find(JOB)
        assert latest is not None
        assert latest.chunks == tuple(found)
        assert latest.touched is not None
        assert latest.started is not None
        assert latest.touched > latest.started


def test_a_line_stands_or_falls_with_its_rows(destination: Db) -> None:
    destination.execute("CREATE TABLE t (id int)")
    run = new_run(2)
    with opened(destination) as end:
        book, session = ledger_at(end), end._session
        for number, decide in ((1, session.commit), (2, session.rollback)):
            session.begin()
            if number == 1:
                book.start(run)
            session.execute(f"INSERT INTO t VALUES ({number})")
            book.record(run, done(number))
            assert book.lines(run)[number - 1].state is ChunkState.DONE
            decide()
        assert [line.state for line in book.lines(run)] == [ChunkState.DONE, ChunkState.PENDING]
        assert destination.execute("SELECT id FROM t") == [(1,)]


def test_a_start_that_is_rolled_back_leaves_nothing_and_can_be_made_again(destination: Db) -> None:
    run = new_run()
    with opened(destination) as end:
        book, session = ledger_at(end), end._session
        session.begin()
        book.start(run)
        book.record(run, done(1))
        session.rollback()
        assert destination.value("SELECT to_regnamespace('portl')") is None
        assert book.settled(run, 1) is None
        session.begin()
        book.start(run)
        book.record(run, done(1))
        session.commit()
        assert book.lines(run)[0].rows == 10


def test_ten_thousand_chunks_are_written_and_read(destination: Db) -> None:
    run = new_run(10_000)
    with ledger(destination) as book:
        book.start(run)
        book.record(run, done(7777))
        lines = book.lines(run)
    assert [line.number for line in lines] == list(range(1, 10_001))
    assert lines[0].bounds == {"from": 10, "to": 20}
    assert [line.number for line in lines if line.state is ChunkState.DONE] == [7777]


def test_a_failed_statement_leaves_the_session_usable(destination: Db) -> None:
    run = new_run()
    with ledger(destination) as book:
        book.start(run)
        with pytest.raises(portl.Error, match="duplicate key"):
            book.start(run)
        with pytest.raises(portl.LedgerError, match="has no chunk 99"):
            book.record(run, done(99))
        book.record(run, done(1))
        assert book.lines(run)[0].state is ChunkState.DONE


def test_an_attempt_that_was_taken_over_cannot_write_any_more(destination: Db) -> None:
    destination.execute("CREATE TABLE t (id int)")
    run = new_run()
    with opened(destination) as old, ledger(destination) as book:
        stale = ledger_at(old)
        stale.start(run)
        stale.record(run, done(1))
        old._session.begin()
        old._session.execute("INSERT INTO t VALUES (1)")
        second = next_attempt(run)
        book.resume(second)
        with pytest.raises(portl.Superseded, match="the ledger has attempt 2, this one is 1"):
            stale.record(run, done(2))
        old._session.rollback()
        with pytest.raises(portl.Superseded):
            stale.resume(second)
        stale.close(run, RunState.FAILED, "too late")
        with pytest.raises(portl.Superseded):
            stale.close(run, RunState.DONE)
        found = book.find(JOB)
        assert found is not None
        assert (found.attempt, found.state, found.error) == (2, RunState.RUNNING, None)
        assert found.snapshots == {1: {"at": 7}, 2: {"at": 20}}
        assert [line.state.value for line in found.chunks] == ["done", "pending", "pending"]
        book.record(second, done(2))
        assert [line.attempt for line in book.lines(second)] == [1, 2, 0]
    assert destination.value("SELECT count(*) FROM t") == 0


def test_a_resume_waits_for_what_an_earlier_attempt_has_under_way(destination: Db) -> None:
    run = new_run()
    with opened(destination) as old, ledger(destination) as book:
        stale = ledger_at(old)
        stale.start(run)
        old._session.begin()
        stale.record(run, done(1))
        thread, raised = later(lambda: book.resume(next_attempt(run)))
        wait_for_a_waiter(destination)
        assert thread.is_alive()
        old._session.commit()
        thread.join()
        assert raised == [None]
        assert book.lines(run)[0].state is ChunkState.DONE


def test_a_transaction_that_nobody_will_commit_is_ended(destination: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "PATIENCE_SECONDS", 0.2)
    run = new_run()
    with opened(destination) as one, opened(destination) as two, ledger(destination) as book:
        books = ledger_at(one), ledger_at(two)
        books[0].start(run)
        for end, stale, number in zip((one, two), books, (1, 2), strict=True):
            end._session.begin()
            stale.record(run, done(number))
        settled = book.settled(run, 1)
        assert settled is not None
        assert settled.state is ChunkState.PENDING
        with pytest.raises(portl.ConnectionFailed):
            one._session.commit()
        book.resume(next_attempt(run))
        with pytest.raises(portl.ConnectionFailed):
            two._session.commit()
        assert {line.state for line in book.lines(run)} == {ChunkState.PENDING}


def test_several_transactions_that_nobody_will_commit_are_ended(
    destination: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "PATIENCE_SECONDS", 0.2)
    run = new_run()
    with opened(destination) as one, opened(destination) as two, ledger(destination) as book:
        ledger_at(one).start(run)
        for number, end in enumerate((one, two), 1):
            end._session.begin()
            ledger_at(end).record(run, done(number))
        book.resume(next_attempt(run))
        assert {line.state for line in book.lines(run)} == {ChunkState.PENDING}


def test_a_lost_start_that_nobody_will_commit_is_ended(destination: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "PATIENCE_SECONDS", 0.2)
    run = new_run()
    with opened(destination) as old, ledger(destination) as book:
        old._session.begin()
        ledger_at(old).start(run)
        assert book.settled(run, 1) is None
        assert destination.value("SELECT to_regnamespace('portl')") is None


def test_settled_waits_for_a_lost_commit_and_sees_what_became_of_it(destination: Db) -> None:
    run = new_run()
    with opened(destination) as lost, ledger(destination) as book:
        stale = ledger_at(lost)
        lost._session.begin()
        stale.start(run)
        stale.record(run, done(1))
        thread, found = later(lambda: book.settled(run, 1))
        wait_for_a_waiter(destination)
        assert thread.is_alive()
        lost._session.commit()
        thread.join()
        assert found[0].rows == 10
        lost._session.begin()
        stale.record(run, done(2, rows=20))
        thread, found = later(lambda: book.settled(run, 2))
        wait_for_a_waiter(destination)
        lost._session.commit()
        thread.join()
        assert found[0].rows == 20


def test_a_killed_backend_leaves_a_line_that_is_settled_as_pending(destination: Db) -> None:
    run = new_run()
    with opened(destination) as lost, ledger(destination) as book:
        stale = ledger_at(lost)
        stale.lock(JOB)
        stale.start(run)
        lost._session.begin()
        stale.record(run, done(1))
        assert lost.holds()
        destination.execute("SELECT pg_terminate_backend(%s)", lost._session.connection.info.backend_pid)
        with pytest.raises(portl.ConnectionFailed):
            lost._session.commit()
        assert not lost.holds()
        stale.unlock()
        book.lock(JOB)
        found = book.settled(run, 1)
        assert found is not None
        assert found.state is ChunkState.PENDING
        assert book.settled(run, 99) is None
        assert book.settled(new_run(), 1) is None


def test_settled_sees_a_late_commit_under_any_default_isolation(destination: Db) -> None:
    destination.execute(
        f"ALTER DATABASE {quoted(destination.connection.info.dbname)}"
        " SET default_transaction_isolation = 'repeatable read'"
    )
    run = new_run()
    with opened(destination) as lost, ledger(destination) as book:
        stale = ledger_at(lost)
        stale.start(run)
        lost._session.begin()
        stale.record(run, done(1))
        thread, found = later(lambda: book.settled(run, 1))
        wait_for_a_waiter(destination)
        lost._session.commit()
        thread.join()
        assert found[0].state is ChunkState.DONE


def test_the_second_process_is_told_who_is_at_work(destination: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblocks, "LOCK_SECONDS", 0.3)
    with opened(destination, application_name="nightly") as first, ledger(destination) as book:
        holder = ledger_at(first)
        holder.lock(JOB)
        holder.lock(JOB)
        holder.start(new_run())
        with pytest.raises(portl.AlreadyRunning) as raised:
            book.lock(JOB)
        pid = first._session.connection.info.backend_pid
        assert raised.value.message.startswith(
            f"another process is running the job {JOB!r}: backend {pid}, role {destination.endpoint.user},"
            " application 'nightly', from 127.0.0.1, connected since 2"
        )
        assert raised.value.hint == f"wait until it is done, or end it: SELECT pg_terminate_backend({pid})"
        found = book.find(JOB)
        assert found is not None
        assert found.locked
        assert found.holder is not None
        assert found.holder.startswith(f"backend {pid}, ")
        book.lock("another job")
        book.unlock()
        holder.unlock()
        holder.unlock()
        book.lock(JOB)
    with ledger(destination) as book:
        found = book.find(JOB)
        assert found is not None
        assert not found.locked
        assert found.holder is None


def test_a_lock_is_waited_for_a_little(destination: Db) -> None:
    with opened(destination) as first, ledger(destination) as book:
        ledger_at(first).lock(JOB)
        thread, raised = later(lambda: book.lock(JOB))
        destination.execute("SELECT pg_sleep(0.3)")
        assert thread.is_alive()
        destination.execute("SELECT pg_terminate_backend(%s)", first._session.connection.info.backend_pid)
        thread.join()
        assert raised == [None]


def test_a_lock_that_this_process_has_lost_is_taken_back(destination: Db) -> None:
    with opened(destination) as first, ledger(destination) as other:
        book = ledger_at(first)
        book.lock(JOB)
        # The client's end is gone, and the server does not know: the connection stands, held by a copy of its handle.
        handle = first._session.pgconn.socket
        with socket.socket(fileno=os.dup(handle)):
            ours, theirs = socket.socketpair()
            theirs.close()
            os.dup2(ours.fileno(), handle)
            ours.close()
            with pytest.raises(portl.ConnectionFailed):
                first._session.query("SELECT 1")
            pid = destination.value("SELECT pid FROM pg_locks WHERE locktype = 'advisory'")
            book.unlock()
            other.lock(JOB)
            assert destination.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", pid) == 0


def test_a_cancelled_run_lets_go_of_its_lock(destination: Db) -> None:
    token = portl.CancelToken()
    pool = psycopg_pool.ConnectionPool(dsn(destination), min_size=1, max_size=2, open=True)
    with pool:
        end = PostgresDestination(config(destination), pool)
        end.open(portl.Context(token=token))
        book = ledger_at(end)
        book.lock(JOB)
        token.cancel()
        book.unlock()
        count = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND classid = %s"
        key = lock_key("job", JOB)
        assert destination.value(count, key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF) == 0
        end.close()


def test_the_keys_of_locks_never_change() -> None:
    assert lock_key("job", JOB) == int.from_bytes(bytes.fromhex("08ffdd154068a7ca"), "big", signed=True)
    assert lock_key("run", JOB) != lock_key("job", JOB)


HOSTILE = [
    "'; DROP SCHEMA portl CASCADE; --",
    'a "quoted" \\ name \\u0041',
    "null \0 byte",
    "lone \ud800 surrogate",
    "ünïcödé 🐘",
    "$1 %s {0} :\"schema\"",
    "",
    "x" * 20_000,
]  # fmt: skip


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "SQL_ASCII"])
def test_any_name_of_a_job_will_do(destination: Db, encoding: str) -> None:
    destination.execute(
        f"CREATE DATABASE ledger_names ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    try:
        with ledger(destination, database="ledger_names") as book:
            for number, name in enumerate(HOSTILE, 1):
                book.lock(name)
                run = new_run(1, job=name, source=name, destination=name, identity={name: name})
                book.start(run)
                book.record(run, done(1, rows=number))
                book.close(run, RunState.FAILED, name)
                book.unlock()
            for number, name in enumerate(HOSTILE, 1):
                found = book.find(name)
                assert found is not None
                assert (found.job, found.chunks[0].rows, found.identity) == (name, number, {name: name})
            assert [run.job for run in book.runs()] == HOSTILE[::-1]
            assert book.forget(HOSTILE[0]) == 1
            assert book.find(HOSTILE[0]) is None
            assert len(book.runs()) == len(HOSTILE) - 1
    finally:
        destination.execute("DROP DATABASE ledger_names WITH (FORCE)")


def test_names_of_schemas_are_names_and_nothing_else(destination: Db) -> None:
    name = 'x"; DROP TABLE t; --:"chunks"'
    destination.execute("CREATE TABLE t (id int)")
    with opened(destination) as end:
        book = ledger_at(end, schema=name)
        run = new_run()
        book.start(run)
        book.record(run, done(1))
        assert book.find(JOB) is not None
    made = destination.execute("SELECT relname::text FROM pg_class WHERE relnamespace = %s::regnamespace"
                               " AND relkind = 'r' ORDER BY 1", quoted(name))  # fmt: skip
    assert made == [("portl_chunks",), ("portl_migrations",)]
    assert destination.value("SELECT to_regclass('t') IS NOT NULL")


@pytest.mark.parametrize(
    ("schema", "text"),
    [("", "a name must not be empty"), ("a\0b", "NUL"), ("x" * 64, "64 bytes long")],
)
def test_a_schema_that_cannot_be_is_a_problem(destination: Db, schema: str, text: str) -> None:
    with opened(destination) as end:
        found = end.ledger(LedgerConfig(schema=schema))
    assert isinstance(found, portl.Finding)
    assert found.severity is portl.Severity.PROBLEM
    assert found.where == "ledger.schema"
    assert text in found.message


def test_states_totals_and_errors_are_written_down(destination: Db) -> None:
    with ledger(destination) as book:
        first, second = new_run(), new_run()
        book.start(first)
        book.record(first, done(1, rows=5))
        book.close(first, RunState.CANCELLED, "Ctrl-C")
        book.start(second)
        book.record(second, done(1, rows=7, rejected=2))
        book.close(second, RunState.DONE)
        runs = book.runs(JOB)
        assert [run.id for run in runs] == [second.id, first.id]
        assert [run.state for run in runs] == [RunState.DONE, RunState.CANCELLED]
        assert [run.error for run in runs] == [None, "Ctrl-C"]
        assert all(run.ended is not None and run.touched == run.ended for run in runs)
        rows = destination.execute(
            "SELECT total_rows, total_bytes, total_rejected, length(fingerprint) FROM portl.migrations ORDER BY started"
        )
        assert rows == [(5, 40, 0, 64), (7, 56, 2, 64)]
        resumed = next_attempt(first)
        book.resume(resumed)
        again = book.runs(JOB)[1]
        assert (again.state, again.ended, again.error, again.attempt) == (RunState.RUNNING, None, None, 2)
        assert book.forget(JOB) == 2
        assert destination.value("SELECT count(*) FROM portl.chunks") == 0
        with pytest.raises(portl.Superseded, match="is not in the ledger any more"):
            book.record(resumed, done(2))


def test_a_role_that_may_not_make_a_schema_keeps_the_ledger_beside_its_table(destination: Db) -> None:
    role = made_role(destination, "ledger_beside", "USAGE, CREATE ON SCHEMA public")
    keys = {"username": role, "password": role}
    run = new_run()
    with ledger(destination, **keys) as book:
        assert book.place == "public.portl_migrations"
        book.start(run)
        book.record(run, done(1))
    assert destination.value("SELECT to_regnamespace('portl')") is None
    # Now it may; what was begun is continued where it stands, and what is new goes to the better place.
    destination.execute(f"GRANT CREATE ON DATABASE {quoted(destination.connection.info.dbname)} TO {role}")
    with ledger(destination, **keys) as book:
        assert book.place == "portl.migrations"
        found = book.find(JOB)
        assert found is not None
        assert found.chunks[0].state is ChunkState.DONE
        second = next_attempt(found)
        book.resume(second)
        book.record(second, done(2))
        book.close(second, RunState.DONE)
        assert destination.value("SELECT to_regnamespace('portl')") is None
        third = new_run()
        book.start(third)
        assert [r.id for r in book.runs()] == [third.id, run.id]
        assert destination.value("SELECT count(*) FROM portl.migrations") == 1
        assert book.forget(JOB) == 2
    destination.execute(f"DROP OWNED BY {role}")
    destination.execute(f"DROP ROLE {role}")


def test_a_worker_session_writes_where_the_run_stands(destination: Db) -> None:
    run = new_run()
    with opened(destination) as end:
        book = ledger_at(end, schema="public")
        book.start(run)
        twin = end.for_worker()
        assert twin is not None
        twin.open(portl.Context())
        try:
            side = ledger_at(twin)
            assert side.place == "portl.migrations"
            twin._session.begin()
            side.record(run, done(3))
            twin._session.commit()
        finally:
            twin.close()
        assert book.lines(run)[2].state is ChunkState.DONE
    assert destination.value("SELECT to_regnamespace('portl')") is None


def test_a_role_that_may_only_insert_keeps_none(destination: Db) -> None:
    destination.execute("CREATE TABLE t (id int)")
    role = made_role(destination, "ledger_insert", "USAGE ON SCHEMA public", "INSERT ON t")
    with opened(destination, username=role, password=role) as end:
        auto = end.ledger(LedgerConfig())
        assert isinstance(auto, portl.Finding)
        assert auto.severity is portl.Severity.NOTE
        assert auto.message.startswith(
            "there is none, and a run that is interrupted starts over: the role may not create the schema 'portl';"
            " the role may not create tables in schema 'public'"
        )
        required = end.ledger(LedgerConfig(mode=LedgerMode.REQUIRED))
        assert isinstance(required, portl.Finding)
        assert required.severity is portl.Severity.PROBLEM
        assert required.remedy == (
            'GRANT CREATE ON DATABASE … TO the role; or GRANT CREATE, USAGE ON SCHEMA "public" TO the role'
        )
        off = end.ledger(LedgerConfig(mode=LedgerMode.OFF))
        assert isinstance(off, portl.Finding)
        assert off.message == "`ledger.mode` is off: a run that is interrupted starts over"
    destination.execute(f"DROP OWNED BY {role}")
    destination.execute(f"DROP ROLE {role}")


def test_a_role_that_was_granted_a_ledger_may_use_it(destination: Db) -> None:
    role = made_role(destination, "ledger_user")
    with ledger(destination) as book:
        book.start(new_run(job="somebody else's"))
    with opened(destination, username=role, password=role) as end:
        found = end.ledger(LedgerConfig(mode=LedgerMode.REQUIRED))
        assert isinstance(found, portl.Finding)
        remedy = found.remedy or ""
        assert "the role may not read and write portl.migrations" in found.message
    first = remedy.split("; or ")[0].replace("the role", role)
    for grant in first.split("; "):
        destination.execute(grant)
    with ledger(destination, username=role, password=role) as book:
        run = new_run()
        book.start(run)
        book.record(run, done(1))
        book.close(run, RunState.DONE)
        assert len(book.runs()) == 2
        assert book.forget(JOB) == 1
    destination.execute(f"DROP OWNED BY {role}")
    destination.execute(f"DROP ROLE {role}")


def test_inside_a_callers_transaction_there_is_none(destination: Db) -> None:
    with psycopg.connect(dsn(destination)) as mine:
        mine.execute("SELECT 1")
        with opened(destination, mine) as end:
            auto = end.ledger(LedgerConfig())
            required = end.ledger(LedgerConfig(mode=LedgerMode.REQUIRED))
    assert isinstance(auto, portl.Finding)
    assert auto.severity is portl.Severity.NOTE
    assert "inside a transaction of the caller's" in auto.message
    assert isinstance(required, portl.Finding)
    assert required.severity is portl.Severity.PROBLEM


def test_what_is_no_ledger_is_left_alone(destination: Db) -> None:
    destination.execute("CREATE SCHEMA portl; CREATE TABLE portl.migrations (mine text)")
    with opened(destination) as end:
        with pytest.raises(portl.LedgerError, match="the two are not a ledger of portl") as raised:
            end.ledger(LedgerConfig())
        assert "ledger.schema" in (raised.value.hint or "")
        book = ledger_at(end, schema="public")
        book.start(new_run())
        assert book.place == "public.portl_migrations"
    assert destination.value("SELECT count(*) FROM portl.migrations") == 0


def test_a_ledger_of_another_layout_is_refused(destination: Db) -> None:
    with opened(destination) as end:
        book = ledger_at(end)
        book.start(new_run())
        for layout in (0, 99):
            destination.execute(f"COMMENT ON TABLE portl.migrations IS 'portl''s ledger, layout {layout}'")
            for call in (lambda: end.ledger(LedgerConfig()), lambda: book.find(JOB), lambda: book.start(new_run())):
                with pytest.raises(portl.LedgerError, match=rf"has the layout {layout} of another version of portl"):
                    call()


def test_several_processes_create_one_ledger(destination: Db) -> None:
    gate = threading.Barrier(4)

    def work(number: int) -> str:
        with opened(destination) as end:
            book, run = ledger_at(end), new_run(5, job=f"job {number}")
            book.lock(run.job)
            gate.wait()
            end._session.begin()
            book.start(run)
            book.record(run, done(1))
            end._session.commit()
            return run.id

    with ThreadPoolExecutor(4) as threads:
        made = set(threads.map(work, range(4)))
    with ledger(destination) as book:
        assert made <= {run.id for run in book.runs()}
    assert destination.value("SELECT count(*) FROM portl.chunks") == 20
    comment = destination.value("SELECT obj_description('portl.migrations'::regclass)")
    assert comment.endswith(f"layout {places.LAYOUT}")


def test_workers_write_their_lines_at_the_same_time(destination: Db) -> None:
    run = new_run(40)
    with opened(destination) as end:
        ledger_at(end).start(run)

        def worker(number: int) -> None:
            twin = end.for_worker()
            assert twin is not None
            try:
                twin.open(portl.Context())
                side = ledger_at(twin)
                for chunk in range(number, 41, 4):
                    twin._session.begin()
                    side.record(run, done(chunk))
                    twin._session.commit()
            finally:
                twin.close()

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(worker, range(1, 5)))
        assert sum(line.rows for line in ledger_at(end).lines(run)) == 400


@pytest.mark.system
def test_it_works_on_the_servers_of_the_system_too(system: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "PATIENCE_SECONDS", 0.2)
    run = new_run(2)
    with opened(system) as end, opened(system) as lost:
        book, stale = ledger_at(end), ledger_at(lost)
        book.start(run)
        book.lock(JOB)
        second = next_attempt(run)
        book.resume(second)
        lost._session.begin()
        stale.record(second, done(2))
        settled = book.settled(second, 2)
        assert settled is not None
        assert settled.state is ChunkState.PENDING
        book.record(second, done(2))
        book.close(second, RunState.DONE)
        found = book.find(JOB)
        assert found is not None
        assert (found.state, found.locked, found.attempt) == (RunState.DONE, True, 2)
        book.unlock()


def test_the_identity_goes_by_the_table_not_by_the_way_to_it(destination: Db) -> None:
    role = made_role(destination, "ledger_identity")
    with opened(destination) as end:
        usual = end.identity()
    with opened(
        destination, host="localhost", username=role, password=role, application_name="other", lock_timeout=3.0,
        pool=Pool(max_size=2),
    ) as end:  # fmt: skip
        assert end.identity() == usual
    with opened(destination, table="u") as end:
        assert end.identity() != usual
    with opened(destination, database="postgres") as end:
        assert end.identity() != usual
    assert json.loads(json.dumps(usual)) == usual
    assert usual["system"] == destination.value("SELECT system_identifier::text FROM pg_control_system()")
    destination.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    with opened(destination, username=role, password=role) as end:
        assert end.identity() == {**usual, "system": None}
    destination.execute(f"DROP OWNED BY {role}")
    destination.execute(f"DROP ROLE {role}")


def test_worker_sessions_take_their_connections_from_one_pool(destination: Db) -> None:
    with opened(destination, pool=Pool(max_size=2, timeout=0.2)) as end:
        one, two = end.for_worker(), end.for_worker()
        assert one is not None
        assert two is not None
        one.open(portl.Context())
        with pytest.raises(portl.ConnectionFailed, match=r"no connection was free within 0\.2 s") as raised:
            two.open(portl.Context())
        assert raised.value.hint == "raise `pool.max_size` or `pool.timeout`"
        two.close()
        one.close()
        assert end.describe() is None
        assert end.room() == 1


def test_a_worker_session_shares_a_pool_that_was_handed_in_and_never_a_connection(destination: Db) -> None:
    with psycopg_pool.ConnectionPool(dsn(destination), min_size=1, max_size=2, open=True) as pool:
        with opened(destination, pool) as end:
            twin = end.for_worker()
            assert twin is not None
            twin.open(portl.Context())
            assert pool.get_stats()["pool_size"] == 2
            assert end.room() == 1
            twin.close()
            with pytest.raises(TypeError, match="cannot be pickled"):
                pickle.dumps(twin)
        assert not pool.closed
    with psycopg_pool.NullConnectionPool(dsn(destination), open=True) as pool, opened(destination, pool) as end:
        assert end.room() is None
    with psycopg.connect(dsn(destination)) as mine, opened(destination, mine) as end:
        assert end.for_worker() is None


def test_a_pickled_worker_session_arrives_without_its_password(destination: Db) -> None:
    with opened(destination) as end:
        travelled = pickle.loads(pickle.dumps(end.for_worker()))
    with pytest.raises(ValueError, match="passwords are left out"):
        travelled.open(portl.Context())
    travelled.close()


def test_a_pickled_worker_session_arrives_usable_where_there_is_no_secret(
    destination: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", destination.endpoint.password)
    with opened(destination, password=None) as end:
        travelled = pickle.loads(pickle.dumps(end.for_worker()))
        travelled.open(portl.Context())
        try:
            assert travelled.identity() == end.identity()
        finally:
            travelled.close()
        assert end.describe() is None


def interrupted(source: Db, destination: Db, conflict: str = "overwrite") -> dict[str, Any]:
    """Cancel a job of 20 chunks that makes its table after some of them; return the job."""
    source.execute("CREATE TABLE t (id int PRIMARY KEY, x text)")
    source.execute("INSERT INTO t SELECT g, 'row ' || g FROM generate_series(1, 20000) AS g; ANALYZE t")
    job = {
        "source": source.end(table="t"),
        "destination": destination.end(table="t"),
        "conflict": conflict,
        "chunk_rows": 1000,
        "parallel": 1,
    }
    token = portl.CancelToken()

    def stop(event: portl.Event) -> None:
        if isinstance(event, portl.BatchCommitted) and event.chunk == 5:
            token.cancel()

    with pytest.raises(portl.Cancelled):
        portl.migrate(job, observers=[stop], cancel=token)
    assert 0 < destination.value("SELECT count(*) FROM t") < 20000
    return job


def keys_of(db: Db) -> int:
    return int(db.value("SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass AND indisprimary"))


@pytest.mark.parametrize("conflict", ["overwrite", "skip", "fail"])
def test_a_table_that_is_resumed_gets_its_key_at_the_end(source: Db, destination: Db, conflict: str) -> None:
    job = interrupted(source, destination, conflict)
    assert keys_of(destination) == 0
    plan = portl.plan(job)
    examination = plan.tables[0].examination
    assert examination.before == ()
    assert examination.after[0] == 'ALTER TABLE "public"."t" ADD PRIMARY KEY ("id")'
    assert "which is built after the last rows of that run" in str(plan).replace("\n    ", " ")
    keys = []

    def look(event: portl.Event) -> None:
        if isinstance(event, portl.BatchCommitted):
            keys.append(keys_of(destination))

    result = portl.migrate({**job, "parallel": 2}, observers=[look])
    assert (result.rows_read, result.rows_inserted) == (20000, 20000)
    assert set(keys) == {0}
    assert keys_of(destination) == 1
    assert destination.value("SELECT count(*) FROM t") == destination.value("SELECT count(DISTINCT id) FROM t") == 20000
    assert destination.value("SELECT obj_description('t'::regclass)") is None


def test_a_job_that_starts_over_builds_the_key_first(source: Db, destination: Db) -> None:
    job = interrupted(source, destination)
    destination.execute("DELETE FROM portl.migrations")
    examination = portl.plan(job).tables[0].examination
    assert examination.before == ('ALTER TABLE "public"."t" ADD PRIMARY KEY ("id")',)
    assert portl.migrate(job).rows_read == 20000
    assert destination.value("SELECT count(*) FROM t") == 20000


def test_a_worker_sessions_writer_makes_nothing(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    job = {"source": source.end(table="t"), "destination": destination.end(table="t")}
    intent = portl.plan(job).tables[0].intent
    assert intent.create
    with opened(destination) as end:
        twin = end.for_worker()
        assert twin is not None
        twin.open(portl.Context())
        try:
            first, second = end.writer(intent), twin.writer(intent)
            first.begin()
            first.commit()
            second.begin()
            second.commit()
            assert keys_of(destination) == 0
            first.finish()
        finally:
            twin.close()
    assert keys_of(destination) == 1
