"""What a plan says of the key by which rows are matched, and of those that look like one."""

from __future__ import annotations

from typing import Any

import pytest

import portl
from tests.servers import Db


def job(source: Db, destination: Db, **keys: Any) -> dict[str, Any]:
    return {"source": source.end(table="t"), "destination": destination.end(table="t"), **keys}


UNFIT = {
    # the destination's key or index, and the message about it
    "PRIMARY KEY (r, during WITHOUT OVERLAPS)": (
        "has a primary key by which rows cannot be matched; t_pkey (r, during) is WITHOUT OVERLAPS: it compares by"
        " overlap, not by equality"
    ),
    "UNIQUE (r, during WITHOUT OVERLAPS)": (
        "has no primary key; t_r_during_key (r, during) is WITHOUT OVERLAPS: it compares by overlap, not by equality"
    ),
    "partial": "has no primary key; t_part (id) applies only WHERE (id > 0)",
    "expression": "has no primary key; t_low (lower(v)) is over an expression",
    "nothing": "has no primary key",
}
INDEXES = {
    "partial": "CREATE UNIQUE INDEX t_part ON t (id) WHERE id > 0",
    "expression": "CREATE UNIQUE INDEX t_low ON t (lower(v))",
}


@pytest.mark.parametrize("kind", UNFIT)
def test_a_key_by_which_rows_cannot_be_matched_is_named_with_the_reason(source: Db, destination: Db, kind: str) -> None:
    columns = "id int, v text, r int4range, during daterange"
    source.execute(f"CREATE TABLE t ({columns})")
    key = f", {kind}" if "OVERLAPS" in kind else ""
    destination.execute(f"CREATE TABLE t ({columns}{key}); {INDEXES.get(kind, '')}")
    remedy = "add a unique constraint over plain columns that applies to all rows, or use `conflict: fail`"
    if kind == "nothing":
        remedy = "add a primary key or a unique constraint there, or use `conflict: fail`"
    problems = portl.plan(job(source, destination)).problems
    assert [str(p) for p in problems] == [f"conflict: `overwrite` needs a key, and public.t {UNFIT[kind]} -> {remedy}"]
    said = UNFIT[kind].partition("; ")[2]
    (problem,) = portl.plan(job(source, destination, conflict={"strategy": "skip", "key": ["r", "v"]})).problems
    assert problem.message == "public.t has no unique constraint or index over exactly (r, v)" + (said and f"; {said}")


def test_a_created_table_has_a_plain_key_for_one_without_overlaps_and_the_plan_says_so(
    source: Db, destination: Db
) -> None:
    source.execute("CREATE TABLE t (id int4range, during daterange, v text, PRIMARY KEY (id, during WITHOUT OVERLAPS))")
    source.execute("INSERT INTO t VALUES ('[1,2)', '[2020-01-01,2021-01-01)', 'a')")
    config = job(source, destination)
    plan = portl.plan(config)
    assert [str(w) for w in plan.warnings] == [
        "destination: the new table has a plain key over all its rows; the source's t_pkey (id, during) is WITHOUT"
        " OVERLAPS: it compares by overlap, not by equality"
    ]
    assert plan.execute().rows_inserted == 1
    source.execute("UPDATE t SET v = 'b'; INSERT INTO t VALUES ('[1,2)', '[2021-01-01,2022-01-01)', 'c')")
    result = portl.migrate(config)
    assert (result.rows_inserted, result.rows_updated) == (1, 1)
    assert portl.verify(config, mode="full").equal


NULLS = "rows with NULL in 'b' are added again by each run, because NULLs are not equal in t_a_b_key (a, b)"
REMEDY = "declare it NOT NULL or the key NULLS NOT DISTINCT, or leave such rows out with `source.where`"


@pytest.mark.parametrize("strategy", ["overwrite", "skip", "merge"])
def test_a_key_that_can_hold_nulls_is_warned_of(source: Db, destination: Db, strategy: str) -> None:
    source.execute("CREATE TABLE t (a int NOT NULL, b int, v text); INSERT INTO t VALUES (1, 1, 'x'), (1, NULL, 'y')")
    destination.execute("CREATE TABLE t (a int, b int, v text, UNIQUE (a, b))")
    config = job(source, destination, conflict={"strategy": strategy, "key": ["a", "b"]})
    plan = portl.plan(config)
    assert [str(w) for w in plan.warnings] == [f"conflict.key: {NULLS} -> {REMEDY}"]
    assert [plan.execute().rows_inserted, portl.migrate(config).rows_inserted] == [2, 1]


@pytest.mark.parametrize(
    ("column", "key", "keys"),
    [
        ("b int NOT NULL", "UNIQUE (a, b)", {}),
        ("b int", "UNIQUE NULLS NOT DISTINCT (a, b)", {}),
        ("b int", "UNIQUE (a, b)", {"strategy": "fail"}),
        ("b int", "PRIMARY KEY (a, b)", {}),
    ],
)
def test_nulls_that_cannot_be_or_are_equal_are_no_warning(
    source: Db, destination: Db, column: str, key: str, keys: dict[str, str]
) -> None:
    source.execute(f"CREATE TABLE t (a int NOT NULL, {column})")
    destination.execute(f"CREATE TABLE t (a int, b int, {key})")
    plan = portl.plan(job(source, destination, conflict={"strategy": "overwrite", "key": ["a", "b"], **keys}))
    assert [w for w in plan.warnings if w.where == "conflict.key"] == []


def test_of_a_query_it_is_not_known_whether_there_are_nulls(source: Db, destination: Db) -> None:
    destination.execute("CREATE TABLE t (a int, b int, UNIQUE (a, b))")
    config = job(source, destination, conflict={"strategy": "overwrite", "key": ["a", "b"]})
    config["source"] = source.end(query="SELECT 1 AS a, 2 AS b")
    plan = portl.plan(config)
    assert NULLS in [f.message for f in plan.tables[0].findings if f.severity is portl.Severity.NOTE]
    assert "conflict.key" not in [w.where for w in plan.warnings]
