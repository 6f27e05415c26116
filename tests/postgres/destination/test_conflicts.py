"""Conflict strategies, rule by rule, against real servers."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import psycopg
import pytest

import portl
from portl.execution.chunks import load as chunkload
from tests.servers import Db

ROUTES = pytest.mark.parametrize("route", ["relay", "rows"])


def run(source: Db, destination: Db, conflict: object = "overwrite", **keys: Any) -> portl.Result:
    table = keys.pop("table", "t")
    reading = keys.pop("reading", {"table": table})
    handle = keys.pop("handle", None)
    job = {"source": source.end(**reading), "destination": destination.end(table=table), "conflict": conflict, **keys}
    result = portl.migrate(job, destination=handle)
    done = result.rows_inserted + result.rows_updated + result.rows_unchanged + result.rows_skipped
    assert result.rows_read == done + result.rows_rejected
    return result


def counts(result: portl.Result) -> dict[str, int]:
    """The counts that are not zero."""
    names = ("inserted", "updated", "unchanged", "skipped", "rejected")
    return {name: n for name in names if (n := getattr(result, f"rows_{name}"))}


def rows(db: Db, query: str = "SELECT * FROM t ORDER BY 1") -> list[tuple[Any, ...]]:
    return db.execute(query)


def problems(source: Db, destination: Db, conflict: object, **keys: Any) -> list[str]:
    table = keys.pop("table", "t")
    job = {"source": source.end(table=table), "destination": destination.end(table=table), "conflict": conflict, **keys}
    return [str(found) for found in portl.plan(job).problems]


@pytest.fixture
def two(source: Db, destination: Db) -> tuple[Db, Db]:
    """Both sides with a table t; keys 1 to 3 at the source, 2 to 4 at the destination; row 3 stands there as it is."""
    table = "CREATE TABLE t (id int PRIMARY KEY, a text, b int)"
    source.execute(f"{table}; INSERT INTO t VALUES (1, 'one', 10), (2, NULL, 20), (3, 'three', 30)")
    destination.execute(f"{table}; INSERT INTO t VALUES (2, 'old', NULL), (3, 'three', 30), (4, 'four', 40)")
    return source, destination


# Strategies


@ROUTES
@pytest.mark.parametrize("conflict", ["overwrite", {"strategy": "overwrite"}, {"strategy": "overwrite", "key": ["id"]}])
def test_overwrite_replaces_with_null_too_and_keeps_other_rows(
    two: tuple[Db, Db], route: str, conflict: object
) -> None:
    result = run(*two, conflict, route=route)
    assert counts(result) == {"inserted": 1, "updated": 1, "unchanged": 1}
    assert rows(two[1]) == [(1, "one", 10), (2, None, 20), (3, "three", 30), (4, "four", 40)]


@ROUTES
def test_skip_leaves_what_is_there(two: tuple[Db, Db], route: str) -> None:
    result = run(*two, "skip", route=route)
    assert counts(result) == {"inserted": 1, "skipped": 2}
    assert rows(two[1]) == [(1, "one", 10), (2, "old", None), (3, "three", 30), (4, "four", 40)]


@ROUTES
def test_fail_stops_at_the_first_key_that_is_there(two: tuple[Db, Db], route: str) -> None:
    with pytest.raises(portl.ConflictError) as caught:
        run(*two, "fail", route=route)
    error = caught.value
    assert (error.row, error.batch, error.constraint, error.sqlstate) == (2, 1, "t_pkey", "23505")
    assert "row 2 of the source (batch 1) with id = 2: " in str(error)
    assert "Key (id)=(2) already exists." in str(error)
    assert "hint: use `conflict: overwrite`, `skip` or `merge` if such rows are expected" in str(error)
    assert rows(two[1]) == [(2, "old", None), (3, "three", 30), (4, "four", 40)]


@ROUTES
def test_merge_does_not_let_null_erase(two: tuple[Db, Db], route: str) -> None:
    result = run(*two, "merge", route=route)
    assert counts(result) == {"inserted": 1, "updated": 1, "unchanged": 1}
    assert rows(two[1]) == [(1, "one", 10), (2, "old", 20), (3, "three", 30), (4, "four", 40)]


@pytest.mark.parametrize("strategy", ["overwrite", "merge"])
def test_columns_that_the_source_lacks_stay_and_get_their_default_in_new_rows(
    source: Db, destination: Db, strategy: str
) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'new'), (2, 'x')")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, a text, c int DEFAULT 7)")
    destination.execute("INSERT INTO t VALUES (1, 'old', 99)")
    run(source, destination, strategy)
    assert rows(destination) == [(1, "new", 99), (2, "x", 7)]


# Unchanged rows


@pytest.mark.parametrize("conflict", ["overwrite", "merge", "skip", {"strategy": "merge", "newest_by": "n"}])
@pytest.mark.parametrize("partitioned", ["", "PARTITION BY RANGE (id)"])
def test_a_second_run_neither_rewrites_nor_locks_nor_leaves_dead_rows(
    source: Db, destination: Db, conflict: object, partitioned: str
) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, n numeric, j json, p point, d float8)")
    source.execute("INSERT INTO t SELECT g, g / 8.0, '{ \"a\":  1}', point(g, 1), '-0' FROM generate_series(1, 3000) g")
    destination.execute(f"CREATE TABLE t (id int PRIMARY KEY, n numeric, j json, p point, d float8) {partitioned}")
    if partitioned:
        destination.execute("CREATE TABLE t1 PARTITION OF t DEFAULT")
    run(source, destination, conflict)
    relation = "t1" if partitioned else "t"
    look = f"SELECT xmin, xmax, ctid FROM {relation} ORDER BY id"
    before, size = rows(destination, look), destination.value(f"SELECT pg_relation_size('{relation}')")
    result = run(source, destination, conflict)
    assert counts(result) == {"skipped" if conflict == "skip" else "unchanged": 3000}
    assert rows(destination, look) == before
    assert destination.value(f"SELECT pg_relation_size('{relation}')") == size


def test_only_the_rows_that_changed_are_rewritten(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, n numeric); INSERT INTO t VALUES (1, 1.0), (2, 2.0)")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, n numeric); INSERT INTO t VALUES (1, 1.0), (2, 2.00)")
    before = rows(destination, "SELECT xmin, ctid FROM t WHERE id = 1")
    assert counts(run(source, destination)) == {"updated": 1, "unchanged": 1}
    assert rows(destination, "SELECT xmin, ctid FROM t WHERE id = 1") == before
    assert destination.value("SELECT n::text FROM t WHERE id = 2") == "2.0"


# Merge, word by word

WORDS = [
    ("keep", "int", "1", "2", "1"),
    ("keep", "int", None, "2", None),
    ("replace", "int", "1", "2", "2"),
    ("replace", "int", "1", None, None),
    ("coalesce", "int", "1", "2", "2"),
    ("coalesce", "int", "1", None, "1"),
    ("coalesce", "int", None, "2", "2"),
    ("greatest", "date", "2024-01-02", "2024-01-01", "2024-01-02"),
    ("greatest", "int", "1", "2", "2"),
    ("greatest", "int", "1", None, "1"),
    ("greatest", "int", None, "2", "2"),
    ("least", "numeric(6,2)", "1.50", "2", "1.50"),
    ("least", "int", "1", None, "1"),
    ("least", "int", None, "2", "2"),
    ("sum", "int", "1", "2", "3"),
    ("sum", "int", "1", None, "1"),
    ("sum", "int", None, "2", "2"),
    ("sum", "int", None, None, None),
    ("sum", "numeric(6,2)", "1.50", "2.25", "3.75"),
    ("sum", "interval", "1 day", "2 hours", "1 day 02:00:00"),
    ("append", "text", "a", "b", "ab"),
    ("append", "text", "a", None, "a"),
    ("append", "text", None, "b", "b"),
    ("append", "varchar(4)", "ab", "cd", "abcd"),
    ("append", "bytea", "\\x01", "\\x02", "\\x0102"),
    ("append", "int[]", "{1,2}", "{2,NULL}", "{1,2,2,NULL}"),
    ("append", "text[]", "{a}", None, "{a}"),
    ("union", "int[]", "{3,1}", "{1,2,2}", "{3,1,2}"),
    ("union", "int[]", None, "{2}", "{2}"),
    ("union", "int[]", "{}", "{}", "{}"),
    ("union", "text[]", "{a,NULL}", "{NULL,b}", "{a,NULL,b}"),
    ("json", "jsonb", '{"a": {"x": 1, "y": 2}, "k": 1}', '{"a": {"y": 3, "z": {"q": []}}, "n": null}',
     '{"a": {"x": 1, "y": 3, "z": {"q": []}}, "k": 1, "n": null}'),
    ("json", "jsonb", '{"a": {"x": 1}}', '{"a": [1]}', '{"a": [1]}'),
    ("json", "jsonb", "{}", "{}", "{}"),
    ("json", "jsonb", "[1]", "{}", "{}"),
    ("json", "jsonb", '{"a": 1}', None, '{"a": 1}'),
    ("json", "jsonb", None, '{"a": 1}', '{"a": 1}'),
    ("json", "json", '{"a":1}', '{"b":2}', '{"a": 1, "b": 2}'),
    ("json", "json", '{"a":1}', None, '{"a":1}'),
    ("source.v + destination.v * 10", "int", "1", "2", "12"),
    ("coalesce(destination.v || '; ', '') || source.v -- a comment", "text", "a", "b", "a; b"),
    ("CASE WHEN source.id = destination.id THEN source.v END", "int", "1", "2", "2"),
]  # fmt: skip


def test_each_word_merges_the_two_values_of_its_column(source: Db, destination: Db) -> None:
    columns = ", ".join(f"v{n} {kind}" for n, (_, kind, *_) in enumerate(WORDS))
    marks = ", ".join("%s" for _ in WORDS)
    for db, position in ((source, 3), (destination, 2)):
        db.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
        db.execute(f"INSERT INTO t VALUES (1, {marks})", *[case[position] for case in WORDS])
    rules = {f"v{n}": how.replace(".v", f".v{n}") for n, (how, *_) in enumerate(WORDS)}
    assert counts(run(source, destination, {"strategy": "merge", "columns": rules})) == {"updated": 1}
    found = destination.execute(f"SELECT {', '.join(f'v{n}::text' for n in range(len(WORDS)))} FROM t")[0]
    cases = [(how, there, fresh) for how, _, there, fresh, _ in WORDS]
    assert dict(enumerate(zip(cases, found, strict=True))) == {
        n: (case, expected) for n, (case, (*_, expected)) in enumerate(zip(cases, WORDS, strict=True))
    }


def test_a_merge_that_changes_nothing_rewrites_nothing(source: Db, destination: Db) -> None:
    cases = [case for case in WORDS if case[2] == case[4]]
    assert len(cases) > 10
    columns = ", ".join(f"v{n} {kind}" for n, (_, kind, *_) in enumerate(cases))
    marks = ", ".join("%s" for _ in cases)
    for db, position in ((source, 3), (destination, 2)):
        db.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
        db.execute(f"INSERT INTO t VALUES (1, {marks})", *[case[position] for case in cases])
    rules = {f"v{n}": how for n, (how, *_) in enumerate(cases)}
    assert counts(run(source, destination, {"strategy": "merge", "columns": rules})) == {"unchanged": 1}


def test_words_apply_column_by_column_and_to_each_row_of_a_key_in_order(source: Db, destination: Db) -> None:
    columns = "id int, first date, last date, visits int, note text, tags text[], who text"
    source.execute(f"CREATE TABLE t ({columns})")
    source.execute(
        "INSERT INTO t VALUES (1, '2024-03-01', '2024-03-01', 1, 'a', '{x}', 'p'),"
        " (2, '2024-01-01', '2024-01-01', 5, 'z', '{y}', 'q'),"
        " (1, '2024-02-01', '2024-04-01', 2, 'b', '{y,x}', NULL), (1, NULL, NULL, NULL, 'c', NULL, 'r')"
    )
    destination.execute(f"CREATE TABLE t ({columns}, PRIMARY KEY (id))")
    destination.execute("INSERT INTO t VALUES (2, '2023-01-01', '2023-01-01', 10, '>', '{}', 'me')")
    rules = {"first": "least", "last": "greatest", "visits": "sum", "note": "append", "tags": "union", "who": "keep"}
    result = run(source, destination, {"strategy": "merge", "columns": rules})
    assert counts(result) == {"inserted": 1, "updated": 3}
    assert rows(destination, "SELECT id, first::text, last::text, visits, note, tags, who FROM t ORDER BY id") == [
        (1, "2024-02-01", "2024-04-01", 3, "abc", ["x", "y"], "p"),
        (2, "2023-01-01", "2024-01-01", 15, ">z", ["y"], "me"),
    ]


def test_an_expression_may_fill_a_column_that_the_source_lacks(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 5)")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, a int, changes int NOT NULL DEFAULT 0)")
    destination.execute("INSERT INTO t VALUES (1, 4, 2)")
    run(source, destination, {"strategy": "merge", "columns": {"changes": "destination.changes + 1"}})
    assert rows(destination) == [(1, 5, 3)]


def test_an_appended_value_that_is_too_long_is_refused_not_cut(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v varchar(3)); INSERT INTO t VALUES (1, 'd')")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, v varchar(3)); INSERT INTO t VALUES (1, 'abc')")
    with pytest.raises(portl.DataError, match=r"value too long for type character varying\(3\)"):
        run(source, destination, {"strategy": "merge", "columns": {"v": "append"}})
    assert rows(destination) == [(1, "abc")]


@pytest.mark.parametrize("how", ["source.v || destination.v", "upper(source.v)", "append"])
def test_a_padded_column_merges_and_stays_unchanged_where_nothing_changes(
    source: Db, destination: Db, how: str
) -> None:
    for db in (source, destination):
        db.execute("CREATE TABLE t (id int PRIMARY KEY, v char(6)); INSERT INTO t VALUES (1, 'AB')")
    result = run(source, destination, {"strategy": "merge", "columns": {"v": how}})
    expected = {"upper(source.v)": ("AB    ", "unchanged")}.get(how, ("ABAB  ", "updated"))
    assert (rows(destination), counts(result)) == ([(1, expected[0])], {expected[1]: 1})


def test_the_newer_row_wins_as_a_whole(source: Db, destination: Db) -> None:
    table = "CREATE TABLE t (id int, at timestamptz, v text)"
    source.execute(f"{table}; INSERT INTO t VALUES (1, '2024-01-02', NULL), (2, '2024-01-01', 'older'),"
                   " (3, '2024-01-01', 'same age'), (4, NULL, 'none'), (5, '2024-01-01', 'first with a date'),"
                   " (6, '2024-01-05', 'late'), (6, '2024-01-04', 'early'), (7, NULL, 'new')")  # fmt: skip
    destination.execute(f"{table}; ALTER TABLE t ADD PRIMARY KEY (id); ALTER TABLE t ADD other int DEFAULT 5")
    destination.execute("INSERT INTO t VALUES (1, '2024-01-01', 'x', 8)")
    destination.execute(
        "INSERT INTO t VALUES (2, '2024-01-02', 'x'), (3, '2024-01-01', 'x'), (4, '2024-01-01', 'x'), (5, NULL, 'x')"
    )
    result = run(source, destination, {"strategy": "merge", "newest_by": "at"})
    assert rows(destination, "SELECT id, v, other FROM t ORDER BY id") == [
        (1, None, 8), (2, "x", 5), (3, "x", 5), (4, "x", 5), (5, "first with a date", 5), (6, "late", 5), (7, "new", 5),
    ]  # fmt: skip
    assert counts(result) == {"inserted": 2, "updated": 2, "unchanged": 4}


BAD_RULES: list[tuple[dict[str, object], str]] = [
    ({"columns": {"x": "keep"}}, "conflict.columns.x: the destination has no column 'x'; it has: id, a, g, i"),
    ({"columns": {"id": "keep"}}, "conflict.columns.id: the key itself is not merged"),
    ({"columns": {"g": "1"}}, "conflict.columns.g: the destination generates 'g' itself"),
    ({"columns": {"i": "1"}}, "conflict.columns.i: 'i' is GENERATED ALWAYS AS IDENTITY, which no update changes"),
    ({"columns": {"a": "union"}}, "conflict.columns.a: `union` is for arrays, and 'a' is text"),
    ({"columns": {"a": "json"}}, "conflict.columns.a: `json` is for json and jsonb, and 'a' is text"),
    ({"columns": {"a": "sum"}}, "operator does not exist: text + text"),
    ({"columns": {"a": "source.nope"}}, "column source.nope does not exist"),
    ({"columns": {"a": "1) FROM (SELECT 1"}}, "conflict.columns.a: a ) has no ("),
    ({"columns": {"a": "(source.a"}}, "conflict.columns.a: a ( is not closed"),
    ({"columns": {"a": "'"}}, "conflict.columns.a: a ' is not closed"),
    ({"columns": {"a": "1; DROP TABLE t"}}, "conflict.columns.a: a ; has no place in an expression"),
    ({"newest_by": "nope"}, "conflict.newest_by: no column of the source goes to 'nope'"),
    ({"key": ["a"]}, "conflict.key: public.t has no unique constraint or index over exactly (a)"),
]


def test_a_rule_that_does_not_fit_is_a_problem_of_the_plan(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, a text)")
    destination.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a text, g int GENERATED ALWAYS AS (id * 2) STORED,"
        " i int GENERATED ALWAYS AS IDENTITY)"
    )
    for rules, text in BAD_RULES:
        found = problems(source, destination, {"strategy": "merge", **rules})
        assert len(found) == 1, found
        assert text in found[0]


def test_newest_by_needs_an_order(source: Db, destination: Db) -> None:
    for db in (source, destination):
        db.execute("CREATE TABLE t (id int PRIMARY KEY, p point)")
    (found,) = problems(source, destination, {"strategy": "merge", "newest_by": "p"})
    assert "conflict.newest_by" in found
    assert "operator does not exist: point > point" in found


def test_rules_hold_for_a_column_that_the_run_adds(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 5)")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    job = {
        "source": source.end(table="t"),
        "destination": destination.end(table="t", add_columns=True),
        "conflict": {"strategy": "merge", "columns": {"v": "coalesce(destination.v, 0) + source.v"}},
    }
    portl.migrate(job)
    assert rows(destination) == [(1, 5)]


# Keys


@ROUTES
@pytest.mark.parametrize("key", ["ALTER TABLE t ADD UNIQUE (b, a)", "CREATE UNIQUE INDEX ON t (a, b) INCLUDE (v)"])
def test_another_unique_key_decides_if_the_job_names_it(source: Db, destination: Db, key: str, route: str) -> None:
    table = "CREATE TABLE t (id int PRIMARY KEY, a int, b int, v text)"
    source.execute(f"{table}; INSERT INTO t VALUES (1, 1, 1, 'new'), (2, 1, 2, 'fresh')")
    destination.execute(f"{table}; {key}; INSERT INTO t VALUES (7, 1, 1, 'old')")
    result = run(source, destination, {"strategy": "merge", "key": ["a", "b"], "columns": {"id": "keep"}}, route=route)
    assert counts(result) == {"inserted": 1, "updated": 1}
    assert rows(destination, "SELECT id, v FROM t ORDER BY id") == [(2, "fresh"), (7, "new")]


@pytest.mark.parametrize("strategy", ["overwrite", "skip", "merge"])
@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("deferrable", ["", "DEFERRABLE"])
def test_nulls_in_a_key_are_equal_only_where_the_key_says_so(
    source: Db, destination: Db, strategy: str, equal: bool, deferrable: str
) -> None:
    nulls = "NULLS NOT DISTINCT" if equal else ""
    source.execute("CREATE TABLE t (k int, v text); INSERT INTO t VALUES (NULL, 'x'), (1, 'y'), (NULL, 'z')")
    destination.execute(f"CREATE TABLE t (k int, v text, UNIQUE {nulls} (k) {deferrable})")
    destination.execute("INSERT INTO t VALUES (NULL, 'old')")
    result = run(source, destination, {"strategy": strategy, "key": ["k"]})
    found = rows(destination, "SELECT k, v FROM t ORDER BY k, v")
    if not equal:
        assert found == [(1, "y"), (None, "old"), (None, "x"), (None, "z")]
        assert counts(result) == {"inserted": 3}
    elif strategy == "skip":
        assert found == [(1, "y"), (None, "old")]
        assert counts(result) == {"inserted": 1, "skipped": 2}
    else:
        assert found == [(1, "y"), (None, "z")]
        assert counts(result) == {"inserted": 1, "updated": 2}


@pytest.mark.parametrize("strategy", ["overwrite", "skip", "merge", "fail"])
@pytest.mark.parametrize("initially", ["IMMEDIATE", "DEFERRED"])
def test_a_deferrable_key_decides_too(source: Db, destination: Db, strategy: str, initially: str) -> None:
    source.execute("CREATE TABLE t (id int, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b'), (1, 'c')")
    destination.execute(f"CREATE TABLE t (id int PRIMARY KEY DEFERRABLE INITIALLY {initially}, v text)")
    destination.execute("INSERT INTO t VALUES (2, 'b'), (3, 'old')")
    if strategy == "fail":
        with pytest.raises(portl.ConflictError) as caught:
            run(source, destination, strategy)
        assert (caught.value.row, caught.value.constraint) == (2, "t_pkey")
        return
    result = run(source, destination, strategy)
    kept = "a" if strategy == "skip" else "c"
    assert rows(destination) == [(1, kept), (2, "b"), (3, "old")]
    expected = {"inserted": 1, "skipped": 2} if strategy == "skip" else {"inserted": 1, "updated": 1, "unchanged": 1}
    assert counts(result) == expected


#: A text that ignores case, as the extension citext makes one, in a schema that no search path names.
CASELESS = """
CREATE SCHEMA ext; CREATE TYPE ext.ci;
CREATE FUNCTION ext.read(cstring) RETURNS ext.ci AS 'textin' LANGUAGE internal IMMUTABLE STRICT;
CREATE FUNCTION ext.print(ext.ci) RETURNS cstring AS 'textout' LANGUAGE internal IMMUTABLE STRICT;
CREATE TYPE ext.ci (INPUT = ext.read, OUTPUT = ext.print, LIKE = text, CATEGORY = 'S');
CREATE CAST (ext.ci AS text) WITHOUT FUNCTION AS IMPLICIT;
CREATE FUNCTION ext.cmp(ext.ci, ext.ci) RETURNS int LANGUAGE sql IMMUTABLE STRICT
    RETURN bttextcmp(lower($1::text) COLLATE "C", lower($2::text) COLLATE "C");
