"""What the network does to a run: cut, delayed, silent. First the proxy itself, then portl behind it."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool

import portl
from portl_postgres.config import PostgresDestinationConfig
from portl_postgres.session.database import Database
from portl_postgres.wire.batches import CopyBatch
from portl_postgres.wire.copy_in import CopyIn
from tests.proxy import Proxy
from tests.servers import Db


@pytest.fixture
def proxy(source: Db, nothing_left: None) -> Iterator[Proxy]:
    with Proxy(source.endpoint) as found:
        yield found


def connect(db: Db, proxy: Proxy, **keys: Any) -> psycopg.Connection[Any]:
    end = db.end()
    return psycopg.connect(
        host=proxy.host,
        port=proxy.port,
        dbname=str(end["database"]),
        user=str(end["username"]),
        password=str(end["password"]),
        autocommit=True,
        **keys,
    )


def until(holds: Callable[[], object]) -> None:
    for _ in range(200):
        if holds():
            return
        time.sleep(0.05)
    pytest.fail("it never came to that")


def test_the_proxy_forwards_both_ways(source: Db, proxy: Proxy) -> None:
    with connect(source, proxy) as connection:
        (found,) = connection.execute("SELECT repeat('x', 3000000)").fetchone() or ("",)
        assert len(found) == 3_000_000
        assert connection.execute("SELECT length(%s)", ["y" * 3_000_000]).fetchone() == (3_000_000,)
    assert min(proxy.forwarded("up"), proxy.forwarded("down")) > 3_000_000
    until(lambda: proxy.connections == 0)


@pytest.mark.parametrize("reset", [True, False])
def test_the_proxy_cuts_now_or_after_so_many_bytes(reset: bool, source: Db, proxy: Proxy) -> None:
    with connect(source, proxy) as connection:
        proxy.cut(reset=reset)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with connect(source, proxy) as connection:
        before = proxy.forwarded("down")
        proxy.cut(after=100_000, reset=reset)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT repeat('x', 3000000)")
        assert proxy.forwarded("down") == before + 100_000


def test_the_proxy_lets_requests_to_cancel_through(source: Db, proxy: Proxy) -> None:
    with connect(source, proxy) as connection:
        thread = threading.Timer(0.3, connection.cancel_safe)
        thread.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(60)")
        thread.join()


def test_a_black_hole_answers_nothing_until_it_is_healed(source: Db, proxy: Proxy) -> None:
    with connect(source, proxy) as connection:
        proxy.black_hole()
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            connect(source, proxy, connect_timeout=2)
        thread = threading.Timer(0.3, proxy.heal)
        thread.start()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        thread.join()
        with connect(source, proxy) as other:
            assert other.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("prepare", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_cut_at_commit_comes_before_or_after_it_is_carried_out(
    after: bool, prepare: bool, source: Db, proxy: Proxy
) -> None:
    source.execute("CREATE TABLE t (id int)")
    proxy.cut_at_commit(after=after, number=2)
    with connect(source, proxy) as connection:
        for number in (1, 2):
            connection.execute("BEGIN")
            connection.execute("INSERT INTO t VALUES (%s)", [number], prepare=prepare)
            if number == 1:
                connection.execute("COMMIT", prepare=prepare)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("COMMIT", prepare=prepare)
    assert (proxy.commits, proxy.cut_commits) == (2, 1)
    expected = [(1,), (2,)] if after else [(1,)]
    assert source.execute("SELECT id FROM t ORDER BY id") == expected


def test_the_proxy_delays_and_refuses(source: Db, proxy: Proxy) -> None:
    with connect(source, proxy) as connection:
        proxy.delay(0.5, direction="down")
        connection.pgconn.send_query(b"SELECT 1")
        assert select.select([connection.pgconn.socket], [], [], 0.2)[0] == []
        while connection.pgconn.is_busy():  # a blocking call would keep the proxy's threads waiting, too
            select.select([connection.pgconn.socket], [], [])
            connection.pgconn.consume_input()
        assert connection.pgconn.get_result() is not None
        assert connection.pgconn.get_result() is None
        proxy.heal()
        proxy.refuse()
        with pytest.raises(psycopg.OperationalError):
            connect(source, proxy)
        assert connection.execute("SELECT 1").fetchone() == (1,)


NAME = "portl network"
TIMEOUT = 1.0


def job(source: Db, destination: Db, **keys: Any) -> dict[str, Any]:
    """Return a job with a short network_timeout and no retries; ``reads`` and ``writes`` are added to its ends."""
    common = {"application_name": NAME, "network_timeout": TIMEOUT}
    return {
        "source": {**source.end(table="t", **common), **keys.pop("reads", {})},
        "destination": {**destination.end(table="t", **common), **keys.pop("writes", {})},
        "retry": {"attempts": 1},
        **keys,
    }


def behind(proxy: Proxy) -> dict[str, object]:
    return {"host": proxy.host, "port": proxy.port}


@pytest.fixture
def rows(source: Db) -> Db:
    source.execute("CREATE TABLE t AS SELECT g AS id, repeat('x', 1000) AS x FROM generate_series(1, 20000) AS g")
    return source


@pytest.fixture(autouse=True)
def nothing_left(source: Db) -> Iterator[None]:
    """After each test no thread of portl's is there and, once the network is whole, no connection."""
    yield
    until(lambda: not [t.name for t in threading.enumerate() if t.name.startswith(("portl", "pool-", "proxy"))])
    until(
        lambda: source.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", NAME) == 0,
    )


