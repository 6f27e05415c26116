"""A table without columns is legal in PostgreSQL. Its rows hold nothing, and there is a number of them."""

from __future__ import annotations

from typing import Any

import pytest

import portl
from tests.servers import Db

ROWS = 2500
MODES = ("count", "checksum", "full")


@pytest.fixture
def bare(source: Db) -> Db:
    source.execute(f"CREATE TABLE t (); INSERT INTO t SELECT FROM generate_series(1, {ROWS})")
    return source


def job(source: Db, destination: Db, **keys: Any) -> dict[str, Any]:
    return {"source": source.end(table="t"), "destination": destination.end(table="t"), **keys}


def count(db: Db, table: str = "t") -> int:
    return int(db.value(f"SELECT count(*) FROM {table}"))


@pytest.mark.parametrize("route", ["relay", "rows"])
def test_it_is_created_and_its_rows_arrive(bare: Db, destination: Db, route: str) -> None:
    config = job(bare, destination, route=route)
    plan = portl.plan(config)
    assert plan.problems == ()
    assert plan.tables[0].statements[0] == 'CREATE TABLE "public"."t" ()'
    assert "rows      2,500" in str(plan)
    result = plan.execute()
    assert (result.tables[0].route, result.rows_inserted) == (route, ROWS)
    assert count(destination) == ROWS
    for mode in MODES:
        assert portl.verify(config, mode=mode).equal, mode
    destination.execute("DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t)")
    for mode in MODES:
        assert not portl.verify(config, mode=mode).equal, mode


def test_its_rows_stay_inside_a_server(bare: Db) -> None:
    config = {"source": bare.end(table="t"), "destination": bare.end(table="u")}
    result = portl.migrate(config)
    assert (result.tables[0].route, result.rows_inserted) == ("server", ROWS)
    assert count(bare, "u") == ROWS
    assert portl.migrate({**config, "conflict": "fail"}).rows_inserted == ROWS
    assert count(bare, "u") == 2 * ROWS


@pytest.mark.parametrize("existing", [False, True])
def test_chunks_that_several_workers_move_bring_each_row_once(bare: Db, destination: Db, existing: bool) -> None:
    if existing:
        destination.execute("CREATE TABLE t ()")
    config = job(bare, destination, conflict="fail", chunk_rows=300, batch_size=70, parallel=3)
    result = portl.migrate(config)
    assert len(portl.plan(config).tables[0].split.chunks) > 3
    assert (result.rows_inserted, count(destination)) == (ROWS, ROWS)


@pytest.mark.parametrize("route", ["relay", "rows"])
def test_a_run_that_was_interrupted_is_resumed_without_a_row_twice(bare: Db, destination: Db, route: str) -> None:
    config = job(bare, destination, conflict="fail", chunk_rows=300, batch_size=70, route=route)
    token, resumed = portl.CancelToken(), []

    def stop(event: portl.Event) -> None:
        if isinstance(event, portl.BatchCommitted):
            token.cancel()

    with pytest.raises(portl.Cancelled):
        portl.migrate(config, observers=[stop], cancel=token)
    assert 0 < count(destination) < ROWS
    portl.migrate(config, observers=[lambda event: resumed.append(event) if isinstance(event, portl.Resumed) else None])
    assert len(resumed) == 1
    assert count(destination) == ROWS


def test_an_existing_one_with_row_security_is_filled_through_the_staging_table(bare: Db, destination: Db) -> None:
    destination.execute("CREATE TABLE t (); ALTER TABLE t ENABLE ROW LEVEL SECURITY")
    destination.execute("CREATE POLICY all_rows ON t USING (true)")
    destination.execute("DROP ROLE IF EXISTS portl_secured; CREATE ROLE portl_secured LOGIN PASSWORD 'pw'")
    name = destination.connection.info.dbname
    destination.execute(f"GRANT ALL ON t TO portl_secured; GRANT CREATE ON DATABASE {name} TO portl_secured")
    config = job(bare, destination, conflict="fail")
    config["destination"] |= {"username": "portl_secured", "password": "pw"}
    try:
        assert portl.migrate(config).rows_inserted == ROWS
    finally:
        destination.execute("DROP OWNED BY portl_secured CASCADE; DROP ROLE portl_secured")


@pytest.mark.parametrize("route", ["relay", "rows"])
def test_a_table_whose_columns_are_all_generated_keeps_its_rows(source: Db, destination: Db, route: str) -> None:
    source.execute(
        "CREATE TABLE t (n int GENERATED ALWAYS AS (42) STORED); INSERT INTO t SELECT FROM generate_series(1, 9)"
    )
    assert portl.migrate(job(source, destination, route=route)).rows_inserted == 9
    assert destination.execute("SELECT DISTINCT n, count(*) OVER () FROM t") == [(42, 9)]


@pytest.mark.system
def test_it_goes_to_another_version(bare: Db, system: Db, destination: Db) -> None:
    assert portl.migrate(job(bare, system)).rows_inserted == ROWS
    assert portl.migrate(job(system, destination)).rows_inserted == ROWS
    assert portl.verify(job(system, destination), mode="checksum").equal


@pytest.mark.parametrize("keys", [{"atomic": True}, {"on_error": "quarantine"}, {"verify": "full"}, {"parallel": 1}])
def test_other_keys_of_a_job_work_as_with_columns(bare: Db, destination: Db, keys: dict[str, Any]) -> None:
    assert portl.migrate(job(bare, destination, **keys)).rows_inserted == ROWS


def test_missing_rows_are_repaired(bare: Db, destination: Db) -> None:
    destination.execute("CREATE TABLE t (); INSERT INTO t SELECT FROM generate_series(1, 100)")
    found = portl.verify(job(bare, destination, conflict="fail"), mode="full", repair=True)
    assert count(destination) == ROWS, found


@pytest.mark.parametrize("columns", ["", "a int"])
def test_no_column_is_left_where_the_job_excludes_all_or_the_destination_has_some(
    source: Db, destination: Db, columns: str
) -> None:
    source.execute(f"CREATE TABLE t ({columns})")
    destination.execute("CREATE TABLE t (b int)")
    config = job(source, destination, conflict="fail")
    if columns:
        config["source"]["exclude_columns"] = ["a"]
    assert [str(p) for p in portl.plan(config).problems] == ["source.columns: no column is left to copy"]
