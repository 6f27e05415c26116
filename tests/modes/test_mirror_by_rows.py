"""Mirrors between connectors whose servers have no digest in common: rows are read and compared by the core."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest

import portl
from portl.testing import memory
from portl.testing.values import VALUES
from tests import tiny
from tests.servers import Db

KEY = [memory.column("id", "int", nullable=False), memory.column("v", "text")]


@pytest.fixture(autouse=True)
def shop() -> Any:
    memory.forget()
    yield memory.database("shop")
    memory.forget()


def job(source: dict[str, Any], destination: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"source": source, "destination": destination, "mode": "mirror", **keys}


def in_memory(name: str = "shop") -> dict[str, Any]:
    return {"type": "memory", "database": name, "table": "t"}


def counts(result: portl.Result) -> tuple[int, int, int, int]:
    return result.rows_inserted, result.rows_updated, result.rows_deleted, result.rows_unchanged


@pytest.mark.parametrize("mode", ["mirror", "replace"])
def test_a_table_is_mirrored_from_postgres_into_memory(source: Db, mode: str) -> None:
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, g FROM generate_series(1, 500) g"
    )
    config = job(source.end(table="t"), in_memory(), mode=mode)
    assert counts(portl.migrate(config)) == (500, 0, 0, 0)
    source.execute("UPDATE t SET v = NULL WHERE id = 3; DELETE FROM t WHERE id = 4; INSERT INTO t VALUES (501, '')")
    assert counts(portl.migrate(config)) == (1, 1, 1, 498)
    assert sorted(memory.database("shop").rows("t")) == source.execute("SELECT * FROM t ORDER BY id")


def test_keys_of_several_columns_and_types_are_deleted_in_postgres(shop: memory.Database, destination: Db) -> None:
    kinds = [type for type in VALUES if str(type) not in ("json",) and type.kind is not portl.Kind.ARRAY]
    columns = [memory.column(f"k{n}", type, nullable=False) for n, type in enumerate(kinds)]
    size = max(len(VALUES[type]) for type in kinds)
    rows = [tuple(VALUES[type][n % len(VALUES[type])] for type in kinds) for n in range(size)]
    shop.create("t", [KEY[0], *columns], key=["id", *(column.name for column in columns)])
    shop.insert("t", [(n, *row) for n, row in enumerate(rows)])
    config = job(in_memory(), destination.end(table="t"), mirror={"max_deletes": "100%"})
    assert portl.migrate(config).rows_inserted == size
    assert portl.migrate(config).rows_unchanged == size
    shop.delete("t", lambda row: row[0] % 2 == 0)
    assert counts(portl.migrate(config)) == (0, 0, (size + 1) // 2, size // 2)
    shop.delete("t")
    assert portl.migrate(config).rows_deleted == size // 2
    assert destination.value("SELECT count(*) FROM t") == 0


def test_a_key_that_is_equal_and_not_the_same_is_overwritten_not_deleted(
    shop: memory.Database, destination: Db
) -> None:
    shop.create("t", [memory.column("n", "decimal", nullable=False), KEY[1]], key=["n"])
    shop.insert("t", [(Decimal("1.0"), "a"), (Decimal("2.50"), "b")])
    destination.execute("CREATE TABLE t (n numeric PRIMARY KEY, v text); INSERT INTO t VALUES (1.00, 'a'), (3, 'c')")
    config = job(in_memory(), destination.end(table="t"), mirror={"max_deletes": 1})
    portl.migrate(config)
    assert destination.execute("SELECT n::text, v FROM t ORDER BY n") == [("1.0", "a"), ("2.50", "b")]
    assert counts(portl.migrate(config)) == (0, 0, 0, 2)


def test_many_rows_are_fetched_in_batches_and_removed_in_parts(shop: memory.Database, destination: Db) -> None:
    shop.create("t", KEY, key=["id"])
    shop.insert("t", [(n, "new") for n in range(500, 3000)])
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)")
    destination.execute("CREATE TABLE p PARTITION OF t FOR VALUES FROM (0) TO (250)")
    destination.execute("CREATE TABLE q PARTITION OF t DEFAULT")
    destination.execute("INSERT INTO t SELECT g, 'old' FROM generate_series(1, 2000) AS g")
    config = job(in_memory(), destination.end(table="t"), mirror={"max_deletes": "50%"}, chunk_rows=100, batch_size=70)
    assert counts(portl.migrate(config)) == (999, 1501, 499, 0)
    assert destination.execute("SELECT min(id), max(id), count(*), min(v) FROM t") == [(500, 2999, 2500, "new")]
    assert portl.verify(config).equal


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"mirror": {"deletes": "soft", "column": "gone"}}, "mirror.deletes"),
        ({"where": "id > 3"}, "source.where"),
        ({"key": False}, "mode"),
    ],
)
def test_what_rows_cannot_tell_is_refused_by_the_plan(source: Db, keys: dict[str, Any], where: str) -> None:
    key = "" if "key" in keys else " PRIMARY KEY"
    source.execute(f"CREATE TABLE t (id int{key}, v text)")
    memory.database("shop").create("t", [*KEY, memory.column("gone", "timestamp")], key=() if "key" in keys else ["id"])
    reading = {"where": keys.pop("where")} if "where" in keys else {}
    keys.pop("key", None)
    plan = portl.plan(job(source.end(table="t", **reading), in_memory(), **keys))
    assert [problem.where for problem in plan.problems] == [where], plan.problems
    assert "the servers have no digest in common" in str(plan)


@pytest.mark.usefixtures("tiny")
def test_a_source_that_can_do_no_more_than_yield_its_rows_is_mirrored(destination: Db) -> None:
    tiny.STORE["a"] = tiny.some(50)
    config = tiny.job(destination=destination.end(table="t"), mode="mirror", conflict="overwrite")
    assert counts(portl.migrate(config)) == (50, 0, 0, 0)
    tiny.STORE["a"] = [(1, "changed", None), *tiny.some(51)[3:]]
    assert counts(portl.migrate(config)) == (1, 1, 2, 47)
    assert destination.execute("SELECT * FROM t ORDER BY id") == tiny.STORE["a"]
    problems = [problem.message for problem in portl.plan(tiny.job(mode="mirror", conflict="overwrite")).problems]
    assert any("have no kind of digest in common" in message for message in problems), problems
    increments = {"mode": "incremental", "incremental": {"cursor": "id"}, "name": "since", "conflict": "overwrite"}
    (problem,) = portl.plan(tiny.job(destination=destination.end(table="t"), **increments)).problems
    assert "cannot tell what has changed" in problem.message


def test_an_incremental_run_in_memory_misses_no_row(shop: memory.Database) -> None:
    shop.create("t", [*KEY, memory.column("at", "timestamp")], key=["id"])
    day = dt.datetime(2024, 1, 2)
    shop.insert("t", [(1, "a", day), (2, "b", None)])
    config = job(in_memory(), in_memory("copy"), mode="incremental", incremental={"cursor": "at"})
    assert [problem.where for problem in portl.plan(config).problems] == ["incremental.nulls"]
    for nulls, read in (("exclude", 1), ("include", 2)):
        config = {**config, "incremental": {"cursor": "at", "nulls": nulls}, "name": nulls}
        assert portl.migrate(config).rows_read == read
    shop.insert("t", [(3, "late", day - dt.timedelta(days=1))])
    assert portl.migrate(config).rows_read == 2  # and the one whose cursor is NULL
    assert portl.verify(config).equal
    shop.create("t", [*KEY, memory.column("at", "timestamp")], key=["id"])
    assert "--full-refresh" in str(portl.plan(config).problems[0])
