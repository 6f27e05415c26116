"""Whatever moment the process is killed at: running the job again ends with exactly the right rows.

Each job is first run without faults, into a table of its own; that gives the rows that must come out, and how many
statements and seconds it takes. Then it is killed at moments drawn from a seed: before its n-th statement (so just
before a COMMIT, too), or so many seconds after it began; resumed, killed once more or not, resumed to the end, and
the rows are compared as multisets.
"""

from __future__ import annotations

import random
import time
from typing import Any

import attrs
import pytest

import portl
from tests.jobs import nothing_left, rows
from tests.killing import Victim
from tests.servers import Db
from tests.whole import owned

#: Moments for each kind of job: a few with every run of the tests, many with ``nox -s faults``.
FEW, MANY = 2, 10


SOURCE = """
CREATE TABLE keyed (id int PRIMARY KEY, name text, n numeric(10,2), at timestamptz, tags text[]);
INSERT INTO keyed SELECT g, 'name ' || g, g / 7.0, '2024-01-01'::timestamptz + g * interval '1 minute',
    ARRAY['a' || g % 3, NULL] FROM generate_series(1, 3000) AS g;
CREATE TABLE keyless (x int, t text);
INSERT INTO keyless SELECT g % 500, repeat('x', g % 40) FROM generate_series(1, 3000) AS g;
CREATE TABLE indexed (id int PRIMARY KEY, n int CHECK (n >= 0), t text CONSTRAINT one_t UNIQUE,
    before int CONSTRAINT chain REFERENCES indexed);
INSERT INTO indexed SELECT g, g % 7, 't' || g, nullif(g - 1, 0) FROM generate_series(1, 3000) AS g;
CREATE INDEX by_n ON indexed (n);
COMMENT ON INDEX by_n IS 'the n';
CREATE TABLE composite (a text, b uuid, v int, PRIMARY KEY (a, b));
INSERT INTO composite SELECT 'k' || g % 50, md5(g::text)::uuid, g FROM generate_series(1, 3000) AS g;
ANALYZE;
"""

#: What stands in the destination before: half of the keyed rows, some of them changed.
THERE = """
CREATE TABLE {table} (id int PRIMARY KEY, name text, n numeric(10,2), at timestamptz, tags text[]);
INSERT INTO {table} SELECT g, 'old ' || g, g, NULL, NULL FROM generate_series(2, 4000, 2) AS g;
"""


@attrs.frozen(kw_only=True)
class Case:
    """One kind of job."""

    source: dict[str, object]
    conflict: object = "overwrite"
    there: str = ""
    more: dict[str, object] = attrs.field(factory=dict)


MERGE = {"strategy": "merge", "columns": {"n": "sum", "tags": "append", "name": "coalesce"}}
NOT_NULL = "CREATE TABLE {table} (id int PRIMARY KEY, name text CHECK (name NOT LIKE '%77'), n numeric(10,2), "
NOT_NULL += "at timestamptz, tags text[])"
MIRROR: dict[str, object] = {"mode": "mirror", "mirror": {"max_deletes": "100%"}}
#: A mark that says whether, and not when.
MARKED = f"{THERE}; ALTER TABLE {{table}} ADD gone boolean"
SOFT: dict[str, object] = {"mode": "mirror", "mirror": {"deletes": "soft", "column": "gone", "max_deletes": "100%"}}
CASES = {
    "overwrite into a new table": Case(source={"table": "keyed"}),
    "overwrite what is there": Case(source={"table": "keyed"}, there=THERE),
    "skip what is there": Case(source={"table": "keyed"}, conflict="skip", there=THERE),
    "merge with sums": Case(source={"table": "keyed"}, conflict=MERGE, there=THERE),
    "fail, with a key": Case(source={"table": "keyed"}, conflict="fail"),
    "fail, without a key": Case(source={"table": "keyless"}, conflict="fail"),
    "a composite key of text and uuid": Case(source={"table": "composite"}, conflict="fail"),
    "a query that is split": Case(
        source={"query": "SELECT * FROM keyless WHERE x > 10", "split_by": "x"}, conflict="fail"
    ),
    "a query that is not": Case(source={"query": "SELECT * FROM keyless WHERE x > 10"}, conflict="fail"),
    "a query that is not, into a key": Case(source={"query": "SELECT * FROM keyed WHERE id > 10"}, there=THERE),
    "into a new table, in chunks of portl's size": Case(
        source={"table": "keyless"}, conflict="fail", more={"chunk_rows": None}
    ),
    "into a new table with indexes and constraints": Case(source={"table": "indexed"}, conflict="fail"),
    "decoded rows": Case(source={"table": "keyless"}, conflict="fail", more={"route": "rows"}),
    "one transaction": Case(source={"table": "keyless"}, conflict="fail", more={"atomic": True}),
    "rows that are quarantined, of a query that is not split": Case(
        source={"query": "SELECT * FROM keyed"}, there=NOT_NULL, more={"on_error": "quarantine"}
    ),
    "rows that are quarantined, and all copied again": Case(
        source={"table": "keyed"}, there=NOT_NULL, more={"on_error": "quarantine", "resume": "recopy"}
    ),
    "a mirror": Case(source={"table": "keyed"}, there=THERE, more=MIRROR),
    "a mirror without a key": Case(
        source={"table": "keyless"},
        there="CREATE TABLE {table} AS SELECT g AS x, 'y' AS t FROM generate_series(1, 900) AS g",
        more=MIRROR,
    ),
    "a replacement": Case(source={"table": "keyed"}, there=THERE, more={"mode": "replace"}),
    "a mirror that marks rows as deleted": Case(source={"table": "keyed"}, there=MARKED, more=SOFT),
    "rows that are quarantined": Case(source={"table": "keyed"}, there=NOT_NULL, more={"on_error": "quarantine"}),
}


