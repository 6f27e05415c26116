"""What a run makes of what an earlier one has left: rows quarantined, another table, a ledger that it may not read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import portl
from portl.execution.chunks import load as chunkload
from tests.commands import portl_cli
from tests.jobs import Once, Stop, job_of, nothing_left, rows, stop, through
from tests.servers import Db

ROWS = 2000
KEYLESS = f"CREATE TABLE t AS SELECT g AS id, repeat('r', g % 60) AS y FROM generate_series(1, {ROWS}) AS g"
KEYED = f"{KEYLESS}; ALTER TABLE t ADD PRIMARY KEY (id)"
#: Refuses every two hundredth row, and ends the run at another.
PICKY = "CREATE TABLE t (id int PRIMARY KEY CHECK (id % 200 <> 50), y text)"
REJECTED = [(str(n),) for n in range(50, ROWS, 200)]
BAD = "ALTER TABLE t ADD CONSTRAINT bad CHECK (id <> 1777)"


def stopped(job: dict[str, Any], number: int) -> None:
    """Run a job until its n-th COMMIT."""
    with pytest.raises(Stop):
        portl.migrate(job, observers=[Once(number, stop)])


def quarantined(destination: Db) -> list[tuple[Any, ...]]:
    return destination.execute("SELECT \"row\"->>'id' FROM t__rejected ORDER BY (\"row\"->>'id')::int")


def latest(job: dict[str, Any]) -> portl.Run:
    return portl.status(job).runs[0]


@pytest.mark.parametrize("parallel", [1, 3])
def test_quarantined_rows_name_the_run_and_come_once_when_all_is_copied_again(
    source: Db, destination: Db, parallel: int
) -> None:
    source.execute(KEYED)
    destination.execute(PICKY)
    keys = {"conflict": "overwrite", "on_error": "quarantine", "parallel": parallel}
    job = job_of(source.end(), destination.end(), **keys, resume="recopy")
    stopped(job, 3)
    assert len(quarantined(destination)) > 0
    result = portl.migrate(job)
    assert result.rows_rejected == len(REJECTED)
    assert quarantined(destination) == REJECTED
    assert destination.execute("SELECT DISTINCT run FROM t__rejected") == [(latest(job).id,)]


def test_quarantined_rows_by_a_run_that_starts_over_come_once(source: Db, destination: Db) -> None:
    source.execute(KEYED)
    destination.execute(PICKY)
    end = source.end(query="SELECT * FROM t ORDER BY id")
    job = {**job_of(end, destination.end(), conflict="overwrite", on_error="quarantine"), "name": "a query"}
    job["source"].pop("table")
    assert portl.plan(job).tables[0].delivery.value == "repeat"
    destination.execute("CREATE FUNCTION dies() RETURNS trigger LANGUAGE plpgsql AS $$"
                        " BEGIN RAISE EXCEPTION 'no more' USING ERRCODE = '58030'; END $$;"
                        "CREATE TRIGGER dies BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id = 1990)"
                        " EXECUTE FUNCTION dies()")  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunkload, "PIECE_SECONDS", 0.0)
        for _ in range(2):
            with pytest.raises(portl.OperationError, match="no more"):
                portl.migrate(job)
            assert len(quarantined(destination)) > 5
        destination.execute("DROP TRIGGER dies ON t")
        assert portl.migrate(job).rows_rejected == len(REJECTED)
    assert quarantined(destination) == REJECTED
    # A run that ended leaves its rows: another one is another story.
    assert portl.migrate(job).rows_rejected == len(REJECTED)
    assert destination.value("SELECT count(DISTINCT run) FROM t__rejected") == 2


def test_quarantined_rows_by_a_run_that_is_begun_again_come_once(source: Db, destination: Db) -> None:
    source.execute(KEYED)
    destination.execute(PICKY)
    job = job_of(source.end(), destination.end(), conflict="overwrite", on_error="quarantine")
    stopped(job, 2)
    assert quarantined(destination)
    assert portl.migrate(job, restart=True).rows_rejected == len(REJECTED)
    assert quarantined(destination) == REJECTED


@pytest.mark.parametrize("conflict", ["fail", "overwrite"])
def test_a_run_is_not_resumed_on_another_table_of_the_same_name(source: Db, destination: Db, conflict: str) -> None:
    source.execute(KEYED)
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, y text)")
    job = job_of(source.end(), destination.end(), conflict=conflict)
    stopped(job, 2)
    destination.execute("ALTER TABLE t RENAME TO kept; CREATE TABLE t (LIKE kept INCLUDING ALL)")
    destination.execute("INSERT INTO t VALUES (-1, 'a row of its own')")
    with pytest.raises(portl.PlanError, match=r"the table public\.t has been replaced by another"):
        portl.migrate(job)
    destination.execute("DROP TABLE t; ALTER TABLE kept RENAME TO t")
    portl.migrate(job)
    assert rows(destination, "t") == rows(source, "t")


def test_a_run_is_resumed_after_the_table_was_rewritten(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    destination.execute("CREATE TABLE t (id int, y text)")
    job = job_of(source.end(), destination.end())
    stopped(job, 2)
    destination.execute("VACUUM FULL t")
    destination.execute("ALTER TABLE t ALTER COLUMN y TYPE varchar(80)")
    portl.migrate(job)
    assert rows(destination, "t") == rows(source, "t")


def test_a_run_is_resumed_in_a_database_that_was_restored(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    destination.execute("CREATE TABLE t (id int, y text)")
    job = job_of(source.end(), destination.end())
    stopped(job, 2)
    for schema, name in (("public", "t"), ("portl", "migrations"), ("portl", "chunks")):  # as pg_restore --clean does
        table, old = f"{schema}.{name}", f"{schema}.old"
        mark = destination.value("SELECT coalesce(quote_literal(obj_description(%s::regclass)), 'NULL')", table)
        destination.execute(f"ALTER TABLE {table} RENAME TO old; CREATE TABLE {table} (LIKE {old} INCLUDING ALL)")
        destination.execute(f"INSERT INTO {table} SELECT * FROM {old}; DROP TABLE {old}")
        destination.execute(f"COMMENT ON TABLE {table} IS {mark}")
    portl.migrate(job)
    assert rows(destination, "t") == rows(source, "t")


@pytest.fixture
def guest(destination: Db) -> Iterator[dict[str, object]]:
    """A role that may fill the table, and make a ledger of its own, but knows nothing of portl's."""
    name = f"guest_{destination.connection.info.dbname}"
    destination.execute(f"DROP ROLE IF EXISTS {name}; CREATE ROLE {name} LOGIN PASSWORD 'guest'")
    destination.execute(f"CREATE TABLE t (id int, y text); GRANT SELECT, INSERT ON t TO {name}")
    yield destination.end(username=name, password="guest")
    destination.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


