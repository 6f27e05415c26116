"""A run that is cancelled, by a token or by Ctrl-C, ends in order: what is open is undone, what is done is told."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest

import portl
from portl_postgres.demo.server import free_port
from tests.servers import Db

NAME = "portl cancelled"


def job(reads: Db, writes: Db, /, **keys: Any) -> dict[str, Any]:
    source = keys.pop("source", {"table": "t"})
    return {
        "source": reads.end(**source, application_name=NAME),
        "destination": writes.end(table="t", application_name=NAME),
        **keys,
    }


@pytest.fixture
def rows(source: Db) -> Db:
    source.execute("CREATE TABLE t AS SELECT g AS id, repeat('x', 20) AS x FROM generate_series(1, 4000) AS g")
    return source


def working(db: Db) -> int:
    """Return how many backends of the run are at work, in any database."""
    return int(db.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state = 'active'", NAME))


def connected(db: Db) -> int:
    """Return how many connections of the run are left once the server has had a moment to end them."""
    for _ in range(50):
        count = int(db.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", NAME))
        if not count:
            return 0
        time.sleep(0.1)
    return count


def until(holds: Callable[[], object]) -> None:
    for _ in range(200):
        if holds():
            return
        time.sleep(0.05)
    pytest.fail("it never came to that")


@contextmanager
def when(holds: Callable[[], object], then: Callable[[], object]) -> Iterator[None]:
    """Do something from another thread as soon as something else holds."""

    def watch() -> None:
        until(holds)
        then()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def waits(db: Db, event: str) -> Callable[[], object]:
    """Return whether a backend of the run waits for something of that kind."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND wait_event = %s"
    return lambda: db.value(query, NAME, event)


@contextmanager
def ended(config: dict[str, Any], token: portl.CancelToken) -> Iterator[list[portl.Event]]:
    """Run a job that must end as cancelled; yield its events."""
    events: list[portl.Event] = []
    with pytest.raises(portl.Cancelled, match=r"^the run was cancelled") as caught:
        portl.migrate(config, cancel=token, observers=[events.append])
    assert type(caught.value) is portl.Cancelled
    assert not caught.value.transient
    last = events[-1]
    assert isinstance(last, portl.Failed)
    assert last.kind == "Cancelled"
    yield events


def test_a_token_that_is_cancelled_before_the_run_keeps_it_from_connecting(rows: Db, destination: Db) -> None:
    token = portl.CancelToken()
    token.cancel()
    token.cancel()
    assert token.cancelled
    config = job(rows, destination, source={"table": "t", "port": free_port()})
    with ended(config, token) as events:
        assert len(events) == 1


def test_reading_is_cancelled_and_what_is_open_is_undone(rows: Db, destination: Db) -> None:
    token = portl.CancelToken()
    query = "SELECT id, pg_sleep(CASE WHEN id = 2500 THEN 60 ELSE 0 END)::text AS s FROM t"
    with when(waits(rows, "PgSleep"), token.cancel), ended(job(rows, destination, source={"query": query}), token):
        assert destination.value("SELECT to_regclass('t')") is None
    assert connected(rows) == 0


def test_planning_is_cancelled(rows: Db, destination: Db) -> None:
    token = portl.CancelToken()
    query = "SELECT count(*) AS c, (SELECT pg_sleep(60)::text) AS s FROM t"
    config = job(rows, destination, source={"query": query})
    with when(waits(rows, "PgSleep"), token.cancel):
        with pytest.raises(portl.Cancelled, match="the run was cancelled"):
            portl.plan(config, cancel=token)
    assert connected(rows) == 0


def test_waiting_for_a_lock_of_the_source_is_cancelled(rows: Db, destination: Db) -> None:
    token = portl.CancelToken()
    with psycopg.connect(rows.connection.info.dsn, password=rows.endpoint.password) as other:
        other.execute("LOCK TABLE t")
        for source in ({"table": "t"}, {"query": "SELECT id FROM t"}):
            token = portl.CancelToken()
            with when(waits(rows, "relation"), token.cancel), ended(job(rows, destination, source=source), token):
                assert connected(rows) == 0


@pytest.fixture
def slow(destination: Db) -> Db:
    """A destination whose trigger sleeps at row 3000."""
    destination.execute(
        "CREATE TABLE t (id int PRIMARY KEY, x text);"
        "CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.id = 3000 THEN PERFORM pg_sleep(60); END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION sleep()"
    )
    return destination


