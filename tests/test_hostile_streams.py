"""Streams of rows amid what an application, a server or the system does to them: each test was a suspicion once."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

import portl
from tests.servers import Db


@pytest.fixture
def impatient() -> Iterator[None]:
    """An application that gives all sockets of its process a time limit, as many do."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.2)
    yield
    socket.setdefaulttimeout(before)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("route", ["relay", "rows"])
def test_a_time_limit_for_sockets_ends_no_stream_from_a_slow_source(source: Db, destination: Db, route: str) -> None:
    query = "SELECT g AS id, repeat('x', 9000) AS x, pg_sleep(0.7)::text AS z FROM generate_series(1, 3) AS g"
    job = {
        "source": source.end(query=query),
        "destination": destination.end(table="t", primary_key=["id"]),
        "route": route,
    }
    assert portl.migrate(job).rows_inserted == 3
    assert destination.value("SELECT count(*) FROM t") == 3


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("parallel", [1, 2])
def test_a_time_limit_for_sockets_costs_no_row_at_a_slow_destination(
    source: Db, destination: Db, parallel: int
) -> None:
    source.execute(
        "CREATE TABLE t AS SELECT g AS id, repeat(md5(g::text), 30) AS x FROM generate_series(1, 40000) AS g"
    )
    destination.execute("""
        CREATE TABLE t (id int, x text);
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.6); RETURN NEW; END $$;
        CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id % 20000 = 5) EXECUTE FUNCTION slow()
    """)
    job = {"source": source.end(table="t"), "destination": destination.end(table="t"), "parallel": parallel}
    result = portl.migrate({**job, "route": "relay", "conflict": "fail"})
    assert destination.value("SELECT count(*) FROM t") == result.rows_inserted == 40000
