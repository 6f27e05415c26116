"""Rows read and written past libpq are the rows that libpq would have given, and libpq knows of nothing."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

import portl
from portl_postgres.config import PostgresSourceConfig
from portl_postgres.demo.server import Server
from portl_postgres.session.database import Database
from portl_postgres.session.session import Session
from portl_postgres.wire.batches import CopyBatch
from portl_postgres.wire.copy_out import CopyOut
from portl_postgres.wire.messages import BUFFER_BYTES, bare, framed, walk
from tests.proxy import Proxy
from tests.servers import Db, system_binaries, temporary_folder


@contextmanager
def session(db: Db, **keys: Any) -> Iterator[Session]:
    end: dict[str, Any] = db.end(table="t", **keys)
    config = PostgresSourceConfig(**{**end, "password": portl.Secret(end["password"])})
    database = Database(config, None, "source")
    try:
        with database.session(portl.Context(), {}) as found:
            yield found
    finally:
        database.close()


def copied(found: Session, query: str, *, binary: bool = True, rows: int = 1000, **keys: Any) -> list[CopyBatch]:
    format = "binary" if binary else "text"
    copy = CopyOut(found, f"COPY ({query}) TO STDOUT (FORMAT {format})", portl.CancelToken(), "reading", **keys)
    return list(copy.batches(binary=binary, rows=rows, size=None))


def by_libpq(found: Session, query: str, *, binary: bool = True) -> list[bytes]:
    format = "binary" if binary else "text"
    copy = CopyOut(found, f"COPY ({query}) TO STDOUT (FORMAT {format})", portl.CancelToken(), "reading")
    return [bytes(row) for row in copy.rows(binary=binary)]


QUERIES = {
    "no row": "SELECT 1 AS a WHERE false",
    "one row": "SELECT 1 AS a",
    "one length": "SELECT g AS a, g AS b FROM generate_series(1, 20000) AS g",
    "many lengths": "SELECT g, repeat('x', g % 7), repeat('y', g * g % 300) FROM generate_series(1, 5000) AS g",
    "short and long": "SELECT g, repeat('x', (g % 10 = 0)::int * 30000) FROM generate_series(1, 200) AS g",
    "longer than the buffer": f"SELECT g, repeat('x', g * {BUFFER_BYTES}) FROM generate_series(1, 5) AS g",
    "empty texts": "SELECT '' AS a FROM generate_series(1, 3000)",
    "no columns": "SELECT FROM generate_series(1, 2000)",
    "rows like the end": "SELECT E'd\\001\\001\\001\\006'::text AS a, -1::int2 AS b FROM generate_series(1, 3000)",
}


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "text"])
@pytest.mark.parametrize("query", list(QUERIES.values()), ids=list(QUERIES))
def test_rows_from_the_wire_are_those_that_libpq_gives(source: Db, query: str, binary: bool) -> None:
    with session(source) as found:
        expected = by_libpq(found, query, binary=binary)
        for size in (1000, 7):
            batches = copied(found, query, binary=binary, rows=size)
            assert all(batch.framed for batch in batches)
            assert [row for batch in batches for row in batch.split()] == expected
            assert [batch.rows for batch in batches[:-1]] == [size] * (len(batches) - 1)
            assert sum(batch.rows for batch in batches) == len(expected)
            assert sum(batch.size for batch in batches) == sum(map(len, expected))
            assert [batch.first_row for batch in batches] == [1 + size * n for n in range(len(batches))]
        assert found.query("SELECT 1") == [(1,)]


@pytest.mark.parametrize("end", [1000, 1001, 2000])
def test_what_ends_the_rows_is_no_row_wherever_a_batch_ends(source: Db, end: int) -> None:
    with session(source) as found:
        batches = copied(found, f"SELECT g::int2 FROM generate_series(1, {end}) AS g")
        assert sum(batch.rows for batch in batches) == end
        assert all(batch.rows for batch in batches)


def test_a_piece_holds_whole_rows_and_is_not_much_longer_than_is_put_at_once(source: Db) -> None:
    with session(source) as found:
        (batch,) = copied(found, "SELECT g, repeat('x', 100) FROM generate_series(1, 5000) AS g", rows=5000)
        assert all(len(piece) <= BUFFER_BYTES for piece in batch.pieces)
        assert sum(len(bare(piece)) for piece in batch.pieces) == 5000


def test_messages_are_counted_wherever_the_bytes_end() -> None:
    """Lengths by chance, with runs of one length among them; then cut at every place near the end."""
    chance = random.Random(20)
    rows: list[bytes] = []
    while len(rows) < 3000:
        rows += [bytes([chance.randrange(256)]) * chance.choice([2, 2, 18, 100, 300])] * chance.choice([1, 2, 15, 90])
    messages = [framed(row) for row in rows]
    data, ends, position = bytearray(b"".join(messages)), [], 0
    for message in messages:
        position += len(message)
        ends.append(position)
    assert walk(data, 0, len(data), 10_000, binary=False) == (len(data), len(rows))
    for cut in (*range(len(data) - 700, len(data)), *chance.sample(range(len(data)), 300)):
        whole = sum(end <= cut for end in ends)
        assert walk(data, 0, cut, 10_000, binary=False) == ((ends[whole - 1] if whole else 0), whole)
    for most in (1, 2, 17, 255, 1000, 2999):
        assert walk(data, 0, len(data), most, binary=False) == (ends[most - 1], most)


def test_rows_that_differ_in_the_high_bytes_of_their_length_are_no_run() -> None:
    """The lengths' last bytes are the same; only those before them tell."""
    rows = [b"x" * 10] * 40 + [b"x" * (10 + 256)] * 40 + [b"x" * (10 + 65536)] * 3
    data = bytearray(b"".join(map(framed, rows)))
    assert walk(data, 0, len(data), 1000, binary=True) == (len(data), len(rows))


