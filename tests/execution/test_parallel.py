"""Several chunks at the same time: one state of the source, even chunks, pools of the sizes asked for, a clean end."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import attrs
import psycopg
import pytest

import portl
from portl_postgres.demo.server import Server, free_port
from portl_postgres.destination.destination import PostgresDestination
from portl_postgres.source.source import PostgresSource
from tests.jobs import Once, job_of, nothing_left, rows
from tests.proxy import Proxy
from tests.servers import Db, Endpoint, temporary_folder
from tests.sessions import reader

ROWS = 4000
TABLE = f"CREATE TABLE t AS SELECT g AS id, repeat('r', g % 60) AS y FROM generate_series(1, {ROWS}) AS g"
KEYED = f"{TABLE}; ALTER TABLE t ADD PRIMARY KEY (id)"
LIKE_IT = "CREATE TABLE t (id int, y text)"


def job(source: Db, destination: Db, **keys: Any) -> dict[str, Any]:
    return job_of(source.end(), destination.end(), **{"parallel": 3, **keys})


@attrs.frozen
class Case:
    #: Makes the table.
    made: str
    #: What the plan says of the cut.
    by: str
    #: Of the source, instead of the table.
    keys: dict[str, Any] = attrs.field(factory=dict)
    #: The least and the most rows of a chunk, where 500 were asked for.
    between: tuple[int, int] = (500, 500)


CASES = {
    "a number": Case(KEYED, "key ranges of id"),
    "a uuid": Case(
        f"CREATE TABLE t AS SELECT md5(g::text)::uuid AS id, g AS y FROM generate_series(1, {ROWS}) AS g ORDER BY 1;"
        "ALTER TABLE t ADD PRIMARY KEY (id)",
        "key ranges of id",
    ),
    "a text": Case(
        f"CREATE TABLE t AS SELECT 'Größe ' || g AS id, g AS y FROM generate_series(1, {ROWS}) AS g ORDER BY 1;"
        "ALTER TABLE t ADD PRIMARY KEY (id)",
        "key ranges of id",
    ),
    "two columns": Case(
        f"CREATE TABLE t AS SELECT g / 700 AS a, (g % 700)::text AS b, g AS y FROM generate_series(1, {ROWS}) AS g"
        " ORDER BY 1, 2; ALTER TABLE t ADD PRIMARY KEY (a, b)",
        "key ranges of a, b",
    ),
    "skewed": Case(
        "CREATE TABLE t AS SELECT CASE WHEN g <= 3500 THEN g ELSE g::bigint * 1000000 END AS id, g AS y"
        f" FROM generate_series(1, {ROWS}) AS g; ALTER TABLE t ADD PRIMARY KEY (id)",
        "key ranges of id",
    ),
    "no key": Case(TABLE, "block ranges"),
    "an order of its own": Case(
        "CREATE TABLE t AS SELECT md5(g::text)::uuid AS id, repeat('x', 200) AS filler"
        " FROM generate_series(1, 20000) AS g; ALTER TABLE t ADD PRIMARY KEY (id); ANALYZE t",
        "block ranges",
        between=(400, 600),
    ),
    "a query": Case(
        TABLE,
        "ranges of id",
        {"table": None, "query": "SELECT id % 100 AS id, y, id AS z FROM t", "split_by": "id"},
        between=(400, 600),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_every_row_arrives_once_over_several_workers_in_even_chunks(source: Db, destination: Db, case: Case) -> None:
    source.execute(case.made)
    config = job(source, destination)
    config["source"] = {key: value for key, value in {**config["source"], **case.keys}.items() if value is not None}
    plan = portl.plan(config)
    result = plan.execute()
    query = case.keys.get("query", "TABLE t")
    multiset = "SELECT s::text, count(*) FROM ({}) AS s GROUP BY 1 ORDER BY 1"
    assert destination.execute(multiset.format("TABLE t")) == source.execute(multiset.format(query))
    found = [count for (count,) in destination.execute("SELECT rows FROM portl.chunks ORDER BY number")]
    assert sum(found) == result.rows_read
    assert len(found) > 3
    # The last one has what is left: the rest of the rows, or those without a value.
    assert case.between[0] <= min(found[:-1]) <= max(found) <= case.between[1], found
    assert plan.tables[0].split.by.startswith(case.by)
    nothing_left(destination)


def test_all_workers_read_the_state_in_which_the_run_began(source: Db, destination: Db) -> None:
    source.execute(KEYED)
    first = Once(1, lambda: source.execute("CREATE TABLE was AS TABLE t; UPDATE t SET y = 'new'; DELETE FROM t"))
    result = portl.migrate(job(source, destination), observers=[first])
    assert result.tables[0].attempt == 1
    assert rows(destination, "t") == rows(source, "was")


#: A row that begins a chunk waits until three such rows wait, and gives up after a while.
TOGETHER = """
CREATE FUNCTION together() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM pg_advisory_lock_shared(4711);
  FOR i IN 1..400 LOOP
    EXIT WHEN (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711) >= 3;
    IF i = 400 THEN RAISE EXCEPTION 'alone'; END IF;
    PERFORM pg_sleep(0.05);
  END LOOP;
  PERFORM pg_sleep(0.2);
  PERFORM pg_advisory_unlock_shared(4711);
  RETURN NEW;