@pytest.mark.parametrize("own", [True, False], ids=["with a place of its own", "without"])
def test_a_role_that_may_not_read_the_ledger_does_not_write_rows_twice(
    source: Db, destination: Db, guest: dict[str, object], own: bool
) -> None:
    source.execute(KEYLESS)
    job = job_of(source.end(), destination.end())
    stopped(job, 2)
    if own:
        destination.execute(f"GRANT CREATE ON SCHEMA public TO {guest['username']}")
    for _ in range(2):
        with pytest.raises(portl.PlanError, match=r"may not read the runs in portl\.migrations.*twice") as caught:
            portl.migrate(job_of(source.end(), guest))
        assert 'GRANT USAGE ON SCHEMA "portl" TO the role' in str(caught.value)
        assert destination.value("SELECT count(*) FROM t") == 1000
    destination.execute(f"GRANT USAGE ON SCHEMA portl TO {guest['username']}; GRANT SELECT, INSERT, UPDATE, DELETE"
                        f" ON ALL TABLES IN SCHEMA portl TO {guest['username']}")  # fmt: skip
    assert portl.migrate(job_of(source.end(), guest)).tables[0].attempt == 2
    assert rows(destination, "t") == rows(source, "t")


def test_a_role_with_a_ledger_of_its_own_works_beside_one_that_it_may_not_read(
    source: Db, destination: Db, guest: dict[str, object]
) -> None:
    source.execute(KEYLESS)
    portl.migrate({**job_of(source.end(), destination.end()), "destination": destination.end(table="other")})
    destination.execute(f"GRANT CREATE ON SCHEMA public TO {guest['username']}")
    job = job_of(source.end(), guest)
    plan = portl.plan(job)
    assert plan.problems == ()
    assert "may not read the runs in portl.migrations" in str(plan)
    portl.migrate(job)  # the table is empty: nothing can come twice
    destination.execute("CREATE SCHEMA own")
    destination.execute(f"GRANT CREATE, USAGE ON SCHEMA own TO {guest['username']}")
    with pytest.raises(portl.PlanError, match="ledger"):
        portl.migrate(job)
    portl.migrate({**job, "ledger": {"schema": "own"}})  # naming it is deliberate
    assert destination.value("SELECT count(*) FROM t") == 2 * ROWS


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("at", [2, 3, 4])
def test_rows_are_quarantined_once_whatever_becomes_of_a_commit(
    source: Db, destination: Db, at: int, parallel: int
) -> None:
    source.execute(KEYED)
    destination.execute(PICKY)
    for after in (True, False):
        with through(destination) as (proxy, there):
            proxy.cut_at_commit(after=after, number=at)
            job = job_of(source.end(), there, on_error="quarantine", parallel=parallel, name=f"{after}")
            result = portl.migrate(job)
            assert proxy.cut_commits == 1
        assert (result.rows_rejected, result.rows_inserted) == (len(REJECTED), ROWS - len(REJECTED))
        assert quarantined(destination) == REJECTED
        destination.execute("TRUNCATE t, t__rejected")
    nothing_left(destination)


