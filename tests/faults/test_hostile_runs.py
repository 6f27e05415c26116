"""What could cost rows or bring them twice, and what nobody expects: each test was a suspicion once."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

import portl
from portl_postgres.ledger.ledger import PostgresLedger
from tests.jobs import KEYED, KEYLESS, ROWS, Once, job_of, nothing_left, rows, through
from tests.proxy import Proxy
from tests.servers import Db


class Stop(Exception):
    """What an observer raises to end a run."""


def stop() -> None:
    raise Stop


def stopped(job: dict[str, Any], number: int) -> None:
    """Run a job until its n-th COMMIT."""
    with pytest.raises(Stop):
        portl.migrate(job, observers=[Once(number, stop)])


class ShutAfterCut(Proxy):
    """Takes no new connection once a COMMIT was cut off."""

    def _commit(self) -> tuple[bool, bool] | None:
        found = super()._commit()
        if found is not None:
            self.refuse()
        return found


#: The worker that has written the first chunk takes its time over each further one.
MAIN_WORKER_IS_SLOW = """
CREATE TABLE first_worker (pid int);
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NOT EXISTS (SELECT FROM first_worker) THEN INSERT INTO first_worker VALUES (pg_backend_pid());
  ELSIF pg_backend_pid() = (SELECT pid FROM first_worker) THEN PERFORM pg_sleep(0.7); END IF;
  RETURN NULL;
END $$;
CREATE TABLE t (x int, y text);
CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION slow();
"""
#: The first backend that writes a row is terminated.
FIRST_DIES = """
CREATE SEQUENCE calls;
CREATE FUNCTION dies() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF nextval('calls') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(5); END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER dies BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION dies();
"""


@pytest.mark.parametrize("after", [True, False], ids=["carried out", "not carried out"])
def test_a_lost_commit_of_a_worker_is_asked_about_however_long_the_server_cannot_be_reached(
    source: Db, destination: Db, after: bool
) -> None:
    source.execute(KEYLESS)
    destination.execute(MAIN_WORKER_IS_SLOW)
    told: list[str] = []
    with ShutAfterCut(destination.endpoint) as proxy:

        def observe(event: portl.Event) -> None:
            if isinstance(event, portl.Retrying) and event.what.startswith(("chunk", "the job")):
                told.append(event.what)
                proxy.heal()

        proxy.cut_at_commit(after=after, number=3)
        there = destination.end(host=proxy.host, port=proxy.port, pool={"timeout": 1})
        job = job_of(source.end(), there, parallel=2, retry={"attempts": 3, "max_delay": 0.1})
        result = portl.migrate(job, observers=[observe])
        assert proxy.cut_commits == 1
    assert rows(destination, "t") == rows(source, "t")
    assert (result.rows_read, result.rows_inserted) == (ROWS, ROWS)
    assert told[0].startswith("chunk"), "the commit was a worker's"
    nothing_left(destination)


@pytest.mark.parametrize("lost", ["in the first chunk", "at its commit"])
def test_restart_leaves_the_earlier_run_behind_though_a_connection_is_lost(
    source: Db, destination: Db, lost: str
) -> None:
    source.execute(KEYLESS)
    destination.execute("CREATE TABLE t (x int, y text); INSERT INTO t VALUES (-1, 'another''s')")
    with through(destination) as (proxy, there):
        job = job_of(source.end(), there)
        stopped(job, 4)
        destination.execute("DELETE FROM t WHERE x >= 0")
        if lost == "at its commit":
            proxy.cut_at_commit(after=False)
        else:
            destination.execute(FIRST_DIES)
        seen = Once(0, lambda: None)
        portl.migrate(job, restart=True, observers=[seen])
    assert seen.retries
    destination.execute("DELETE FROM t WHERE x < 0")
    assert rows(destination, "t") == rows(source, "t")


def test_a_clock_that_was_set_back_does_not_hide_the_latest_run(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    job = job_of(source.end(), destination.end())
    portl.migrate(job)
    destination.execute("UPDATE portl.migrations SET started = started + interval '1 hour'")
    stopped(job, 4)
    assert portl.migrate(job).tables[0].attempt == 2
    assert destination.value("SELECT count(*) FROM t") == 2 * ROWS


#: Refuses every hundredth row.
PICKY = "CREATE TABLE t (x int CONSTRAINT picky CHECK (x % 100 <> 50), y text)"
FIXED = "ALTER TABLE t DROP CONSTRAINT picky"
REJECTED = sum(1 for g in range(1, ROWS + 1) if g % 700 % 100 == 50)
#: Runs a job at a moment, and says what became of it.
AT_A_MOMENT = """
import json, sys
import portl, portl_postgres.plugin
print("ready", flush=True)
sys.stdin.readline()
try:
    print("done", portl.migrate(json.loads(sys.argv[1])).rows_inserted)
except portl.Error as error:
    print(type(error).__name__, error)
