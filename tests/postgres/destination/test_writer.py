"""What a writer of PostgreSQL's does within a transaction: counting, undoing parts, noticing altered tables."""

from __future__ import annotations

import logging

import psycopg
import pytest

import portl
from portl import Counts
from tests.servers import Db
from tests.sessions import writing


def tables(source: Db, destination: Db, columns: str, there: str | None = None) -> None:
    source.execute(f"CREATE TABLE t ({columns})")
    destination.execute(f"CREATE TABLE t ({there or columns})")


def test_each_check_counts_what_came_since_the_last_and_commit_the_rest(source: Db, destination: Db) -> None:
    tables(source, destination, "id int PRIMARY KEY, a int")
    source.execute("INSERT INTO t SELECT g, g FROM generate_series(1, 30) AS g")
    destination.execute("INSERT INTO t VALUES (1, 1), (2, 0), (15, 0)")
    with writing(source, destination) as (writer, batches):
        writer.begin()
        writer.write(batches[0])
        assert writer.check() == Counts(inserted=8, updated=1, unchanged=1)
        assert writer.check() == Counts()
        writer.write(batches[1])
        assert writer.check() == Counts(inserted=9, updated=1)
        writer.write(batches[2])
        assert writer.commit() == Counts(inserted=10)
    assert destination.value("SELECT sum(a) FROM t") == 465


@pytest.mark.parametrize("strategy", ["fail", "overwrite", "skip", "merge"])
def test_hundreds_of_parts_can_be_undone_in_one_transaction(source: Db, destination: Db, strategy: str) -> None:
    tables(source, destination, "id int, a int", "id int PRIMARY KEY, a int CHECK (a % 3 > 0)")
    source.execute("INSERT INTO t SELECT g, g FROM generate_series(1, 600) AS g")
    if strategy != "fail":
        destination.execute("INSERT INTO t VALUES (1, 1)")  # so that rows go through the staging table
    refused, counts = 0, Counts()
    with writing(source, destination, batch_rows=1, conflict=strategy) as (writer, batches):
        writer.begin()
        writer.save()
        for batch in batches:
            try:
                writer.write(batch)
                counts += writer.check()
            except portl.DataError as error:
                refused += error.constraint == "t_a_check"
                writer.restore()
            else:
                writer.save()
        writer.release()
        assert writer.commit() == Counts()
    assert refused == 200
    assert counts.inserted + counts.unchanged + counts.skipped == 400
    assert destination.execute("SELECT count(*), sum(id), min(a % 3) FROM t") == [(400, 120000, 1)]


def test_what_is_open_when_a_part_is_undone_goes_with_it(source: Db, destination: Db) -> None:
    tables(source, destination, "id int PRIMARY KEY, a text")
    source.execute("INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 300) AS g")
    with writing(source, destination, batch_rows=100, conflict="fail") as (writer, batches):
        writer.begin()
        writer.write(batches[0])
        writer.check()
        writer.save()
        writer.write(batches[1])
        writer.restore()  # the COPY has not ended
        writer.write(batches[2])
        assert writer.commit() == Counts(inserted=100)
    assert destination.value("SELECT count(*) FILTER (WHERE id BETWEEN 101 AND 200) FROM t") == 0
    assert destination.value("SELECT count(*) FROM t") == 200