@pytest.mark.parametrize("at", [1, 3])
def test_an_atomic_job_that_is_cancelled_leaves_nothing_and_can_be_run_again(
    source: Db, destination: Db, at: int
) -> None:
    source.execute(KEYLESS)
    token = portl.CancelToken()
    job = job_of(source.end(), destination.end(), atomic=True)
    with pytest.raises(portl.Cancelled) as caught:
        portl.migrate(job, observers=[Once(at, token.cancel)], cancel=token)
    assert caught.value.committed is not None
    assert caught.value.committed.rows_inserted == 0
    assert destination.value("SELECT to_regclass('t')") is None
    assert portl.status(job).runs == ()
    nothing_left(destination)
    assert portl.migrate(job).rows_inserted == ROWS
    assert rows(destination, "t") == rows(source, "t")


def test_a_plan_that_others_have_overtaken_is_not_carried_out(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    job = job_of(source.end(), destination.end())
    stale, second = portl.plan(job), portl.plan({**job, "name": "second"})
    portl.migrate(job)
    for plan in (stale, second):
        with pytest.raises(portl.PlanError, match="the job would not run as planned") as caught:
            plan.execute()
        assert "the statements before or after the rows" in str(caught.value)
    assert rows(destination, "t") == rows(source, "t")


def test_a_plan_is_not_carried_out_on_columns_that_have_changed(source: Db, destination: Db) -> None:
    source.execute(KEYED)
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, y text)")
    plan = portl.plan(job_of(source.end(), destination.end()))
    source.execute("INSERT INTO t VALUES (0, 'one more row is no other plan'); ANALYZE t")
    unchanged = portl.plan(job_of(source.end(), destination.end(), conflict="overwrite"))
    destination.execute("ALTER TABLE t ALTER COLUMN y TYPE varchar(90)")
    with pytest.raises(portl.PlanError, match="not run as planned: the columns changed in the meantime"):
        plan.execute()
    assert destination.value("SELECT count(*) FROM t") == 0
    destination.execute("ALTER TABLE t ALTER COLUMN y TYPE text")
    assert unchanged.execute().rows_inserted == ROWS + 1


def test_a_caller_supplied_connection_tries_a_deadlock_again_in_one_transaction(source: Db, destination: Db) -> None:
    source.execute(KEYLESS)
    destination.execute("CREATE TABLE t (id int, y text); CREATE SEQUENCE calls;"
                        "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                        " IF nextval('calls') = 1 THEN RAISE EXCEPTION 'in a knot' USING ERRCODE = '40P01'; END IF;"
                        " RETURN NEW; END $$; CREATE TRIGGER fails BEFORE INSERT ON t FOR EACH ROW"
                        " WHEN (NEW.id = 1500) EXECUTE FUNCTION fails()")  # fmt: skip
    info = destination.connection.info
    with psycopg.connect(info.dsn, password=info.password, autocommit=True) as supplied:
        job = job_of(source.end(), destination.end(), atomic=True)
        result = portl.migrate(job, destination=supplied)
    assert result.rows_inserted == ROWS
    assert rows(destination, "t") == rows(source, "t")


def test_a_comparison_in_the_job_that_finds_something_ends_the_command_with_1(
    source: Db, destination: Db, tmp_path: Path
) -> None:
    source.execute(KEYED)
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, y text);"
                        "CREATE FUNCTION eats() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
                        "CREATE TRIGGER eats BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id = 77)"
                        " EXECUTE FUNCTION eats()")  # fmt: skip
    file = tmp_path / "job.yaml"
    file.write_text(json.dumps(job_of(source.end(), destination.end(), conflict="overwrite", verify="full")))
    found = portl_cli("run", file)
    assert found.returncode == 1
    assert "1 rows missing" in found.stderr


def test_a_row_stands_where_it_stood_before_the_run_was_resumed(source: Db, destination: Db) -> None:
    source.execute(KEYED)
    destination.execute(f"CREATE TABLE t (id int PRIMARY KEY, y text); {BAD}")
    job = job_of(source.end(), destination.end())
    with pytest.raises(portl.DataError) as caught:
        portl.migrate(job)
    error = caught.value
    assert (error.chunk, error.batch, error.row) == (4, 3, 277)
    assert error.message.startswith("row 277 of chunk 4 (batch 3) with id = 1777: ")
    result = portl.migrate({**job, "on_error": "quarantine"})
    assert (result.tables[0].attempt, result.rows_rejected) == (2, 1)
    stands = destination.execute("SELECT source_position, chunk, batch, row_number FROM t__rejected")
    assert stands == [("row 277 of chunk 4 (batch 3)", 4, 3, 277)]
