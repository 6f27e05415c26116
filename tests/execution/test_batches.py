"""Batches: the unit that fails or succeeds together, and how the one that fails is reported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import attrs
import psycopg
import pytest

import portl
from portl.execution.chunks import load as chunkload
from tests.servers import Db

ROUTES = pytest.mark.parametrize("route", ["relay", "rows"])


def job(source: Db, destination: Db, /, **keys: Any) -> dict[str, object]:
    # A table without a key is read in the order of its rows.
    return {"source": source.end(table="t"), "destination": destination.end(table="t"), "conflict": "fail"} | keys


def ordered(source: Db) -> dict[str, object]:
    """The rows of a query: they cannot be cut into chunks, and come in the order of their ids."""
    return source.end(query="SELECT * FROM t ORDER BY id")


def left_behind(db: Db) -> list[tuple[Any, ...]]:
    """Temporary relations and open transactions of any session but this one, once those that are closed have ended."""
    for _ in range(500):
        found = db.execute(
            "SELECT relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace"
            " WHERE nspname ~ '^pg_temp' UNION ALL"
            " SELECT state || ': ' || query FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND xact_start IS NOT NULL"
        )
        if not found:
            break
        db.execute("SELECT pg_sleep(0.01)")
    return found


@attrs.frozen
class Refusal:
    """A table of the destination, and a value of the source that it refuses."""

    sent: str
    column: str
    bad: str
    sqlstate: str
    words: str
    constraint: str | None = None
    names_column: bool = False
    good: str = "{n}"
    before: str = ""


REFUSALS = {
    "not null": Refusal("int", "int NOT NULL", "NULL", "23502", "violates not-null constraint", None, True),
    "check": Refusal("int", "int CONSTRAINT sound CHECK (v > 0)", "-1", "23514", 'check constraint "sound"', "sound"),
    "domain": Refusal("int", "odd", "-2", "23514", 'check constraint "sound"', "sound",
                      before="CREATE DOMAIN odd AS int CONSTRAINT sound CHECK (VALUE > 0)"),
    "foreign key": Refusal("int", "int CONSTRAINT known REFERENCES p", "-1", "23503",
                           'Key (v)=(-1) is not present in table "p"', "known",
                           before="CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p SELECT generate_series(1, 100)"),
    "deferred foreign key": Refusal("int", "int CONSTRAINT known REFERENCES p INITIALLY DEFERRED", "-1", "23503",
                                    'Key (v)=(-1) is not present in table "p"', "known",
                                    before="CREATE TABLE p (id int PRIMARY KEY);"
                                    "INSERT INTO p SELECT generate_series(1, 100)"),
    "unique": Refusal("int", "int CONSTRAINT once UNIQUE", "7777", "23505", "Key (v)=(7777) already exists.", "once"),
    "deferred unique": Refusal("int", "int CONSTRAINT once UNIQUE DEFERRABLE INITIALLY DEFERRED", "7777", "23505",
                               "Key (v)=(7777) already exists.", "once"),
    "exclusion": Refusal("int4range", "int4range, CONSTRAINT apart EXCLUDE USING gist (v WITH &&)",
                         "int4range(7777, 7779)", "23P01", "conflicts with existing key", "apart",
                         good="int4range({n}, {n}, '[]')"),
    "overflow": Refusal("bigint", "smallint", "70000", "22003", "out of range for type smallint"),
    "digits": Refusal("numeric", "numeric(5,2)", "123456", "22003", "numeric field overflow"),
    "too long": Refusal("text", "varchar(5)", "'123456'", "22001", "value too long for type character varying(5)"),
    "enum": Refusal("text", "mood", "'no'", "22P02", 'invalid input value for enum mood: "no"', good="'ok'",
                    before="CREATE TYPE mood AS ENUM ('ok')"),
    "form": Refusal("text", "date", "'no date'", "22007", 'invalid input syntax for type date: "no date"',
                    good="'2024-01-01'"),
    "trigger": Refusal("int", "int", "-1", "P0001", "no negative numbers here"),
    "partition": Refusal("int", "int", "-1", "23514", 'no partition of relation "t" found for row'),
}  # fmt: skip

TRIGGER = """CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
IF new.v < 0 THEN RAISE 'no negative numbers here'; END IF; RETURN new; END $$;
CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()"""


def refuse(source: Db, destination: Db, what: str, bad_row: int, total: int = 25) -> None:
    """Fill the source with rows of which one is refused, and make the destination's table."""
    case = REFUSALS[what]
    source.execute(f"DROP TABLE IF EXISTS t; CREATE TABLE t (id int, v {case.sent})")
    good = case.good.format(n="g")
    value = f"CASE WHEN g = {bad_row} THEN {case.bad} ELSE {good} END"
    source.execute(f"INSERT INTO t SELECT g, {value} FROM generate_series(1, {total}) g")
    partitioned = " PARTITION BY RANGE (v)" if what == "partition" else ""
    destination.execute(f"DROP TABLE IF EXISTS t; {case.before}; CREATE TABLE t (id int, v {case.column}){partitioned}")
    if partitioned:
        destination.execute("CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (9999)")
    if what == "trigger":
        destination.execute(TRIGGER)
    if case.constraint in ("once", "apart"):
        destination.execute(f"INSERT INTO t VALUES (0, {case.bad})")