END $$;
CREATE TRIGGER together BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id IN (501, 1001, 1501))
EXECUTE FUNCTION together();
"""


def test_as_many_chunks_move_at_once_as_were_asked_for(source: Db, destination: Db) -> None:
    source.execute(KEYED)
    destination.execute(LIKE_IT + ";" + TOGETHER)
    portl.migrate(job(source, destination))
    assert rows(destination, "t") == rows(source, "t")


@pytest.mark.parametrize(
    ("cores", "far", "width", "workers"),
    [
        (1, 0, 60, 1),
        (2, 0, 60, 1),
        (2, 0, 4000, 2),
        (4, 0, 60, 2),
        (64, 0, 60, 4),
        (2, 1, 60, 2),
        (3, 1, 60, 3),
        (1, 2, 60, 4),
        (64, 2, 60, 4),
    ],
)
def test_auto_takes_as_many_workers_as_the_machines_can_serve(
    source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch, cores: int, far: int, width: int, workers: int
) -> None:
    source.execute(f"{KEYED}; UPDATE t SET y = repeat('r', {width})")
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    for side in (PostgresSource, PostgresDestination)[:far]:
        monkeypatch.setattr(side, "near", False)
    seen: set[str] = set()
    observe = lambda _: seen.update(t.name for t in threading.enumerate() if t.name.startswith("portl-worker"))  # noqa: E731
    portl.migrate(job(source, destination, parallel="auto"), observers=[observe])
    assert len(seen) == (workers if workers > 1 else 0)
    assert rows(destination, "t") == rows(source, "t")


def test_nothing_is_asked_over_a_connection_that_another_worker_may_be_using(
    source: Db, destination: Db, caplog: pytest.LogCaptureFixture
) -> None:
    source.execute(KEYED)
    with caplog.at_level("DEBUG", logger="portl.postgres"):
        portl.migrate(job(source, destination))
    assert any("COPY" in record.getMessage() for record in caplog.records)
    assert not [record for record in caplog.records if record.getMessage().endswith("SELECT 1")]
    assert rows(destination, "t") == rows(source, "t")


@pytest.mark.parametrize("last_words", [True, False], ids=["terminated", "cut"])
def test_a_source_whose_server_has_ended_the_connection_does_not_hold(source: Db, last_words: bool) -> None:
    with Proxy(source.endpoint) as proxy, reader(source, table="t", host=proxy.host, port=proxy.port) as reading:
        assert reading.holds()
        if last_words:
            source.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'portl'"
            )
        else:
            proxy.cut(reset=False)
        for _ in range(100):  # until it has arrived
            if not reading.holds():
                return
            time.sleep(0.05)
        pytest.fail("it is said to hold")


@pytest.mark.parametrize(("reading", "writing"), [(2, 4), (4, 2), (4, 4)])
def test_no_end_has_more_connections_than_its_pool(source: Db, destination: Db, reading: int, writing: int) -> None:
    source.execute(KEYED)
    most = {"reads": 0, "writes": 0}

    def look(event: portl.Event) -> None:
        for name in most:
            found = source.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", name)
            most[name] = max(most[name], found)

    config = job_of(
        source.end(application_name="reads", pool={"max_size": reading}),
        destination.end(application_name="writes", pool={"max_size": writing}),
        parallel=4,
        chunk_rows=100,
    )
    seen: list[portl.Event] = []
    portl.migrate(config, observers=[look, seen.append])
    workers = min(reading, writing)
    assert workers <= most["reads"] <= reading
    assert workers <= most["writes"] <= writing
    told = [event.message for event in seen if isinstance(event, portl.Warned) and event.where == "parallel"]
    said = [f"4 workers were asked for, but the connection pool has room for only {workers}"]
    assert told == (said if workers < 4 else [])
    assert rows(destination, "t") == rows(source, "t")


#: One worker is refused a row while the others are held up.
ONE_FAILS = """
CREATE FUNCTION meets() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF to_regclass('trouble') IS NULL THEN RETURN NEW; END IF;
  IF NEW.id IN (1300, 1800) THEN PERFORM pg_sleep(120); END IF;
  FOR i IN 1..200 LOOP
    PERFORM pg_stat_clear_snapshot();
    EXIT WHEN EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()
                      AND pid <> pg_backend_pid());
    PERFORM pg_sleep(0.05);
  END LOOP;
  RAISE EXCEPTION 'not this one' USING ERRCODE = '23514';