def job_of(source: Db, destination: Db, case: Case, table: str, parallel: int) -> dict[str, Any]:
    return {
        "name": f"job of {table}",
        "source": source.end(**case.source),
        "destination": destination.end(table=table),
        "conflict": case.conflict,
        "chunk_rows": 300,
        "batch_size": 100,
        "parallel": parallel,
        **case.more,
    }


def done(job: dict[str, Any]) -> bool:
    """Return whether the job was killed after its end: the ledger knows once the server of the killed process does."""
    for _ in range(100):
        runs = portl.status(job).runs
        if not runs or not runs[0].locked:
            return bool(runs) and runs[0].state is portl.RunState.DONE
        time.sleep(0.05)
    raise AssertionError("the lock of a process that was killed is still held")


def killed_again_and_again(source: Db, destination: Db, victim: Victim, what: str, parallel: int, moments: int) -> None:
    case = CASES[what]
    source.execute(SOURCE)
    draw = random.Random(f"{what} {parallel}")
    if case.there:
        destination.execute(case.there.format(table="whole"))
    whole = victim.run(job_of(source, destination, case, "whole", parallel))
    assert whole["error"] is None, whole
    wanted = rows(destination, "whole")
    assert wanted
    objects = set(owned(destination, "whole")) - {"whole_pkey"}
    if objects and not case.there:
        destination.execute("DROP TABLE whole")  # whose indexes have the names of those that come
    killed = 0
    for number in range(20):
        if number >= moments and killed:
            break
        table = f"t{number}"
        if case.there:
            destination.execute(case.there.format(table=table))
        job = job_of(source, destination, case, table, parallel)
        seen = []
        for _ in range(draw.choice([1, 1, 2])):
            how: dict[str, object] = (
                {"statement": draw.randint(1, whole["statements"])}
                if draw.random() < 0.6
                else {"seconds": draw.uniform(0, whole["seconds"] * 1.1)}
            )
            found = victim.run(job, **how)
            seen.append((how, found))
            killed += found["killed"]
            if not found["killed"] or done(job):
                break  # to run it once more would be another run
        else:
            seen.append(({}, victim.run(job)))
        assert seen[-1][1].get("error") is None, (number, seen)
        assert rows(destination, table) == wanted, (number, seen)
        assert set(owned(destination, table)) - {f"{table}_pkey"} >= objects - {"whole_name_check"}, (number, seen)
        if what.startswith("rows that are quarantined"):
            quarantined = f"SELECT count(*), count(DISTINCT \"row\"->>'id') FROM {table}__rejected"
            assert destination.execute(quarantined) == [(30, 30)], (number, seen)
        destination.execute(f'DROP TABLE "{table}"')
    assert killed, "no moment has hit"
    nothing_left(destination)


# By one worker or by several, in turn; each kind by both with ``nox -s faults``.
@pytest.mark.parametrize(("what", "parallel"), [(what, (1, 3)[at % 2]) for at, what in enumerate(CASES)])
def test_a_job_that_was_killed_ends_with_the_right_rows(
    source: Db, destination: Db, victim: Victim, what: str, parallel: int
) -> None:
    killed_again_and_again(source, destination, victim, what, parallel, FEW)


@pytest.mark.faults
@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("what", CASES)
def test_at_many_moments(source: Db, destination: Db, victim: Victim, what: str, parallel: int) -> None:
    killed_again_and_again(source, destination, victim, what, parallel, MANY)


def test_a_job_that_is_run_twice_at_once_runs_once(source: Db, destination: Db) -> None:
    source.execute(SOURCE)
    job = job_of(source, destination, CASES["fail, without a key"], "t", 1)
    seen: list[portl.AlreadyRunning] = []

    def second(event: portl.Event) -> None:
        if isinstance(event, portl.BatchCommitted) and not seen:
            with pytest.raises(portl.AlreadyRunning) as caught:
                portl.migrate(job)
            seen.append(caught.value)

    portl.migrate(job, observers=[second])
    assert len(seen) == 1
    assert destination.value("SELECT count(*) FROM t") == 3000
    nothing_left(destination)
