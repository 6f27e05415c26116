"""A caller's own connections and pools: used, and given back as they were."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import psycopg_pool
import pytest
from psycopg import pq
from psycopg.rows import dict_row

import portl
from tests.servers import Db

SETTINGS = (
    "DateStyle", "IntervalStyle", "extra_float_digits", "bytea_output", "client_encoding", "search_path",
    "row_security", "synchronous_commit", "default_transaction_read_only", "statement_timeout", "lock_timeout",
    "TimeZone", "idle_in_transaction_session_timeout", "xmloption",
)  # fmt: skip
OWN = {"DateStyle": "SQL, DMY", "IntervalStyle": "iso_8601", "statement_timeout": "77s", "search_path": "other, public"}


def connect(db: Db, **keys: Any) -> psycopg.Connection[Any]:
    keys.setdefault("application_name", "caller")
    return psycopg.connect(db.connection.info.dsn, password=db.endpoint.password, **keys)


def shown(connection: psycopg.Connection[Any]) -> dict[str, str]:
    with psycopg.RawCursor(connection, row_factory=psycopg.rows.tuple_row) as cursor:
        rows = cursor.execute("SELECT n, current_setting(n) FROM unnest($1::text[]) AS n", [list(SETTINGS)]).fetchall()
    return dict(rows)


def job(**keys: object) -> dict[str, Any]:
    side = {"type": "postgres", "table": "t"}
    found: dict[str, Any] = {"source": dict(side), "destination": dict(side), **keys}
    return found


@pytest.fixture
def filled(source: Db) -> Db:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, name text, d date); CREATE SCHEMA other")
    source.execute("INSERT INTO t SELECT g, 'n' || g, '2024-02-03' FROM generate_series(1, 3000) AS g")
    return source


@pytest.fixture
def reader(filled: Db) -> Iterator[psycopg.Connection[Any]]:
    with connect(filled) as connection:
        yield connection


@pytest.fixture
def writer(destination: Db) -> Iterator[psycopg.Connection[Any]]:
    with connect(destination) as connection:
        yield connection


STATES = pytest.mark.parametrize("state", ["idle", "autocommit", "transaction"])


def prepare(connection: psycopg.Connection[Any], state: str) -> dict[str, str]:
    """Bring a connection into a state, with settings of its own; return these."""
    connection.autocommit = True
    for name, value in OWN.items():
        connection.execute("SELECT set_config(%s, %s, false)", (name, value))
    connection.prepare_threshold = 3
    connection.autocommit = state == "autocommit"
    if state == "transaction":
        connection.execute("CREATE TEMPORARY TABLE mine (x int)")
        return shown(connection)
    settings = shown(connection)
    connection.commit()
    return settings


def check_same(connection: psycopg.Connection[Any], state: str, settings: dict[str, str]) -> None:
    """Check that a connection is as ``prepare`` left it."""
    expected = pq.TransactionStatus.INTRANS if state == "transaction" else pq.TransactionStatus.IDLE
    assert not connection.closed
    assert connection.info.transaction_status is expected
    assert connection.autocommit is (state == "autocommit")
    assert connection.prepare_threshold == 3
    assert shown(connection) == settings
    if state == "transaction":
        assert connection.execute("SELECT count(*) FROM mine").fetchone() == (0,)


@STATES
def test_connections_are_used_and_come_back_as_they_were(
    state: str, reader: psycopg.Connection[Any], writer: psycopg.Connection[Any], destination: Db
) -> None:
    before = prepare(reader, state), prepare(writer, state)
    result = portl.migrate(job(), source=reader, destination=writer)
    assert result.rows_inserted == 3000
    check_same(reader, state, before[0])
    check_same(writer, state, before[1])
    seen = destination.value("SELECT to_regclass('public.t') IS NOT NULL")
    assert seen is (state != "transaction")
    if state == "transaction":
        assert writer.execute("SELECT count(*) FROM public.t").fetchone() == (3000,)
        writer.rollback()
        assert destination.value("SELECT to_regclass('public.t')") is None


@STATES
@pytest.mark.parametrize("where", ["source", "destination"])
def test_connections_come_back_as_they_were_after_an_error_too(
    where: str, state: str, reader: psycopg.Connection[Any], writer: psycopg.Connection[Any], destination: Db
) -> None:
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, name text, d date)")
    destination.execute("ALTER TABLE t ADD CHECK (id <> 2500)" if where == "destination" else "SELECT 1")
    bad = {"type": "postgres", "query": "SELECT id, name, d, 1 / (2500 - id) AS x FROM public.t", "columns": ["id"]}
    bad["where"] = "x IS NOT NULL"
    before = prepare(reader, state), prepare(writer, state)
    keys = {"source": bad} if where == "source" else {}
    with pytest.raises(portl.Error, match="division by zero" if where == "source" else "check constraint") as caught:
        portl.migrate(job(**keys, batch_size=1000), source=reader, destination=writer)
    check_same(reader, state, before[0])
    check_same(writer, state, before[1])
    assert reader.execute("SELECT count(*) FROM public.t").fetchone() == (3000,)
    if where == "destination":
        # What was written before stays, and a caller's transaction holds it.
        assert caught.value.committed is not None
        assert caught.value.committed.rows_inserted == 2000
        assert writer.execute("SELECT count(*) FROM public.t").fetchone() == (2000,)
        assert destination.value("SELECT count(*) FROM t") == (0 if state == "transaction" else 2000)


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({"source": {"type": "postgres", "table": "nowhere"}}, portl.SchemaError),
        ({"source": {"type": "postgres", "query": "SELECT FROM FROM"}}, portl.QueryError),
        ({"source": {"type": "postgres", "table": "t", "where": "nonsense = 1"}}, portl.PlanError),
        ({"types": [{"column": "name", "to": "no_type", "using": "no_function(name)"}]}, portl.PlanError),
        ({"conflict": {"key": ["name"]}}, portl.PlanError),
    ],
)
def test_a_refused_plan_leaves_open_transactions_usable(
    keys: dict[str, Any], kind: type[portl.Error], reader: psycopg.Connection[Any], writer: psycopg.Connection[Any]
) -> None:
    before = prepare(reader, "transaction"), prepare(writer, "transaction")
    with pytest.raises(kind):
        portl.migrate(job(**keys), source=reader, destination=writer)
    check_same(reader, "transaction", before[0])
    check_same(writer, "transaction", before[1])


def test_what_the_callers_transaction_sees_is_what_is_read(
    reader: psycopg.Connection[Any], writer: psycopg.Connection[Any], filled: Db
) -> None:
    reader.execute("DELETE FROM t WHERE id > 10")
    assert portl.migrate(job(), source=reader, destination=writer).rows_read == 10
    reader.rollback()
    assert filled.value("SELECT count(*) FROM t") == 3000


def test_a_query_cannot_write_in_a_callers_transaction(
    reader: psycopg.Connection[Any], writer: psycopg.Connection[Any], filled: Db
) -> None:
    filled.execute("CREATE SEQUENCE s; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'DELETE FROM t RETURNING 1'")
    reader.execute("SELECT 1")
    for query in ("SELECT nextval('s') AS x", "SELECT f() AS x"):
        with pytest.raises(portl.QueryError, match="in a read-only transaction"):
            portl.migrate(job(source={"type": "postgres", "query": query}), source=reader, destination=writer)
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (3000,)
    reader.execute("DELETE FROM t")
    reader.rollback()
    assert filled.value("SELECT is_called FROM s") is False


def test_a_read_only_transaction_is_a_problem_at_the_destination(
    reader: psycopg.Connection[Any], writer: psycopg.Connection[Any]
) -> None:
    writer.read_only = True
    writer.execute("SELECT 1")
    plan = portl.plan(job(), source=reader, destination=writer)
    assert [str(p) for p in plan.problems] == [
        "destination: the caller's transaction is read-only -> begin one that can write"
    ]


def test_a_plan_of_caller_supplied_connections_can_be_executed(
    reader: psycopg.Connection[Any], writer: psycopg.Connection[Any]
) -> None:
    plan = portl.plan(job(), source=reader, destination=writer)
    assert "source (the caller's connection)" in str(plan)
    assert plan.execute().rows_inserted == 3000


def test_rows_of_another_shape_do_not_matter(filled: Db, destination: Db) -> None:
    with connect(filled, row_factory=dict_row) as source, connect(destination, row_factory=dict_row) as target:
        assert portl.plan(job(), source=source, destination=target).execute().rows_inserted == 3000
        assert target.row_factory is dict_row
        for strategy in ("overwrite", "skip", "merge"):
            assert portl.migrate(job(conflict=strategy), source=source, destination=target).rows_read == 3000


def test_pools_are_used_and_stay_open(filled: Db, destination: Db) -> None:
    def pool(db: Db) -> psycopg_pool.ConnectionPool[Any]:
        return psycopg_pool.ConnectionPool(
            db.connection.info.dsn, kwargs={"password": db.endpoint.password}, min_size=1, max_size=1, open=True
        )

    with pool(filled) as source, pool(destination) as target:
        assert portl.migrate(job(), source=source, destination=target).rows_inserted == 3000
        assert portl.migrate(job(), source=source, destination=target).rows_unchanged == 3000
        with target.connection(timeout=1) as connection:
            assert connection.autocommit is False
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (3000,)
        assert not source.closed


def test_one_pool_serves_both_sides(filled: Db) -> None:
    dsn, password = filled.connection.info.dsn, filled.endpoint.password
    with psycopg_pool.ConnectionPool(dsn, kwargs={"password": password}, min_size=2, open=True) as pool:
        config = job(destination={"type": "postgres", "table": "copied"})
        assert portl.migrate(config, source=pool, destination=pool).rows_inserted == 3000
    assert filled.value("SELECT count(*) FROM copied") == 3000


def test_a_pool_without_a_free_connection_is_told(filled: Db, destination: Db) -> None:
    dsn, password = filled.connection.info.dsn, filled.endpoint.password
    with psycopg_pool.ConnectionPool(dsn, kwargs={"password": password}, min_size=1, max_size=1, open=True) as pool:
        source = {"type": "postgres", "table": "t", "pool": {"timeout": 0.2}}
        with pool.connection(), pytest.raises(portl.ConnectionFailed, match=r"no connection was free within 0.2 s"):
            portl.migrate(job(source=source, destination=destination.end(table="t")), source=pool)
    with pytest.raises(portl.ConnectionFailed, match="closed"):
        portl.migrate(job(destination=destination.end(table="t")), source=pool)


def test_one_connection_for_both_sides_is_refused(filled: Db) -> None:
    with connect(filled) as connection:
        config = job(destination={"type": "postgres", "table": "copied"})
        with pytest.raises(portl.ConfigError) as caught:
            portl.migrate(config, source=connection, destination=connection)
        assert caught.value.problems == [
            "destination: the connection is in use by portl already; each side, and each run at the same time, needs "
            "one of its own, or a pool that has them"
        ]
        assert connection.info.transaction_status is pq.TransactionStatus.IDLE
        assert connection.autocommit is False
        assert portl.plan(job(), source=connection, destination=filled.connection).tables[0].count is not None


def test_two_runs_at_once_on_one_connection_are_refused(filled: Db, destination: Db) -> None:
    seen: list[portl.Error] = []
    with connect(filled) as connection:

        def again(event: portl.Event) -> None:
            if isinstance(event, portl.Started):
                with pytest.raises(portl.ConfigError, match="in use by portl already") as caught:
                    portl.plan(job(destination=destination.end(table="t")), source=connection)
                seen.append(caught.value)

        assert portl.migrate(
            job(destination=destination.end(table="t")), source=connection, observers=[again]
        ).rows_read
    assert len(seen) == 1


@pytest.mark.parametrize("handle", ["psycopg.AsyncConnection", "psycopg_pool.AsyncConnectionPool", "builtins.str"])
def test_other_handles_are_refused(handle: str, destination: Db) -> None:
    module, name = handle.rsplit(".", 1)
    kind = getattr(importlib.import_module(module), name)
    config = job(destination=destination.end(table="t"))
    with pytest.raises(portl.ConfigError) as caught:
        portl.migrate(config, source=kind.__new__(kind))
    (text,) = caught.value.problems
    assert text.startswith("source: expected a psycopg.Connection or a psycopg_pool.ConnectionPool, found ")
    assert text.endswith(f".{name}")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("closed", "the connection is closed"),
        ("failed", "the connection is in a transaction that has failed; roll it back first"),
        ("busy", "the connection is busy with a statement; finish it first"),
        ("pipeline", "the connection is in pipeline mode; leave it first"),
    ],
)
def test_a_connection_that_cannot_be_worked_with_is_refused(
    state: str, words: str, filled: Db, destination: Db
) -> None:
    with connect(filled) as connection:
        if state == "closed":
            connection.close()
        elif state == "failed":
            with pytest.raises(psycopg.Error):
                connection.execute("SELECT nonsense")
        elif state == "busy":
            connection.pgconn.send_query(b"SELECT pg_sleep(0.3)")
        else:
            connection.pgconn.enter_pipeline_mode()
        with pytest.raises(portl.ConfigError) as caught:
            portl.migrate(job(destination=destination.end(table="t")), source=connection)
        assert caught.value.problems == [f"source: {words}"]
        if state == "pipeline":
            connection.pgconn.exit_pipeline_mode()
        while state == "busy" and connection.pgconn.get_result():
            pass


@STATES
def test_a_cancelled_run_gives_connections_back_as_they_were(
    state: str, reader: psycopg.Connection[Any], writer: psycopg.Connection[Any], destination: Db
) -> None:
    token = portl.CancelToken()
    before = prepare(reader, state), prepare(writer, state)
    query = "SELECT id, pg_sleep(CASE WHEN id = 2000 THEN 30 ELSE 0 END)::text AS s FROM public.t ORDER BY id"
    source = {"type": "postgres", "query": query}
    timer = threading.Timer(0.7, token.cancel)
    timer.start()
    with pytest.raises(portl.Cancelled):
        portl.migrate(job(source=source), source=reader, destination=writer, cancel=token)
    timer.join()
    check_same(reader, state, before[0])
    check_same(writer, state, before[1])
