"""GENERATED ALWAYS AS IDENTITY outside the key: overwritten where the role can, else counted and left out by verify."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import portl
from tests.postgres.destination.test_conflicts import counts, rows, run
from tests.servers import Db

TABLE = "CREATE TABLE t (u int PRIMARY KEY, seq bigint GENERATED ALWAYS AS IDENTITY{}, v text)"
INSERT = "INSERT INTO t (u, seq, v) OVERRIDING SYSTEM VALUE VALUES"
ROLE = "portl_lesser"


def tables(source: Db, destination: Db, unique: str = "") -> None:
    """Make both tables: one row is alike, one differs in its identity alone, one in everything, and one is new."""
    source.execute(f"{TABLE.format('')}; {INSERT} (1, 10, 'a'), (2, 20, 'b'), (3, 30, 'c'), (4, 40, 'd')")
    destination.execute(f"{TABLE.format(unique)}; {INSERT} (1, 10, 'a'), (2, 2, 'b'), (3, 3, 'x'), (9, 9, 'own')")


WANTED = [(1, 10, "a"), (2, 20, "b"), (3, 30, "c"), (4, 40, "d"), (9, 9, "own")]
KEPT = [(1, 10, "a"), (2, 2, "b"), (3, 3, "c"), (4, 40, "d"), (9, 9, "own")]
QUERY = "SELECT u, seq, v FROM t ORDER BY u"


def job(source: Db, destination: Db, **keys: Any) -> dict[str, Any]:
    return {"source": source.end(table="t"), "destination": destination.end(table="t"), **keys}


def generated(db: Db) -> str:
    return str(
        db.value("SELECT attidentity::text FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'seq'")
    )


@pytest.mark.parametrize("route", ["relay", "rows"])
def test_a_row_becomes_the_sources_its_identity_included(source: Db, destination: Db, route: str) -> None:
    tables(source, destination)
    plan = portl.plan(job(source, destination))
    assert (plan.problems, plan.warnings) == ((), ())
    assert [finding.message for finding in plan.tables[0].findings if "IDENTITY" in finding.message] == [
        "'seq' is GENERATED ALWAYS AS IDENTITY: to change it in an existing row, it is BY DEFAULT, and the table"
        " locked, until COMMIT"
    ]
    assert counts(run(source, destination, route=route)) == {"inserted": 1, "updated": 2, "unchanged": 1}
    assert rows(destination, QUERY) == WANTED
    assert generated(destination) == "a"
    for mode in ("checksum", "full"):
        assert portl.verify(job(source, destination), mode=mode).equal
    assert counts(run(source, destination, route=route)) == {"unchanged": 4}
    assert destination.value("INSERT INTO t (u) VALUES (5) RETURNING seq") == 41


def test_inside_one_database_the_identity_is_overwritten_too(destination: Db) -> None:
    destination.execute(f"{TABLE.format('')}; {INSERT} (2, 2, 'b')")
    destination.execute("CREATE TABLE s (u int PRIMARY KEY, seq bigint, v text); INSERT INTO s VALUES (2, 20, 'b')")
    result = run(destination, destination, reading={"table": "s"})
    assert (result.tables[0].route, counts(result)) == ("server", {"updated": 1})
    assert rows(destination, QUERY) == [(2, 20, "b")]


def test_a_table_whose_identities_are_the_sources_is_not_altered(
    source: Db, destination: Db, caplog: pytest.LogCaptureFixture
) -> None:
    tables(source, destination)
    destination.execute("UPDATE t SET v = 'y'; DELETE FROM t WHERE u IN (2, 3)")
    with caplog.at_level(logging.DEBUG, "portl.postgres.sql"):
        assert counts(run(source, destination)) == {"inserted": 3, "updated": 1}
    assert "SET GENERATED" not in caplog.text


def test_what_refers_to_the_row_and_what_nothing_fills_stays(source: Db, destination: Db) -> None:
    tables(source, destination)
    destination.execute("""
        ALTER TABLE t ADD other text DEFAULT 'mine';
        ALTER TABLE t ADD parent int DEFAULT 9 REFERENCES t DEFERRABLE INITIALLY DEFERRED;
        CREATE TABLE child (u int REFERENCES t ON DELETE CASCADE); INSERT INTO child VALUES (2), (3);
        CREATE TABLE log (what text);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO log VALUES (TG_OP || ' ' || coalesce(new.u, old.u)); RETURN new; END $$;
        CREATE TRIGGER f AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION f();
        UPDATE t SET other = 'kept' WHERE u = 2; TRUNCATE log;
    """)
    assert counts(run(source, destination)) == {"inserted": 1, "updated": 2, "unchanged": 1}
    assert rows(destination, QUERY) == WANTED
    assert rows(destination, "SELECT u, other, parent FROM t WHERE u IN (2, 4) ORDER BY u") == [
        (2, "kept", 9),
        (4, "mine", 9),
    ]
    assert rows(destination, "SELECT u FROM child ORDER BY u") == [(2,), (3,)]
    assert rows(destination, "SELECT what FROM log ORDER BY what") == [("INSERT 4",), ("UPDATE 2",), ("UPDATE 3",)]


def test_a_refused_row_leaves_the_column_as_it_was_and_the_others_go(source: Db, destination: Db) -> None:
    tables(source, destination)
    destination.execute("ALTER TABLE t ADD CHECK (v <> 'c')")
    result = run(source, destination, on_error="quarantine")
    assert counts(result) == {"inserted": 1, "updated": 1, "unchanged": 1, "rejected": 1}
    assert rows(destination, QUERY) == [(1, 10, "a"), (2, 20, "b"), (3, 3, "x"), (4, 40, "d"), (9, 9, "own")]
    assert generated(destination) == "a"


def test_of_source_rows_with_one_key_the_last_identity_stays(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (u int, seq bigint, v text); INSERT INTO t VALUES (1, 5, 'a'), (1, 6, 'b')")
    destination.execute(f"{TABLE.format('')}; {INSERT} (1, 1, 'z')")
    assert counts(run(source, destination)) == {"updated": 2}
    assert rows(destination, QUERY) == [(1, 6, "b")]
    assert portl.verify(job(source, destination)).equal


def test_chunks_take_the_lock_one_after_the_other(source: Db, destination: Db) -> None:
    tables(source, destination)
    source.execute(f"{INSERT.replace('VALUES', '')} SELECT g, g, 'x' FROM generate_series(10, 5000) AS g")
    destination.execute(f"{INSERT.replace('VALUES', '')} SELECT g, -g, 'x' FROM generate_series(10, 5000) AS g")
    result = run(source, destination, parallel=3, chunk_rows=1000)
    assert counts(result) == {"inserted": 1, "updated": 4993, "unchanged": 1}
    assert result.tables[0].chunks > 1
    assert portl.verify(job(source, destination)).equal
    task = portl.plan(job(source, destination, parallel=3, chunk_rows=1000)).tables[0]
    assert task.ordered == "the table is locked where the identity column 'seq' changes"


def test_a_partitioned_table_is_altered_with_its_partitions(source: Db, destination: Db) -> None:
    tables(source, destination)
    destination.execute("DROP TABLE t")
    destination.execute(TABLE.format("") + " PARTITION BY RANGE (u); CREATE TABLE t0 PARTITION OF t DEFAULT")
    destination.execute(f"{INSERT} (1, 10, 'a'), (2, 2, 'b'), (3, 3, 'x'), (9, 9, 'own')")
    assert counts(run(source, destination)) == {"inserted": 1, "updated": 2, "unchanged": 1}
    assert rows(destination, QUERY) == WANTED
    destination.execute("UPDATE t SET v = v; DELETE FROM t; INSERT INTO t (u) VALUES (2)")
    kept = portl.plan({**job(source, destination), "destination": destination.end(table="t0")}).warnings
    assert "'seq' is GENERATED ALWAYS AS IDENTITY, and the role does not own the table" in kept[0].message


@pytest.fixture
def lesser(destination: Db) -> Iterator[str]:
    """A role that may write to every table, and owns none."""
    destination.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'secret'; GRANT ALL ON SCHEMA public TO {ROLE}")
    yield ROLE
    destination.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


def check_kept(config: dict[str, Any], said: str, **keys: Any) -> None:
    """Check that identities of existing rows stay, and that plan, result and verify agree about it."""
    (warning,) = portl.plan(config, **keys).warnings
    assert warning.message == (
        f"'seq' is GENERATED ALWAYS AS IDENTITY, and {said}: new rows keep the source's value, existing ones their own"
    )
    assert warning.remedy == "make it GENERATED BY DEFAULT, or leave it out"
    result = portl.migrate(config, **keys)
    assert counts(result) == {"inserted": 1, "updated": 1, "unchanged": 2}
    assert result.rows_kept == result.to_dict()["rows_kept"] == result.tables[0].rows_kept == 2
    assert "2 that keep their own value" in result.summary()
    found = portl.verify(config, **keys)
    assert found.equal
    assert "not compared: seq, where rows that existed keep their own value" in found.tables[0].notes


def test_a_role_that_does_not_own_the_table_keeps_identities(source: Db, destination: Db, lesser: str) -> None:
    tables(source, destination)
    destination.execute(f"GRANT ALL ON t TO {lesser}")
    config = job(source, destination)
    config["destination"] |= {"username": lesser, "password": "secret"}
    check_kept(config, "the role does not own the table, or it is a partition")
    assert rows(destination, QUERY) == KEPT
    assert portl.migrate(config).rows_kept == 2
    destination.execute("UPDATE t SET v = 'other' WHERE u = 1; DELETE FROM t WHERE u = 4")
    repaired = portl.verify(config, repair=True)
    assert (repaired.equal, repaired.repaired) == (True, 2)


def test_a_unique_identity_is_kept(source: Db, destination: Db) -> None:
    tables(source, destination, " UNIQUE")
    said = "it is unique, so that another row may still have the value"
    check_kept(job(source, destination), said)
    assert rows(destination, QUERY) == KEPT


def test_inside_a_callers_transaction_identities_are_kept(source: Db, destination: Db) -> None:
    tables(source, destination)
    with psycopg.connect(destination.connection.info.dsn, password=destination.endpoint.password) as own:
        own.execute("SELECT 1")
        said = "altering it would lock the table until the caller's transaction ends"
        check_kept(job(source, destination, ledger={"mode": "off"}), said, destination=own)
        own.commit()
    assert rows(destination, QUERY) == KEPT


def test_what_an_interrupted_run_has_counted_is_part_of_the_result(source: Db, destination: Db) -> None:
    tables(source, destination, " UNIQUE")
    destination.execute("ALTER TABLE t ADD CONSTRAINT c CHECK (v <> 'c')")
    config = job(source, destination, batch_size=2)
    with pytest.raises(portl.DataError) as refused:
        portl.migrate(config)
    assert refused.value.committed is not None
    assert refused.value.committed.rows_kept == 1
    destination.execute("ALTER TABLE t DROP CONSTRAINT c")
    assert portl.migrate(config).rows_kept == 2


@pytest.mark.parametrize("conflict", ["skip", "merge", {"strategy": "merge", "newest_by": "seq"}])
def test_other_strategies_leave_the_identity_alone(source: Db, destination: Db, conflict: object) -> None:
    tables(source, destination)
    assert run(source, destination, conflict).rows_kept == 0
    assert [seq for _, seq, _ in rows(destination, QUERY)] == [10, 2, 3, 40, 9]
    assert portl.verify(job(source, destination, conflict=conflict)).equal
