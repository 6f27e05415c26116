"""``mode: mirror`` with many tables: one state of the source, parents before children, deletes the other way round."""

from __future__ import annotations

import random
from typing import Any

import pytest

import portl
from tests.killing import Victim
from tests.modes.test_mirror import counts, held, versions
from tests.servers import Db

#: Named so that neither order of names is an order of references.
TABLES = """
    CREATE TABLE b_customers (id int PRIMARY KEY, name text);
    CREATE TABLE a_orders (id int PRIMARY KEY, customer int NOT NULL REFERENCES b_customers, total numeric);
    CREATE TABLE c_items (order_id int REFERENCES a_orders, n int, PRIMARY KEY (order_id, n));
    CREATE TABLE keyless (a int, b text);
    INSERT INTO b_customers SELECT g, 'c' || g FROM generate_series(1, 100) AS g;
    INSERT INTO a_orders SELECT g, (g - 1) % 100 + 1, g * 1.5 FROM generate_series(1, 500) AS g;
    INSERT INTO c_items SELECT (g - 1) % 500 + 1, g FROM generate_series(1, 1000) AS g;
    INSERT INTO keyless SELECT g % 5, 'x' FROM generate_series(1, 200) AS g;
"""
NAMES = ("a_orders", "b_customers", "c_items", "keyless")
CHANGE = """
    DELETE FROM c_items WHERE order_id IN (SELECT id FROM a_orders WHERE customer < 6);
    DELETE FROM a_orders WHERE customer < 6; DELETE FROM b_customers WHERE id < 6;
    INSERT INTO b_customers VALUES (1001, 'new'); INSERT INTO a_orders VALUES (2001, 1001, 5), (2002, 7, NULL);
    INSERT INTO c_items VALUES (2001, 1), (2002, 1); UPDATE b_customers SET name = 'other' WHERE id % 10 = 0;
    DELETE FROM keyless WHERE a = 3; INSERT INTO keyless VALUES (9, NULL), (9, NULL)
"""


def job(source: Db, destination: Db, **keys: Any) -> dict[str, Any]:
    tables = keys.pop("tables", list(NAMES))
    return {
        "name": "many",
        "source": source.end(),
        "destination": destination.end(),
        "tables": tables,
        "mode": "mirror",
        **keys,
    }


@pytest.fixture
def both(source: Db, destination: Db) -> tuple[Db, Db]:
    for db in (source, destination):
        db.execute(TABLES)
    return source, destination


def everything(db: Db) -> list[Any]:
    return [held(db, name) for name in NAMES]


def test_rows_move_from_parents_to_children_and_are_deleted_the_other_way(both: tuple[Db, Db]) -> None:
    source, destination = both
    source.execute(CHANGE)
    config = job(source, destination)
    result = portl.migrate(config)
    assert everything(source) == everything(destination)
    assert counts(result)[:3] == (1 + 2 + 2 + 2, 10, 5 + 25 + 50 + 40)
    assert result.tables["public.b_customers"].rows_deleted == 5
    before = [versions(destination, name) for name in NAMES]
    again = portl.migrate(config)
    assert counts(again)[:3] == (0, 0, 0)
    assert [versions(destination, name) for name in NAMES] == before
    assert portl.status(config).runs[0].state is portl.RunState.DONE


def test_one_table_with_too_many_deletes_keeps_all_from_being_changed(both: tuple[Db, Db]) -> None:
    source, destination = both
    source.execute(f"{CHANGE}; DELETE FROM c_items")
    before = everything(destination)
    with pytest.raises(portl.OperationError, match=r"public\.c_items: 1,000 of its 1,000 rows are not at the source"):
        portl.migrate(job(source, destination))
    assert everything(destination) == before


def test_an_entry_has_keys_of_its_own(both: tuple[Db, Db]) -> None:
    source, destination = both
    source.execute(CHANGE)
    tables = [{"table": "b_customers", "where": "id > 50"}, {"table": "keyless", "mirror": {"deletes": "keep"}}]
    result = portl.migrate(job(source, destination, tables=tables))
    assert (result.rows_deleted, result.rows_updated, result.rows_inserted) == (0, 5, 3)


def test_what_many_tables_cannot_have_is_refused_by_the_plan(both: tuple[Db, Db]) -> None:
    source, destination = both
    found = portl.plan(job(source, destination, tables=["b_customers"], mode="replace")).problems
    assert "`mode: replace` is for one table" in [problem.message for problem in found]
    own = [{"table": "b_customers"}, {"table": "keyless", "mode": "full"}]
    assert [p.where for p in portl.plan(job(source, destination, tables=own)).problems][:1] == ["tables"]
    destination.execute("DROP TABLE c_items")
    found = portl.plan(job(source, destination)).problems
    assert ["a mirror of many tables creates none" in problem.message for problem in found] == [True]


def test_a_run_that_is_killed_is_followed_by_one_that_compares_again(both: tuple[Db, Db], victim: Victim) -> None:
    source, destination = both
    config = job(source, destination, chunk_rows=20)
    draw, killed = random.Random(7), 0
    for _ in range(4):
        numbers = {old: str(draw.randint(3000, 10**6)) for old in ("1001", "2001", "2002")}
        change = CHANGE
        for old, new in numbers.items():
            change = change.replace(old, new)
        source.execute(change)
        killed += victim.run(config, statement=draw.randint(60, 160))["killed"]
        portl.migrate(config)
        assert everything(source) == everything(destination)
    assert killed
