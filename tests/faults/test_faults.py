"""Servers and networks that fail in the middle of a run: it ends with the right rows by itself, or says why not."""

from __future__ import annotations

import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

import portl
from portl_postgres.demo.server import Server
from tests.jobs import KEYED, KEYLESS, ROWS, Once, job_of, nothing_left, rows, through
from tests.servers import Db


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("number", [1, 2, 3, 7])
@pytest.mark.parametrize("after", [True, False], ids=["carried out", "not carried out"])
@pytest.mark.parametrize("side", ["destination", "source"])
def test_a_commit_whose_answer_is_lost_is_neither_repeated_nor_forgotten(
    source: Db, destination: Db, after: bool, number: int, parallel: int, side: str
) -> None:
    if side == "source" and (parallel == 3 or number > 1):
        pytest.skip("the source commits nothing on its own")
    source.execute(KEYLESS)
    with through(destination) as (proxy, there):
        proxy.cut_at_commit(after=after, number=number)
        seen = Once(0, lambda: None)
        result = portl.migrate(job_of(source.end(), there, parallel=parallel), observers=[seen])
        assert proxy.cut_commits == 1
    assert rows(destination, "t") == rows(source, "t")
    assert (result.rows_read, result.rows_inserted) == (ROWS, ROWS)
    settled = [
        e for e in seen.events if isinstance(e, portl.Warned) and "the ledger shows that it succeeded" in e.message
    ]
    assert seen.retries or (after and parallel > 1 and settled)
    nothing_left(destination)


@pytest.mark.parametrize("after", [True, False], ids=["carried out", "not carried out"])
def test_the_one_commit_of_an_atomic_job_is_neither_repeated_nor_forgotten(
    source: Db, destination: Db, after: bool
) -> None:
    source.execute(KEYLESS)
    with through(destination) as (proxy, there):
        proxy.cut_at_commit(after=after)
        result = portl.migrate(job_of(source.end(), there, atomic=True))
        assert proxy.cut_commits == 1
    assert rows(destination, "t") == rows(source, "t")
    assert result.rows_inserted == ROWS


def test_without_a_ledger_a_commit_in_doubt_ends_a_job_that_must_not_be_repeated(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    with through(destination) as (proxy, there):
        proxy.cut_at_commit(after=True)
        with pytest.raises(portl.OperationError, match="without a ledger there is no telling whether it was committed"):
            portl.migrate(job_of(source.end(), there, ledger={"mode": "off"}))
    assert rows(destination, "t") == rows(source, "t")


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("seed", range(4))
def test_connections_that_are_cut_anywhere_cost_nothing(
    source: Db, destination: Db, seed: int, side: str, parallel: int
) -> None:
    draw = random.Random(f"{seed} {side} {parallel}")
    source.execute(KEYLESS)
    with through(source) as (reading, here), through(destination) as (writing, there):
        proxy = reading if side == "source" else writing
        big = (side == "source") == (draw.random() < 0.7)
        proxy.cut(after=draw.randint(2_000, 150_000), direction="down" if big else "up", reset=draw.random() < 0.5)
        result = portl.migrate(job_of(here, there, parallel=parallel))
    assert rows(destination, "t") == rows(source, "t")
    assert result.rows_inserted == ROWS
    nothing_left(destination)


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("side", ["source", "destination"])
def test_backends_that_are_terminated_are_replaced(source: Db, destination: Db, side: str, parallel: int) -> None:
    source.execute(KEYLESS)
    victim = source if side == "source" else destination

    def terminate() -> None:
        victim.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'portl'"
            " AND datname = current_database()"
        )

    seen = Once(2, terminate)
    result = portl.migrate(job_of(source.end(), destination.end(), parallel=parallel), observers=[seen])
    assert seen.retries
    assert rows(destination, "t") == rows(source, "t")
    assert result.rows_inserted == ROWS
    if side == "source":
        assert result.tables[0].attempt == 2
        assert result.tables[0].older_chunks  # the snapshot went with its session, and the report says so


@contextmanager
def own_server(folder: Path) -> Iterator[tuple[Server, Callable[[], psycopg.Connection[Any]]]]:
    with Server(folder) as server:

        def connect() -> psycopg.Connection[Any]:
            found = server.parameters()
            return psycopg.connect(
                host=str(found["host"]),
                port=int(str(found["port"])),
                user=str(found["username"]),
                password=str(found["password"]),
                dbname=str(found["database"]),
                autocommit=True,
            )

        yield server, connect