@pytest.mark.parametrize("strategy", ["overwrite", "fail"])
def test_a_long_statement_of_the_destination_is_cancelled(strategy: str, rows: Db, slow: Db) -> None:
    slow.execute("INSERT INTO t VALUES (1, 'old')" if strategy == "overwrite" else "SELECT 1")
    before = slow.execute("TABLE t")
    token = portl.CancelToken()
    with when(waits(slow, "PgSleep"), token.cancel), ended(job(rows, slow, conflict=strategy), token):
        assert slow.execute("TABLE t") == before
    assert (working(slow), connected(slow)) == (0, 0)


def test_a_destination_that_no_longer_takes_what_is_sent_is_cancelled(rows: Db, slow: Db) -> None:
    # More than the buffers between here and there hold, so that sending waits.
    rows.execute(
        "DROP TABLE t; CREATE TABLE t AS SELECT g AS id, repeat('x', 9000) AS x FROM generate_series(2999, 5000) g"
    )
    token = portl.CancelToken()
    with when(waits(slow, "PgSleep"), token.cancel), ended(job(rows, slow, conflict="fail"), token):
        assert slow.value("SELECT count(*) FROM t") == 0
    assert connected(slow) == 0


def test_what_was_committed_before_stays_and_is_told(rows: Db, slow: Db) -> None:
    token = portl.CancelToken()
    events: list[portl.Event] = []
    with when(waits(slow, "PgSleep"), token.cancel), pytest.raises(portl.Cancelled) as caught:
        portl.migrate(job(rows, slow, chunk_rows=1000, parallel=1), cancel=token, observers=[events.append])
    committed = caught.value.committed
    assert committed is not None
    assert (committed.rows_read, committed.rows_inserted, committed.tables[0].batches) == (2000, 2000, 2)
    assert "committed before this: 2,000 rows read, 2,000 inserted" in str(caught.value)
    assert slow.value("SELECT count(*) FROM t") == 2000
    assert sum(event.rows for event in events if isinstance(event, portl.BatchCommitted)) == 2000
    slow.execute("DROP TRIGGER slow ON t")
    again = portl.migrate(job(rows, slow))
    assert (again.rows_inserted, again.tables[0].rows_before) == (4000, 2000)
    assert slow.value("SELECT count(*) FROM t") == 4000


def test_the_key_of_a_table_that_was_begun_is_built_when_a_cancelled_run_is_resumed(rows: Db, destination: Db) -> None:
    rows.execute("ALTER TABLE t ADD PRIMARY KEY (id)")
    key = "SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass AND indisprimary"
    for turn in range(3):
        token = portl.CancelToken()

        def cancel(event: portl.Event, token: portl.CancelToken = token) -> None:
            if isinstance(event, portl.BatchCommitted):
                threading.Thread(target=token.cancel).start()

        with pytest.raises(portl.Cancelled) as caught:
            portl.migrate(job(rows, destination, chunk_rows=100, parallel=1), cancel=token, observers=[cancel])
        committed = caught.value.committed
        assert committed is not None
        assert destination.value("SELECT count(*) FROM t") == committed.rows_inserted, turn
        assert destination.value(key) == 0
        assert portl.migrate(job(rows, destination)).rows_inserted == 4000
        assert destination.value(key) == 1
        destination.execute("DROP TABLE t")


def test_an_observer_may_cancel(rows: Db, destination: Db) -> None:
    token = portl.CancelToken()
    with pytest.raises(portl.Cancelled):
        portl.migrate(job(rows, destination), cancel=token, observers=[lambda event: token.cancel()])
    assert connected(rows) == 0


def test_a_pause_between_two_attempts_to_connect_is_cut_short(rows: Db, destination: Db) -> None:
    token = portl.CancelToken()
    config = job(
        rows, destination, source={"table": "t", "port": free_port()}, retry={"attempts": 100, "max_delay": 60}
    )
    events: list[portl.Event] = []

    def cancel(event: portl.Event) -> None:
        events.append(event)
        if sum(isinstance(event, portl.Retrying) for event in events) == 3:
            threading.Timer(0.05, token.cancel).start()

    with pytest.raises(portl.Cancelled):
        portl.migrate(config, cancel=token, observers=[cancel])
    assert [type(event) for event in events] == [*[portl.Retrying] * 3, portl.Failed]
    assert connected(destination) == 0


def test_one_token_ends_several_runs(rows: Db, destination: Db) -> None:
    token = portl.CancelToken()
    query = "SELECT id, pg_sleep(60)::text AS s FROM t"
    ends: list[str] = []

    def run(table: str) -> None:
        config = job(rows, destination, source={"query": query})
        config["destination"]["table"] = table
        try:
            portl.migrate(config, cancel=token)
        except portl.Error as error:
            ends.append(type(error).__name__)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    until(lambda: waits(rows, "PgSleep")() == 3)
    token.cancel()
    for thread in threads:
        thread.join()
    assert ends == ["Cancelled"] * 3
    assert connected(rows) == 0


