"""``mode: mirror``: afterwards the destination holds exactly the source's rows, and what was equal was not touched."""

from __future__ import annotations

from typing import Any

import pytest

import portl
from tests.servers import Db

HOSTILE = "o\"r; DROP TABLE t --' %s"


def job(source: Db, target: Db, table: str = "t", **keys: Any) -> dict[str, Any]:
    """Return a job from table to table; ``src`` and ``dst`` add keys to the sides."""
    src, dst = keys.pop("src", {}), keys.pop("dst", {})
    return {
        "source": source.end(**{"table": table, **src}),
        "destination": target.end(**{"table": table, **dst}),
        "mode": "mirror",
        **keys,
    }


def users(db: Db, rows: int = 1000) -> None:
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, name text, at timestamptz, n numeric);"
        "INSERT INTO t SELECT g, CASE WHEN g % 7 > 0 THEN 'user ' || g END, '2024-01-01 00:00+00'::timestamptz"
        f" + g * interval '1 hour', g FROM generate_series(1, {rows}) AS g"
    )


def held(db: Db, table: str = "t") -> list[Any]:
    return db.execute(f"SELECT t::text FROM {table} AS t ORDER BY 1")


def versions(db: Db, table: str = "t") -> list[Any]:
    """Return what changes with each write of a row."""
    return db.execute(f"SELECT ctid::text, xmin::text FROM {table} ORDER BY ctid")


def counts(result: portl.Result) -> tuple[int, int, int, int]:
    return result.rows_inserted, result.rows_updated, result.rows_deleted, result.rows_unchanged


def test_only_what_differs_moves_and_nothing_else_is_touched(source: Db, destination: Db) -> None:
    users(source)
    users(destination)
    source.execute("UPDATE t SET name = 'new' WHERE id % 100 = 0; DELETE FROM t WHERE id IN (7, 500);")
    source.execute("INSERT INTO t VALUES (2000, NULL, NULL, NULL), (2001, '', 'infinity', 'NaN')")
    before = dict(destination.execute("SELECT id, xmin::text FROM t"))
    result = portl.migrate(job(source, destination))
    assert counts(result) == (2, 9, 2, 989)
    assert result.to_dict()["rows_deleted"] == result.tables[0].rows_deleted == 2
    assert held(source) == held(destination)
    same = destination.execute("SELECT id, xmin::text FROM t WHERE id % 100 > 0 AND id < 2000")
    assert all(before[id] == xmin for id, xmin in same)


def test_equal_tables_move_nothing(source: Db, destination: Db) -> None:
    users(source)
    users(destination)
    before = versions(destination)
    seen: list[portl.Event] = []
    result = portl.migrate(job(source, destination), observers=[seen.append])
    assert counts(result) == (0, 0, 0, 1000)
    assert (result.rows_read, result.bytes) == (0, 0)
    assert versions(destination) == before
    (compared,) = (event for event in seen if isinstance(event, portl.Compared))
    assert (compared.rows_source, compared.rows_destination, compared.rows_to_fetch) == (1000, 1000, 0)


def test_a_table_that_is_missing_is_created_and_mirrored_from_then_on(source: Db, destination: Db) -> None:
    users(source)
    config = job(source, destination)
    assert counts(portl.migrate(config)) == (1000, 0, 0, 0)
    source.execute("DELETE FROM t WHERE id > 990; UPDATE t SET n = n + 1 WHERE id = 1")
    assert counts(portl.migrate(config)) == (0, 1, 10, 989)
    assert held(source) == held(destination)


def test_both_ways_of_empty(source: Db, destination: Db) -> None:
    users(source)
    users(destination, 0)
    config = job(source, destination, mirror={"max_deletes": "100%"})
    assert counts(portl.migrate(config)) == (1000, 0, 0, 0)
    assert held(source) == held(destination)
    source.execute("DELETE FROM t")
    assert counts(portl.migrate(config)) == (0, 0, 1000, 0)
    assert counts(portl.migrate(config)) == (0, 0, 0, 0)