def lost(config: dict[str, Any], observer: Callable[[portl.Event], None] | None = None) -> portl.ConnectionFailed:
    """Run a job that must lose its connection to silence; return the error."""
    with pytest.raises(portl.ConnectionFailed) as caught:
        portl.migrate(config, observers=[observer] if observer else [])
    assert caught.value.transient, str(caught.value)
    return caught.value


def silent(error: portl.ConnectionFailed, end: str) -> bool:
    """Return whether an error names the end, the silence and the key that decides about it."""
    return error.message.startswith(end) and "the server has sent nothing for" in error.message


@contextmanager
def swallowed(proxy: Proxy, holds: Callable[[], object], **how: bool) -> Iterator[None]:
    """Make a black hole of a proxy as soon as something holds."""

    def watch() -> None:
        until(holds)
        proxy.black_hole(**how)

    thread = threading.Thread(target=watch, name="watching")
    thread.start()
    try:
        yield
    finally:
        thread.join()
        proxy.heal()


def waits(db: Db, event: str) -> Callable[[], object]:
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND wait_event = %s"
    return lambda: db.value(query, NAME, event)


def test_reading_from_a_server_that_falls_silent_ends(rows: Db, destination: Db, proxy: Proxy) -> None:
    with swallowed(proxy, lambda: proxy.forwarded("down") > 3_000_000):
        proxy.delay(0.0, rate=4_000_000)
        error = lost(job(rows, destination, reads=behind(proxy)))
    assert silent(error, "source")
    assert "(network_timeout: 1 s)" in error.message
    assert "it does not answer a new connection either" in error.message


def test_reading_ends_although_new_connections_are_answered(rows: Db, destination: Db, proxy: Proxy) -> None:
    with swallowed(proxy, lambda: proxy.forwarded("down") > 3_000_000, new=False):
        proxy.delay(0.0, rate=4_000_000)
        error = lost(job(rows, destination, reads=behind(proxy)))
    assert silent(error, "source")
    assert "the server waits for this client" in error.message


@pytest.mark.parametrize("new", [True, False])
def test_writing_to_a_server_that_falls_silent_ends(new: bool, rows: Db, destination: Db, proxy: Proxy) -> None:
    # All that is sent is acknowledged: only the answer to the end of the COPY is missing.
    with swallowed(proxy, lambda: proxy.forwarded("up") > 3_000_000, new=new):
        proxy.delay(0.0, rate=8_000_000)
        error = lost(job(rows, destination, writes=behind(proxy)))
    assert silent(error, "destination")
    assert destination.value("SELECT coalesce(to_regclass('t')::text, '')") in ("", "t")


BATCH = CopyBatch(number=1, first_row=1, rows=10_000, size=20_000, binary=False, pieces=[b"1\n" * 10_000])


@contextmanager
def copying(destination: Db, proxy: Proxy) -> Iterator[CopyIn]:
    """One COPY that goes on for as long as the test wants, as a job with very large chunks has it."""
    destination.execute("CREATE TABLE t (id int)")
    end: dict[str, Any] = destination.end(table="t", network_timeout=TIMEOUT, application_name=NAME, **behind(proxy))
    config = PostgresDestinationConfig(**{**end, "password": portl.Secret(end["password"])})
    database = Database(config, None, "destination")
    token = portl.CancelToken()
    try:
        with database.session(portl.Context(token=token), {}) as session:
            yield CopyIn(session, "COPY t FROM STDIN", binary=False, token=token, what="writing")
    finally:
        database.close()


def test_rows_without_end_do_not_go_into_a_black_hole_for_ever(destination: Db, proxy: Proxy) -> None:
    with copying(destination, proxy) as copy:
        until(lambda: copy.write(BATCH) and proxy.forwarded("up") > 1_000_000)
        proxy.black_hole(new=False)
        with pytest.raises(
            portl.ConnectionFailed, match=r"the server has sent nothing .* it does not receive what is sent"
        ):
            end = time.monotonic() + 60
            while time.monotonic() < end:  # by time: a count of rows is over before the second look on a fast machine
                copy.write(BATCH)