def test_a_batch_of_messages_splits_as_one_of_rows_does(source: Db) -> None:
    query = "SELECT g, repeat('x', g % 5) AS x FROM generate_series(1, 50) AS g"
    with session(source) as found:
        (batch,) = copied(found, query)
        rows = by_libpq(found, query)
    part = batch.take(10, 20)
    assert (part.rows, part.first_row, part.framed) == (10, 11, True)
    assert part.split() == rows[10:20]
    assert part.size == sum(map(len, rows[10:20]))
    assert b"".join(part.bare) == b"".join(rows[10:20])


def test_an_error_amid_the_rows_is_the_servers(source: Db) -> None:
    with session(source) as found:
        found.begin()
        with pytest.raises(portl.Error, match="division by zero") as error:
            copied(found, "SELECT 1 / (5000 - g) FROM generate_series(1, 9000) AS g")
        assert error.value.sqlstate == "22012"
        found.rollback()
        assert found.query("SELECT 2") == [(2,)]


def test_notices_arrive_though_the_rows_pass_libpq_by(source: Db) -> None:
    """More of them than a pair of sockets holds."""
    source.execute("""
        CREATE FUNCTION loud(n int) RETURNS int LANGUAGE plpgsql AS
            $$ BEGIN RAISE WARNING 'row % %', n, repeat('.', 200); RETURN n; END $$
    """)
    with session(source) as found:
        said: list[str] = []
        found.connection.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
        batches = copied(found, "SELECT loud(g) FROM generate_series(1, 6000) AS g")
        assert sum(batch.rows for batch in batches) == 6000
        assert [int(text.split()[1]) for text in said] == list(range(1, 6001))
        assert found.query("SELECT 3") == [(3,)]


@pytest.mark.parametrize("read_out", [True, False], ids=["read out", "cancelled"])
def test_leaving_early_leaves_the_connection_in_order(source: Db, read_out: bool) -> None:
    with session(source) as found:
        found.begin()
        statement = "COPY (SELECT g FROM generate_series(1, 300000) AS g) TO STDOUT (FORMAT binary)"
        copy = CopyOut(found, statement, portl.CancelToken(), "reading", read_out=read_out)
        batches = copy.batches(binary=True, rows=10, size=None)
        assert next(batches).rows == 10
        batches.close()
        status = found.connection.info.transaction_status
        assert status is (psycopg.pq.TransactionStatus.INTRANS if read_out else psycopg.pq.TransactionStatus.INERROR)
        found.rollback()
        assert found.query("SELECT 4") == [(4,)]


def test_a_backend_that_is_ended_says_so(source: Db) -> None:
    with session(source) as found:
        copy = CopyOut(
            found,
            "COPY (SELECT g, pg_sleep(0.001) FROM generate_series(1, 300000) AS g) TO STDOUT (FORMAT binary)",
            portl.CancelToken(),
            "reading",
        )
        batches = copy.batches(binary=True, rows=10, size=None)
        next(batches)
        source.execute("SELECT pg_terminate_backend(%s)", found.connection.info.backend_pid)
        with pytest.raises(
            portl.ConnectionFailed, match="terminating connection due to administrator command"
        ) as error:
            list(batches)
        assert error.value.transient
        assert found.broken