# Ctrl-C: in a process of its own

PROGRAM = """
import json, sys, portl
try:
    portl.{call}(json.loads(sys.stdin.readline()))
except KeyboardInterrupt as error:
    print(json.dumps([type(error).__name__, isinstance(error, portl.Cancelled), str(error)]))
"""


def interrupted(config: dict[str, Any], holds: Callable[[], object], call: str = "migrate") -> tuple[str, bool, str]:
    """Run a job in a process of its own, press Ctrl-C there once something holds, and return what the call raised."""
    command = [sys.executable, "-c", PROGRAM.replace("{call}", call)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as p:
        assert p.stdin is not None
        p.stdin.write(json.dumps(config) + "\n")
        p.stdin.flush()
        try:
            until(holds)
            os.kill(p.pid, signal.SIGINT)
            out, err = p.communicate(timeout=30)
        finally:
            p.kill()
    assert err == ""
    assert p.returncode == 0
    kind, cancelled, text = json.loads(out)
    return kind, cancelled, text


def test_ctrl_c_while_reading(rows: Db, destination: Db) -> None:
    query = "SELECT id, pg_sleep(CASE WHEN id = 2500 THEN 60 ELSE 0 END)::text AS s FROM t"
    found = interrupted(job(rows, destination, source={"query": query}), waits(rows, "PgSleep"))
    assert found == ("Interrupted", True, "interrupted by Ctrl-C\nnothing was committed")
    assert destination.value("SELECT to_regclass('t')") is None
    assert connected(rows) == 0


@pytest.mark.parametrize("strategy", ["overwrite", "fail"])
def test_ctrl_c_while_the_destination_works(strategy: str, rows: Db, slow: Db) -> None:
    slow.execute("INSERT INTO t VALUES (0, 'old')")
    kind, cancelled, _ = interrupted(job(rows, slow, conflict=strategy), waits(slow, "PgSleep"))
    assert (kind, cancelled) == ("Interrupted", True)
    assert slow.execute("TABLE t") == [(0, "old")]
    assert (working(slow), connected(slow)) == (0, 0)


def test_ctrl_c_while_the_destination_waits_for_a_lock(rows: Db, slow: Db) -> None:
    with psycopg.connect(slow.connection.info.dsn, password=slow.endpoint.password) as other:
        other.execute("LOCK TABLE t")
        kind, cancelled, _ = interrupted(job(rows, slow, conflict="fail"), waits(slow, "relation"))
        assert (kind, cancelled) == ("Interrupted", True)
        assert connected(slow) == 0


@pytest.mark.parametrize("kind", ["table", "query"])
def test_ctrl_c_while_planning_waits_for_a_lock(kind: str, rows: Db, destination: Db) -> None:
    with psycopg.connect(rows.connection.info.dsn, password=rows.endpoint.password) as other:
        other.execute("LOCK TABLE t")
        source = {"table": "t"} if kind == "table" else {"query": "SELECT id FROM t"}
        found = interrupted(job(rows, destination, source=source), waits(rows, "relation"), "plan")
        assert found == ("Interrupted", True, "interrupted by Ctrl-C; nothing was written")
        assert connected(rows) == 0


def test_ctrl_c_while_connecting_is_tried_again(rows: Db, destination: Db) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        retry = {"attempts": 100, "max_delay": 60}
        config = job(rows, destination, source={"table": "t", "port": server.getsockname()[1]}, retry=retry)
        server.settimeout(0.01)
        tried = 0

        def again() -> bool:
            nonlocal tried
            with suppress(TimeoutError):
                server.accept()[0].close()
                tried += 1
            return tried > 2

        found = interrupted(config, again)
    assert found == ("Interrupted", True, "interrupted by Ctrl-C; nothing was written")


def test_other_threads_run_on_while_a_server_does_not_answer(rows: Db, slow: Db) -> None:
    """The lock that each side waits for is let go by a thread that must run meanwhile."""
    slow.execute("DROP TRIGGER slow ON t")
    for db, source in ((rows, {"query": "SELECT id, x FROM t"}), (rows, {"table": "t"}), (slow, {"table": "t"})):
        slow.execute("TRUNCATE t")
        with psycopg.connect(db.connection.info.dsn, password=db.endpoint.password) as other:
            other.execute("LOCK TABLE t")
            ticks: list[float] = []

            def tick(ticks: list[float] = ticks) -> bool:
                ticks.append(time.monotonic())
                return len(ticks) > 20

            with when(tick, other.commit):
                assert portl.migrate(job(rows, slow, source=source)).rows_inserted == 4000
            assert len(ticks) == 21