"""
#: Keeps rows from a statement without a word.
SILENT = """
CREATE FUNCTION silent() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER silent BEFORE {what} ON t__rejected FOR EACH ROW EXECUTE FUNCTION silent();
"""


def at_one_moment(*jobs: dict[str, Any]) -> list[str]:
    """Run jobs in processes of their own that begin at the same moment; return what they say."""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", AT_A_MOMENT, json.dumps(job)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for job in jobs
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [process.communicate(timeout=60)[0].strip() for process in processes]


def quarantining(source: Db, destination: Db, **keys: Any) -> dict[str, Any]:
    source.execute(KEYLESS)
    destination.execute(PICKY)
    return job_of(source.end(), destination.end(), on_error="quarantine", **keys)


def test_a_job_that_two_hosts_begin_at_the_same_moment_is_carried_out_once(
    source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.execute(KEYLESS)
    job = job_of(source.end(), destination.end())
    both = threading.Barrier(2, timeout=30)
    take = PostgresLedger.lock

    def take_when_both_have_planned(ledger: PostgresLedger, name: str) -> None:
        both.wait()
        take(ledger, name)

    monkeypatch.setattr(PostgresLedger, "lock", take_when_both_have_planned)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(portl.migrate, job) for _ in range(2)]
        refused = [run.exception() for run in runs if run.exception() is not None]
    assert [type(error) for error in refused] == [portl.AlreadyRunning]
    assert rows(destination, "t") == rows(source, "t")
    nothing_left(destination)


@pytest.mark.faults
def test_no_row_of_a_job_that_two_processes_begin_at_once_comes_twice(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    for number in range(20):
        job = job_of(source.end(), destination.end(), name=f"job {number}")
        job["destination"]["table"] = f"t{number}"
        told = at_one_moment(job, job)
        # One that looks only after the other has ended begins a run of its own, as it should.
        done = [word for word in told if word == f"done {ROWS}"]
        assert done
        assert all(word.startswith("AlreadyRunning") for word in told if word not in done), told
        assert rows(destination, f"t{number}") == [(row, len(done) * times) for row, times in rows(source, "t")]
    nothing_left(destination)


def test_a_table_that_two_jobs_make_at_the_same_moment_is_made_once_and_filled_by_both(
    source: Db, destination: Db
) -> None:
    source.execute(KEYED)
    jobs = [job_of(source.end(), destination.end(), name=name, conflict="overwrite") for name in ("one", "other")]
    for told in at_one_moment(*jobs):
        assert told.startswith("done") or "public.t was created by another process meanwhile" in told, told
    for job in jobs:
        portl.migrate(job)
    assert rows(destination, "t") == rows(source, "t")


def test_a_key_that_another_job_builds_before_the_first_rows_is_not_built_twice(source: Db, destination: Db) -> None:
    source.execute(KEYED)
    one, other = (job_of(source.end(), destination.end(), name=name, conflict="overwrite") for name in ("one", "other"))
    amid, seen = threading.Event(), threading.Event()

    def hold() -> None:
        amid.set()
        seen.wait(60)

    def let_it_end(event: portl.Event) -> None:
        if isinstance(event, portl.TableStarted):
            seen.set()
            thread.join()

    thread = threading.Thread(target=portl.migrate, args=(one,), kwargs={"observers": [Once(2, hold)]})
    thread.start()
    amid.wait(60)
    portl.migrate(other, observers=[let_it_end])
    assert rows(destination, "t") == rows(source, "t")
    assert destination.value("SELECT obj_description('t'::regclass)") is None


@pytest.mark.parametrize("parallel", [1, 2])
@pytest.mark.parametrize("conflict", ["overwrite", "fail"])
def test_a_job_may_write_to_a_table_that_another_is_filling(
    source: Db, destination: Db, conflict: str, parallel: int
) -> None:
    source.execute(KEYED)
    one = job_of(source.end(where="id % 2 = 0"), destination.end(), conflict=conflict, parallel=parallel)
    other = job_of(source.end(where="id % 2 = 1"), destination.end(), conflict=conflict, name="other")
    amid = Once(2, lambda: portl.migrate(other))
    portl.migrate(one, observers=[amid])
    assert rows(destination, "t") == rows(source, "t")
    assert destination.value("SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass AND indisprimary") == 1
    assert destination.value("SELECT obj_description('t'::regclass)") is None


def test_a_quarantine_that_takes_nothing_ends_the_run_instead_of_losing_rows(source: Db, destination: Db) -> None:
    job = quarantining(source, destination)
    portl.migrate(job)
    destination.execute("TRUNCATE t; TRUNCATE t__rejected;" + SILENT.format(what="INSERT"))
    with pytest.raises(portl.OperationError, match=r"were to be quarantined in public\.t__rejected, and 0 were"):
        portl.migrate(job)
    assert destination.value("SELECT count(*) FROM t") < ROWS - REJECTED


def test_a_quarantine_that_lets_nothing_go_keeps_its_rows_from_coming_twice(source: Db, destination: Db) -> None:
    job = quarantining(source, destination)
    portl.migrate(job)
    destination.execute(FIXED + ";" + SILENT.format(what="DELETE"))
    with pytest.raises(portl.OperationError, match=r"were to be removed from public\.t__rejected, and 0 were"):
        portl.retry_rejected(job)
    destination.execute("DROP TRIGGER silent ON t__rejected")
    assert portl.retry_rejected(job).rows_inserted == REJECTED
    assert rows(destination, "t") == rows(source, "t")


def test_a_repair_does_not_bring_rows_that_the_quarantine_would_bring_again(source: Db, destination: Db) -> None:
    job = quarantining(source, destination)
    portl.migrate(job)
    destination.execute(FIXED)
    with pytest.raises(portl.OperationError, match="some of the missing rows are in the quarantine"):
        portl.verify(job, repair=True)
    assert portl.retry_rejected(job).rows_inserted == REJECTED
    destination.execute("DELETE FROM t WHERE x = 7")
    assert portl.verify(job, repair=True).equal
    assert rows(destination, "t") == rows(source, "t")


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 10_000, "a'b\"c\\d;--\n\t", "\u202e", "{}%s$1"])
def test_a_job_of_any_name_quarantines_rows_and_retries_them(source: Db, destination: Db, name: str) -> None:
    job = quarantining(source, destination, name=name)
    assert portl.migrate(job).rows_rejected == REJECTED
    destination.execute(FIXED)
    assert portl.retry_rejected(job).rows_inserted == REJECTED
    assert rows(destination, "t") == rows(source, "t")
    assert portl.clean(job).runs == 1
