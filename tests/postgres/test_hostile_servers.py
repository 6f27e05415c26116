"""Servers that are set up in ways that a tool is not tried with, and what happens to them during a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import portl
from tests.jobs import BRIEF
from tests.servers import Db


def job(source: Db, destination: Db, **keys: object) -> dict[str, object]:
    return {"source": source.end(table="t"), "destination": destination.end(table="t", primary_key=["id"]), **keys}


CHANGES = ["ALTER TABLE t ALTER id TYPE bigint", "TRUNCATE t; INSERT INTO t SELECT 7, 'new'"]


@pytest.mark.parametrize("change", CHANGES, ids=["alter", "truncate"])
@pytest.mark.parametrize("what", [{"table": "t"}, {"query": "SELECT * FROM t"}], ids=["table", "query"])
def test_a_table_that_is_rewritten_after_the_snapshot_is_refused(
    source: Db, destination: Db, change: str, what: dict[str, object]
) -> None:
    source.execute("CREATE TABLE t (id int, x text); INSERT INTO t SELECT g, 'x' FROM generate_series(1, 100) AS g")
    ends = {"source": source.end(**what), "destination": destination.end(table="t", primary_key=["id"])}
    found: list[portl.Error] = []

    def run() -> None:
        try:
            portl.migrate(ends)
        except portl.Error as error:
            found.append(error)

    # The run has its snapshot and waits for the lock; what it gets then is a file that is younger than the snapshot.
    with psycopg.connect(source.connection.info.dsn, password=source.endpoint.password) as other:
        other.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        other.execute(change.encode())
        thread = threading.Thread(target=run)
        thread.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 't'::regclass"
        deadline = time.monotonic() + 30
        while not source.value(waiting):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        other.commit()
    thread.join(60)
    assert len(found) == 1
    assert type(found[0]) is portl.SchemaError
    assert "t was truncated or rewritten while the run had its snapshot" in found[0].message


def test_settings_of_the_database_do_not_change_values(source: Db, destination: Db) -> None:
    source.execute(r"CREATE TABLE t (id int, a text[], n numeric, s text DEFAULT 'a\b')")
    source.execute(r"INSERT INTO t VALUES (1, '{a,NULL,\\}', 5, 'c\d')")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, a text[], n int, s text)")
    for db in (source, destination):
        name = db.connection.info.dbname
        for setting in ("array_nulls = off", "bytea_output = escape", "DateStyle = 'German, DMY'"):
            db.execute(f"ALTER DATABASE {name} SET {setting}")
    assert portl.plan(job(source, destination)).tables[0].intent.format.name == "postgres-copy-text"
    portl.migrate(job(source, destination))
    assert destination.execute("SELECT a, n, s FROM t") == [(["a", None, "\\"], 5, r"c\d")]


@pytest.mark.parametrize("end", ["source", "destination"])
def test_defaults_survive_standard_conforming_strings_off(source: Db, destination: Db, end: str) -> None:
    source.execute(r"CREATE TABLE t (id int, s text DEFAULT 'a\b'); INSERT INTO t VALUES (1, 'c\d')")
    db = {"source": source, "destination": destination}[end]
    db.execute(f"ALTER DATABASE {db.connection.info.dbname} SET standard_conforming_strings = off")
    portl.migrate(job(source, destination))
    destination.execute("INSERT INTO t (id) VALUES (2)")
    assert destination.execute("SELECT s FROM t ORDER BY id") == [(r"c\d",), (r"a\b",)]


def test_an_empty_search_path_is_no_obstacle(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
    for db in (source, destination):
        db.execute(f"ALTER DATABASE {db.connection.info.dbname} SET search_path = ''")
    assert portl.migrate(job(source, destination)).rows_inserted == 1


@pytest.mark.parametrize("end", ["source", "destination"])
def test_a_role_that_speaks_sql_ascii_is_no_obstacle(source: Db, destination: Db, end: str) -> None:
    source.execute("CREATE TABLE t (id int, x text); INSERT INTO t VALUES (1, 'ä€𝄞')")
    db = {"source": source, "destination": destination}[end]
    db.execute(f"ALTER DATABASE {db.connection.info.dbname} SET client_encoding = 'SQL_ASCII'")
    portl.migrate(job(source, destination))
    assert destination.execute("SELECT * FROM t") == [(1, "ä€𝄞")]


def test_a_database_in_sql_ascii_is_read(source: Db, destination: Db) -> None:
    source.execute("DROP DATABASE IF EXISTS portl_ascii")
    source.execute("CREATE DATABASE portl_ascii ENCODING 'SQL_ASCII' TEMPLATE template0")
    try:
        dsn = psycopg.conninfo.make_conninfo(source.connection.info.dsn, dbname="portl_ascii")
        with psycopg.connect(dsn, password=source.endpoint.password, client_encoding="UTF8") as connection:
            connection.execute("CREATE TABLE t (id int, x text)")
            connection.execute("INSERT INTO t VALUES (1, 'grün')")
        ends = job(source, destination) | {"source": source.end(table="t", database="portl_ascii")}
        portl.migrate(ends)
        assert destination.execute("SELECT * FROM t") == [(1, "grün")]
    finally:
        source.execute("DROP DATABASE portl_ascii")


@pytest.fixture
def ascii_database(source: Db) -> Iterator[Callable[[str], dict[str, object]]]:
    """Make a database in SQL_ASCII with forty rows in ``t``, of which one has bytes that are no UTF-8."""
    names: list[str] = []

    def make(name: str, rows: int = 40) -> dict[str, object]:
        source.execute(f"DROP DATABASE IF EXISTS {name}")
        source.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0")
        names.append(name)
        dsn = psycopg.conninfo.make_conninfo(source.connection.info.dsn, dbname=name)
        with psycopg.connect(dsn, password=source.endpoint.password) as connection:
            connection.execute("CREATE TABLE t (id int PRIMARY KEY, x text)")
            connection.execute(
                "INSERT INTO t SELECT g, CASE WHEN g = 3 THEN E'b\\344d' ELSE 'good' END"
                " FROM generate_series(1, %s) AS g",
                (rows,),
            )
        return source.end(table="t", database=name)

    yield make
    for name in names:
        source.execute(f"DROP DATABASE {name} WITH (FORCE)")


AsciiDatabase = Callable[..., dict[str, object]]


@pytest.mark.parametrize("route", ["relay", "rows"])
@pytest.mark.parametrize("column", ["text", "varchar(9)"])
def test_bytes_that_are_no_text_cost_their_row_alone(
    ascii_database: AsciiDatabase, source: Db, destination: Db, route: str, column: str
) -> None:
    """The narrower column makes the relay travel as text."""
    destination.execute(f"CREATE TABLE t (id int PRIMARY KEY, x {column})")
    ends = job(source, destination) | {"source": ascii_database("portl_ascii")}
    ends |= {"conflict": "fail", "route": route, "chunk_rows": 1000}
    plan = portl.plan(ends)
    assert plan.problems == ()
    assert [row[1] for row in plan.tables[0].preview] == ["good", "good", "b\\xe4d", "good", "good"]
    with pytest.raises(portl.DataError, match="row 3 of the source"):
        portl.migrate(ends)
    result = portl.migrate({**ends, "on_error": "quarantine"}, restart=True)
    assert (result.rows_inserted, result.rows_rejected) == (39, 1)
    assert destination.value("SELECT count(*) FROM t WHERE x = 'good'") == 39
    assert destination.value("SELECT \"row\"->>'id' FROM t__rejected") == "3"
    for mode in ("count", "checksum", "full"):
        found = portl.verify(ends, mode=mode).tables[0]
        assert (found.missing, found.different, found.extra) == (1, 0, 0)


@pytest.mark.parametrize("route", ["relay", "rows"])
@pytest.mark.parametrize("conflict", ["fail", "overwrite"])
@pytest.mark.parametrize("column", ["text", "varchar(9)"])
def test_bytes_pass_from_sql_ascii_to_sql_ascii(
    ascii_database: AsciiDatabase, source: Db, route: str, conflict: str, column: str
) -> None:
    there = ascii_database("portl_ascii_there", 2)
    dsn = psycopg.conninfo.make_conninfo(source.connection.info.dsn, dbname="portl_ascii_there")
    with psycopg.connect(dsn, password=source.endpoint.password, autocommit=True) as connection:
        if conflict == "fail":
            connection.execute("TRUNCATE t")
        connection.execute(f"ALTER TABLE t ALTER x TYPE {column}".encode())
        ends = {"source": ascii_database("portl_ascii"), "destination": there, "route": route, "conflict": conflict}
        for mode in ("checksum", "full"):
            result = portl.migrate({**ends, "conflict": "overwrite" if mode == "full" else conflict, "verify": mode})
            assert result.verification is not None
            assert result.verification.equal
        found = connection.execute("SELECT encode(x::text::bytea, 'hex') FROM t WHERE id = 3").fetchall()
        assert found in ([("62e464",)], [(b"62e464",)])
        assert connection.execute("SELECT count(*) FROM t").fetchall() == [(40,)]


@pytest.mark.parametrize("route", ["relay", "rows"])
@pytest.mark.parametrize("column", ["text", "varchar(9)"])
def test_rows_whose_keys_are_bytes_are_named_and_repaired(
    ascii_database: AsciiDatabase, source: Db, route: str, column: str
) -> None:
    ends: dict[str, Any] = {"source": ascii_database("portl_ascii")}
    ends |= {"destination": ascii_database("portl_ascii_there", 0)}
    ends |= {"route": route, "conflict": "overwrite", "chunk_rows": 10}
    databases = []
    for name in ("portl_ascii", "portl_ascii_there"):
        dsn = psycopg.conninfo.make_conninfo(source.connection.info.dsn, dbname=name)
        databases.append(psycopg.connect(dsn, password=source.endpoint.password, autocommit=True))
    with databases[0] as there, databases[1] as here:
        there.execute("UPDATE t SET x = x || '\\\"' || id")
        for connection in (there, here):
            connection.execute("ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (x)")
        here.execute(f"ALTER TABLE t ALTER x TYPE {column}".encode())
        portl.migrate(ends)
        here.execute("DELETE FROM t WHERE id = 3; UPDATE t SET id = 99 WHERE id = 4")
        for mode in ("checksum", "full"):
            found = portl.verify(ends, mode=mode).tables[0]
            assert (found.missing, found.different, found.extra) == (1, 1, 0)
            assert sorted(row.key["x"] or "" for row in found.rows) == ['b\\xe4d\\"3', 'good\\"4']
            assert str(portl.verify(ends, mode=mode)).encode()
        assert portl.verify(ends, repair=True).equal
        rows = [
            c.execute("SELECT id, encode(convert_to(x, 'SQL_ASCII'), 'hex') FROM t ORDER BY id") for c in (there, here)
        ]
        assert rows[0].fetchall() == rows[1].fetchall()


@pytest.mark.parametrize("open_transaction", [True, False])
def test_a_caller_supplied_connection_is_usable_after_a_lock_could_not_be_had(
    source: Db, destination: Db, open_transaction: bool
) -> None:
    source.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE mine (id int)")
    end = destination.end(table="t", lock_timeout=0.2)
    password = destination.endpoint.password
    with psycopg.connect(destination.connection.info.dsn, password=password) as supplied:
        if open_transaction:
            supplied.execute("INSERT INTO mine VALUES (1)")
        with psycopg.connect(destination.connection.info.dsn, password=password) as holder:
            holder.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(portl.Error, match="lock timeout"):
                portl.migrate(
                    {"source": source.end(table="t"), "destination": end, "retry": BRIEF}, destination=supplied
                )
        expected = psycopg.pq.TransactionStatus.INTRANS if open_transaction else psycopg.pq.TransactionStatus.IDLE
        assert supplied.info.transaction_status == expected
        assert supplied.autocommit is False
        supplied.execute("INSERT INTO mine VALUES (2)")
    assert destination.value("SELECT count(*) FROM mine") == 1 + open_transaction


@pytest.mark.parametrize("url", ["host=127.0.0.1 connect_timeout=abc", "postgresql://127.0.0.1/x?connect_timeout=abc"])
def test_a_parameter_that_libpq_cannot_read_is_told(source: Db, url: str) -> None:
    with pytest.raises(portl.ConnectionFailed, match="connect_timeout"):
        portl.migrate({"source": {"type": "postgres", "url": url, "table": "t"}, "destination": source.end(table="t")})


@pytest.mark.parametrize("mode", ["count", "checksum", "full"])
@pytest.mark.parametrize("route", ["relay", "rows"])
def test_backslashes_are_no_escapes_whatever_the_databases_say(
    source: Db, destination: Db, mode: str, route: str
) -> None:
    for db in (source, destination):
        db.execute(f"ALTER DATABASE {db.connection.info.dbname} SET standard_conforming_strings = off")
    source.execute("CREATE TABLE t (id int PRIMARY KEY, \"a\\b'\" text, b bytea, e text DEFAULT E'x\\\\y')")
    source.execute("INSERT INTO t VALUES (1, E'a\\\\b', '\\x5c5c', E'\\\\'), (2, E'\\n', '\\x', NULL)")
    config = job(source, destination, route=route, verify=mode)
    config["source"] = source.end(table="t", where="e IS NULL OR id = 1")
    for _ in range(2):
        result = portl.migrate(config)
        assert result.verification is not None
        assert result.verification.equal
    look = 'SELECT id, "a\\b\'", b, e FROM t ORDER BY id'
    assert destination.execute(look) == source.execute(look) == [(1, "a\\b", b"\\\\", "\\"), (2, "\n", b"", None)]


def test_a_server_of_another_kind_than_the_one_asked_for_is_told_as_such(source: Db, destination: Db) -> None:
    config = job(source, destination, retry={"attempts": 1})
    config["source"] = source.end(table="t", params={"target_session_attrs": "standby"})
    with pytest.raises(portl.ConnectionFailed, match="server is not in hot standby mode") as caught:
        portl.plan(config)
    assert type(caught.value) is portl.ConnectionFailed
    assert str(caught.value.hint).startswith("the server is there and takes the role, and it is not what")
