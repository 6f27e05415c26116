"""What the network does to a run: cut, delayed, silent. First the proxy itself, then portl behind it."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.proxy import Proxy
from tests.servers import Db


@pytest.fixture
def proxy(source: Db) -> Iterator[Proxy]:
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