@ROUTES
@pytest.mark.parametrize("what", REFUSALS)
def test_a_refused_batch_is_rolled_back_named_and_the_batches_before_it_stay(
    source: Db, destination: Db, what: str, route: str
) -> None:
    case = REFUSALS[what]
    refuse(source, destination, what, 14)
    seen: list[portl.Event] = []
    with pytest.raises(portl.DataError) as caught:
        portl.migrate(job(source, destination, batch_size=5, route=route), observers=[seen.append])
    error = caught.value
    assert (error.batch, error.row, error.sqlstate) == (3, 14, case.sqlstate)
    assert error.constraint == case.constraint
    assert error.column == ("v" if case.names_column else error.column)
    assert error.values is not None
    assert error.values["id"] == "14"
    assert "row 14 of the source (batch 3) with id = 14: destination " in error.message
    assert case.words in error.message
    assert f"(SQLSTATE {case.sqlstate})" in error.message
    assert "committed before this: 10 rows read, 10 inserted" in str(error)
    assert isinstance(error, portl.ConflictError) == (case.sqlstate in ("23505", "23P01"))
    assert destination.value("SELECT array_agg(id ORDER BY id) FROM t WHERE id > 0") == list(range(1, 11))
    assert left_behind(destination) == []
    assert left_behind(source) == []
    assert error.committed is not None
    assert (error.committed.rows_read, error.committed.tables[0].batches) == (10, 2)
    assert sum(event.rows for event in seen if isinstance(event, portl.BatchCommitted)) == 10
    assert seen[-1] == portl.Failed(kind=type(error).__name__, error=str(error))


@pytest.mark.parametrize(
    ("bad_rows", "sizes"),
    [((1, 5, 6), (1, 5, 1000)), pytest.param((1, 2, 5, 6, 10, 25), (1, 2, 5, 7, 1000), marks=pytest.mark.faults)],
    ids=["few", "many"],
)
@pytest.mark.parametrize("conflict", ["fail", "overwrite", "skip", "merge"])
def test_the_row_is_found_wherever_it_stands(
    source: Db, destination: Db, conflict: str, bad_rows: Sequence[int], sizes: Sequence[int]
) -> None:
    """At the beginning, in the middle, at the end of batches of every size; straight and through the staging table."""
    for bad_row in bad_rows:
        for size in sizes:
            refuse(source, destination, "check", bad_row)
            destination.execute("ALTER TABLE t ADD PRIMARY KEY (id)")
            if conflict != "fail":
                destination.execute("INSERT INTO t VALUES (2, 2), (99, 99)")
            with pytest.raises(portl.DataError) as caught:
                portl.migrate(job(source, destination, batch_size=size, conflict=conflict), restart=True)
            batch = (bad_row - 1) // size + 1
            assert (caught.value.row, caught.value.batch) == (bad_row, batch)
            kept = {*range(1, (batch - 1) * size + 1), *(() if conflict == "fail" else (2, 99))}
            assert {row[0] for row in destination.execute("SELECT id FROM t")} == kept