CREATE FUNCTION ext.lt(ext.ci, ext.ci) RETURNS bool LANGUAGE sql IMMUTABLE STRICT RETURN ext.cmp($1, $2) < 0;
CREATE FUNCTION ext.le(ext.ci, ext.ci) RETURNS bool LANGUAGE sql IMMUTABLE STRICT RETURN ext.cmp($1, $2) <= 0;
CREATE FUNCTION ext.eq(ext.ci, ext.ci) RETURNS bool LANGUAGE sql IMMUTABLE STRICT RETURN ext.cmp($1, $2) = 0;
CREATE FUNCTION ext.ge(ext.ci, ext.ci) RETURNS bool LANGUAGE sql IMMUTABLE STRICT RETURN ext.cmp($1, $2) >= 0;
CREATE FUNCTION ext.gt(ext.ci, ext.ci) RETURNS bool LANGUAGE sql IMMUTABLE STRICT RETURN ext.cmp($1, $2) > 0;
CREATE OPERATOR ext.< (FUNCTION = ext.lt, LEFTARG = ext.ci, RIGHTARG = ext.ci);
CREATE OPERATOR ext.<= (FUNCTION = ext.le, LEFTARG = ext.ci, RIGHTARG = ext.ci);
CREATE OPERATOR ext.= (FUNCTION = ext.eq, LEFTARG = ext.ci, RIGHTARG = ext.ci);
CREATE OPERATOR ext.>= (FUNCTION = ext.ge, LEFTARG = ext.ci, RIGHTARG = ext.ci);
CREATE OPERATOR ext.> (FUNCTION = ext.gt, LEFTARG = ext.ci, RIGHTARG = ext.ci);
CREATE OPERATOR CLASS ext.ci_ops DEFAULT FOR TYPE ext.ci USING btree AS
    OPERATOR 1 ext.<, OPERATOR 2 ext.<=, OPERATOR 3 ext.=, OPERATOR 4 ext.>=, OPERATOR 5 ext.>,
    FUNCTION 1 ext.cmp(ext.ci, ext.ci);
