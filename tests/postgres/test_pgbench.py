"""pgbench's own tables, migrated whole and compared."""

from __future__ import annotations

import os
import subprocess

import pytest

import portl
from portl_postgres.demo.server import embedded_binaries
from tests.servers import Db

TABLES = ("pgbench_branches", "pgbench_tellers", "pgbench_accounts", "pgbench_history")


def pgbench(db: Db, *arguments: str) -> None:
    endpoint = db.endpoint
    call = [str(embedded_binaries() / "pgbench"), "-h", endpoint.host, "-p", str(endpoint.port), "-U", endpoint.user]
    environment = {**os.environ, "PGPASSWORD": endpoint.password}
    subprocess.run(
        [*call, *arguments, db.connection.info.dbname], env=environment, capture_output=True, timeout=120, check=True
    )


def digest(db: Db, table: str) -> object:
    return db.execute(f"SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM {table} AS t")


@pytest.fixture
def bench(source: Db) -> Db:
    pgbench(source, "-i", "-s", "1", "--foreign-keys", "-q")
    pgbench(source, "-t", "50", "-n")
    return source


@pytest.mark.parametrize("route", ["relay", "rows"])
def test_pgbench_tables_arrive_as_they_are(bench: Db, destination: Db, route: str) -> None:
    for table in TABLES:
        job = {"source": bench.end(table=table), "destination": destination.end(table=table), "route": route}
        result = portl.migrate(job)
        assert result.tables[0].route == route
        assert result.rows_read == bench.value(f"SELECT count(*) FROM {table}")
        assert digest(bench, table) == digest(destination, table)


def test_a_second_pass_brings_over_what_changed_since(bench: Db, destination: Db) -> None:
    def run() -> portl.Result:
        table = "pgbench_accounts"
        return portl.migrate({"source": bench.end(table=table), "destination": destination.end(table=table)})

    run()
    pgbench(bench, "-t", "20", "-n")
    result = run()
    assert 0 < result.rows_updated <= 20
    assert result.rows_updated + result.rows_unchanged == 100_000
    assert digest(bench, "pgbench_accounts") == digest(destination, "pgbench_accounts")