END $$;
CREATE TABLE trouble ();
CREATE TRIGGER meets BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id IN (950, 1300, 1800)) EXECUTE FUNCTION meets();
"""


def spawned() -> Executor:
    return ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn"))


@pytest.mark.parametrize(
    "made", [nullcontext, lambda: ThreadPoolExecutor(3), spawned], ids=["workers", "threads", "processes"]
)
def test_a_worker_that_fails_stops_the_others_and_the_ledger_is_true(
    source: Db, destination: Db, made: Callable[[], AbstractContextManager[Executor | None]]
) -> None:
    source.execute(KEYED)
    destination.execute(LIKE_IT + ";" + ONE_FAILS)
    with made() as executor:
        with pytest.raises(portl.DataError, match=r"id = 950.*not this one") as caught:
            portl.migrate(job(source, destination), executor=executor)
        nothing_left(destination)
        nothing_left(source)
        there = destination.value("SELECT count(*) FROM t")
        assert there < ROWS
        assert caught.value.committed is not None
        assert caught.value.committed.rows_read == there
        assert destination.value("SELECT sum(rows) FROM portl.chunks") == there
        assert destination.execute("SELECT state, total_rows FROM portl.migrations") == [("failed", there)]
        # Batches before the refused one are kept; the other workers' chunks are whole or not there at all.
        assert destination.execute(
            "SELECT number, state, rows FROM portl.chunks WHERE number IN (2, 3, 4) ORDER BY number"
        ) == [
            (2, "partial", 400),
            (3, "pending", 0),
            (4, "pending", 0),
        ]
        destination.execute("DROP TABLE trouble")
        result = portl.migrate(job(source, destination), executor=executor)
    assert (result.rows_read, result.tables[0].attempt) == (ROWS, 2)
    assert rows(destination, "t") == rows(source, "t")


@attrs.frozen
class Pair:
    """A primary and its standby."""

    primary: Db
    standby: Server

    def end(self, **keys: object) -> dict[str, object]:
        """Return the standby as one side of a job file."""
        return {"type": "postgres", **self.standby.parameters("pair"), **keys}

    def caught_up(self) -> None:
        """Wait until the standby has what the primary has."""
        position = self.primary.value("SELECT pg_current_wal_lsn()::text")
        with psycopg.connect(**self._keys, autocommit=True) as connection:
            for _ in range(400):
                if connection.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [position]).fetchone() == (
                    True,
                ):
                    return
                time.sleep(0.05)
        pytest.fail("the standby stays behind")

    @property
    def _keys(self) -> dict[str, Any]:
        server = self.standby
        return {"host": server.host, "port": server.port, "user": server.user, "password": server.password}


@pytest.fixture(scope="module")
def primary() -> Iterator[Server]:
    folder = temporary_folder("portl-pair-")
    try:
        with Server(folder) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def standby(primary: Server) -> Iterator[Server]:
    """A hot standby that cancels whoever is in the way of what it replays."""
    folder = primary.folder / "standby"
    reach = ("-h", primary.host, "-p", str(primary.port), "-U", primary.user)
    primary.run("pg_basebackup", "-D", str(folder / "data"), *reach, "-R", "-c", "fast")
    server = Server(folder, binaries=primary.binaries)
    server.port, server.password = free_port(), primary.password
    with (server.data / "postgresql.conf").open("a") as conf:
        conf.write(f"port = {server.port}\nmax_standby_streaming_delay = 0\n")
    with server:
        yield server


@pytest.fixture
def pair(primary: Server, standby: Server) -> Iterator[Pair]:
    """A database of both, with a table."""
    keys: dict[str, Any] = {"host": primary.host, "port": primary.port, "user": primary.user}
    keys |= {"password": primary.password, "autocommit": True}
    with psycopg.connect(**keys) as connection:
        connection.execute("DROP DATABASE IF EXISTS pair WITH (FORCE)")
        connection.execute("CREATE DATABASE pair")
    endpoint = Endpoint(primary.host, primary.port, primary.user, primary.password)
    with psycopg.connect(**keys, dbname="pair") as connection:
        found = Pair(Db(connection, endpoint), standby)
        found.primary.execute(KEYED)
        found.primary.execute(TABLE.replace("TABLE t", "TABLE k"))
        found.caught_up()
        yield found


@pytest.mark.parametrize(
    ("keys", "by"),
    [
        ({"table": "t"}, "key ranges of id"),
        ({"table": "k"}, "block ranges"),
        ({"query": "SELECT * FROM t", "split_by": "id"}, "ranges of id"),
    ],
    ids=["keys", "blocks", "a query"],
)
@pytest.mark.parametrize("made", [nullcontext, spawned], ids=["workers", "processes"])
def test_a_standby_is_read_by_several_workers_from_one_snapshot(
    pair: Pair,
    destination: Db,
    keys: dict[str, Any],
    by: str,
    made: Callable[[], AbstractContextManager[Executor | None]],
) -> None:
    def change() -> None:
        pair.primary.execute(
            "CREATE TABLE was AS TABLE t; INSERT INTO t SELECT g, 'new' FROM generate_series(0, -9, -1) g"
        )
        pair.primary.execute("INSERT INTO k TABLE t; UPDATE t SET y = 'new'")
        pair.caught_up()

    config = {**job_of({}, destination.end(), parallel=3), "source": pair.end(**keys)}
    plan = portl.plan(config, observers=[Once(1, change)])
    assert plan.tables[0].split.by.startswith(by)
    with made() as executor:
        result = plan.execute(executor=executor)
    assert result.tables[0].attempt == 1
    assert rows(destination, "t") == rows(pair.primary, "was")
    nothing_left(destination)


def test_workers_go_to_the_server_of_several_that_has_the_snapshot(pair: Pair, destination: Db) -> None:
    hosts = f"{pair.standby.host}:{pair.primary.endpoint.port},{pair.standby.host}:{pair.standby.port}"
    login = f"{pair.standby.user}:{pair.standby.password}"
    url = f"postgresql://{login}@{hosts}/pair?load_balance_hosts=random"
    for table in ("a", "b", "c"):
        config = {**job_of({}, {}, parallel=4), "source": {"type": "postgres", "url": url, "table": "t"}}
        config["destination"] = destination.end(table=table)
        assert portl.migrate({**config, "name": table}).tables[0].retries == 0
        assert rows(destination, table) == rows(pair.primary, "t")


def test_what_a_standby_replays_may_end_a_snapshot_and_the_run_goes_on_with_a_new_one(
    pair: Pair, destination: Db
) -> None:
    def vacuum() -> None:
        pair.primary.execute("DELETE FROM t WHERE id > 3900")
        pair.primary.execute("VACUUM t")
        pair.caught_up()

    seen = Once(1, vacuum)
    config = {**job_of({}, destination.end(), parallel=3), "source": pair.end(table="t")}
    result = portl.migrate(config, observers=[seen])
    assert result.tables[0].attempt == 2
    assert result.tables[0].older_chunks == (1,)
    assert any("conflict with recovery" in retry.error for retry in seen.retries)
    assert rows(destination, "t") == rows(pair.primary, "t")


def test_a_standby_is_no_destination(source: Db, pair: Pair) -> None:
    source.execute(KEYED)
    with pytest.raises(portl.PlanError, match="the server is a standby, which is read-only -> connect to its primary"):
        portl.migrate({**job_of(source.end(), {}), "destination": pair.end(table="t")})