"""


@pytest.mark.parametrize("kind", ["", "DEFERRABLE", "partitioned"])
def test_a_key_whose_type_lives_outside_the_search_path_decides(source: Db, destination: Db, kind: str) -> None:
    for db in (source, destination):
        db.execute(CASELESS)
    source.execute("CREATE TABLE t (k ext.ci, v text); INSERT INTO t VALUES ('A', 'x'), ('b', 'y'), ('a', 'z')")
    if kind == "partitioned":
        destination.execute("CREATE TABLE t (k ext.ci PRIMARY KEY, v text) PARTITION BY RANGE (k)")
        destination.execute("CREATE TABLE t0 PARTITION OF t DEFAULT")
    else:
        destination.execute(f"CREATE TABLE t (k ext.ci PRIMARY KEY {kind}, v text)")
    destination.execute("INSERT INTO t VALUES ('B', 'old'), ('C', 'old')")
    assert counts(run(source, destination)) == {"inserted": 1, "updated": 2}
    assert rows(destination, "SELECT v FROM t ORDER BY v") == [("old",), ("y",), ("z",)]
    assert counts(run(source, destination)) in ({"updated": 1, "unchanged": 2}, {"updated": 2, "unchanged": 1})


@pytest.mark.system
def test_a_collation_of_the_destination_that_ignores_case_decides(system: Db) -> None:
    system.execute(
        "CREATE TABLE s (k text PRIMARY KEY, v text); INSERT INTO s VALUES ('A', 'x'), ('b', 'y'), ('a', 'z')"
    )
    try:
        system.execute("CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("no ICU here")
    system.execute("CREATE TABLE t (k text COLLATE ci PRIMARY KEY, v text); INSERT INTO t VALUES ('B', 'old')")
    assert counts(run(system, system, reading={"table": "s"})) == {"inserted": 1, "updated": 2}
    assert rows(system, "SELECT v FROM t ORDER BY v") == [("y",), ("z",)]


def test_another_unique_constraint_than_the_key_is_an_error_that_names_it(source: Db, destination: Db) -> None:
    table = "CREATE TABLE t (id int PRIMARY KEY, mail text UNIQUE)"
    source.execute(f"{table}; INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    destination.execute(f"{table}; INSERT INTO t VALUES (1, 'z'), (9, 'b')")
    with pytest.raises(portl.ConflictError) as caught:
        run(source, destination, "overwrite")
    error = caught.value
    assert (error.row, error.constraint) == (2, "t_mail_key")
    assert error.hint == (
        "`overwrite` resolves conflicts of the key (id) alone; name the columns of 't_mail_key' in `conflict.key`,"
        " or leave such rows out in the source"
    )
    assert rows(destination) == [(1, "z"), (9, "b")]


@pytest.mark.parametrize("strategy", ["overwrite", "skip", "merge"])
def test_a_table_without_a_key_is_a_problem_that_says_what_to_do(source: Db, destination: Db, strategy: str) -> None:
    source.execute("CREATE TABLE t (id int, u int)")
    destination.execute("CREATE TABLE t (id int, u int)")
    (found,) = problems(source, destination, strategy)
    assert found == (
        f"conflict: `{strategy}` needs a key, and public.t has no primary key -> "
        "add a primary key or a unique constraint there, or use `conflict: fail`"
    )
    destination.execute("CREATE UNIQUE INDEX ON t (u)")
    (found,) = problems(source, destination, strategy)
    assert found.endswith("-> name a unique key in `conflict.key`: u")


def test_a_table_that_the_run_creates_without_a_key_is_filled_with_every_row(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1), (1), (NULL)")
    assert counts(run(source, destination)) == {"inserted": 3}


# Two source rows with one key

REPEATED = {
    "overwrite": ([(1, "d"), (2, "e"), (3, "x")], {"inserted": 2, "updated": 3}),
    "merge": ([(1, "d"), (2, "e"), (3, "x")], {"inserted": 2, "updated": 3}),
    "skip": ([(1, "a"), (2, "b"), (3, "old")], {"inserted": 2, "skipped": 3}),
}


@pytest.mark.parametrize("strategy", [*REPEATED, "fail"])
def test_of_two_rows_with_one_key_the_strategy_decides(
    source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """Within a batch, across batches, across transactions."""
    source.execute("CREATE TABLE t (id int, v text)")
    source.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'x'), (1, 'd'), (2, 'e')")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    for route, batch, group_bytes in itertools.product(("relay", "rows"), (1, 2, 100), (1, 1 << 20)):
        monkeypatch.setattr(chunkload, "GROUP_BYTES", group_bytes)
        destination.execute("TRUNCATE t; DROP SCHEMA IF EXISTS portl CASCADE")
        if strategy == "fail":
            with pytest.raises(portl.ConflictError) as caught:
                run(source, destination, strategy, batch_size=batch, route=route)
            assert (caught.value.row, caught.value.values) == (4, {"id": "1", "v": "d"})
            continue
        destination.execute("INSERT INTO t VALUES (3, 'old')")
        result = run(source, destination, strategy, batch_size=batch, route=route)
        assert (rows(destination), counts(result)) == REPEATED[strategy]


@pytest.mark.parametrize("strategy", ["overwrite", "skip", "merge"])
def test_the_order_of_arrival_holds_for_rows_of_very_different_sizes(
    source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """A small row may be stored in the gap that a larger one has left on an earlier page.

    That happens from the second transaction on: in the first the staging table is new, and its gaps are not looked at.
    """
    monkeypatch.setattr(chunkload, "GROUP_BYTES", 4_000_000)
    source.execute("CREATE TABLE t (n int, id int, pad text); SELECT setseed(0.5)")
    source.execute(
        "INSERT INTO t SELECT g, g / 2, repeat('x', ('{1,5,50,1500,1900}'::int[])[1 + floor(random() * 5)])"
        " FROM generate_series(1, 14000) AS g"
    )
    destination.execute("CREATE TABLE t (n int, id int PRIMARY KEY, pad text)")
    destination.execute("INSERT INTO t VALUES (-1, 0, '')")
    columns = {"n": "CASE WHEN source.n < destination.n THEN NULL ELSE source.n END"}
    conflict = {"strategy": "merge", "columns": columns} if strategy == "merge" else strategy
    run(source, destination, conflict, reading={"query": "SELECT * FROM t ORDER BY n"})
    extreme = "min" if strategy == "skip" else "max"
    expected = rows(source, f"SELECT id, {extreme}(n) FROM t WHERE id > 0 GROUP BY id ORDER BY id")
    assert rows(destination, "SELECT id, n FROM t WHERE id > 0 ORDER BY id") == expected


def test_many_rows_with_one_key_merge_in_their_order(source: Db, destination: Db) -> None:
    source.execute(
        "CREATE TABLE t (id int, v text); INSERT INTO t SELECT g % 3, g || ',' FROM generate_series(1, 300) g"
    )
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (0, '>')")
    result = run(source, destination, {"strategy": "merge", "columns": {"v": "append"}})
    assert counts(result) == {"inserted": 2, "updated": 298}
    assert destination.value("SELECT v FROM t WHERE id = 0") == ">" + "".join(f"{n}," for n in range(3, 301, 3))


# Special columns and tables


@pytest.mark.parametrize("strategy", ["overwrite", "skip", "merge", "fail"])
@pytest.mark.parametrize("kind", ["ALWAYS", "BY DEFAULT"])
@pytest.mark.parametrize("role", ["key", "column"])
def test_identity_columns_take_the_sources_values(
    source: Db, destination: Db, strategy: str, kind: str, role: str
) -> None:
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int, v text); INSERT INTO t VALUES (1, 10, 'a'), (2, 20, 'b')"
    )
    column = "id" if role == "key" else "n"
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL, v text)")
    destination.execute(f"ALTER TABLE t ALTER {column} ADD GENERATED {kind} AS IDENTITY")
    if strategy != "fail":
        destination.execute("INSERT INTO t OVERRIDING SYSTEM VALUE VALUES (1, 11, 'old')")
    run(source, destination, strategy)
    first = (1, 10, "a")
    if strategy == "skip":
        first = (1, 11, "old")
    elif strategy == "merge" and role == "column" and kind == "ALWAYS":
        first = (1, 11, "a")  # an update cannot set it
    assert rows(destination) == [first, (2, 20, "b")]
    if role == "key":
        assert destination.value("INSERT INTO t (n) VALUES (0) RETURNING id") == 3
    else:
        assert destination.value("INSERT INTO t (id) VALUES (0) RETURNING n") == 21


@pytest.mark.parametrize("strategy", ["overwrite", "skip", "merge", "fail"])
def test_stored_generated_columns_are_left_to_the_destination(source: Db, destination: Db, strategy: str) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v int, g int); INSERT INTO t VALUES (1, 5, 0), (2, 6, 0)")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, v int, g int GENERATED ALWAYS AS (v * 2) STORED)")
    if strategy != "fail":
        destination.execute("INSERT INTO t VALUES (1, 1)")
    run(source, destination, strategy)
    assert rows(destination) == [(1, 1, 2) if strategy == "skip" else (1, 5, 10), (2, 6, 12)]


@pytest.mark.system
@pytest.mark.parametrize("strategy", ["overwrite", "skip", "merge", "fail"])
def test_a_partitioned_destination_of_an_older_server_counts_right(source: Db, system: Db, strategy: str) -> None:
    check_partitioned(source, system, strategy)


@pytest.mark.parametrize("strategy", ["overwrite", "skip", "merge", "fail"])
def test_a_partitioned_destination_counts_right(source: Db, destination: Db, strategy: str) -> None:
    check_partitioned(source, destination, strategy)


def check_partitioned(source: Db, destination: Db, strategy: str) -> None:
    source.execute("CREATE TABLE t (id int, v text); INSERT INTO t VALUES (1, 'a'), (15, 'b'), (3, 'c'), (16, 'd')")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)")
    destination.execute("CREATE TABLE t0 PARTITION OF t FOR VALUES FROM (0) TO (10)")
    destination.execute("CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (10) TO (20)")
    if strategy == "fail":
        assert counts(run(source, destination, strategy)) == {"inserted": 4}
        return
    destination.execute("INSERT INTO t VALUES (1, 'a'), (15, 'old')")
    result = run(source, destination, strategy)
    left = {"skipped": 2} if strategy == "skip" else {"updated": 1, "unchanged": 1}
    assert counts(result) == {"inserted": 2, **left}
    assert rows(destination, "SELECT id, v FROM t1 ORDER BY id") == [
        (15, "old" if strategy == "skip" else "b"),
        (16, "d"),
    ]


@pytest.mark.parametrize("strategy", ["overwrite", "skip", "merge", "fail"])
@pytest.mark.parametrize("partitioned", [False, True])
def test_rows_that_a_trigger_suppresses_are_not_counted_as_written(
    source: Db, destination: Db, strategy: str, partitioned: bool
) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    source.execute("INSERT INTO t VALUES (1, 'a'), (2, 'no'), (3, 'c'), (4, 'no'), (5, 'e')")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, v text)" + " PARTITION BY RANGE (id)" * partitioned)
    if partitioned:
        destination.execute("CREATE TABLE t1 PARTITION OF t DEFAULT")
    if strategy != "fail":
        destination.execute("INSERT INTO t VALUES (1, 'old'), (2, 'old')")
    destination.execute(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF new.v = 'no' THEN RETURN NULL; END IF; new.v := new.v || '!'; RETURN new; END $$;"
        "CREATE TRIGGER f BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()"
    )
    result = run(source, destination, strategy)
    assert result.rows_inserted == (3 if strategy == "fail" else 2)
    assert result.rows_skipped + result.rows_unchanged == {"fail": 2, "skip": 3}.get(strategy, 2)
    expected = {"fail": [(1, "a!")], "skip": [(1, "old"), (2, "old")]}.get(strategy, [(1, "a!!"), (2, "old")])
    assert rows(destination) == [*expected, (3, "c!"), (5, "e!")]


@pytest.mark.parametrize("strategy", ["overwrite", "skip", "merge", "fail"])
def test_row_security_at_the_destination_is_obeyed(source: Db, destination: Db, strategy: str) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    if strategy != "fail":
        destination.execute("INSERT INTO t VALUES (1, 'old')")
    role = f"portl_rls_{destination.connection.info.dbname}"
    destination.execute(
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (id < 10) WITH CHECK (v <> 'c');"
        f"CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT ALL ON t TO {role}; GRANT USAGE ON SCHEMA public TO {role}"
    )
    try:
        end = destination.end(table="t", username=role, password="secret")
        job = {"source": source.end(table="t"), "destination": end, "conflict": strategy}
        portl.migrate(job)
        assert rows(destination) == [(1, "old" if strategy == "skip" else "a"), (2, "b")]
        source.execute("TRUNCATE t; INSERT INTO t VALUES (7, 'b'), (8, 'c')")
        with pytest.raises(portl.Error, match="new row violates row-level security policy"):
            portl.migrate(job)
    finally:
        destination.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("strategy", ["overwrite", "skip", "merge", "fail"])
@pytest.mark.parametrize(
    "rule",
    ["ON INSERT TO t DO ALSO SELECT 1", "ON UPDATE TO t DO INSTEAD NOTHING", "ON DELETE TO t DO INSTEAD NOTHING"],
)
def test_a_rule_that_keeps_conflicts_from_being_resolved_is_found_by_the_plan(
    source: Db, destination: Db, strategy: str, rule: str
) -> None:
    for db in (source, destination):
        db.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')")
    source.execute("INSERT INTO t VALUES (2, 'b')")
    destination.execute(f"CREATE RULE ru AS {rule}")
    if strategy == "fail":
        destination.execute("TRUNCATE t")
    if strategy != "fail" and "DELETE" not in rule:
        assert problems(source, destination, strategy) == [
            "conflict: public.t has rules for INSERT or UPDATE (ru), so the server resolves no conflicts there"
            " -> drop them, use triggers instead, or use `conflict: fail`"
        ]
        destination.execute("ALTER TABLE t DISABLE RULE ru")
        if "UPDATE" in rule:
            assert problems(source, destination, strategy)
            destination.execute("DROP RULE ru ON t")
    run(source, destination, strategy)
    assert rows(destination) == [(1, "a"), (2, "b")]


def test_a_view_takes_rows_under_fail(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    destination.execute("CREATE TABLE base (id int PRIMARY KEY, v text); CREATE VIEW t AS SELECT * FROM base")
    assert counts(run(source, destination, "fail")) == {"inserted": 2}
    assert rows(destination, "SELECT * FROM base ORDER BY 1") == [(1, "a"), (2, "b")]
    with pytest.raises(portl.ConflictError) as caught:
        run(source, destination, "fail")
    assert (caught.value.row, caught.value.constraint) == (1, "base_pkey")


def test_an_exclusion_constraint_is_an_error_under_every_strategy(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, r int4range)")
    source.execute("INSERT INTO t VALUES (1, '[1,5)'), (2, '[7,9)'), (3, '[4,6)')")
    destination.execute(
        "CREATE TABLE t (id int PRIMARY KEY, r int4range, CONSTRAINT apart EXCLUDE USING gist (r WITH &&))"
    )
    for strategy in ("overwrite", "skip", "merge", "fail"):
        with pytest.raises(portl.ConflictError) as caught:
            run(source, destination, strategy)
        assert (caught.value.row, caught.value.constraint, caught.value.sqlstate) == (3, "apart", "23P01")
        assert caught.value.hint is not None
        assert caught.value.hint.startswith("an exclusion constraint is no key")
        assert rows(destination) == []


# Sequences

SEQUENCES = [
    # options, loaded, calls of nextval before, value that follows
    ("", [5, 7], 0, 8),
    ("", [5, 7], 20, 21),
    ("", [-3], 0, 1),
    ("", [], 0, 1),
    ("START 100", [7], 0, 100),
    ("INCREMENT 10", [5, 25], 0, 35),
    ("INCREMENT -1", [-4, 9], 0, -5),
    ("INCREMENT -1", [-4], 9, -10),
    ("INCREMENT -1", [4], 0, -1),
    ("MINVALUE 0 START 0", [0], 0, 1),
]


@pytest.mark.parametrize("way", ["identity", "serial", "default"])
def test_a_sequence_stands_past_what_was_loaded_and_never_goes_back(source: Db, destination: Db, way: str) -> None:
    for options, loaded, calls, follows in SEQUENCES:
        for db in (source, destination):
            db.execute('DROP TABLE IF EXISTS t; DROP SEQUENCE IF EXISTS "Odd %s"')
        check_sequence(source, destination, way, options, loaded, calls, follows)


def check_sequence(
    source: Db, destination: Db, way: str, options: str, loaded: list[int], calls: int, follows: int
) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY)")
    source.execute("INSERT INTO t SELECT unnest(%s::int[])", loaded)
    if way == "identity":
        destination.execute(
            f"CREATE TABLE t (id int PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY {f'({options})' if options else ''})"
        )
        sequence = "t_id_seq"
    else:
        sequence = '"Odd %s"'
        destination.execute(f"CREATE SEQUENCE {sequence} {options}")
        destination.execute(f"CREATE TABLE t (id int PRIMARY KEY DEFAULT nextval('{sequence}'))")
        if way == "serial":
            destination.execute(f"ALTER SEQUENCE {sequence} OWNED BY t.id")
    for _ in range(calls):
        destination.execute(f"SELECT nextval('{sequence}')")
    run(source, destination)
    assert destination.value(f"SELECT nextval('{sequence}')") == follows


def test_a_sequence_stands_past_what_the_source_had_handed_out(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id serial PRIMARY KEY); INSERT INTO t SELECT FROM generate_series(1, 9)")
    source.execute("DELETE FROM t WHERE id > 5")
    destination.execute("CREATE TABLE t (id serial PRIMARY KEY)")
    run(source, destination)
    assert destination.value("INSERT INTO t DEFAULT VALUES RETURNING id") == 10


# Hostile names

NAMES = [
    "source",
    "destination",
    "excluded",
    "portl_stage",
    "portl_staged",
    "portl_number",
    "portl_round",
    "portl_done",
    "n",
    'quo"te',
    "per%cent %s %(x)s",
    "dollar $1",
    "Mixed Case",
    "select",
    "back\\slash",
    "semi;colon -- comment",
    "новое",
    "CTID",
]


@pytest.mark.parametrize("strategy", ["overwrite", "skip", "merge"])
def test_any_name_of_table_and_columns_will_do(source: Db, destination: Db, strategy: str) -> None:
    from psycopg import sql

    columns = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(name)) for name in NAMES)
    table = 'Ta"ble %s; $1 portl_stage'
    for db, value, key in ((source, "new", ""), (destination, "old", "PRIMARY KEY")):
        made = sql.SQL("CREATE TABLE {} (excluded_ text, {} int {}, {})").format(
            sql.Identifier(table), sql.Identifier("K%"), sql.SQL(key), columns
        )
        db.connection.execute(made)
        filled = sql.SQL("INSERT INTO {} VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join([sql.Literal(value), sql.Literal(1), *[sql.Literal(value)] * len(NAMES)]),
        )
        db.connection.execute(filled)
    source.connection.execute(sql.SQL("INSERT INTO {0} TABLE {0}").format(sql.Identifier(table)))
    conflict: dict[str, object] = {"strategy": strategy}
    if strategy == "merge":
        conflict["columns"] = {
            "source": 'source.source || destination.source || source."per%cent %s %(x)s"',
            "excluded": "keep",
            "destination": "append",
            'quo"te': 'destination."quo""te" || source.excluded',
        }
    run(source, destination, conflict, table=table)
    ((found,),) = destination.connection.execute(
        sql.SQL("SELECT to_jsonb(x) FROM {} AS x").format(sql.Identifier(table))
    )
    expected = dict.fromkeys(["excluded_", *NAMES], "old" if strategy == "skip" else "new") | {"K%": 1}
    if strategy == "merge":
        expected |= {"excluded": "old", "destination": "oldnewnew", 'quo"te': "oldnewnew", "source": "newnewoldnewnew"}
        expected["source"] = "new" + ("new" + "old" + "new") + "new"
    assert found == expected


def test_a_table_called_like_a_word_of_the_statement_will_do(source: Db, destination: Db) -> None:
    for name in ("destination", "excluded", "source", "portl_staged", "portl_done"):
        for db, value in ((source, 2), (destination, 1)):
            db.execute(f"CREATE TABLE {name} ({name} int PRIMARY KEY, v int); INSERT INTO {name} VALUES (1, {value})")
        rules = {"v": "source.v + destination.v * 10"}
        run(source, destination, {"strategy": "merge", "columns": rules}, table=name)
        assert rows(destination, f"SELECT * FROM {name}") == [(1, 12)]


# Surroundings


def test_the_search_path_does_not_matter(source: Db, destination: Db) -> None:
    """Not even one on which names of portl's statements mean something else."""
    for db, value in ((source, "new"), (destination, "old")):
        db.execute("CREATE SCHEMA s; CREATE TABLE s.t (id int, v text)")
        db.execute("INSERT INTO s.t VALUES (1, %s)", value)
    destination.execute("ALTER TABLE s.t ADD PRIMARY KEY (id); CREATE SCHEMA evil; CREATE TABLE evil.t (x int)")
    destination.execute("CREATE TABLE evil.portl_stage (x int)")
    name = destination.connection.info.dbname
    destination.execute(f'ALTER DATABASE "{name}" SET search_path = evil, pg_catalog')
    job = {
        "source": source.end(schema="s", table="t"),
        "destination": destination.end(schema="s", table="t"),
        "conflict": {"strategy": "merge", "columns": {"v": "append"}},
    }
    portl.migrate(job)
    assert rows(destination, "SELECT * FROM s.t") == [(1, "oldnew")]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_temporary_tables_of_the_caller_stay_and_none_of_portls_remain(
    source: Db, destination: Db, nested: bool, fails: bool
) -> None:
    table = "CREATE TABLE t (id int, v jsonb CHECK (v <> '{\"no\": 2}'))"
    source.execute(f"{table}; INSERT INTO t VALUES (1, '{{\"a\": 1}}'), (1, '{{\"b\": 1}}')")
    destination.execute(f"{table}; ALTER TABLE t ADD PRIMARY KEY (id); INSERT INTO t VALUES (1, '{{\"c\": 1}}')")
    if fails:
        source.execute("ALTER TABLE t DROP CONSTRAINT t_v_check; INSERT INTO t VALUES (2, '{\"no\": 2}')")
    connection = destination.connection
    look = (
        "SELECT relname::text FROM pg_class WHERE relnamespace = pg_my_temp_schema() UNION ALL"
        " SELECT proname FROM pg_proc WHERE pronamespace = pg_my_temp_schema() ORDER BY 1"
    )
    destination.execute("CREATE TEMP TABLE portl_stage (mine int); INSERT INTO portl_stage VALUES (1)")
    destination.execute("CREATE FUNCTION pg_temp.portl_json_merge(jsonb, jsonb) RETURNS jsonb RETURN $1")
    before = rows(destination, look)

    def migrate() -> None:
        conflict = {"strategy": "merge", "columns": {"v": "json"}}
        if fails:
            with pytest.raises(portl.DataError) as caught:
                run(source, destination, conflict, handle=connection, batch_size=2)
            assert (caught.value.row, caught.value.batch) == (3, 2)
        else:
            run(source, destination, conflict, handle=connection)

    # In a transaction of the caller's there is no ledger, and so nothing is kept of what would be written again.
    expected = [(1, {"c": 1} if nested and fails else {"a": 1, "b": 1, "c": 1})]
    if nested:
        with connection.transaction():
            destination.execute("SAVEPOINT portl_1; SAVEPOINT portl_2")
            migrate()
            assert rows(destination, look) == before
            assert rows(destination) == expected
    else:
        migrate()
    assert connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
    assert rows(destination, look) == before
    assert rows(destination, "SELECT * FROM portl_stage") == [(1,)]
    assert rows(destination) == expected


