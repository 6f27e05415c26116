"""``mode: replace``: exactly the source's rows, in one transaction, in the same table."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import portl
from tests.killing import Victim
from tests.modes.test_mirror import counts, held, users, versions
from tests.modes.test_mirror import job as mirror_job
from tests.servers import Db


def job(source: Db, target: Db, table: str = "t", **keys: Any) -> dict[str, Any]:
    return mirror_job(source, target, table, **{"mode": "replace", **keys})


def apart(source: Db, destination: Db) -> None:
    """Let nine rows in ten be others."""
    users(source)
    users(destination)
    source.execute("UPDATE t SET name = 'new ' || id WHERE id > 100; UPDATE t SET id = id + 5000 WHERE id > 500")


def test_readers_see_the_old_rows_until_the_new_ones_are_there(source: Db, destination: Db) -> None:
    apart(source, destination)
    old, new, seen = held(destination), held(source), []
    with psycopg.connect(**destination_of(destination)) as older:
        older.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        older.execute("SELECT 1")

        def look(event: portl.Event) -> None:
            seen.append((type(event).__name__, held(destination)))

        result = portl.migrate(job(source, destination, chunk_rows=100), observers=[look])
        assert older.execute("SELECT t::text FROM t ORDER BY 1").fetchall() == old
    assert counts(result) == (500, 400, 500, 100)
    assert held(destination) == new
    assert all(rows == old for name, rows in seen if name not in ("TableDone", "Done"))
    assert {name for name, rows in seen if rows == old} >= {"Compared", "BatchCommitted"}


def destination_of(db: Db) -> dict[str, Any]:
    return {
        "host": db.endpoint.host,
        "port": db.endpoint.port,
        "dbname": db.connection.info.dbname,
        "user": db.endpoint.user,
        "password": db.endpoint.password,
    }


def test_the_table_stays_the_same_with_all_that_belongs_to_it(source: Db, destination: Db) -> None:
    apart(source, destination)
    destination.execute(
        "CREATE VIEW v AS SELECT id FROM t; CREATE TABLE orders (u int REFERENCES t); INSERT INTO orders VALUES (7);"
        "GRANT SELECT ON t TO PUBLIC; ALTER TABLE t ALTER n SET STATISTICS 7; CREATE STATISTICS s ON id, n FROM t;"
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f();"
        "CREATE POLICY p ON t USING (true)"
    )
    about = (
        "SELECT c.oid, c.relacl::text,"
        " (SELECT attstattarget FROM pg_attribute WHERE attrelid = c.oid AND attname = 'n'),"
        " (SELECT count(*) FROM pg_trigger WHERE tgrelid = c.oid),"
        " (SELECT count(*) FROM pg_policy WHERE polrelid = c.oid),"
        " (SELECT count(*) FROM pg_statistic_ext WHERE stxrelid = c.oid), 'v'::regclass::oid"
        " FROM pg_class AS c WHERE oid = 't'::regclass"
    )
    before = destination.execute(about)
    portl.migrate(job(source, destination))
    assert held(source) == held(destination)
    assert destination.execute(about) == before
    assert destination.value("SELECT count(*) FROM v") == 1000


def test_a_table_without_a_key_and_a_second_time(source: Db, destination: Db) -> None:
    for db in (source, destination):
        db.execute("CREATE TABLE t AS SELECT g % 10 AS a, '{}'::json AS b FROM generate_series(1, 1000) AS g")
    source.execute("UPDATE t SET b = '[]' WHERE a > 2")
    config = job(source, destination)
    assert counts(portl.migrate(config)) == (700, 0, 700, 300)
    assert held(source) == held(destination)
    before = versions(destination)
    assert counts(portl.migrate(config)) == (0, 0, 0, 1000)
    assert versions(destination) == before


def test_everything_may_go_and_a_missing_table_comes(source: Db, destination: Db) -> None:
    users(source)
    config = job(source, destination)
    assert counts(portl.migrate(config)) == (1000, 0, 0, 0)
    source.execute("DELETE FROM t")
    assert counts(portl.migrate(config)) == (0, 0, 1000, 0)
    source.execute("INSERT INTO t VALUES (1)")
    assert counts(portl.migrate(config)) == (1, 0, 0, 0)
    assert held(source) == held(destination)


def test_what_is_referred_to_is_not_deleted_and_nothing_is_changed(source: Db, destination: Db) -> None:
    apart(source, destination)
    destination.execute("CREATE TABLE orders (user_id int REFERENCES t); INSERT INTO orders VALUES (900)")
    before = versions(destination)
    with pytest.raises(portl.DataError) as raised:
        portl.migrate(job(source, destination))
    assert "rows of orders refer to rows that the source does not have" in (raised.value.hint or "")
    assert versions(destination) == before


def test_a_unique_value_passes_to_another_row(source: Db, destination: Db) -> None:
    for db in (source, destination):
        db.execute("CREATE TABLE t (id int PRIMARY KEY, mail text UNIQUE); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    source.execute("DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (3, 'a')")
    assert counts(portl.migrate(job(source, destination))) == (1, 0, 1, 1)
    assert held(source) == held(destination)


def test_a_crash_leaves_the_old_rows(source: Db, destination: Db, victim: Victim) -> None:
    apart(source, destination)
    old = versions(destination)
    config = job(source, destination, chunk_rows=100)
    whole: dict[str, Any] = {}
    for name in ("first", "whole"):  # the first run of all makes the ledger's tables
        destination.execute(f"CREATE TABLE {name} (LIKE t INCLUDING ALL); INSERT INTO {name} TABLE t")
        whole = victim.run({**config, "destination": {**config["destination"], "table": name}})
        assert whole["error"] is None
    for statement in range(whole["statements"] - 3, 20, -7):
        assert victim.run(config, statement=statement)["killed"]
        assert versions(destination) in (old, versions(destination, "whole")) or held(destination) == held(source)
        if versions(destination) != old:
            break
    assert portl.migrate(config).rows_rejected == 0
    assert held(source) == held(destination)


def test_the_plan_says_how(source: Db, destination: Db) -> None:
    users(source, 5)
    users(destination, 5)
    destination.execute("CREATE TABLE child (id int REFERENCES t ON DELETE CASCADE)")
    text = " ".join(str(portl.plan(job(source, destination))).split())
    assert "one transaction for everything: readers see the old rows until it commits" in text
    assert "readers are not locked out, and see the old rows until it commits" in text
    assert "rows of public.child that refer to a deleted row are deleted, too (ON DELETE CASCADE)" in text
