"""``mode: incremental`` for jobs of many tables: each has its own watermark, all in one run of the ledger."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import portl
from tests.killing import Victim
from tests.servers import Db


@pytest.fixture
def shop(source: Db) -> Db:
    source.execute("""
        CREATE TABLE users (id int PRIMARY KEY, name text, at timestamptz NOT NULL DEFAULT clock_timestamp());
        CREATE TABLE orders (id serial PRIMARY KEY, total int);
        CREATE INDEX ON users (at);
        INSERT INTO users SELECT g, 'u' || g FROM generate_series(1, 100) AS g;
        INSERT INTO orders (total) SELECT g FROM generate_series(1, 200) AS g
    """)
    return source


def job(source: Db, destination: Db, **keys: Any) -> dict[str, Any]:
    tables = [
        {"table": "users", "incremental": {"cursor": "at"}},
        {"table": "orders", "incremental": {"by": "xmin"}},
        "more*",
    ]
    return {
        "name": "shop",
        "source": source.end(),
        "destination": destination.end(),
        "tables": tables[: keys.pop("entries", 2)],
        "mode": "incremental",
        "incremental": {"by": "auto"},
        **keys,
    }


def read(result: portl.Result) -> dict[str, int]:
    return {table.destination.removeprefix("public."): table.rows_read for table in result.tables}


def same(source: Db, destination: Db, *tables: str) -> None:
    for table in tables:
        query = f"SELECT t::text FROM {table} AS t ORDER BY 1"
        assert destination.execute(query) == source.execute(query)


def test_each_table_is_read_from_its_own_watermark(shop: Db, destination: Db) -> None:
    config = job(shop, destination)
    first = portl.migrate(config)
    assert read(first) == {"users": 100, "orders": 200}
    assert all(table.watermark is not None and table.watermark_before is None for table in first.tables)
    shop.execute(
        "UPDATE users SET name = 'new', at = clock_timestamp() WHERE id = 5; UPDATE orders SET total = 0 WHERE id < 4"
    )
    second = portl.migrate(config)
    assert read(second)["users"] < 100
    assert read(second)["orders"] == 3
    before = {table.destination: table.watermark for table in first.tables}
    assert {table.destination: table.watermark_before for table in second.tables} == before
    same(shop, destination, "users", "orders")
    progress = portl.status(config).runs[0].to_dict()["tables"]
    assert all(table["watermark"] is not None for table in progress)
    assert portl.verify(config).equal
    assert portl.migrate(config, full_refresh=True).rows_unchanged == 300


def test_what_commits_late_in_one_table_is_read_by_the_next_run(shop: Db, destination: Db) -> None:
    config = job(shop, destination)
    portl.migrate(config)
    info = shop.connection.info
    with psycopg.connect(
        host=info.host, port=info.port, user=info.user, dbname=info.dbname, password=shop.endpoint.password
    ) as late:
        late.execute("INSERT INTO orders (id, total) VALUES (1000, 1)")
        late.execute("INSERT INTO users (id, name) VALUES (1000, 'late')")
        shop.execute(
            "INSERT INTO orders (id, total) VALUES (1001, 2); INSERT INTO users (id, name) VALUES (1001, 'early')"
        )
        portl.migrate(config)
        assert destination.value("SELECT count(*) FROM users WHERE id > 900") == 1
    portl.migrate(config)
    same(shop, destination, "users", "orders")


def test_a_table_that_is_new_is_read_whole(shop: Db, destination: Db) -> None:
    config = job(shop, destination)
    portl.migrate(config)
    shop.execute("CREATE TABLE more1 (id int PRIMARY KEY); INSERT INTO more1 SELECT generate_series(1, 50)")
    wider = job(shop, destination, entries=3)
    assert read(portl.migrate(wider)) == {"users": 1, "orders": 0, "more1": 50}
    shop.execute("INSERT INTO more1 VALUES (51)")
    assert read(portl.migrate(wider))["more1"] == 1
    same(shop, destination, "users", "orders", "more1")


def test_what_the_watermarks_do_not_hold_for_is_told_apart(shop: Db, destination: Db) -> None:
    config = job(shop, destination)
    portl.migrate(config)
    destination.execute("TRUNCATE users")
    (found,) = portl.plan(config).problems
    assert str(found).startswith("incremental: public.users has been emptied since the run of ")
    portl.migrate(config, full_refresh=True)
    changed = job(shop, destination)
    changed["tables"][0] = {"table": "users", "incremental": {"cursor": "id"}}
    said = "\n".join(map(str, portl.plan(changed).problems))
    assert "the job has changed since the run of" in said
    assert "tables.users" in said
    changed = job(shop, destination, conflict="skip")
    assert any("conflict" in str(found) for found in portl.plan(changed).problems)


def test_a_table_without_a_key_is_a_problem_that_names_it(shop: Db, destination: Db) -> None:
    shop.execute("CREATE TABLE more1 (id int)")
    problems = list(map(str, portl.plan(job(shop, destination, entries=3)).problems))
    assert len(problems) == 1
    assert "`mode: incremental` needs a key" in problems[0]


def test_a_run_that_is_killed_reads_again_from_where_the_one_before_it_ended(
    shop: Db, destination: Db, victim: Victim
) -> None:
    config = job(shop, destination, chunk_rows=40)
    portl.migrate(config)
    whole = victim.run(config)["statements"]
    for number in range(1, 4):
        shop.execute(
            f"UPDATE users SET name = 'n{number}', at = clock_timestamp() WHERE id % 3 = 0;"
            f"INSERT INTO orders (total) SELECT {number} FROM generate_series(1, 90)"
        )
        assert victim.run(config, statement=whole * number // 4 + 5)["killed"]
        shop.execute("INSERT INTO orders (total) VALUES (7)")
        portl.migrate(config)
        portl.migrate(config)  # what came after the state of the resumed run
        same(shop, destination, "users", "orders")