def test_rows_that_arrive_are_sent_for_as_long_as_it_takes(destination: Db, proxy: Proxy) -> None:
    sent = 0
    with copying(destination, proxy) as copy:
        end = time.monotonic() + 3 * TIMEOUT
        while time.monotonic() < end:
            copy.write(BATCH)
            sent += BATCH.rows
            time.sleep(0.02)
        assert copy.finish() == sent


def test_a_query_that_is_being_described_ends(source: Db, destination: Db, proxy: Proxy) -> None:
    source.execute("CREATE TABLE t (id int)")
    with psycopg.connect(source.connection.info.dsn, password=source.endpoint.password) as other:
        other.execute("LOCK TABLE t")
        config = job(source, destination, reads={"table": None, "query": "SELECT id FROM t", **behind(proxy)})
        with swallowed(proxy, waits(source, "relation")):
            error = lost(config)
    assert silent(error, "source")
    assert "describing the query" in error.message


def test_a_statement_that_psycopg_waits_for_ends(source: Db, destination: Db, proxy: Proxy) -> None:
    query = "SELECT count(*) AS id, (SELECT pg_sleep(30)::text) AS x FROM generate_series(1, 10)"
    config = job(source, destination, reads={"table": None, "query": query, **behind(proxy)})
    with swallowed(proxy, waits(source, "PgSleep")):
        assert silent(lost(config), "source")


def test_a_server_that_falls_silent_at_commit_ends(rows: Db, destination: Db, proxy: Proxy) -> None:
    destination.execute("""
        CREATE TABLE t (id bigint, x text);
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW WHEN (NEW.id = 1) EXECUTE FUNCTION wait()
    """)
    with swallowed(proxy, waits(destination, "PgSleep")):
        assert silent(lost(job(rows, destination, conflict="fail", writes=behind(proxy))), "destination")


def test_connecting_to_a_server_that_says_nothing_ends(rows: Db, destination: Db, proxy: Proxy) -> None:
    proxy.black_hole()
    error = lost(job(rows, destination, reads={**behind(proxy), "connect_timeout": 2}))
    assert "timeout expired" in error.message


def test_connecting_is_cancelled_by_the_token(rows: Db, destination: Db, proxy: Proxy) -> None:
    proxy.black_hole()
    token = portl.CancelToken()
    timer = threading.Timer(0.5, token.cancel)
    timer.start()
    with pytest.raises(portl.Cancelled):
        portl.migrate(job(rows, destination, reads={**behind(proxy), "connect_timeout": 600}), cancel=token)
    timer.join()


def test_waiting_for_a_connection_of_a_pool_is_cancelled_by_the_token(rows: Db, destination: Db) -> None:
    info = rows.connection.info
    token = portl.CancelToken()
    with ConnectionPool(f"{info.dsn} password={info.password}", min_size=1, max_size=1, name="supplied") as pool:
        with pool.connection():
            timer = threading.Timer(0.5, token.cancel)
            timer.start()
            config = job(rows, destination)
            config["source"]["pool"] = {"timeout": 600}
            for key in ("host", "port", "database", "username", "password"):
                config["source"].pop(key, None)
            with pytest.raises(portl.Cancelled):
                portl.migrate(config, source=pool, cancel=token)
            timer.join()


def test_a_statement_that_takes_long_is_not_ended(source: Db, destination: Db, proxy: Proxy) -> None:
    query = "SELECT 1 AS id, pg_sleep(3)::text AS x"
    config = job(source, destination, reads={"table": None, "query": query, **behind(proxy)})
    config["source"]["statement_timeout"] = 60
    assert portl.migrate(config).rows_inserted == 1


def test_a_wait_for_a_lock_is_not_ended(rows: Db, destination: Db, proxy: Proxy) -> None:
    destination.execute("CREATE TABLE t (id int, x text)")
    with psycopg.connect(destination.connection.info.dsn, password=destination.endpoint.password) as other:
        other.execute("LOCK TABLE t")
        timer = threading.Timer(3 * TIMEOUT, other.rollback)
        timer.start()
        assert portl.migrate(job(rows, destination, conflict="fail", writes=behind(proxy))).rows_inserted == 20000
        timer.join()


def test_a_destination_whose_source_takes_long_is_not_ended(source: Db, destination: Db, proxy: Proxy) -> None:
    query = "SELECT g AS id, pg_sleep(CASE WHEN g = 3000 THEN 3 ELSE 0 END)::text AS x FROM generate_series(1, 3001) g"
    config = job(source, destination, reads={"table": None, "query": query}, writes=behind(proxy), batch_size=500)
    assert portl.migrate(config).rows_inserted == 3001


