"""What a program sees when something fails, and what it does not: no print, no log of its own, no state left behind."""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys
import threading
from typing import Any

import attrs
import pytest

import portl
from portl.values import errors
from portl_postgres.demo.server import free_port
from tests.jobs import BRIEF
from tests.servers import Db

TREE = {
    portl.ConfigError: portl.Error,
    portl.PluginError: portl.Error,
    portl.PlanError: portl.Error,
    portl.ConnectionFailed: portl.Error,
    portl.AuthenticationFailed: portl.ConnectionFailed,
    portl.CommitInDoubt: portl.ConnectionFailed,
    portl.PermissionDenied: portl.Error,
    portl.SchemaError: portl.Error,
    portl.QueryError: portl.Error,
    portl.DataError: portl.Error,
    portl.ConflictError: portl.DataError,
    portl.OperationError: portl.Error,
    portl.LedgerError: portl.Error,
    portl.AlreadyRunning: portl.LedgerError,
    portl.Superseded: portl.LedgerError,
    portl.VerificationFailed: portl.Error,
    portl.Cancelled: portl.Error,
    portl.Interrupted: portl.Cancelled,
}


def job(reads: Db, writes: Db, /, **keys: Any) -> dict[str, Any]:
    """Return a job whose source is the table t unless the keys say otherwise."""
    source, destination = keys.pop("source", {"table": "t"}), keys.pop("destination", {})
    return {"source": reads.end(**source), "destination": writes.end(**{"table": "t", **destination}), **keys}


@pytest.fixture
def rows(source: Db) -> Db:
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, x int); INSERT INTO t SELECT g, g FROM generate_series(1, 5000) g"
    )
    return source


def failure(config: dict[str, Any], **keys: Any) -> portl.Error:
    with pytest.raises(portl.Error) as caught:
        portl.migrate(config, **keys)
    return caught.value


def test_the_tree_of_errors() -> None:
    exported = {getattr(portl, name) for name in portl.__all__}
    found = {cls for cls in exported if isinstance(cls, type) and issubclass(cls, portl.Error)}
    assert found == {portl.Error, *TREE}
    assert {cls: cls.__bases__[0] for cls in TREE} == TREE
    assert issubclass(portl.Interrupted, KeyboardInterrupt)
    drawn = errors.__doc__ or ""
    assert [cls.__name__ for cls in TREE if cls.__name__ not in drawn] == []


def made(cls: type[portl.Error]) -> portl.Error:
    if cls is portl.ConfigError:
        return portl.ConfigError(["a: wrong", "b: wrong"], origin="job.yaml")
    if issubclass(cls, portl.DataError):
        return cls("refused", hint="fix it", sqlstate="23505", table="t", column="c", constraint="k")
    if cls is portl.VerificationFailed:
        found = portl.TableVerification(
            source="a", destination="b", mode="count", key=(), rows_source=2, rows_destination=1, missing=1, equal=False
        )
        return portl.VerificationFailed("it differs", found)
    return cls("it failed", hint="fix it", sqlstate="XX000", transient=True)


@pytest.mark.parametrize("cls", [portl.Error, *(cls for cls in TREE if cls is not portl.PlanError)])
def test_every_error_travels_in_a_pickle(cls: type[portl.Error]) -> None:
    error = made(cls)
    table = portl.TableResult(source="a", destination="b", route="relay", rows_read=3, rows_inserted=2, rows_skipped=1)
    error.committed = portl.Result(name="n", tables=(table,), seconds=1.0)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert again.args == error.args


def test_a_plan_error_travels_in_a_pickle_with_its_plan(rows: Db, destination: Db) -> None:
    destination.execute("CREATE TABLE t (id int)")
    error = failure(job(rows, destination), observers=[lambda event: None])
    assert isinstance(error, portl.PlanError)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert str(again.plan) == str(error.plan)
    assert again.plan.problems == error.plan.problems


def test_the_text_of_an_error_has_its_message_what_is_committed_and_a_hint() -> None:
    error = portl.OperationError("it failed", hint="try again")
    assert str(error) == "it failed\nhint: try again"
    table = portl.TableResult(source="a", destination="b", route="rows", rows_read=3000, rows_inserted=2999)
    error.committed = portl.Result(name="n", tables=(table,), seconds=1.0)
    assert str(error) == (
        "it failed\ncommitted before this: 3,000 rows read, 2,999 inserted\nhint: try again"
    )  # fmt: skip
    assert str(portl.Error("alone")) == "alone"