@pytest.mark.parametrize(("limit", "refused"), [("20%", True), ("30%", False), (299, True), (300, False)])
def test_max_deletes_is_checked_before_anything_is_changed(
    source: Db, destination: Db, limit: str | int, refused: bool
) -> None:
    users(source)
    users(destination)
    source.execute("DELETE FROM t WHERE id > 700; UPDATE t SET name = 'new' WHERE id = 1")
    before = versions(destination)
    config = job(source, destination, mirror={"max_deletes": limit})
    if not refused:
        assert counts(portl.migrate(config)) == (0, 1, 300, 699)
        return
    with pytest.raises(portl.OperationError, match="300 of its 1,000 rows are not at the source") as raised:
        portl.migrate(config)
    assert f"`mirror.max_deletes` allows {limit}: nothing was changed" in raised.value.message
    assert versions(destination) == before


def test_keep_leaves_rows_that_the_source_does_not_have(source: Db, destination: Db) -> None:
    users(source, 10)
    users(destination, 20)
    source.execute("UPDATE t SET n = 0 WHERE id = 1")
    assert counts(portl.migrate(job(source, destination, mirror={"deletes": "keep"}))) == (0, 1, 0, 9)
    assert destination.value("SELECT count(*) FROM t") == 20


def test_hostile_names_composite_keys_and_every_null(source: Db, destination: Db) -> None:
    quoted = '"' + HOSTILE.replace('"', '""') + '"'
    for db in (source, destination):
        db.execute(
            f'CREATE TABLE {quoted} ({quoted} text, "Key" date, v json, PRIMARY KEY ({quoted}, "Key"));'
            f"INSERT INTO {quoted} SELECT 'k' || g, '2024-01-01', NULL FROM generate_series(1, 50) AS g"
        )
    source.execute(f"DELETE FROM {quoted} WHERE {quoted} = 'k7'; UPDATE {quoted} SET v = '[1]' WHERE {quoted} = 'k8'")
    assert counts(portl.migrate(job(source, destination, HOSTILE))) == (0, 1, 1, 48)
    assert held(source, quoted) == held(destination, quoted)


@pytest.mark.parametrize(
    ("type", "there", "sent"),
    [("numeric", "1.0", "1.00"), ("float8", "'0'", "'-0'"), ("citext", "'a'", "'A'")],
)
def test_a_key_that_is_equal_and_not_the_same_becomes_the_sources(
    source: Db, destination: Db, type: str, there: str, sent: str
) -> None:
    for db, value in ((source, sent), (destination, there)):
        db.execute("CREATE EXTENSION IF NOT EXISTS citext")
        db.execute(f"CREATE TABLE t (k {type} PRIMARY KEY, v int); INSERT INTO t VALUES ({value}, 1)")
    assert counts(portl.migrate(job(source, destination, mirror={"max_deletes": "100%"})))[:3] == (0, 1, 0)
    assert held(source) == held(destination)


def test_the_plan_says_what_becomes_of_the_destinations_rows(source: Db, destination: Db) -> None:
    users(source, 5)
    users(destination, 5)
    text = str(portl.plan(job(source, destination)))
    assert "becomes a mirror of" in text
    assert "rows that differ are overwritten, rows that the source does not have are deleted" in " ".join(text.split())


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"src": {"limit": 3}}, "source.limit"),
        ({"conflict": "skip"}, "conflict"),
        ({"mirror": {"deletes": "soft", "column": "nope"}}, "mirror.column"),
        ({"mirror": {"deletes": "soft", "column": "name"}}, "mirror.column"),
    ],
)
def test_what_is_no_mirror_is_refused_by_the_plan(source: Db, destination: Db, keys: Any, where: str) -> None:
    users(source, 5)
    users(destination, 5)
    assert [finding.where for finding in portl.plan(job(source, destination, **keys)).problems] == [where]


@pytest.mark.parametrize("type", ["timestamptz", "boolean"])
def test_soft_marks_rows_and_clears_the_mark_when_they_are_back(source: Db, destination: Db, type: str) -> None:
    users(source)
    users(destination)
    destination.execute(f"ALTER TABLE t ADD COLUMN gone {type}")
    source.execute("DELETE FROM t WHERE id IN (3, 4)")
    config = job(source, destination, mirror={"deletes": "soft", "column": "gone", "max_deletes": 2})
    assert counts(portl.migrate(config)) == (0, 0, 2, 998)
    marked = "SELECT id FROM t WHERE gone IS NOT NULL AND gone::text <> 'false' ORDER BY id"
    assert destination.execute(marked) == [(3,), (4,)]
    before = versions(destination)
    assert counts(portl.migrate(config)) == (0, 0, 0, 998)
    assert versions(destination) == before
    source.execute("INSERT INTO t VALUES (3, 'back', NULL, NULL), (4, 'user 4', '2024-01-01 04:00+00', 4)")
    portl.migrate(config)
    assert destination.execute(marked) == []
    left = destination.execute("SELECT id, name, at, n FROM t ORDER BY id")
    assert left == source.execute("SELECT id, name, at, n FROM t ORDER BY id")


