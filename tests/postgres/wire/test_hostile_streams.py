"""Streams of rows amid what an application, a server or the system does to them: each test was a suspicion once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
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


#: Forks a process that does something else for long, while a run waits in the middle of its rows.
FORKING = """
import json, multiprocessing, sys, threading, time, portl
threading.Thread(target=portl.migrate, args=(json.loads(sys.stdin.readline()),), daemon=True).start()
sys.stdin.readline()
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(120,))
child.start()
print(child.pid, flush=True)
time.sleep(120)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_a_process_that_was_forked_amid_a_run_holds_nothing_of_it_once_the_run_was_killed(
    source: Db, destination: Db
) -> None:
    source.execute("CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 3000) AS g; CREATE TABLE gate ()")
    source.execute("""
        CREATE FUNCTION waits(id int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
          WHILE id = 2500 AND EXISTS (SELECT FROM pg_class WHERE relname = 'gate') LOOP
            PERFORM pg_sleep(0.05);
          END LOOP;
          RETURN id;
        END $$;
        CREATE VIEW v AS SELECT waits(id) AS id FROM t
    """)
    job = {"source": source.end(table="v"), "destination": destination.end(table="t"), "conflict": "fail"}
    ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with subprocess.Popen(
        [sys.executable, "-c", FORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write(json.dumps(job) + "\n")
        program.stdin.flush()
        until(source, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')")
        program.stdin.write("\n")
        program.stdin.flush()
        child = int(program.stdout.readline())
        program.kill()
    try:
        source.execute("DROP TABLE gate")
        until(destination, f"SELECT ({ours}) = 0")
        until(source, f"SELECT ({ours}) = 0")
        os.kill(child, 0)
        assert portl.migrate(job).rows_inserted == 3000
    finally:
        os.kill(child, signal.SIGKILL)


def until(db: Db, question: str) -> None:
    """Wait until the answer is yes."""
    for _ in range(200):
        if db.value(question):
            return
        time.sleep(0.05)
    pytest.fail(f"never true: {question}")


#: Ends a run at one moment after the other as Ctrl-C does, and lets the last one go on to its end.
PRESSED = """
import json, portl, random, signal, sys
job = json.loads(sys.stdin.readline())
portl.migrate(job)  # Python itself does not get over an import that was interrupted
signal.signal(signal.SIGALRM, signal.default_int_handler)
pressed, moments = 0, random.Random(3)
for _ in range(14):
    try:
        signal.setitimer(signal.ITIMER_REAL, moments.uniform(0.1, 0.35))
        try:
            portl.migrate(job, restart=True)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        pressed += 1
print(pressed, portl.migrate(job, restart=True).rows_read)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarms here")
def test_ctrl_c_amid_the_bytes_of_a_stream_is_no_wait_without_end(source: Db, destination: Db) -> None:
    source.execute(
        "CREATE TABLE t AS SELECT g AS id, repeat(md5(g::text), 3 + g % 30) AS x FROM generate_series(1, 120000) AS g"
    )
    job = {
        "source": source.end(query="SELECT * FROM t", network_timeout=0),
        "destination": destination.end(table="t", primary_key=["id"], network_timeout=0),
        "parallel": 1,
    }
    call = [sys.executable, "-c", PRESSED]
    done = subprocess.run(call, input=json.dumps(job) + "\n", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    pressed, read = map(int, done.stdout.split())
    assert pressed > 5
    assert read == destination.value("SELECT count(*) FROM t") == 120000


#: Runs jobs with ever more descriptors to spare.
SHORT = """
import json, os, portl, resource, sys, tenacity
job = json.loads(sys.stdin.readline())
for table in job.pop("tables"):
    free = len(os.listdir("/proc/self/fd")) - 1 + int(table[1:])
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if table != "t99":  # which imports what there is to import
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        portl.migrate({**job, "name": table, "destination": {**job["destination"], "table": table}})
    except portl.Error as error:
        print(table, error.message, error.hint)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="descriptors are counted in /proc")
def test_a_process_that_has_no_descriptor_left_says_so_and_the_job_goes_on_later(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t AS SELECT g AS id, repeat('x', 100) AS x FROM generate_series(1, 9000) AS g")
    tables = ["t99", *(f"t{spare}" for spare in range(1, 9))]
    job = {"source": source.end(table="t"), "destination": destination.end(), "retry": {"attempts": 1}, "parallel": 1}
    job |= {"conflict": "fail", "chunk_rows": 3000}
    call = [sys.executable, "-c", SHORT]
    text = json.dumps({**job, "tables": tables}) + "\n"
    done = subprocess.run(call, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    refused = done.stdout.splitlines()
    assert 1 <= len(refused) < 8
    assert all("Too many open files" in line and "ulimit -n" in line for line in refused)
    for line in refused:
        table = line.split()[0]
        portl.migrate({**job, "name": table, "destination": destination.end(table=table)})
    for table in tables:
        assert destination.value(f"SELECT count(*) FROM {table}") == 9000