CODES: dict[str, tuple[str, type[portl.Error], str]] = {
    "22P02": ("SELECT 'x'::int AS id", portl.QueryError, "invalid input syntax for type integer"),
    "42P01": ("SELECT * FROM nowhere", portl.QueryError, 'relation "nowhere" does not exist'),
    "42601": ("SELECT FROM FROM", portl.QueryError, "syntax error"),
    "25006": ("SELECT nextval('s') AS id", portl.QueryError, "cannot execute nextval() in a read-only transaction"),
    "22012": ("SELECT 1 / (x - 5) AS id FROM t", portl.DataError, "division by zero"),
    "57014": ("SELECT pg_sleep(9)::text AS id", portl.OperationError, "statement timeout"),
    "P0001": ("SELECT oops() AS id", portl.DataError, "oops"),
}


def test_errors_of_the_source_carry_the_servers_code_and_words(rows: Db, destination: Db) -> None:
    rows.execute("CREATE SEQUENCE s")
    rows.execute(
        "CREATE FUNCTION oops() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'oops' USING HINT='h'; END $$"
    )
    for code, (query, kind, words) in CODES.items():
        error = failure(job(rows, destination, source={"query": query, "statement_timeout": 0.3}, retry=BRIEF))
        assert (error.sqlstate, type(error)) == (code, kind), query
        assert words in error.message
        assert error.message.startswith("source postgres@127.0.0.1:")
        assert f"(SQLSTATE {code})" in error.message


def test_errors_of_the_destination_say_where_and_what_to_try(rows: Db, destination: Db) -> None:
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, x int CONSTRAINT small CHECK (x < 3000))")
    error = failure(job(rows, destination, batch_size=1000))
    assert isinstance(error, portl.DataError)
    assert (error.sqlstate, error.constraint, error.table) == ("23514", "small", "t")
    assert (error.row, error.batch, error.values) == (3000, 3, {"id": "3000", "x": "3000"})
    assert error.message.startswith("row 3,000 of the source (batch 3) with id = 3000: destination postgres@127.0.0.1:")
    assert "violates check constraint" in error.message
    assert error.committed is not None
    assert error.committed.rows_inserted == 2000
    assert "committed before this: 2,000 rows read, 2,000 inserted" in str(error)


def test_a_conflict_is_an_error_of_its_own(rows: Db, destination: Db) -> None:
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, x int); INSERT INTO t VALUES (7, 0)")
    error = failure(job(rows, destination, conflict="fail"))
    assert type(error) is portl.ConflictError
    assert (error.sqlstate, error.row) == ("23505", 7)
    assert error.hint == "use `conflict: overwrite`, `skip` or `merge` if such rows are expected"


def test_the_four_troubles_of_the_specification_have_their_own_hints(rows: Db, destination: Db) -> None:
    rows.execute("DROP ROLE IF EXISTS portl_poor; CREATE ROLE portl_poor LOGIN PASSWORD 'pw'")
    destination.execute("CREATE TABLE t (id text)")
    try:
        poor = {"username": "portl_poor", "password": "pw", "table": "t"}
        once = {"attempts": 1}
        texts = [
            str(failure(job(rows, destination, source={"table": "t", "port": free_port()}, retry=once))),
            str(failure(job(rows, destination, source={"table": "t", "password": "wrong"}))),
            str(failure(job(rows, destination, source=poor, destination={"table": "made"}))),
            str(failure(job(rows, destination))),
        ]
    finally:
        rows.execute("DROP ROLE portl_poor")
    expected = ["check that PostgreSQL is running", "check username and password", "GRANT SELECT", "`schema_mapping`"]
    assert [[hint in text for hint in expected] for text in texts] == [
        [row == column for column in range(4)] for row in range(4)
    ]


class Boom(Exception):
    """No error of portl's."""


@pytest.mark.parametrize(
    "kind", [portl.Started, portl.TableStarted, portl.BatchCommitted, portl.TableDone, portl.Done, portl.Warned]
)
def test_an_observer_that_raises_ends_the_run(kind: type[portl.Event], rows: Db, destination: Db) -> None:
    rows.execute("ALTER TABLE t DROP CONSTRAINT t_pkey")  # for a warning
    seen: list[type[portl.Event]] = []

    def observer(event: portl.Event) -> None:
        seen.append(type(event))
        if isinstance(event, kind):
            raise Boom("from the observer")

    config = job(rows, destination, source={"table": "t", "application_name": "portl boom"})
    with pytest.raises(Boom, match="from the observer"):
        portl.migrate(config, observers=[observer])
    assert seen[-1] is kind
    assert seen.count(kind) == 1
    # What was committed before it stays; the rest is undone, and the connections are free of locks.
    written = kind in (portl.BatchCommitted, portl.TableDone, portl.Done)
    assert destination.value("SELECT to_regclass('t') IS NOT NULL") is written
    destination.execute("SET lock_timeout = '5s'; DROP TABLE IF EXISTS t")
    assert portl.migrate(config).rows_inserted == 5000