def test_a_table_without_a_key_is_mirrored_as_a_multiset(source: Db, destination: Db) -> None:
    for db in (source, destination):
        db.execute("CREATE TABLE t AS SELECT g % 10 AS a, NULL::text AS b FROM generate_series(1, 1000) AS g")
    source.execute("DELETE FROM t WHERE ctid IN (SELECT ctid FROM t WHERE a = 1 LIMIT 3); INSERT INTO t VALUES (2, '')")
    source.execute("INSERT INTO t SELECT 3 FROM generate_series(1, 5)")
    config = job(source, destination)
    assert counts(portl.migrate(config)) == (6, 0, 3, 997)
    assert held(source) == held(destination)
    assert counts(portl.migrate(config)) == (0, 0, 0, 1003)


@pytest.mark.parametrize("key", [True, False])
def test_a_query_has_no_places_and_is_mirrored_by_hashes(source: Db, destination: Db, key: bool) -> None:
    users(source)
    users(destination)
    if not key:
        destination.execute("ALTER TABLE t DROP CONSTRAINT t_pkey")
        destination.execute(
            "ALTER TABLE t ALTER id DROP NOT NULL; INSERT INTO t SELECT NULL FROM generate_series(1, 4)"
        )
    source.execute("DELETE FROM t WHERE id = 5; UPDATE t SET name = 'x' WHERE id IN (1, 900)")
    query = (
        "SELECT * FROM t"
        if key
        else "SELECT * FROM t UNION ALL SELECT NULL, NULL, NULL, NULL FROM generate_series(1, 6)"
    )
    config = job(source, destination, src={"table": None, "query": query})
    config["source"] = {name: value for name, value in config["source"].items() if value is not None}
    portl.migrate(config)
    assert held(destination) == source.execute(f"SELECT t::text FROM ({query}) AS t ORDER BY 1")
    before = versions(destination)
    portl.migrate(config)
    assert versions(destination) == before


def test_where_limits_the_mirror_to_a_part_of_the_destination(source: Db, destination: Db) -> None:
    users(source)
    users(destination)
    destination.execute("ALTER TABLE t RENAME n TO number")
    source.execute("UPDATE t SET name = 'new' WHERE id IN (10, 900); DELETE FROM t WHERE id IN (11, 901)")
    config = job(source, destination, src={"where": "t.n < 500"}, schema_mapping={"n": "number"})
    assert counts(portl.migrate(config)) == (0, 1, 1, 497)
    outside = "SELECT name FROM t WHERE id IN (900, 901) ORDER BY id"
    assert destination.execute(outside) == [("user 900",), ("user 901",)]
    source.execute("ALTER TABLE t ADD extra int")
    config["source"] |= {"where": "extra > 1", "exclude_columns": ["extra"]}
    assert [found.where for found in portl.plan(config).problems] == ["source.where"]


def test_partitions_are_found_by_place(source: Db, destination: Db) -> None:
    for db in (source, destination):
        db.execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);"
            "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (400);"
            "CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (400) TO (5000);"
            "INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 1000) AS g"
        )
    source.execute(
        "DELETE FROM t WHERE id IN (1, 401); UPDATE t SET v = 'x' WHERE id IN (5, 500); INSERT INTO t VALUES (0)"
    )
    config = job(source, destination)
    assert counts(portl.migrate(config)) == (1, 2, 2, 996)
    assert held(source) == held(destination)
    assert counts(portl.migrate(config)) == (0, 0, 0, 999)