def test_a_conflict_behind_a_savepoint_leads_to_the_staging_table(source: Db, destination: Db) -> None:
    tables(source, destination, "id int, a int", "id int PRIMARY KEY, a int CHECK (a < 9)")
    source.execute("INSERT INTO t VALUES (1, 1), (1, 2), (2, 9), (1, 3)")
    with writing(source, destination, batch_rows=2, query="SELECT id, a FROM t ORDER BY a % 9 = 0, a") as found:
        writer, batches = found  # (1, 1) and (1, 2); (1, 3) and (2, 9)
        writer.begin()
        writer.save()
        with pytest.raises(portl.ConflictError) as conflict:
            writer.write(batches[0])
            writer.check()
        writer.restore()
        assert writer.reconsider(conflict.value)
        assert not writer.reconsider(conflict.value)
        for _ in range(3):
            with pytest.raises(portl.DataError, match="t_a_check"):
                writer.write(batches[1])
                writer.check()
            writer.restore()
        writer.write(batches[0])
        assert writer.check() == Counts(inserted=1, updated=1)
        writer.save()
        writer.write(batches[1].take(0, 1))
        assert writer.check() == Counts(updated=1)
        writer.commit()
        writer.begin()  # the staging table is empty and of use
        writer.write(batches[1].take(0, 1))
        assert writer.commit() == Counts(unchanged=1)
        writer.finish()
    assert destination.execute("SELECT * FROM t") == [(1, 3)]


def test_going_back_without_a_savepoint_is_refused(source: Db, destination: Db) -> None:
    tables(source, destination, "id int PRIMARY KEY")
    with writing(source, destination) as (writer, _):
        writer.begin()
        with pytest.raises(portl.OperationError, match=r"there is no savepoint to go back to: save\(\) comes first"):
            writer.restore()
        writer.rollback()


def test_a_deferred_constraint_is_brought_to_light_and_waits_again_after_it(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (n serial, id int, parent int)")
    destination.execute("CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1)")
    destination.execute(
        "CREATE TABLE t (id int PRIMARY KEY, parent int REFERENCES p DEFERRABLE INITIALLY DEFERRED);"
        " INSERT INTO t VALUES (0, 1)"
    )
    # Two rows with one key are merged one after the other; between them the constraint does not hold.
    source.execute("INSERT INTO t (id, parent) VALUES (1, 1), (2, 1), (3, 99), (3, 1), (4, 1), (5, 98)")
    conflict = {"strategy": "merge", "columns": {"parent": "replace"}}
    query = "SELECT id, parent FROM t ORDER BY n"
    with writing(source, destination, batch_rows=2, query=query, conflict=conflict) as (writer, batches):
        writer.begin()
        for batch in batches[:2]:
            writer.write(batch)
            writer.check()
            writer.save()
        with pytest.raises(portl.DataError, match="t_parent_fkey"):
            writer.write(batches[2])
            writer.check()
        writer.restore()
        writer.write(batches[1])
        writer.commit()
    assert destination.execute("SELECT * FROM t ORDER BY 1") == [(0, 1), (1, 1), (2, 1), (3, 1)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("ALTER TABLE t ALTER a TYPE real USING 0", "column 'a' was integer and is real"),
        ("ALTER TABLE t ALTER b TYPE varchar(9)", "column 'b' was text and is character varying(9)"),
        ("ALTER TABLE t DROP a, ADD a int", "column 'a' was dropped and created again"),
        ("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, a int, b text)", "it was dropped and created again"),
    ],
)
def test_a_table_that_is_altered_meanwhile_takes_no_more_rows(
    source: Db, destination: Db, change: str, said: str
) -> None:
    tables(source, destination, "id int PRIMARY KEY, a int, b text")
    source.execute("INSERT INTO t SELECT g, 1, 'x' FROM generate_series(1, 20) AS g")
    with writing(source, destination, conflict="fail") as (writer, batches):
        writer.begin()
        writer.write(batches[0])
        writer.commit()
        destination.execute(change)
        writer.begin()
        writer.write(batches[1])
        with pytest.raises(portl.SchemaError) as refused:
            writer.check()
        writer.rollback()
    assert refused.value.message == f"public.t was altered since the run began: {said}"
    assert destination.value("SELECT count(*) FROM t WHERE id > 10") == 0


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [("int", "bigint", "insufficient data left in message"), ("bigint", "int", "incorrect binary data format")],
)
def test_a_change_that_makes_good_rows_look_bad_is_called_by_its_name(
    source: Db, destination: Db, before: str, after: str, said: str
) -> None:
    tables(source, destination, f"id int PRIMARY KEY, a {before}")
    source.execute("INSERT INTO t SELECT g, 1 FROM generate_series(1, 20) AS g")
    with writing(source, destination, conflict="fail") as (writer, batches):
        writer.begin()
        writer.write(batches[0])
        writer.commit()
        destination.execute(f"ALTER TABLE t ALTER a TYPE {after}")
        writer.begin()
        writer.save()
        with pytest.raises(portl.DataError, match=said):
            writer.write(batches[1])
            writer.check()
        with pytest.raises(portl.SchemaError, match=r"column 'a' was \w+ and is \w+"):
            writer.restore()
        writer.rollback()


