"""Foreign keys of existing tables that form a cycle, or refer to their own table: dropped for a run, never lost."""

from __future__ import annotations

import random

import pytest

import portl
from tests.jobs import Once
from tests.killing import Victim
from tests.servers import Db
from tests.whole import job_of

TABLES = """
CREATE TABLE a (id int PRIMARY KEY, b int, up int CONSTRAINT a_up REFERENCES a);
CREATE TABLE b (id int PRIMARY KEY, a int CONSTRAINT b_a REFERENCES a ON DELETE CASCADE);
ALTER TABLE a ADD CONSTRAINT a_b FOREIGN KEY (b) REFERENCES b MATCH FULL DEFERRABLE;
ALTER TABLE b ADD CONSTRAINT loose FOREIGN KEY (id) REFERENCES a NOT VALID;
CREATE TABLE c (id int PRIMARY KEY, a int CONSTRAINT c_a REFERENCES a);
COMMENT ON CONSTRAINT b_a ON b IS 'why'
"""
ROWS = """
INSERT INTO a SELECT g, NULL, NULL FROM generate_series(1, 2000) AS g;
INSERT INTO b SELECT g, 2001 - g FROM generate_series(1, 2000) AS g; INSERT INTO c SELECT id, id FROM a;
UPDATE a SET b = id, up = 2001 - id; ANALYZE
"""


def keys(db: Db) -> list[tuple[object, ...]]:
    """Return the foreign keys with their definitions and comments."""
    return db.execute(
        "SELECT conname::text, pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint') FROM pg_constraint"
        " WHERE contype = 'f' ORDER BY 1"
    )


@pytest.fixture
def circle(source: Db, destination: Db) -> Db:
    """Return a source; the destination has its tables, without rows."""
    source.execute(f"{TABLES};{ROWS}")
    destination.execute(TABLES)
    return source


def job(source: Db, destination: Db, **more: object) -> dict[str, object]:
    return job_of(source, destination, chunk_rows=500, parallel=2, foreign_keys="recreate", **more)


def test_a_cycle_is_a_problem_that_names_the_way_out(circle: Db, destination: Db) -> None:
    (found,) = portl.plan(job_of(circle, destination)).problems
    assert str(found) == (
        "foreign_keys: foreign keys between these tables form a cycle: public.a, public.b (a_b on public.a, b_a on "
        "public.b, loose on public.b); a row may reference one that is not there yet -> `foreign_keys: recreate` drops "
        "them for the run, then creates them again and validates them"
    )


def test_foreign_keys_in_a_cycle_are_dropped_and_made_again(circle: Db, destination: Db) -> None:
    before = keys(destination)
    plan = portl.plan(job(circle, destination))
    (warned,) = plan.warnings
    assert warned.message == (
        "foreign keys are dropped for the run, then created again and validated: a_b on public.a, b_a on "
        "public.b, loose on public.b, a_up on public.a"
    )
    assert plan.to_dict()["recreated"] == [key.name for key in plan.dropped]
    assert plan.execute().rows_inserted == 6000
    assert keys(destination) == before
    assert portl.verify(job(circle, destination)).equal
    assert portl.migrate(job(circle, destination)).rows_unchanged == 6000
    assert keys(destination) == before


def test_a_run_that_begins_again_validates_what_the_one_before_had_not(circle: Db, destination: Db) -> None:
    before = keys(destination)
    portl.migrate(job(circle, destination))
    # As a process leaves it that dies right before validating.
    destination.execute("ALTER TABLE a DROP CONSTRAINT a_b; UPDATE portl.migrations SET state = 'running'")
    destination.execute("ALTER TABLE a ADD CONSTRAINT a_b FOREIGN KEY (b) REFERENCES b MATCH FULL DEFERRABLE NOT VALID")
    portl.migrate(job(circle, destination), restart=True)
    assert keys(destination) == before


@pytest.mark.parametrize("way", ["resume", "restart", "clean"])
def test_a_run_that_is_given_up_gets_its_foreign_keys_back(circle: Db, destination: Db, way: str) -> None:
    before = keys(destination)
    token = portl.CancelToken()
    with pytest.raises(portl.Cancelled) as caught:
        portl.migrate(job(circle, destination), observers=[Once(2, token.cancel)], cancel=token)
    assert caught.value.hint == (
        "run the job again to go on from there; that creates 4 foreign keys again, and so does `portl clean`"
    )
    assert [name for name, *_ in keys(destination)] == ["c_a"]
    if way == "clean":
        cleaned = portl.clean(job(circle, destination))
        assert len(cleaned.foreign_keys) == 4
        # Rows of a part of the tables refer to others that are not there.
        assert set(cleaned.not_valid) <= {"a_b on public.a", "b_a on public.b", "a_up on public.a"}
        assert cleaned.not_valid
        assert [(n, d.removesuffix(" NOT VALID"), c) for n, d, c in keys(destination) if isinstance(d, str)] == [
            (n, str(d).removesuffix(" NOT VALID"), c) for n, d, c in before
        ]
        assert portl.status(job(circle, destination)).runs == ()
        return
    if way == "restart":
        # The foreign keys are not there: the job need not say once more that they are dropped.
        portl.migrate({**job(circle, destination), "foreign_keys": "keep"}, restart=True)
    else:
        portl.migrate(job(circle, destination))
    assert keys(destination) == before
    assert portl.verify(job(circle, destination)).equal


def test_a_role_that_may_not_drop_foreign_keys_is_a_problem(circle: Db, destination: Db) -> None:
    destination.execute(
        "CREATE ROLE circle_writer LOGIN PASSWORD 'w'; GRANT ALL ON ALL TABLES IN SCHEMA public TO circle_writer"
    )
    destination.execute(f"GRANT CREATE ON DATABASE {destination.connection.info.dbname} TO circle_writer")
    try:
        mine = {**job(circle, destination), "destination": destination.end(username="circle_writer", password="w")}
        said = [found.message for found in portl.plan(mine).problems]
        assert "b_a on public.b cannot be dropped and created again: the role does not own public.b" in said
    finally:
        destination.execute("DROP OWNED BY circle_writer; DROP ROLE circle_writer")


def killed_at(circle: Db, destination: Db, victim: Victim, draw: random.Random, moments: int) -> None:
    """Kill the job at so many moments; however it goes on, no foreign key is lost."""
    before = keys(destination)
    mine = job(circle, destination)
    statements = victim.run(mine)["statements"]
    for number in range(moments):
        destination.execute("DROP SCHEMA portl CASCADE; TRUNCATE a, b, c")
        drawn = [draw.randint(5, statements) for _ in range(2)]
        for at in drawn:
            victim.run(mine, statement=at)
        if number % 3 == 2:
            cleaned = portl.clean(mine)
            assert [name for name, *_ in keys(destination)] == [name for name, *_ in before], drawn
            destination.execute("TRUNCATE a, b, c")
            for name in cleaned.not_valid:  # since only a part of the rows was there
                constraint, _, table = name.partition(" on ")
                destination.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {constraint}")
        portl.migrate(mine, restart=number % 3 == 1)
        assert keys(destination) == before, drawn
        assert portl.verify(mine).equal, drawn


def test_a_run_that_is_killed_loses_no_foreign_key(circle: Db, destination: Db, victim: Victim) -> None:
    killed_at(circle, destination, victim, random.Random(11), 2)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
def test_at_many_moments(circle: Db, destination: Db, victim: Victim, seed: int) -> None:
    killed_at(circle, destination, victim, random.Random(seed), 20)