@pytest.mark.parametrize("strategy", ["overwrite", "skip", "merge"])
def test_inside_a_callers_transaction_conflicts_are_resolved_across_groups(
    source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.setattr(chunkload, "GROUP_BYTES", 1)
    source.execute("CREATE TABLE t (id int, v int); INSERT INTO t SELECT g % 10, g FROM generate_series(1, 50) g")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, v int)")
    with destination.connection.transaction(force_rollback=True):
        result = run(source, destination, strategy, handle=destination.connection, batch_size=7)
        assert result.rows_inserted == 10
        extreme = "min" if strategy == "skip" else "max"
        assert rows(destination) == rows(source, f"SELECT id, {extreme}(v) FROM t GROUP BY id ORDER BY id")
    assert rows(destination) == []


def test_where_nothing_conflicts_rows_go_straight_into_the_table(
    source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the table has rows, from the second transaction on; through the stage again at the first conflict."""
    monkeypatch.setattr(chunkload, "GROUP_BYTES", 1)
    source.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 40)")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (0), (31)")
    with caplog.at_level("DEBUG", logger="portl.postgres.sql"):
        result = run(source, destination, batch_size=10, reading={"query": "SELECT * FROM t ORDER BY id"})
    assert counts(result) == {"inserted": 39, "unchanged": 1}
    copies = [text for r in caplog.records if "FROM STDIN" in (text := r.getMessage())]
    assert ["portl_stage" in text for text in copies] == [True, False, False, False, True]


def test_two_migrations_in_two_threads_do_not_meet(source: Db, destination: Db) -> None:
    columns = {"v": "json"}
    for n in (1, 2):
        source.execute(f"CREATE TABLE t{n} (id int, v jsonb)")
        source.execute(f"INSERT INTO t{n} SELECT g % 50, jsonb_build_object('s{n}', g) FROM generate_series(1, 2000) g")
        destination.execute(
            f"CREATE TABLE t{n} (id int PRIMARY KEY, v jsonb); INSERT INTO t{n} VALUES (1, '{{\"d\": 1}}')"
        )
    errors: list[BaseException] = []

    def work(n: int) -> None:
        try:
            run(source, destination, {"strategy": "merge", "columns": columns}, table=f"t{n}", batch_size=100)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for n in (1, 2):
        assert destination.value(f"SELECT count(*) FROM t{n}") == 50
        assert destination.value(f"SELECT v FROM t{n} WHERE id = 1") == {"d": 1, f"s{n}": 1951}


def test_a_role_that_only_inserts_is_warned_that_the_sequence_stays(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (7)")
    destination.execute("DROP ROLE IF EXISTS portl_inserts; CREATE ROLE portl_inserts LOGIN PASSWORD 'pw'")
    destination.execute("CREATE TABLE t (id serial PRIMARY KEY); GRANT INSERT ON t TO portl_inserts")
    destination.execute("GRANT ALL ON SEQUENCE t_id_seq TO portl_inserts")
    warned: list[str] = []
    end = destination.end(table="t", username="portl_inserts", password="pw")
    try:
        result = portl.migrate(
            {"source": source.end(table="t"), "destination": end, "conflict": "fail"},
            observers=[lambda event: warned.append(event.message) if isinstance(event, portl.Warned) else None],
        )
    finally:
        destination.execute("DROP OWNED BY portl_inserts; DROP ROLE portl_inserts")
    assert result.rows_inserted == 1
    assert warned == ["the role may not set the sequence public.t_id_seq past the values in public.t"]
    assert destination.value("SELECT is_called FROM t_id_seq") is False


# How unchanged rows are found


@pytest.mark.parametrize(
    ("changed", "looks_first"),
    [(0, [True] * 5), (10, [True] * 5), (60, [True] + [False] * 4), (100, [True] + [False] * 4)],
)
def test_rows_are_looked_for_first_only_while_most_are_unchanged(
    source: Db, destination: Db, caplog: pytest.LogCaptureFixture, changed: int, looks_first: list[bool]
) -> None:
    """Counts are the same either way, and rows that nobody had to write are not even locked."""
    for db, value in ((source, "g % 10"), (destination, f"CASE WHEN g % 100 < {changed} THEN -1 ELSE g % 10 END")):
        db.execute(f"CREATE TABLE t AS SELECT g AS id, {value} AS n FROM generate_series(1, 10000) AS g")
        db.execute("ALTER TABLE t ADD PRIMARY KEY (id); ANALYZE t")
    with caplog.at_level("DEBUG", logger="portl.postgres.sql"):
        result = run(source, destination, chunk_rows=2000, parallel=1)
    assert counts(result) == {
        name: n for name, n in (("updated", changed * 100), ("unchanged", 10_000 - changed * 100)) if n
    }
    taken = [record.getMessage() for record in caplog.records if "ON CONFLICT" in record.getMessage()]
    assert ["NOT EXISTS" in statement for statement in taken] == looks_first
    if all(looks_first):
        assert destination.value("SELECT count(*) FROM t WHERE xmax <> 0") == changed * 100
    assert rows(destination) == rows(source)