def test_a_change_between_plan_and_rows_is_noticed(source: Db, destination: Db) -> None:
    tables(source, destination, "id int PRIMARY KEY, a int")
    with writing(source, destination) as (writer, _):
        destination.execute("ALTER TABLE t ALTER a TYPE real")
        with pytest.raises(portl.SchemaError, match="column 'a' was integer and is real"):
            writer.begin()


def test_a_column_that_nothing_fills_may_change(source: Db, destination: Db) -> None:
    tables(source, destination, "id int PRIMARY KEY", "id int PRIMARY KEY, other int")
    source.execute("INSERT INTO t VALUES (1)")
    with writing(source, destination) as (writer, batches):
        destination.execute("ALTER TABLE t DROP other, ADD more text")
        writer.begin()
        writer.write(batches[0])
        assert writer.commit() == Counts(inserted=1)


def test_parts_of_a_callers_transaction_can_be_undone(source: Db, destination: Db) -> None:
    tables(source, destination, "id int, a int", "id int PRIMARY KEY, a int CHECK (a < 5)")
    source.execute("INSERT INTO t SELECT g, g FROM generate_series(1, 6) AS g")
    with psycopg.connect(destination.connection.info.dsn, password=destination.endpoint.password) as own:
        own.execute("INSERT INTO t VALUES (1, 0)")
        with writing(source, destination, batch_rows=2, handle=own) as (writer, batches):
            for expected in (Counts(inserted=1, updated=1), Counts(inserted=1, updated=1)):
                writer.begin()
                writer.write(batches[0])
                assert writer.check() == expected
                writer.save()
                with pytest.raises(portl.DataError, match="t_a_check"):
                    writer.write(batches[2])
                    writer.check()
                writer.restore()
                writer.write(batches[1])
                assert writer.check() == Counts(inserted=2)
                writer.rollback()
            writer.begin()
            writer.write(batches[0])
            writer.commit()
            writer.finish()
        own.commit()
    assert destination.execute("SELECT * FROM t ORDER BY 1") == [(1, 1), (2, 2)]


def test_an_unfinished_table_of_the_run_that_is_resumed_is_filled_without_a_staging_table(
    source: Db, destination: Db, caplog: pytest.LogCaptureFixture
) -> None:
    tables(source, destination, "id int PRIMARY KEY, a int", "id int NOT NULL, a int")
    source.execute("INSERT INTO t VALUES (2, 2)")
    destination.execute(
        """COMMENT ON TABLE t IS 'portl is filling this table: {"primary key": ["id"], "comment": null}'"""
    )
    destination.execute("INSERT INTO t VALUES (1, 1)")
    with (
        caplog.at_level(logging.DEBUG, "portl.postgres.sql"),
        writing(source, destination, query=None, resumed=True) as (writer, batches),
    ):
        writer.begin()
        writer.write(batches[0])
        assert writer.commit() == Counts(inserted=1)
        assert not writer.reconsider(portl.ConflictError("", sqlstate="23505"))
        writer.finish()
    assert "CREATE TEMPORARY" not in caplog.text
    assert destination.execute("SELECT * FROM t ORDER BY id") == [(1, 1), (2, 2)]
    assert destination.value("SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass AND indisprimary") == 1
