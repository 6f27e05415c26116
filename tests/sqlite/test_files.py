"""Files as people have them: what their columns hold, keys, views, tables without rowids, dates as numbers."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import portl
from portl.testing import memory
from portl_sqlite.locking import JobLock

Execute = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "it's a file?.db"


@pytest.fixture
def execute(path: Path) -> Execute:
    def execute(script: str, at: Path = path) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(at)
        try:
            *statements, last = [part for part in script.split(";") if part.strip()]
            for statement in statements:
                connection.execute(statement)
            found = connection.execute(last).fetchall()
            connection.commit()
            return found
        finally:
            connection.close()

    return execute


@pytest.fixture
def copied(path: Path) -> Callable[..., list[tuple[Any, ...]]]:
    """Copies a table into memory; returns the rows."""
    memory.forget("sqlite")

    def copied(table: str = "t", **keys: Any) -> list[tuple[Any, ...]]:
        source = {"type": "sqlite", "path": str(path), "table": table, **keys.pop("source", {})}
        source = {name: value for name, value in source.items() if value is not None}
        destination = {"type": "memory", "database": "sqlite", "table": "t"}
        portl.migrate({"source": source, "destination": destination, "conflict": "fail", **keys})
        return memory.database("sqlite").rows("t")

    return copied


def to(path: Path, source: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"source": source, "destination": {"type": "sqlite", "path": str(path), "table": "t"}, **keys}


def test_what_a_column_holds_against_what_it_says_is_told(execute: Execute, path: Path, copied: Any) -> None:
    execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n INT); INSERT INTO t VALUES (1, 5), (2, 'five'), (3, NULL)")
    plan = portl.plan({"source": {"type": "sqlite", "path": str(path), "table": "t"}, "destination": NOWHERE})
    said = "column n: declared as INT, it holds values (1) that are not integer"
    assert any(str(found).startswith(said) for found in plan.warnings), plan.warnings
    assert copied() == [(1, 5), (2, "five"), (3, None)]


NOWHERE = {"type": "memory", "database": "sqlite", "table": "nowhere"}


def test_declared_types_are_read_as_sqlite_reads_them(execute: Execute, copied: Any) -> None:
    execute(
        "CREATE TABLE t (a INTEGER, b VARCHAR(3), c DECIMAL(12,2), d REAL, e BLOB, f BOOLEAN, g DATETIME, h, i DATE);"
        "INSERT INTO t VALUES (1, 'longer', 1.5, 2, x'00ff', 1, '2024-01-01 10:00:00', 'any', '2024-02-29')"
    )
    assert copied() == [
        (1, "longer", Decimal("1.5"), 2.0, b"\0\xff", True, dt.datetime(2024, 1, 1, 10), "any", dt.date(2024, 2, 29))
    ]


def test_dates_are_read_as_they_are_stored(execute: Execute, copied: Any) -> None:
    """Unix seconds, Julian days; texts and milliseconds by an expression."""
    execute(
        "CREATE TABLE t (a TEXT, b INTEGER, c REAL, d INTEGER);"
        "INSERT INTO t VALUES ('2023-11-14 22:13:20', 1700000000, julianday('2023-11-14 22:13:20'), 1700000000000)"
    )
    types = [{"column": name, "to": "timestamptz"} for name in "bc"]
    types.append({"column": "a", "to": "timestamptz", "using": "a || '+00:00'"})
    types.append({"column": "d", "to": "timestamptz", "using": "datetime(d / 1000, 'unixepoch')"})
    (row,) = copied(types=types)
    instant = dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC)
    assert [abs(value - instant) < dt.timedelta(milliseconds=1) for value in row] == [True] * 4


def test_tables_without_rowids_views_and_queries_are_read_as_a_whole(execute: Execute, copied: Any) -> None:
    execute(
        "CREATE TABLE t (a TEXT, b INT, PRIMARY KEY (b, a)) WITHOUT ROWID; INSERT INTO t VALUES ('x', 1), ('y', 2);"
        "CREATE VIEW v AS SELECT a, b + 1 AS c FROM t"
    )
    assert copied() == [("x", 1), ("y", 2)]
    memory.forget("sqlite")
    assert [row[0] for row in copied("v")] == ["x", "y"]
    memory.forget("sqlite")
    assert copied(source={"table": None, "query": "SELECT a FROM t WHERE b = 2"}) == [("y",)]
    memory.forget("sqlite")
    assert copied(source={"where": "b = 1"}) == [("x", 1)]


@pytest.mark.parametrize(
    "query", ["DELETE FROM t", "SELECT 1; DROP TABLE t", "SELECT nonsense FROM t", "PRAGMA user_version = 3"]
)
def test_a_query_that_is_no_select_is_refused(execute: Execute, copied: Any, query: str) -> None:
    execute("CREATE TABLE t (a INT); INSERT INTO t VALUES (1)")
    with pytest.raises(portl.Error):
        copied(source={"table": None, "query": query})
    assert execute("SELECT a FROM t") == [(1,)]


def test_columns_named_as_the_rowid_do_not_hide_it(execute: Execute, copied: Any) -> None:
    execute("CREATE TABLE t (rowid TEXT, oid TEXT); INSERT INTO t VALUES ('b', 'x'), ('a', 'y')")
    assert copied(chunk_rows=1) == [("b", "x"), ("a", "y")]


def test_a_file_that_is_missing_is_no_new_file(path: Path, copied: Any) -> None:
    with pytest.raises(portl.SchemaError, match="there is no file"):
        copied()
    assert not path.exists()


def test_generated_columns_stay_the_destinations(execute: Execute, path: Path, tmp_path: Path) -> None:
    execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n INT, twice INT AS (2 * n)); INSERT INTO t VALUES (1, 2)")
    other = tmp_path / "other.db"
    execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n INT, twice INT AS (2 * n) STORED)", other)
    job = to(other, {"type": "sqlite", "path": str(path), "table": "t"})
    assert portl.migrate(job).rows_inserted == 1
    assert execute("SELECT * FROM t", other) == [(1, 2, 4)]


def test_keys_that_are_equal_and_not_the_same_become_the_sources(execute: Execute, path: Path) -> None:
    execute("CREATE TABLE t (k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, v TEXT); INSERT INTO t VALUES ('ABC', 'old')")
    memory.database("sqlite").create("s", [memory.column("k", "text"), memory.column("v", "text")], key=["k"])
    memory.database("sqlite").insert("s", [("abc", "new")])
    job = to(path, {"type": "memory", "database": "sqlite", "table": "s"}, conflict="overwrite")
    assert portl.migrate(job).rows_updated == 1
    assert execute("SELECT * FROM t") == [("abc", "new")]
    assert portl.migrate(job).rows_unchanged == 1


def test_of_two_rows_with_one_key_the_later_wins(execute: Execute, path: Path) -> None:
    execute("CREATE TABLE t (k INT PRIMARY KEY, v TEXT) STRICT; INSERT INTO t VALUES (1, 'old')")
    store = memory.database("sqlite")
    store.create("s", [memory.column("k", "int"), memory.column("v", "text")])
    store.insert("s", [(1, "a"), (2, "b"), (1, "c"), (2, "d"), (2, "d")])
    job = to(
        path, {"type": "memory", "database": "sqlite", "table": "s"}, conflict={"strategy": "overwrite", "key": ["k"]}
    )
    result = portl.migrate(job)
    assert (result.rows_inserted, result.rows_updated, result.rows_unchanged) == (1, 3, 1)
    assert execute("SELECT * FROM t ORDER BY k") == [(1, "c"), (2, "d")]


def test_decimals_in_a_table_that_is_not_strict_are_warned_of(execute: Execute, path: Path) -> None:
    execute("CREATE TABLE t (n DECIMAL(12, 2))")
    store = memory.database("sqlite")
    store.create("s", [memory.column("n", portl.Type.parse("decimal(12, 2)"))])
    plan = portl.plan(to(path, {"type": "memory", "database": "sqlite", "table": "s"}, conflict="fail"))
    assert any("numbers become floats of 15 digits" in str(found) for found in plan.warnings)


def test_nan_is_refused_and_can_be_quarantined(execute: Execute, path: Path) -> None:
    store = memory.database("sqlite")
    store.create("s", [memory.column("id", "int"), memory.column("d", "double")], key=["id"])
    store.insert("s", [(1, 0.5), (2, float("nan")), (3, float("inf"))])
    job = to(path, {"type": "memory", "database": "sqlite", "table": "s"}, on_error="quarantine")
    result = portl.migrate(job)
    assert (result.rows_inserted, result.rows_rejected) == (2, 1)
    assert "has no NaN" in execute("SELECT reason FROM t__rejected")[0][0]
    assert execute("SELECT id, d FROM t") == [(1, 0.5), (3, float("inf"))]


def test_columns_are_added_and_read_back_by_their_types(execute: Execute, path: Path) -> None:
    store = memory.database("sqlite")
    columns = [memory.column("id", "int"), memory.column("u", "uuid"), memory.column("at", "timestamptz")]
    store.create("s", columns[:2], key=["id"])
    job = to(path, {"type": "memory", "database": "sqlite", "table": "s"})
    portl.migrate(job)
    store.create(
        "s", [memory.column("id", "int"), memory.column("u", "uuid"), memory.column("at", "timestamptz")], key=["id"]
    )
    at = dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    store.insert("s", [(1, None, at)])
    job["destination"]["add_columns"] = True
    portl.migrate(job)
    assert execute("SELECT * FROM t") == [(1, None, "2024-01-01 00:00:00+02:00")]
    described = portl.plan({"source": {"type": "sqlite", "path": str(path), "table": "t"}, "destination": NOWHERE})
    assert [str(field.source.type) for field in described.tables[0].fields] == ["int", "uuid", "timestamptz"]


def test_a_folder_that_is_missing_and_a_file_that_is_none_are_told(tmp_path: Path, copied: Any, path: Path) -> None:
    source = {"type": "memory", "database": "sqlite", "table": "s"}
    memory.database("sqlite").create("s", [memory.column("id", "int")], key=["id"])
    with pytest.raises(portl.SchemaError, match="there is no folder"):
        portl.migrate(to(tmp_path / "nowhere" / "x.db", source))
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(portl.Error, match="file is not a database"):
        copied()
    with pytest.raises(portl.OperationError, match="a lock cannot be created beside it"):
        JobLock(path / "below").acquire("x")


def test_a_job_that_runs_is_not_run_twice(execute: Execute, path: Path) -> None:
    store = memory.database("sqlite")
    store.create("s", [memory.column("id", "int")], key=["id"])
    store.insert("s", [(1,)])
    job = to(path, {"type": "memory", "database": "sqlite", "table": "s"})
    seen: list[str] = []

    def second(event: portl.Event) -> None:
        if isinstance(event, portl.TableStarted):
            with pytest.raises(portl.AlreadyRunning, match="process"):
                portl.migrate(job)
            seen.append("refused")

    portl.migrate(job, observers=[second])
    assert seen == ["refused"]
    assert [found.name for found in path.parent.iterdir()] == [path.name], "no lock stays"
    lock = JobLock(path)
    lock.acquire("x")
    assert JobLock(path).held("x")
    lock.release("x")
    assert not JobLock(path).held("x")
