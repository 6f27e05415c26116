"""A job of many tables is killed at a statement, in any stage; the same job again ends with the same database."""

from __future__ import annotations

import random

import pytest

import portl
from tests.killing import Victim
from tests.servers import Db
from tests.whole import EVERYTHING, ROWS, differences, job_of, positions

SEED = 20261126
#: Moments at which the job is killed, one after the other, until it ends by itself.
MOMENTS = 3
CLEARED = """
DROP SCHEMA IF EXISTS portl, sales, "We""ird schema", public CASCADE;
DROP EXTENSION IF EXISTS citext CASCADE;
CREATE SCHEMA public AUTHORIZATION pg_database_owner;
COMMENT ON SCHEMA public IS 'standard public schema'
"""


def killed_and_run_again(whole: Db, destination: Db, victim: Victim, draw: random.Random, moments: int) -> None:
    """Kill the job at so many moments, each in a database of its own; check what is there in the end."""
    job = job_of(whole, destination, chunk_rows=1500, parallel=2, foreign_keys="recreate")
    statements = victim.run(job)["statements"]
    for _ in range(moments):
        destination.execute(CLEARED)
        # The first kill comes before the end in any case: workers differ a little in what they send.
        drawn = draw.randint(5, statements * 9 // 10), draw.randint(5, statements)
        again = [victim.run(job, statement=statement) for statement in drawn][-1]
        if again["killed"]:
            again = victim.run(job)
        assert again["error"] is None, drawn
        assert "\n".join(differences(whole, destination)) == "", drawn
        assert positions(destination) == positions(whole)
        assert [table.destination for table in portl.verify(job).tables if not table.equal] == []
        (run,) = portl.status(job).runs
        assert run.state is portl.RunState.DONE


@pytest.fixture
def whole(source: Db) -> Db:
    source.execute(EVERYTHING)
    source.execute(ROWS)
    return source


def test_a_job_of_many_tables_that_is_killed_ends_with_the_same_database(
    whole: Db, destination: Db, victim: Victim
) -> None:
    killed_and_run_again(whole, destination, victim, random.Random(SEED), MOMENTS)


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(5))
def test_a_hundred_moments(whole: Db, destination: Db, victim: Victim, seed: int) -> None:
    killed_and_run_again(whole, destination, victim, random.Random(seed), 20)