def test_a_connection_that_is_cut_amid_the_rows_is_lost(source: Db) -> None:
    with Proxy(source.endpoint) as proxy, session(source, port=proxy.port) as found:
        proxy.cut(after=1_000_000)
        with pytest.raises(portl.ConnectionFailed) as error:
            copied(found, "SELECT repeat('x', 1000) FROM generate_series(1, 10000)")
        assert error.value.transient
        assert found.broken


def test_what_arrives_before_the_answer_leaves_the_rows_to_libpq(source: Db) -> None:
    """A notification stands where the answer is looked for, as TLS would: not a row may be lost by that."""
    with session(source) as found:
        found.execute("LISTEN portl_test")
        source.execute("NOTIFY portl_test")
        batches = copied(found, "SELECT g FROM generate_series(1, 2500) AS g")
        assert [(batch.rows, batch.framed) for batch in batches] == [(1000, False), (1000, False), (500, False)]
        assert [batch.rows for batch in copied(found, "SELECT g FROM generate_series(1, 2) AS g")] == [2]


def test_over_a_slow_link_rows_go_without_messages_of_their_own(source: Db, destination: Db) -> None:
    """Two integers are 18 bytes, and 23 with the message around them."""
    rows = 600_000
    source.execute(f"CREATE TABLE t AS SELECT g AS id, g AS n FROM generate_series(1, {rows}) AS g")
    with Proxy(destination.endpoint) as proxy:
        proxy.delay(0.0, rate=3_000_000)
        writes = destination.end(table="t", port=proxy.port)
        result = portl.migrate({"source": source.end(table="t"), "destination": writes, "parallel": 1})
        assert result.bytes == rows * 18
        assert proxy.forwarded("up") < rows * 22  # what the buffers on the way take at first shows nothing of the link
    assert destination.value("SELECT count(*) FROM t WHERE id = n") == rows


@pytest.fixture(scope="module")
def tls() -> Iterator[Server]:
    """A server that speaks TLS."""
    binaries = system_binaries()
    if binaries is None:
        pytest.skip("there is no PostgreSQL of the system here, and the embedded one has no TLS")
    folder = temporary_folder("portl-tls-")
    key = ["openssl", "req", "-new", "-x509", "-nodes", "-subj", "/CN=localhost", "-out", "server.crt", "-keyout"]
    server = Server(folder / "server", binaries=binaries)
    with server:
        subprocess.run([*key, "server.key"], cwd=server.data, check=True, capture_output=True)
        owner = server.data.stat()
        for name in ("server.crt", "server.key"):
            path = server.data / name
            path.chmod(0o600)
            if path.stat().st_uid != owner.st_uid:
                os.chown(path, owner.st_uid, owner.st_gid)
        with psycopg.connect(**connection(server), autocommit=True) as found:
            found.execute("ALTER SYSTEM SET ssl = on")
            found.execute("SELECT pg_reload_conf()")
        yield server
    shutil.rmtree(folder, ignore_errors=True)


def connection(server: Server) -> dict[str, Any]:
    return {
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "password": server.password,
        "dbname": "postgres",
    }


@pytest.mark.system
@pytest.mark.parametrize("which", ["source", "destination", "both"])
def test_rows_go_through_tls(source: Db, destination: Db, tls: Server, which: str) -> None:
    rows = "SELECT g AS id, g % 10 AS n, repeat('x', g % 50) AS x FROM generate_series(1, 5000) AS g"
    wrapped = {"type": "postgres", **tls.parameters(), "sslmode": "require"}
    with psycopg.connect(**connection(tls), autocommit=True) as found:
        found.execute("DROP TABLE IF EXISTS t, u")
        found.execute(f"CREATE TABLE t AS {rows}")
        source.execute(f"CREATE TABLE t AS {rows}")
        reads = {**wrapped, "table": "t"} if which != "destination" else source.end(table="t")
        writes = {**wrapped, "table": "u"} if which != "source" else destination.end(table="u")
        result = portl.migrate({"source": reads, "destination": writes, "route": "relay"})
        assert result.rows_inserted == 5000
        digest = "SELECT count(*), md5(string_agg(t::text, ';' ORDER BY id)) FROM {} AS t"
        there = (
            destination.execute(digest.format("u"))
            if which == "source"
            else found.execute(digest.format("u")).fetchall()
        )
        assert there == source.execute(digest.format("t"))
