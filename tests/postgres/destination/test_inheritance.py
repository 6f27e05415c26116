"""Tables that others inherit from: their keys do not apply to the rows of the others (manual, 5.11.1)."""

from __future__ import annotations

from typing import Any

import pytest

import portl
from tests.servers import Db


def job(source: Db, destination: Db, **keys: Any) -> dict[str, Any]:
    return {"source": source.end(table="t"), "destination": destination.end(table="t"), **keys}


@pytest.fixture
def parent(source: Db, destination: Db) -> Db:
    """A destination where one of the source's ids is in a child table."""
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE c () INHERITS (t)")
    destination.execute("CREATE TABLE \"Other c\" (PRIMARY KEY (id)) INHERITS (t); INSERT INTO c VALUES (2, 'old')")
    return destination


CHILDREN = 'child tables (public."Other c", public.c)'
WARNING = (
    f"destination: rows are added to public.t itself, not to its {CHILDREN} -> copy into each table by a job of its own"
)


@pytest.mark.parametrize("conflict", ["overwrite", "skip", "merge"])
def test_child_tables_of_the_destination_are_a_problem_where_rows_are_matched(
    source: Db, parent: Db, conflict: str
) -> None:
    config = job(source, parent, conflict=conflict)
    plan = portl.plan(config)
    assert [str(p) for p in plan.problems] == [
        f"conflict: `{conflict}` needs a key, and public.t has a primary key by which rows cannot be matched;"
        f" t_pkey (id) does not apply to the rows of its {CHILDREN} -> add a unique constraint over plain columns that"
        " applies to all rows, or use `conflict: fail`"
    ]
    assert [str(w) for w in plan.warnings] == [WARNING]
    with pytest.raises(portl.PlanError):
        portl.migrate(config)
    assert parent.value("SELECT count(*) FROM t") == 1


def test_rows_that_are_only_added_go_to_the_parent_with_a_warning_and_verify_sees_what_is_there_twice(
    source: Db, parent: Db
) -> None:
    config = job(source, parent, conflict="fail")
    plan = portl.plan(config)
    assert [str(w) for w in plan.warnings] == [WARNING]
    assert plan.execute().rows_inserted == 2
    assert parent.execute("SELECT id, v FROM ONLY t ORDER BY id") == [(1, "a"), (2, "b")]
    for mode in ("checksum", "full"):
        found = portl.verify(config, mode=mode)
        assert (found.equal, found.tables[0].extra, found.tables[0].key) == (False, 1, ()), mode


@pytest.mark.parametrize("conflict", ["overwrite", "skip", "merge"])
def test_a_child_table_and_a_partition_are_tables_like_others(source: Db, parent: Db, conflict: str) -> None:
    config = job(source, parent, conflict=conflict)
    config["destination"]["table"] = "Other c"
    assert portl.plan(config).problems == ()
    assert portl.migrate(config).rows_inserted == 2
    parent.execute("CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)")
    parent.execute("CREATE TABLE p1 PARTITION OF p DEFAULT")
    config["destination"]["table"] = "p"
    assert portl.migrate(config).rows_inserted == 2
    assert portl.migrate(config).rows_inserted == 0


@pytest.mark.parametrize("conflict", ["overwrite", "skip"])
def test_a_key_that_parent_and_child_share_at_the_source_arrives_once(
    source: Db, destination: Db, conflict: str
) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE c () INHERITS (t)")
    source.execute("INSERT INTO t VALUES (1, 'a'), (2, 'parent'); INSERT INTO c VALUES (2, 'child')")
    config = job(source, destination, conflict=conflict)
    portl.migrate(config)
    kept = {"overwrite": "child", "skip": "parent"}[conflict]
    assert destination.execute("SELECT id, v FROM t ORDER BY id") == [(1, "a"), (2, kept)]
    assert portl.verify(config, mode="full").equal