def test_of_two_bad_rows_the_first_is_named(source: Db, destination: Db) -> None:
    refuse(source, destination, "check", 14)
    source.execute("UPDATE t SET v = -5 WHERE id IN (13, 25, 12)")
    with pytest.raises(portl.DataError) as caught:
        portl.migrate(job(source, destination, batch_size=5, source=ordered(source)))
    assert caught.value.row == 12
    assert destination.value("SELECT count(*) FROM t") == 0  # such a job is one transaction


@pytest.mark.parametrize("group_bytes", [1, 100, 1 << 30])
def test_what_is_committed_does_not_depend_on_how_batches_are_grouped(
    source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch, group_bytes: int
) -> None:
    monkeypatch.setattr(chunkload, "GROUP_BYTES", group_bytes)
    refuse(source, destination, "foreign key", 44, total=60)
    with pytest.raises(portl.DataError) as caught:
        portl.migrate(job(source, destination, batch_size=6))
    assert (caught.value.row, caught.value.batch) == (44, 8)
    assert destination.value("SELECT count(*) FROM t") == 42


def test_an_old_transaction_is_committed(source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunkload, "PIECE_SECONDS", 0.0)
    source.execute("CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 10)")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY)")
    seen: list[portl.Event] = []
    keys = {"source": ordered(source), "conflict": "overwrite"}
    portl.migrate(job(source, destination, batch_size=4, **keys), observers=[seen.append])
    assert [e.rows for e in seen if isinstance(e, portl.BatchCommitted)] == [4, 4, 2]