def restarted(server: Server, mode: str, seconds: float) -> Callable[[], None]:
    """Return what stops a server at once, and starts it again after so many seconds in another thread."""
    threads: list[threading.Thread] = []

    def later() -> None:
        time.sleep(seconds)
        server.start()

    def restart() -> None:
        server.stop(mode)
        threads.append(threading.Thread(target=later))
        threads[0].start()

    restart.threads = threads  # type: ignore[attr-defined]
    return restart


def outage(source: Db, folder: Path, *, side: str, mode: str, seconds: float, parallel: int, **keys: object) -> None:
    with own_server(folder) as (server, connect):
        own = {"type": "postgres", **server.parameters()}
        with connect() as connection:
            connection.execute(KEYLESS.encode() if side == "source" else b"SELECT")
        if side == "destination":
            source.execute(KEYLESS)
        restart = restarted(server, mode, seconds)
        seen = Once(3, restart)
        here, there = (own, source.end()) if side == "source" else (source.end(), own)
        result = portl.migrate(job_of(here, there, parallel=parallel, **keys), observers=[seen])
        for thread in restart.threads:  # type: ignore[attr-defined]
            thread.join()
        count = b"SELECT t::text, count(*) FROM t GROUP BY 1 ORDER BY 1"
        with connect() as connection:
            found = connection.execute(count).fetchall()
        assert found == rows(source, "t")
        assert result.rows_inserted == ROWS
        assert seen.retries


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("mode", ["fast", "immediate"])
@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_server_that_restarts_is_waited_for(
    source: Db, server_folder: Path, side: str, mode: str, parallel: int
) -> None:
    if (mode, parallel) in [("fast", 3), ("immediate", 1)] and side == "source":
        pytest.skip("part of the long suite")
    outage(source, server_folder, side=side, mode=mode, seconds=0.5, parallel=parallel)


@pytest.mark.faults
@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("mode", ["fast", "immediate"])
@pytest.mark.parametrize("side", ["source", "destination"])
def test_twenty_seconds_without_a_server_are_survived_with_the_default_settings(
    source: Db, server_folder: Path, side: str, mode: str, parallel: int
) -> None:
    outage(source, server_folder, side=side, mode=mode, seconds=20, parallel=parallel, retry={})


def test_a_server_that_does_not_come_back_ends_the_run_and_the_next_resumes_it(source: Db, server_folder: Path) -> None:
    source.execute(KEYLESS)
    with own_server(server_folder) as (server, connect):
        job = job_of(source.end(), {"type": "postgres", **server.parameters()}, retry={"attempts": 2, "max_delay": 0.1})
        seen = Once(3, lambda: server.stop("fast"))
        with pytest.raises(portl.ConnectionFailed) as caught:
            portl.migrate(job, observers=[seen])
        assert caught.value.transient
        server.start()
        result = portl.migrate(job)
        assert result.tables[0].attempt == 2
        assert result.tables[0].rows_before >= 1500
        with connect() as connection:
            assert connection.execute(b"SELECT count(*) FROM t").fetchall() == [(ROWS,)]


def test_a_deadlock_is_tried_again(source: Db, destination: Db) -> None:
    """The trigger waits for a lock that the other session holds, which in turn waits for a row of portl's."""
    source.execute("CREATE TABLE t AS SELECT g AS id, 'x' AS y FROM generate_series(1, 200) AS g")
    destination.execute(
        "CREATE TABLE t (id int PRIMARY KEY, y text); CREATE TABLE other (n int); INSERT INTO other VALUES (1);"
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.id = 150 THEN PERFORM pg_advisory_xact_lock(77); PERFORM 1 FROM other FOR UPDATE; END IF;"
        " RETURN NEW; END $$;"
        "CREATE TRIGGER wait BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION wait()"
    )
    parameters = destination.connection.info
    password = destination.endpoint.password
    with psycopg.connect(
        host=parameters.host, port=parameters.port, user=parameters.user, dbname=parameters.dbname, password=password
    ) as other:
        other.execute("SET deadlock_timeout = '60s'")  # so that it is portl that is chosen to end
        other.execute("SELECT 1 FROM other FOR UPDATE")

        def wait() -> None:
            for _ in range(200):
                held = destination.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77")
                if held:
                    break
                time.sleep(0.02)
            other.execute("SELECT pg_advisory_xact_lock(77)")
            other.rollback()

        thread = threading.Thread(target=wait)
        thread.start()
        seen = Once(0, lambda: None)
        result = portl.migrate(job_of(source.end(), destination.end(), chunk_rows=100), observers=[seen])
        thread.join()
    assert [retry.what for retry in seen.retries] == ["chunk 2 of public.t"]
    assert "deadlock detected" in seen.retries[0].error
    assert (result.rows_inserted, result.tables[0].retries) == (200, 1)


