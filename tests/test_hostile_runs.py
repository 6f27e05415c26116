"""What could cost rows or bring them twice, and what nobody expects: each test was a suspicion once."""

from __future__ import annotations

from typing import Any

import pytest

import portl
from tests.proxy import Proxy
from tests.servers import Db
from tests.test_faults import KEYLESS, ROWS, Once, job_of, through
from tests.test_killed import nothing_left, rows


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


#: The lane that has written the first chunk takes its time over each further one.
MAIN_LANE_IS_SLOW = """
CREATE TABLE first_lane (pid int);
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NOT EXISTS (SELECT FROM first_lane) THEN INSERT INTO first_lane VALUES (pg_backend_pid());
  ELSIF pg_backend_pid() = (SELECT pid FROM first_lane) THEN PERFORM pg_sleep(0.7); END IF;
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
def test_a_lost_commit_of_a_lane_is_asked_about_however_long_the_server_cannot_be_reached(
    source: Db, destination: Db, after: bool
) -> None:
    source.execute(KEYLESS)
    destination.execute(MAIN_LANE_IS_SLOW)
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
    assert told[0].startswith("chunk"), "the commit was a lane's"
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
