"""The main job, end to end."""

from __future__ import annotations

import portl
from tests.servers import Db


def job(source: Db, destination: Db, **keys: object) -> dict[str, object]:
    return {"source": source.end(table="users"), "destination": destination.end(table="users"), **keys}


def test_a_missing_table_is_created_and_filled(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, email varchar(50) NOT NULL, tags text[])")
    source.execute("INSERT INTO users SELECT g, 'u' || g || '@x.com', ARRAY['a', NULL] FROM generate_series(1, 2500) g")
    result = portl.migrate(job(source, destination))
    assert (result.rows_read, result.rows_inserted, result.tables[0].route) == (2500, 2500, "relay")
    assert destination.execute("SELECT * FROM users ORDER BY id") == source.execute("SELECT * FROM users ORDER BY id")
    assert destination.value("SELECT count(*) FROM pg_index WHERE indrelid = 'users'::regclass AND indisprimary") == 1


def test_a_second_run_changes_nothing_and_says_so(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users VALUES (1, 'a'), (2, 'b')")
    portl.migrate(job(source, destination))
    before = destination.execute("SELECT xmin, ctid, * FROM users")
    result = portl.migrate(job(source, destination))
    assert (result.rows_unchanged, result.rows_updated, result.rows_inserted) == (2, 0, 0)
    assert destination.execute("SELECT xmin, ctid, * FROM users") == before


def test_the_rows_route_brings_the_same(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, x numeric, y interval, z date)")
    source.execute("INSERT INTO users VALUES (1, 1.50, '1 mon -1 day', '0044-03-15 BC'), (2, 'NaN', '1 day', NULL)")
    result = portl.migrate(job(source, destination, route="rows"))
    assert result.tables[0].route == "rows"
    query = "SELECT id, x::text, y::text, z::text FROM users ORDER BY id"
    assert destination.execute(query) == source.execute(query)