def test_a_statement_that_takes_too_long_is_tried_a_few_times_and_then_told(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    destination.execute(
        "CREATE TABLE t (x int, y text);"
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1); RETURN NEW; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    side = {**destination.end(), "statement_timeout": 0.3}
    with pytest.raises(portl.OperationError) as caught:
        portl.migrate(job_of(source.end(), side, retry={"attempts": 2, "max_delay": 0.1}))
    assert caught.value.sqlstate == "57014"
    assert "statement_timeout" in str(caught.value)
    assert destination.value("SELECT count(*) FROM t") == 0
    nothing_left(destination)


def test_a_lock_that_is_not_given_in_time_is_tried_again(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    destination.execute("CREATE TABLE t (x int, y text)")
    parameters = destination.connection.info
    with psycopg.connect(
        host=parameters.host,
        port=parameters.port,
        user=parameters.user,
        dbname=parameters.dbname,
        password=destination.endpoint.password,
    ) as other:

        def seize() -> None:
            other.execute("LOCK TABLE t IN EXCLUSIVE MODE")

        class Release(Once):
            def __call__(self, event: portl.Event) -> None:
                super().__call__(event)
                if isinstance(event, portl.Retrying):
                    other.rollback()

        seen = Release(2, seize)
        side = {**destination.end(), "lock_timeout": 0.3}
        result = portl.migrate(job_of(source.end(), side), observers=[seen])
    assert result.rows_inserted == ROWS
    assert [retry.what for retry in seen.retries] == ["chunk 3 of public.t"]


def test_a_role_with_few_connections_gets_fewer_workers(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    name = f"few_{destination.connection.info.dbname}"
    destination.execute(f"DROP ROLE IF EXISTS {name}")
    destination.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'few' CONNECTION LIMIT 1")
    destination.execute(f"GRANT CREATE ON DATABASE {destination.connection.info.dbname} TO {name}")
    destination.execute(f"GRANT ALL ON SCHEMA public TO {name}")
    try:
        side = destination.end(username=name, password="few", pool={"timeout": 0.1})
        seen = Once(0, lambda: None)
        result = portl.migrate(job_of(source.end(), side, parallel=4, chunk_rows=100), observers=[seen])
        assert result.rows_inserted == ROWS
        warned = [event.message for event in seen.events if isinstance(event, portl.Warned)]
        assert any("continuing with one worker less" in message for message in warned)
        assert rows(destination, "t") == rows(source, "t")
    finally:
        destination.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("ALTER TABLE t DROP COLUMN y", 'column "y" of relation "t" does not exist'),
        ("ALTER TABLE t ALTER x TYPE bigint", "was altered"),
        ("ALTER TABLE t RENAME y TO z", 'column "y" of relation "t" does not exist'),
        ("DROP TABLE t", "does not exist"),
    ],
)
def test_a_destination_that_is_altered_during_the_run_ends_it(
    source: Db, destination: Db, change: str, words: str
) -> None:
    source.execute(KEYLESS)
    seen = Once(2, lambda: destination.execute(change))
    with pytest.raises(portl.SchemaError, match=words) as caught:
        portl.migrate(job_of(source.end(), destination.end()), observers=[seen])
    assert caught.value.committed is not None
    assert caught.value.committed.rows_inserted == 1000


def test_a_source_cannot_be_altered_while_it_is_read(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    source.execute("SET lock_timeout = '200ms'")

    def alter() -> None:
        with pytest.raises(psycopg.errors.LockNotAvailable):
            source.execute("ALTER TABLE t DROP COLUMN y")

    seen = Once(2, alter)
    assert portl.migrate(job_of(source.end(), destination.end()), observers=[seen]).rows_inserted == ROWS


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_cancelled_run_leaves_no_statement_running_and_is_resumed(source: Db, destination: Db, parallel: int) -> None:
    source.execute(KEYLESS)
    token = portl.CancelToken()
    job = job_of(source.end(), destination.end(), parallel=parallel)
    with pytest.raises(portl.Cancelled) as caught:
        portl.migrate(job, observers=[Once(3, token.cancel)], cancel=token)
    assert caught.value.committed is not None
    kept = caught.value.committed.rows_inserted
    assert 0 < kept < ROWS
    nothing_left(destination)
    assert destination.value("SELECT count(*) FROM t") >= kept
    (run,) = portl.status(job).runs
    assert run.state is portl.RunState.CANCELLED
    seen = Once(0, lambda: None)
    result = portl.migrate(job, observers=[seen])
    assert any(isinstance(event, portl.Resumed) for event in seen.events)
    assert result.rows_inserted == ROWS
    assert rows(destination, "t") == rows(source, "t")


def test_a_job_that_has_changed_is_told_apart(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    token = portl.CancelToken()
    job = job_of(source.end(), destination.end())
    with pytest.raises(portl.Cancelled):
        portl.migrate(job, observers=[Once(3, token.cancel)], cancel=token)
    changed = {**job, "source": {**job["source"], "where": "x > 5"}}
    with pytest.raises(portl.PlanError, match=r"the job has changed since: source\.where") as caught:
        portl.migrate(changed)
    assert "`--restart` starts over" in str(caught.value)
    harmless = {**job, "batch_size": 7, "parallel": 2, "retry": {"attempts": 1}}
    assert portl.migrate(harmless).rows_inserted == ROWS


def test_restart_begins_again(source: Db, destination: Db) -> None:
    source.execute(KEYED)
    token = portl.CancelToken()
    job = job_of(source.end(), destination.end(), conflict="overwrite")
    with pytest.raises(portl.Cancelled):
        portl.migrate(job, observers=[Once(3, token.cancel)], cancel=token)
    kept = destination.value("SELECT count(*) FROM t")
    result = portl.migrate(job, restart=True)
    assert (result.rows_read, result.rows_unchanged, result.tables[0].attempt) == (ROWS, kept, 1)
    assert rows(destination, "t") == rows(source, "t")


def test_chunks_of_an_older_snapshot_are_named_and_copied_again_where_the_job_asks(source: Db, destination: Db) -> None:
    source.execute(KEYED)
    token = portl.CancelToken()
    job = job_of(source.end(), destination.end(), conflict="overwrite")
    with pytest.raises(portl.Cancelled):
        portl.migrate(job, observers=[Once(3, token.cancel)], cancel=token)
    source.execute("UPDATE t SET y = 'changed' WHERE id < 3000")
    seen = Once(0, lambda: None)
    result = portl.migrate(job, observers=[seen])
    assert result.tables[0].older_chunks == (1, 2, 3)
    assert any("older" in e.message or "state of" in e.message for e in seen.events if isinstance(e, portl.Warned))
    assert destination.value("SELECT count(*) FROM t WHERE y = 'changed'") == 2999 - 1500
    token = portl.CancelToken()
    with pytest.raises(portl.Cancelled):
        portl.migrate(job, observers=[Once(3, token.cancel)], cancel=token)
    source.execute("UPDATE t SET y = 'again' WHERE id < 3000")
    result = portl.migrate({**job, "resume": "recopy"})
    assert result.tables[0].older_chunks == ()
    assert rows(destination, "t") == rows(source, "t")


def test_block_ranges_of_a_table_that_was_rewritten_are_refused(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    token = portl.CancelToken()
    job = job_of(source.end(), destination.end())
    with pytest.raises(portl.Cancelled):
        portl.migrate(job, observers=[Once(3, token.cancel)], cancel=token)
    source.execute("VACUUM FULL t")
    with pytest.raises(portl.PlanError, match="rewritten"):
        portl.migrate(job)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with little room, where this machine allows one to be mounted."""
    folder = Path("/dev/shm") / f"portl-disk-{tmp_path.name}"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m,mode=777", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        folder.rmdir()
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_full_disk_ends_the_run_at_once_and_the_next_resumes_it(
    source: Db, server_folder: Path, small_disk: Path
) -> None:
    source.execute("CREATE TABLE t AS SELECT g AS id, repeat(md5(g::text), 20) AS y FROM generate_series(1, 30000) g")
    with own_server(server_folder) as (server, connect):
        place = small_disk / "space"
        place.mkdir()
        shutil.chown(place, *owner(server.data))
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(8 * 1024 * 1024))
        with connect() as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{place}'".encode())
            connection.execute(b"CREATE TABLE t (id int, y text) TABLESPACE small")
        job = job_of(source.end(), {"type": "postgres", **server.parameters()}, chunk_rows=2000)
        seen = Once(0, lambda: None)
        with pytest.raises(portl.OperationError) as caught:
            portl.migrate(job, observers=[seen])
        assert caught.value.sqlstate == "53100"
        assert seen.retries == []
        with connect() as connection:
            there = connection.execute(b"SELECT count(*) FROM t").fetchall()[0][0]
            assert caught.value.committed is not None
            assert caught.value.committed.rows_inserted == there
            assert 0 < there < 30000
            connection.execute(b"ALTER TABLE t SET TABLESPACE pg_default")
        assert portl.migrate(job).rows_inserted == 30000
        with connect() as connection:
            assert connection.execute(b"SELECT count(*), count(DISTINCT id) FROM t").fetchall() == [(30000, 30000)]


def owner(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_uid, found.st_gid