def test_events_are_plain_data_and_frozen(rows: Db, destination: Db) -> None:
    events: list[portl.Event] = []
    portl.migrate(job(rows, destination), observers=[events.append])
    assert [type(event) for event in events] == [
        portl.Started, portl.TableStarted, portl.ChunkMoved, portl.BatchCommitted, portl.ObjectsStarted,
        portl.ObjectsMade, portl.TableDone, portl.Done,
    ]  # fmt: skip
    assert [event.to_dict()["event"] for event in events] == [
        "started", "table_started", "chunk_moved", "batch_committed", "objects_started", "objects_made", "table_done",
        "done",
    ]  # fmt: skip
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        events[0].name = "other"  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(events)) == events


def test_observers_are_called_in_the_thread_that_called(rows: Db, destination: Db) -> None:
    threads: set[int] = set()
    portl.migrate(job(rows, destination), observers=[lambda event: threads.add(threading.get_ident())] * 2)
    assert threads == {threading.get_ident()}


def test_several_migrations_at_once_do_not_disturb_each_other(rows: Db, destination: Db) -> None:
    rows.execute("CREATE TABLE bad AS SELECT g AS id, 1000 / (g - 4000) AS x FROM generate_series(1, 3999) AS g")
    outcomes: dict[str, str] = {}
    events: dict[str, list[portl.Event]] = {}

    def run(name: str) -> None:
        query = "SELECT id, 1000 / (id - 4000) AS x FROM t" if name.startswith("bad") else "SELECT id, x FROM t"
        config = job(rows, destination, source={"query": query}, destination={"table": name}, name=name)
        events[name] = []
        try:
            outcomes[name] = str(portl.migrate(config, observers=[events[name].append]).rows_inserted)
        except portl.Error as error:
            outcomes[name] = str(error.sqlstate)

    names = ["good1", "bad1", "good2", "bad2", "good3", "good4"]
    threads = [threading.Thread(target=run, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {name: "22012" if name.startswith("bad") else "5000" for name in names}
    for name in names:
        assert {event.name for event in events[name] if isinstance(event, portl.Started)} == {name}
        made = destination.value("SELECT to_regclass(%s) IS NOT NULL", name)
        assert made is name.startswith("good")
        if made:
            assert destination.value(f"SELECT count(*) FROM {name}") == 5000


def test_logging_goes_to_portls_loggers_alone(rows: Db, destination: Db, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    portl.plan(job(rows, destination)).execute()
    failure(job(rows, destination, source={"table": "t", "port": free_port()}, retry={"attempts": 2, "max_delay": 0.1}))
    names = {record.name for record in caplog.records}
    assert {"portl.execution", "portl.postgres", "portl.postgres.sql"} <= names
    # The drivers below have loggers of their own, which say nothing above DEBUG here.
    others = [r for r in caplog.records if not r.name.startswith("portl.") and r.levelno > logging.INFO]
    assert others == []
    retries = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(retries) == 1
    assert retries[0].startswith("connecting to the source: attempt 1 of 2 failed, retrying in ")


PROGRAM = """
import json, logging, pathlib, sys
before = {name: logger for name, logger in logging.root.manager.loggerDict.items()}
import portl
assert "psycopg" not in sys.modules
job = json.loads(sys.stdin.read())
portl.plan(job).execute()
job["source"]["table"] = "nowhere"
try:
    portl.migrate(job)
except portl.SchemaError:
    pass
assert logging.root.handlers == [] and logging.root.level == logging.WARNING
assert logging.getLogger("portl").level == logging.NOTSET
assert [type(h) for h in logging.getLogger("portl").handlers] == [logging.NullHandler]
assert list(pathlib.Path.home().iterdir()) == []
"""


def test_a_program_that_configures_nothing_sees_no_output_and_no_file(rows: Db, destination: Db, tmp_path: Any) -> None:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(job(rows, destination)),
        capture_output=True,
        text=True,
        env={"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
    )
    assert (found.stdout, found.stderr, found.returncode) == ("", "", 0)
    assert destination.value("SELECT count(*) FROM t") == 5000