@ROUTES
def test_the_events_say_what_was_committed(
    source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    monkeypatch.setattr(chunkload, "GROUP_BYTES", 100)
    source.execute("CREATE TABLE t (id int, v text); INSERT INTO t SELECT g, 'x' FROM generate_series(1, 95) g")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    seen: list[portl.Event] = []
    counted: list[int] = []

    def observe(event: portl.Event) -> None:
        seen.append(event)
        if isinstance(event, portl.BatchCommitted):
            counted.append(destination.value("SELECT count(*) FROM t"))

    keys = {"source": ordered(source), "conflict": "overwrite", "route": route}
    result = portl.migrate(job(source, destination, batch_size=10, **keys), observers=[observe])
    committed = [event for event in seen if isinstance(event, portl.BatchCommitted)]
    assert len(committed) > 2
    assert [e.first_batch for e in committed] == [1, *(e.last_batch + 1 for e in committed[:-1])]
    assert committed[-1].last_batch == result.tables[0].batches == 10
    assert counted == [e.total_rows for e in committed]
    rows = size = 0
    for event in committed:
        rows, size = rows + event.rows, size + event.bytes
        assert (event.total_rows, event.total_bytes, event.table) == (rows, size, "public.t")
        assert event.rows_per_second > 0
    assert (rows, size) == (result.rows_read, result.bytes) == (95, result.bytes)
    many = (portl.BatchCommitted, portl.ChunkMoved, portl.Warned)
    others = [type(e).__name__ for e in seen if not isinstance(e, many)]
    assert others == ["Started", "TableStarted", "TableDone", "Done"]


@ROUTES
def test_when_the_very_first_batch_fails_no_half_made_table_remains(source: Db, destination: Db, route: str) -> None:
    source.execute("CREATE TABLE t (id int, v bigint); INSERT INTO t VALUES (1, 1), (2, 70000)")
    types = [{"column": "v", "to": "smallint"}]
    side = destination.end(schema="fresh", table="t")
    with pytest.raises(portl.DataError) as caught:
        portl.migrate(job(source, destination, destination=side, types=types, route=route))
    assert (caught.value.row, caught.value.batch) == (2, 1)
    assert destination.execute("SELECT nspname::text FROM pg_namespace WHERE nspname = 'fresh'") == []
    assert left_behind(destination) == []


def test_no_rows_make_an_empty_table_and_no_batch(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int)")
    seen: list[portl.Event] = []
    result = portl.migrate(job(source, destination), observers=[seen.append])
    assert (result.rows_read, result.bytes, result.tables[0].batches) == (0, 0, 0)
    assert not [event for event in seen if isinstance(event, portl.BatchCommitted)]
    assert destination.value("SELECT count(*) FROM t") == 0


@pytest.mark.parametrize("conflict", ["fail", "overwrite"])
def test_a_notice_in_the_middle_of_the_rows_is_no_refusal(source: Db, destination: Db, conflict: str) -> None:
    source.execute("CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 5000)")
    destination.execute(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE NOTICE 'row %', new.id; RETURN new; END $$;"
        "CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()"
    )
    result = portl.migrate(job(source, destination, batch_size=100, conflict=conflict))
    assert result.rows_inserted == destination.value("SELECT count(*) FROM t") == 5000


def test_a_failure_inside_a_callers_transaction_leaves_it_usable_and_without_rows_of_portls(
    source: Db, destination: Db
) -> None:
    refuse(source, destination, "check", 14)
    connection = destination.connection
    with connection.transaction():
        with pytest.raises(portl.DataError) as caught:
            portl.migrate(job(source, destination, batch_size=5), destination=connection)
        assert (caught.value.row, caught.value.batch) == (14, 3)
        assert connection.info.transaction_status is psycopg.pq.TransactionStatus.INTRANS
        assert destination.value("SELECT count(*) FROM t") == 0
    assert destination.value("SELECT count(*) FROM t") == 0


@pytest.mark.parametrize(("conflict", "kept"), [("overwrite", 10), ("skip", 10), ("fail", 0), ("merge", 0)])
def test_inside_a_callers_transaction_rows_stay_that_may_come_twice(
    source: Db, destination: Db, conflict: str, kept: int
) -> None:
    refuse(source, destination, "check", 14)
    destination.execute("ALTER TABLE t ADD PRIMARY KEY (id)")
    keys = {"batch_size": 5, "conflict": conflict}
    with destination.connection.transaction():
        with pytest.raises(portl.DataError) as caught:
            portl.migrate(job(source, destination, **keys), destination=destination.connection)
        committed = caught.value.committed
        assert committed is not None
        assert destination.value("SELECT count(*) FROM t") == committed.rows_inserted == kept
    assert destination.value("SELECT count(*) FROM t") == kept
    assert destination.value("SELECT to_regnamespace('portl')") is None
    source.execute("DELETE FROM t WHERE id = 14")
    again = portl.migrate(job(source, destination, **keys))
    assert (again.rows_inserted, again.rows_read) == (24 - kept, 24)


def test_an_observer_that_raises_ends_the_run_and_leaves_nothing_open(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 100)")

    def observe(event: portl.Event) -> None:
        if isinstance(event, portl.BatchCommitted) and not event.provisional:
            raise LookupError("the observer's own")

    with pytest.raises(LookupError, match="the observer's own"):
        portl.migrate(job(source, destination, batch_size=10), observers=[observe])
    assert destination.value("SELECT count(*) FROM t") == 100
    assert left_behind(destination) == []
    assert left_behind(source) == []


PEAK = """
import json, resource, sys
import portl
from portl.execution.chunks import load as chunkload
chunkload.GROUP_BYTES = 2 * 1024 * 1024
job = json.loads(sys.argv[1])
rows = portl.migrate(job).rows_read
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@ROUTES
def test_memory_does_not_grow_with_the_table(source: Db, destination: Db, route: str) -> None:
    import json

    large = 400_000 if route == "relay" else 150_000
    source.execute("CREATE TABLE t (id int, v text)")
    source.execute(f"INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, {large}) g")
    peaks = []
    for rows in (20_000, large):
        destination.execute("DROP TABLE IF EXISTS t")
        keys = {"source": source.end(table="t", limit=rows), "route": route}
        arguments = json.dumps(job(source, destination, **keys))
        found = subprocess.run(
            [sys.executable, "-c", PEAK, arguments], capture_output=True, text=True, timeout=120, check=True
        )
        done, kibibytes = map(int, found.stdout.split())
        assert done == rows
        peaks.append(kibibytes)
    # The larger table holds some 40 MB more in its rows alone, and far more as Python's objects.
    assert peaks[1] - peaks[0] < 15 * 1024
