"""What can be read: tables of every kind, views, queries, and parts of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import portl
from tests.servers import Db


def job(source: Db, destination: Db, *, table: str = "t", **keys: Any) -> dict[str, Any]:
    """Return a job from ``table`` to t; ``from_…`` keys go to the source."""
    there = {name.removeprefix("from_"): value for name, value in keys.items() if name.startswith("from_")}
    rest = {name: value for name, value in keys.items() if not name.startswith("from_")}
    return {"source": source.end(table=table, **there), "destination": destination.end(table="t"), **rest}


def moved(source: Db, destination: Db, *, table: str = "t", **keys: Any) -> tuple[str, list[tuple[Any, ...]]]:
    """Migrate; return what the source is, and the rows that arrived."""
    plan = portl.plan(job(source, destination, table=table, **keys))
    assert not plan.problems, plan.problems
    plan.execute()
    return plan.tables[0].source.kind, destination.execute("SELECT * FROM t ORDER BY 1")


ROUTES = pytest.mark.parametrize("route", ["relay", "rows"])
THREE = [(1, "a"), (2, "b"), (3, None)]
FILL = "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, NULL)"


@ROUTES
@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("CREATE VIEW v AS SELECT * FROM t", "view"),
        ("CREATE MATERIALIZED VIEW v AS SELECT * FROM t", "materialized view"),
        ("CREATE UNLOGGED TABLE v AS SELECT * FROM t", "table"),
    ],
)
def test_views_of_both_kinds_are_read(source: Db, destination: Db, statement: str, kind: str, route: str) -> None:
    source.execute(f"CREATE TABLE t (id int, v text); {FILL}; {statement}")
    assert moved(source, destination, table="v", route=route) == (kind, THREE)


@ROUTES
def test_a_partitioned_table_is_read_whole(source: Db, destination: Db, route: str) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)")
    source.execute("CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (2)")
    source.execute("CREATE TABLE high PARTITION OF t DEFAULT PARTITION BY HASH (id)")
    source.execute(f"CREATE TABLE h0 PARTITION OF high FOR VALUES WITH (MODULUS 1, REMAINDER 0); {FILL}")
    assert moved(source, destination, route=route) == ("partitioned table", THREE)
    assert destination.value("SELECT relkind::text FROM pg_class WHERE relname = 't'") == "r"


def test_a_parent_is_read_with_its_children_and_the_plan_says_so(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int, v text); CREATE TABLE child (more int) INHERITS (t)")
    source.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b'); INSERT INTO child VALUES (3, NULL, 9)")
    plan = portl.plan(job(source, destination))
    assert [str(w) for w in plan.warnings if w.where == "source"] == [
        "source: the rows of its child tables (public.child) are read with public.t: a job for one of them copies its"
        ' rows a second time -> to read it alone, use the query SELECT * FROM ONLY "public"."t"'
    ]
    plan.execute()
    assert destination.execute("SELECT * FROM t ORDER BY 1") == THREE


def _needs(db: Db, extension: str) -> None:
    if not db.value("SELECT count(*) FROM pg_available_extensions WHERE name = %s", extension):
        pytest.skip(f"this server has no {extension}")
    db.execute(f"CREATE EXTENSION {extension}")


@ROUTES
def test_a_foreign_table_over_a_file_is_read(source: Db, destination: Db, route: str) -> None:
    _needs(source, "file_fdw")
    folder = Path(source.value("SHOW data_directory"))
    source.execute("CREATE SERVER files FOREIGN DATA WRAPPER file_fdw")
    name = folder / "PG_VERSION"
    source.execute(f"CREATE FOREIGN TABLE f (v int NOT NULL) SERVER files OPTIONS (filename '{name}')")
    version = source.connection.info.server_version // 10000
    assert moved(source, destination, table="f", route=route) == ("foreign table", [(version,)])


@ROUTES
def test_a_foreign_table_over_another_database_is_read(source: Db, destination: Db, route: str) -> None:
    _needs(source, "postgres_fdw")
    destination.execute(f"CREATE SCHEMA there; CREATE TABLE there.t (id int, v text); SET search_path = there; {FILL}")
    destination.execute("RESET search_path")
    end = destination.end()
    source.execute(
        f"CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{end['host']}', port '{end['port']}',"
        f" dbname '{end['database']}'); CREATE USER MAPPING FOR CURRENT_USER SERVER s"
        f" OPTIONS (user '{end['username']}', password '{end['password']}')"
    )
    source.execute("CREATE FOREIGN TABLE f (id int, v text) SERVER s OPTIONS (schema_name 'there', table_name 't')")
    assert moved(source, destination, table="f", route=route) == ("foreign table", THREE)


@ROUTES
def test_an_empty_table_makes_an_empty_table(source: Db, destination: Db, route: str) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    for conflict in ("overwrite", "skip", "fail", "merge"):
        for existing in (False, True):
            result = portl.migrate(job(source, destination, route=route, conflict=conflict))
            assert (result.rows_read, result.rows_inserted) == (0, 0), (conflict, existing)
        assert destination.execute("SELECT * FROM t") == []
        destination.execute("DROP TABLE t")


@ROUTES
def test_a_table_of_1600_columns_is_read_and_written(source: Db, destination: Db, route: str) -> None:
    definitions = ", ".join(f"c{number} int" for number in range(1, 1600))
    source.execute(f"CREATE TABLE t (id int PRIMARY KEY, {definitions})")
    source.execute(
        f"INSERT INTO t SELECT g, {', '.join(f'g + {n}' for n in range(1, 1600))} FROM generate_series(1, 3) g"
    )
    portl.migrate(job(source, destination, route=route))
    image = "SELECT md5(t::text) FROM t ORDER BY id"
    assert destination.execute(image) == source.execute(image)
    destination.execute("UPDATE t SET c1599 = 0 WHERE id = 2")
    assert portl.migrate(job(source, destination, route=route)).rows_updated == 1
    assert destination.execute(image) == source.execute(image)


@ROUTES
def test_columns_where_and_limit_choose_what_is_read(source: Db, destination: Db, route: str) -> None:
    source.execute('CREATE TABLE t (id int PRIMARY KEY, "A b" text, c int, d int)')
    source.execute("INSERT INTO t SELECT g, 'x' || g, g % 2, 0 FROM generate_series(1, 20) AS g")
    keys: dict[str, Any] = {"from_columns": ["c", "A b", "id"], "from_where": "c = 1 -- odd", "from_limit": 4}
    plan = portl.plan(job(source, destination, route=route, **keys))
    assert [column.name for column in plan.tables[0].destination.columns] == ["c", "A b", "id"]
    assert plan.tables[0].count == portl.RowCount(rows=4, exact=True)
    assert plan.execute().rows_inserted == 4
    assert destination.value("SELECT count(*) FROM t WHERE c = 1 AND \"A b\" = 'x' || id") == 4
    destination.execute("DROP TABLE t")
    portl.migrate(job(source, destination, route=route, from_exclude_columns=["c", "A b"]))
    assert destination.execute("SELECT * FROM t ORDER BY id") == [(number, 0) for number in range(1, 21)]


def test_a_limit_of_nothing_reads_nothing(source: Db, destination: Db) -> None:
    source.execute(f"CREATE TABLE t (id int, v text); {FILL}")
    assert portl.migrate(job(source, destination, from_limit=0)).rows_read == 0


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("nosuch = 1", 'column "nosuch" does not exist'),
        ("id = 1) OR (1 = 1", "a ) has no ("),
        ("true; DROP TABLE t; --", "a ; has no place in an expression"),
        ("id", "must be type boolean"),
        ("(id = 1", "a ( is not closed"),
    ],
)
def test_a_condition_that_is_none_is_a_problem(source: Db, destination: Db, where: str, words: str) -> None:
    source.execute(f"CREATE TABLE t (id int, v text); {FILL}")
    (problem,) = portl.plan(job(source, destination, from_where=where)).problems
    assert problem.where == "source.where"
    assert words in problem.message
    assert source.value("SELECT count(*) FROM t") == 3


def test_columns_that_are_not_there_are_problems_each_with_a_suggestion(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (user_id int, v text)")
    plan = portl.plan(job(source, destination, from_columns=["userid", "v", "zzz"]))
    assert [str(p) for p in plan.problems] == [
        "columns: the source has no column 'userid' -> did you mean 'user_id'?",
        "columns: the source has no column 'zzz' -> it has: user_id, v",
    ]