def test_a_foreign_key_to_a_row_that_is_to_be_deleted_names_the_table(source: Db, destination: Db) -> None:
    users(source)
    users(destination)
    destination.execute("CREATE TABLE orders (user_id int REFERENCES t); INSERT INTO orders VALUES (5)")
    source.execute("DELETE FROM t WHERE id = 5")
    with pytest.raises(portl.DataError, match="orders") as raised:
        portl.migrate(job(source, destination))
    assert "rows of orders refer to rows that the source does not have" in (raised.value.hint or "")
    assert destination.value("SELECT count(*) FROM t") == 1000


def test_a_unique_value_passes_from_a_deleted_row_to_a_new_one(source: Db, destination: Db) -> None:
    for db in (source, destination):
        db.execute("CREATE TABLE t (id int PRIMARY KEY, mail text UNIQUE); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    source.execute("DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (3, 'a')")
    result = portl.migrate(job(source, destination, mirror={"max_deletes": 1}))
    assert counts(result) == (1, 0, 1, 1)
    assert held(source) == held(destination)


def test_rows_that_refer_to_each_other_are_moved_before_others_are_removed(source: Db, destination: Db) -> None:
    for db in (source, destination):
        db.execute("CREATE TABLE t (id int PRIMARY KEY, boss int REFERENCES t); INSERT INTO t VALUES (1), (2), (3)")
        db.execute("UPDATE t SET boss = 1 WHERE id > 1")
    source.execute("INSERT INTO t VALUES (4); UPDATE t SET boss = 4 WHERE id IN (2, 3); DELETE FROM t WHERE id = 1")
    assert counts(portl.migrate(job(source, destination, mirror={"max_deletes": "50%"}))) == (1, 2, 1, 0)
    assert held(source) == held(destination)


def test_two_rows_of_the_source_with_one_key_are_refused(source: Db, destination: Db) -> None:
    users(destination, 5)
    source.execute("CREATE TABLE t (id int, name text, at timestamptz, n numeric); INSERT INTO t VALUES (1), (1), (2)")
    before = versions(destination)
    with pytest.raises(portl.OperationError, match=r"1 row share \(id\) with another row"):
        portl.migrate(job(source, destination))
    assert versions(destination) == before


def test_a_row_that_is_refused_is_quarantined_once_however_often_the_job_runs(source: Db, destination: Db) -> None:
    users(source)
    users(destination)
    destination.execute("ALTER TABLE t ADD CHECK (n < 5000)")
    source.execute(
        "UPDATE t SET n = 9999 WHERE id IN (1, 2); UPDATE t SET n = 7 WHERE id = 3; DELETE FROM t WHERE id = 4"
    )
    config = job(source, destination, on_error="quarantine")
    result = portl.migrate(config)
    assert (result.rows_rejected, *counts(result)) == (2, 0, 1, 1, 996)
    assert portl.migrate(config).rows_rejected == 2
    assert destination.value("SELECT count(*) FROM t__rejected") == 2


def test_a_row_that_was_changed_meanwhile_is_not_deleted(source: Db, destination: Db) -> None:
    users(source)
    users(destination)
    source.execute("DELETE FROM t WHERE id IN (5, 6)")

    def change(event: portl.Event) -> None:
        if isinstance(event, portl.Compared):
            destination.execute("UPDATE t SET name = 'kept' WHERE id = 5")

    assert counts(portl.migrate(job(source, destination), observers=[change]))[2] == 1
    assert destination.execute("SELECT id, name FROM t WHERE id IN (5, 6)") == [(5, "kept")]


@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_lost_connection_is_followed_by_another_comparison(source: Db, destination: Db, side: str) -> None:
    users(source)
    users(destination)
    source.execute("UPDATE t SET name = 'new' WHERE id % 10 = 0; DELETE FROM t WHERE id % 50 = 1")
    seen: list[portl.Event] = []

    def cut(event: portl.Event) -> None:
        seen.append(event)
        lost = source if side == "source" else destination
        if isinstance(event, portl.Compared) and len([e for e in seen if isinstance(e, portl.Compared)]) == 1:
            lost.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'portl' AND datname = current_database() AND pid <> pg_backend_pid()"
            )

    config = job(source, destination, retry={"attempts": 5, "max_delay": 0.1}, chunk_rows=20)
    result = portl.migrate(config, observers=[cut])
    assert held(source) == held(destination)
    assert result.rows_updated + result.rows_deleted == 120
    assert len([event for event in seen if isinstance(event, portl.Compared)]) == 2
