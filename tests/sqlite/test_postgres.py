"""Between SQLite and PostgreSQL: every value there and back, many tables, kills, modes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import portl
from tests.killing import Victim
from tests.servers import Db

#: Every generic type, with its edges.
VALUES = """
CREATE TABLE t (id int PRIMARY KEY, a smallint, b bigint, c numeric, d numeric(12,2), e real, f double precision,
  g boolean, h varchar(10), i text, j bytea, k date, l time, m timetz, n timestamp, o timestamptz, p interval, q uuid,
  r json, s jsonb, u int[], v text[], w inet, x int4range);
INSERT INTO t (id) VALUES (1);
INSERT INTO t VALUES
 (2, -32768, 9223372036854775807, 'NaN', 1.50, 1.5, 'Infinity', true, 'ab', E'a\\n''"\\\\', '\\x00ff', 'infinity',
  '24:00', '12:30+05:45', '0044-03-15 12:00 BC', '-infinity', '1 month -3 days', 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6',
  '{"b": 1.00,  "a": 1}', '{"b": 1.00, "a": 1}', '{1,NULL}', '{{a,b},{c,"{,}"}}', '10.0.0.1/8', '[1,5)'),
 (3, 0, 0, '-123456789012345678901234567890.000', 0.00, 0, 5e-324, false, '', '', '', '2024-02-29',
  '12:30:00.000001', '12:30Z', '2024-02-29 12:30', '2024-02-29 12:30+02', '3 days 00:00:00.000001', gen_random_uuid(),
  'null', '[]', '{}',
  '[0:1]={a,b}', '::1', 'empty')
"""


def at(path: Path, **keys: Any) -> dict[str, Any]:
    return {"type": "sqlite", "path": str(path), **keys}


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def test_every_value_comes_back(source: Db, destination: Db, tmp_path: Path) -> None:
    source.execute(VALUES)
    destination.execute(VALUES.split(";")[0])
    path = tmp_path / "between.db"
    there = {"source": source.end(table="t"), "destination": at(path, table="t")}
    assert portl.migrate(there).rows_inserted == 3
    assert portl.migrate(there).rows_unchanged == 3
    assert portl.verify(there).equal
    back = {"source": at(path, table="t"), "destination": destination.end(table="t")}
    assert portl.migrate(back).rows_inserted == 3
    assert portl.verify(back).equal
    query = "SELECT t::text FROM t ORDER BY id"
    assert destination.execute(query) == source.execute(query)


def test_a_whole_file_comes_with_its_keys(destination: Db, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL);"
            "INSERT INTO users VALUES (1, 'Ann'), (7, 'Bob');"
            "CREATE TABLE pairs (a INT, b INT, PRIMARY KEY (b, a)) WITHOUT ROWID; INSERT INTO pairs VALUES (1, 2);"
            "CREATE TABLE empty (id INTEGER PRIMARY KEY);"
        )
    job = {"source": at(path), "destination": destination.end(), "tables": "all"}
    result = portl.migrate(job)
    assert (len(result.tables), result.rows_inserted) == (3, 3)
    assert destination.execute("SELECT * FROM users ORDER BY id") == [(1, "Ann"), (7, "Bob")]
    keys = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'p' AND conrelid::regclass::text"
    assert destination.execute(f"{keys} IN ('users', 'pairs', 'empty') ORDER BY 1") == [
        ("PRIMARY KEY (b, a)",),
        ("PRIMARY KEY (id)",),
        ("PRIMARY KEY (id)",),
    ]
    assert portl.migrate(job).rows_unchanged == 3
    assert portl.verify(job).equal


def test_a_whole_file_goes_into_another(tmp_path: Path) -> None:
    path, other = tmp_path / "one.db", tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE one (id INTEGER PRIMARY KEY);"
            'CREATE TABLE "odd.na""me" (id INTEGER PRIMARY KEY, b TEXT, c INT);'
            'INSERT INTO one VALUES (1), (2); INSERT INTO "odd.na""me" VALUES (1, \'b\', 3)'
        )
    job = {"source": at(path), "destination": at(other), "tables": "all"}
    assert portl.migrate(job).rows_inserted == 3
    assert portl.migrate(job).rows_unchanged == 3
    assert rows(other, 'SELECT * FROM "odd.na""me"') == [(1, "b", 3)]


def test_a_whole_database_goes_into_a_file_and_back(source: Db, destination: Db, tmp_path: Path) -> None:
    source.execute(
        "CREATE TABLE a (id int PRIMARY KEY, at timestamptz); CREATE TABLE b (x int, y uuid, PRIMARY KEY (x, y));"
        "INSERT INTO a SELECT g, now() FROM generate_series(1, 50) AS g;"
        "INSERT INTO b SELECT g, gen_random_uuid() FROM generate_series(1, 70) AS g"
    )
    path = tmp_path / "kept.db"
    there = {"source": source.end(), "destination": at(path), "tables": "all"}
    assert portl.migrate(there).rows_inserted == 120
    assert portl.migrate(there).rows_unchanged == 120
    back = {"source": at(path), "destination": destination.end(), "tables": "all"}
    assert portl.migrate(back).rows_inserted == 120
    for table in "ab":
        query = f"SELECT t::text FROM {table} AS t ORDER BY 1"
        assert destination.execute(query) == source.execute(query)


@pytest.mark.parametrize("mode", ["mirror", "replace"])
def test_a_file_is_kept_in_step(source: Db, tmp_path: Path, mode: str) -> None:
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'v' FROM generate_series(1, 500) AS g"
    )
    path = tmp_path / "mirror.db"
    job = {"source": source.end(table="t"), "destination": at(path, table="t"), "mode": mode}
    portl.migrate(job)
    source.execute(
        "DELETE FROM t WHERE id % 100 = 0; UPDATE t SET v = 'new' WHERE id = 3; INSERT INTO t VALUES (900, NULL)"
    )
    result = portl.migrate(job)
    assert (result.tables[0].rows_deleted, result.rows_updated, result.rows_inserted) == (5, 1, 1)
    assert sorted(rows(path, "SELECT id, v FROM t")) == sorted(source.execute("SELECT id, v FROM t"))


def test_a_run_that_is_killed_is_resumed(source: Db, tmp_path: Path, victim: Victim) -> None:
    source.execute(
        "CREATE TABLE t (id int, v text); INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 4000) AS g"
    )
    path, killed = tmp_path / "killed.db", 0
    for number in range(1, 5):
        job = {
            "source": source.end(table="t"),
            "destination": at(path, table=f"t{number}"),
            "conflict": "fail",
            "chunk_rows": 500,
        }
        whole = victim.run({**job, "destination": at(tmp_path / f"{number}.db", table="t")})
        killed += victim.run(job, seconds=whole["seconds"] * number / 5)["killed"]
        runs = portl.status(job).runs
        if not runs or runs[0].state is not portl.RunState.DONE:
            assert victim.run(job)["error"] is None
        assert sorted(rows(path, f"SELECT id, v FROM t{number}")) == sorted(source.execute("SELECT id, v FROM t"))
    assert killed