@pytest.mark.parametrize("new", [True, False])
def test_a_run_in_a_black_hole_is_cancelled_by_the_token(new: bool, rows: Db, destination: Db, proxy: Proxy) -> None:
    token = portl.CancelToken()
    config = job(rows, destination, reads={**behind(proxy), "network_timeout": 600})

    def swallow_and_cancel() -> None:
        until(lambda: proxy.forwarded("down") > 3_000_000)
        proxy.black_hole(new=new)
        token.cancel()

    proxy.delay(0.0, rate=4_000_000)
    thread = threading.Thread(target=swallow_and_cancel, name="cancelling")
    thread.start()
    with pytest.raises(portl.Cancelled):
        portl.migrate(config, cancel=token)
    thread.join()
    proxy.heal()


@pytest.mark.parametrize("end", ["reads", "writes"])
def test_a_backend_that_is_ended_in_the_middle_is_a_failure_that_passes(
    end: str, rows: Db, destination: Db, proxy: Proxy
) -> None:
    direction: Any = "down" if end == "reads" else "up"
    statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s AND query ~ %s"
    copy = "^COPY .* TO STDOUT" if end == "reads" else "^COPY .* FROM STDIN"

    def end_it() -> None:
        until(lambda: proxy.forwarded(direction) > 3_000_000)
        rows.execute(statement, NAME, copy)

    proxy.delay(0.0, rate=4_000_000)
    thread = threading.Thread(target=end_it, name="ending")
    thread.start()
    error = lost(job(rows, destination, **{end: behind(proxy)}))
    thread.join()
    assert error.message.startswith("source" if end == "reads" else "destination")


def test_a_wrong_password_behind_the_proxy_is_final(rows: Db, destination: Db, proxy: Proxy) -> None:
    with pytest.raises(portl.AuthenticationFailed) as caught:
        portl.migrate(job(rows, destination, reads={**behind(proxy), "password": "wrong"}))
    assert not caught.value.transient


def test_a_caller_supplied_connection_that_falls_silent_ends_with_an_error(
    rows: Db, destination: Db, proxy: Proxy
) -> None:
    config = job(rows, destination)
    for key in ("host", "port", "database", "username", "password"):
        config["source"].pop(key, None)
    proxy.delay(0.0, rate=4_000_000)
    with connect(rows, proxy) as supplied:
        with swallowed(proxy, lambda: proxy.forwarded("down") > 3_000_000, new=False):
            with pytest.raises(portl.ConnectionFailed, match=r"source .the caller's connection.*has sent nothing"):
                portl.migrate(config, source=supplied)
        assert supplied.broken


def test_a_job_that_sets_network_timeout_to_0_is_not_watched(rows: Db, destination: Db) -> None:
    seen: set[str] = set()
    reads = {"network_timeout": 0}
    config = job(rows, destination, reads=reads, writes=reads, conflict="fail")
    portl.migrate(config, observers=[lambda event: seen.update(t.name for t in threading.enumerate())])
    assert "portl-watchdog" not in seen
    config = job(rows, destination, conflict="fail")
    portl.migrate(config, observers=[lambda event: seen.update(t.name for t in threading.enumerate())])
    assert "portl-watchdog" in seen


def test_each_side_looks_after_the_other(source: Db, destination: Db) -> None:
    names = ["tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout"]
    names += ["client_connection_check_interval", "idle_in_transaction_session_timeout"]
    listed = ", ".join(f"current_setting('{name}')" for name in names)
    query = f"SELECT array_to_string(ARRAY[{listed}], ' ') AS x"
    config = job(source, destination, reads={"table": None, "query": query, "network_timeout": 60})
    portl.migrate(config)
    # A source that is not read for a while is not lost.
    assert destination.value("SELECT x FROM t") == "30 8 3 0 10s 0"


def test_the_holder_of_a_lock_is_named(rows: Db, destination: Db) -> None:
    destination.execute("CREATE TABLE t (id int, x text)")
    with psycopg.connect(
        destination.connection.info.dsn, password=destination.endpoint.password, application_name="the nightly job"
    ) as other:
        other.execute("LOCK TABLE t")
        backend = other.info.backend_pid
        with pytest.raises(portl.OperationError) as caught:
            portl.migrate(job(rows, destination, conflict="fail", writes={"lock_timeout": 0.2}))
    assert caught.value.transient
    hint = caught.value.hint or ""
    said = f"locks are held there by process {backend} (the nightly job) idle in transaction with AccessExclusiveLock"
    assert said in hint


def test_descriptors_above_a_thousand_do_no_harm(source: Db, destination: Db) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2200:
        pytest.skip("the system allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2200), hard))
    source.execute("CREATE TABLE t AS SELECT g AS id, repeat('x', 100) AS x FROM generate_series(1, 20000) AS g")
    with ExitStack() as stack:
        for _ in range(1100):
            stack.enter_context(Path(os.devnull).open("rb"))
        result = portl.migrate(job(source, destination, parallel=2, chunk_rows=5000, conflict="fail"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert result.rows_inserted == 20_000
