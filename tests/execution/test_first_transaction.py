"""The first chunks of a table that portl creates: in the transaction that creates it, with frozen rows."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import portl
from portl.execution import first_transaction
from portl.planning import table as planning
from tests.jobs import KEYLESS, ROWS, Once, job_of, nothing_left, rows, through
from tests.servers import Db

KEYED = (
    "CREATE TABLE t AS SELECT g AS id, g AS x FROM generate_series(1, 9000) AS g; ALTER TABLE t ADD PRIMARY KEY (id)"
)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "CHUNK_BYTES", 32 * 1024)


def job(source: dict[str, object], destination: dict[str, object], **keys: object) -> dict[str, Any]:
    return job_of(source, destination, **{"chunk_rows": None, **keys})


def transactions(destination: Db) -> int:
    """Return how many transactions have written the rows."""
    return int(destination.value("SELECT count(DISTINCT xmin::text) FROM t"))


def frozen(destination: Db) -> float:
    """Return the share of the table's pages that no VACUUM need look at."""
    return float(destination.value("SELECT relallvisible::float8 / relpages FROM pg_class WHERE oid = 't'::regclass"))


def chunks(destination: Db) -> int:
    return int(destination.value("SELECT count(*) FROM portl.chunks"))


def same(source: Db, destination: Db) -> None:
    assert rows(destination, "t") == rows(source, "t")
    nothing_left(destination)


def test_the_first_chunks_of_a_new_table_are_one_transaction_whose_rows_are_frozen(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    portl.migrate(job(source.end(), destination.end()))
    assert chunks(destination) > 3
    assert transactions(destination) == 1
    assert frozen(destination) == 1.0
    same(source, destination)


def test_what_comes_after_the_first_seconds_goes_chunk_by_chunk(
    source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_transaction, "FIRST_SECONDS", 0.0)
    source.execute(KEYLESS)
    portl.migrate(job(source.end(), destination.end()))
    assert transactions(destination) == chunks(destination) > 3
    assert 0.0 < frozen(destination) < 1.0
    same(source, destination)


@pytest.mark.parametrize(
    ("there", "keys"),
    [
        ("CREATE TABLE t (x int, y text)", {}),
        ("", {"on_error": "quarantine"}),
        ("", {"parallel": 2}),
        ("", {"chunk_rows": 700}),
    ],
    ids=["a table that is there", "bad rows quarantined", "several workers", "chunks as asked for"],
)
def test_other_jobs_go_chunk_by_chunk_from_the_first(
    source: Db, destination: Db, there: str, keys: dict[str, object]
) -> None:
    source.execute(KEYLESS)
    if there:
        destination.execute(there)
    portl.migrate(job(source.end(), destination.end(), **keys))
    assert transactions(destination) == chunks(destination) > 3
    same(source, destination)


def test_what_is_written_is_told_at_once_and_what_is_committed_after_the_commit(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    seen = Once(0, lambda: None)
    portl.migrate(job(source.end(), destination.end()), observers=[seen])
    told = [event for event in seen.events if isinstance(event, portl.BatchCommitted)]
    committed = [event for event in told if not event.provisional]
    assert [event.chunk for event in committed] == list(range(1, chunks(destination) + 1))
    assert told[-len(committed) :] == committed
    assert [event.rows > 0 for event in committed] == [False] * (len(committed) - 1) + [True]
    assert sum(event.rows for event in told) == told[-1].total_rows == ROWS
    assert [event.total_rows for event in told] == sorted(event.total_rows for event in told)


def test_a_row_that_is_refused_costs_none_before_it(source: Db, destination: Db) -> None:
    source.execute(KEYED)
    destination.execute("CREATE DOMAIN picky AS int CHECK (VALUE <> 5050)")
    picky = job(source.end(), destination.end(), types=[{"column": "x", "to": "picky"}])
    with pytest.raises(portl.DataError) as caught:
        portl.migrate(picky)
    assert "with id = 5050" in str(caught.value)
    ((kept, last),) = destination.execute("SELECT count(*), max(id) FROM t")
    assert kept == last
    assert 5050 - 100 <= last < 5050  # all but its batch
    destination.execute("ALTER DOMAIN picky DROP CONSTRAINT picky_check")
    assert portl.migrate(picky).tables[0].attempt == 2
    same(source, destination)


@pytest.mark.parametrize("chunk_rows", [None, 700])
def test_a_cursor_that_a_caller_holds_open_keeps_rows_from_being_frozen_and_nothing_else(
    source: Db, destination: Db, chunk_rows: int | None
) -> None:
    source.execute(KEYLESS)
    with psycopg.connect(destination.connection.info.dsn, password=destination.endpoint.password) as supplied:
        supplied.autocommit = True
        supplied.execute("DECLARE held CURSOR WITH HOLD FOR SELECT 1")
        portl.migrate(job(source.end(), {"type": "postgres"}, chunk_rows=chunk_rows), destination=supplied)
        assert supplied.execute("FETCH held").fetchall() == [(1,)]
    assert frozen(destination) == 0.0
    assert rows(destination, "t") == rows(source, "t")


@pytest.mark.parametrize("after", [True, False], ids=["carried out", "not carried out"])
def test_its_commit_in_doubt_is_neither_repeated_nor_forgotten(source: Db, destination: Db, after: bool) -> None:
    source.execute(KEYLESS)
    with through(destination) as (proxy, there):
        proxy.cut_at_commit(after=after)
        result = portl.migrate(job(source.end(), there))
        assert proxy.cut_commits == 1
    assert transactions(destination) == 1
    assert (result.rows_read, result.rows_inserted) == (ROWS, ROWS)
    same(source, destination)


@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_backend_that_dies_in_it_costs_nothing(source: Db, destination: Db, side: str) -> None:
    source.execute(KEYLESS)
    victim = source if side == "source" else destination

    def terminate() -> None:
        victim.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'portl'"
            " AND datname = current_database()"
        )

    seen = Once(3, terminate)
    portl.migrate(job(source.end(), destination.end()), observers=[seen])
    assert seen.retries
    same(source, destination)


def test_a_cancelled_one_leaves_nothing(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    token = portl.CancelToken()
    with pytest.raises(portl.Cancelled):
        portl.migrate(job(source.end(), destination.end()), observers=[Once(3, token.cancel)], cancel=token)
    assert destination.value("SELECT to_regclass('t')") is None
    nothing_left(destination)
    portl.migrate(job(source.end(), destination.end()))
    same(source, destination)


def test_a_table_that_cannot_be_created_is_told_in_the_words_of_the_server(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    destination.execute("""
        CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
          IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity = 'public.t') THEN
            RAISE 'no table today';
          END IF;
        END $$;
        CREATE EVENT TRIGGER refuse ON ddl_command_end EXECUTE FUNCTION refuse();
    """)
    with pytest.raises(portl.Error, match="no table today"):
        portl.migrate(job(source.end(), destination.end()))
    destination.execute("DROP EVENT TRIGGER refuse")
    portl.migrate(job(source.end(), destination.end()))
    same(source, destination)
