"""Mirrors of every type, between versions, through conversions; and a model that is tried with drawn changes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import portl
from tests.modes.test_mirror import counts, held, job, users, versions
from tests.servers import Db
from tests.typed_values import EVERY, NEW, NUMBERS, QUICK, fill, tables, with_own_types

ALL = {"max_deletes": "100%"}


@settings(QUICK, max_examples=2)
@given(data=st.data())
def test_every_type(source: Db, destination: Db, data: st.DataObject) -> None:
    with_own_types(source, destination)
    table, (types, rows) = f"t{next(NUMBERS)}", data.draw(tables(EVERY))
    fill(source, table, types, rows)
    config = job(source, destination, table, mirror=ALL)
    portl.migrate(config)
    assert portl.verify(config, mode="full").equal
    before = versions(destination, table)
    portl.migrate(config)
    assert versions(destination, table) == before
    gone = data.draw(st.sampled_from([0, 1]))
    source.execute(f'DELETE FROM "{table}" WHERE ctid IN (SELECT ctid FROM "{table}" LIMIT {gone})')
    assert portl.migrate(config).rows_deleted == min(gone, len(rows))
    assert portl.verify(config, mode="full").equal


@settings(QUICK, max_examples=2)
@given(table=tables([name for name in EVERY if name not in NEW]))
@pytest.mark.system
@pytest.mark.parametrize("newer_to_older", [True, False], ids=["18 to 15", "15 to 18"])
def test_servers_of_two_versions(source: Db, system: Db, newer_to_older: bool, table: Any) -> None:
    with_own_types(source, system)
    (types, rows), name = table, f"t{next(NUMBERS)}"
    left, right = (source, system) if newer_to_older else (system, source)
    fill(left, name, types, rows)
    config = job(left, right, name, mirror=ALL)
    portl.migrate(config)
    before = versions(right, name)
    portl.migrate(config)
    assert versions(right, name) == before
    left.execute(f'DELETE FROM "{name}" WHERE ctid IN (SELECT ctid FROM "{name}" LIMIT 1)')
    assert portl.migrate(config).rows_deleted == min(1, len(rows))
    assert portl.verify(config, mode="full").equal


def test_casts_renames_generated_and_masked_columns(source: Db, destination: Db) -> None:
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, price text, twice int GENERATED ALWAYS AS (id * 2) STORED, secret text);"
        "INSERT INTO t (id, price, secret) SELECT g, g || '.50', 's' || g FROM generate_series(1, 100) AS g"
    )
    destination.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, cost numeric(10, 1), half numeric GENERATED ALWAYS AS (id / 2) STORED,"
        " secret text, own text DEFAULT 'mine')"
    )
    config = job(
        source,
        destination,
        schema_mapping={"price": "cost"},
        types=[{"column": "price", "to": "numeric(10,1)"}],
        src={"exclude_columns": ["twice"]},
        mask=["secret"],
        mirror=ALL,
    )
    assert counts(portl.migrate(config)) == (100, 0, 0, 0)
    destination.execute("UPDATE t SET own = 'kept'")
    source.execute("UPDATE t SET price = CASE id WHEN 1 THEN '7.25' ELSE '3.51' END WHERE id IN (1, 3)")
    source.execute("DELETE FROM t WHERE id = 2")
    assert counts(portl.migrate(config)) == (0, 1, 1, 98)
    assert destination.execute("SELECT cost::text, own FROM t WHERE id IN (1, 3) ORDER BY id") == [
        ("7.3", "kept"),
        ("3.5", "kept"),
    ]


def test_a_column_that_the_run_adds_is_filled(source: Db, destination: Db) -> None:
    users(source)
    users(destination)
    source.execute("ALTER TABLE t ADD more int; UPDATE t SET more = 1 WHERE id = 9; DELETE FROM t WHERE id = 10")
    config = job(source, destination, dst={"add_columns": True})
    assert counts(portl.migrate(config)) == (0, 1, 1, 998)
    assert held(source) == held(destination)


@pytest.mark.parametrize("keys", [{"atomic": True}, {"ledger": {"mode": "off"}}, {"chunk_rows": 7, "parallel": 3}])
def test_other_ways_to_write(source: Db, destination: Db, keys: dict[str, Any]) -> None:
    users(source)
    users(destination)
    source.execute("UPDATE t SET name = 'new' WHERE id % 9 = 0; DELETE FROM t WHERE id % 50 = 1")
    assert counts(portl.migrate(job(source, destination, **keys))) == (0, 109, 20, 871)
    assert held(source) == held(destination)
    assert counts(portl.migrate(job(source, destination, **keys))) == (0, 0, 0, 980)


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["source", "destination"]),
        st.sampled_from(
            [
                "INSERT INTO t VALUES ({0}, '{1}') ON CONFLICT DO NOTHING",
                "UPDATE t SET v = nullif('{1}', '0') WHERE k % 5 = {0} % 5",
                "DELETE FROM t WHERE k % 7 = {0} % 7",
                "UPDATE t SET k = k + 1000 WHERE k = {0}",
                "TRUNCATE t",
            ]
        ),
        st.integers(0, 60),
        st.integers(0, 3),
    ),
    max_size=12,
)


@settings(QUICK, max_examples=6)
@given(rounds=st.lists(CHANGES, min_size=1, max_size=3), key=st.booleans(), chunk=st.sampled_from([None, 3]))
def test_whatever_has_changed_on_either_side(
    source: Db, destination: Db, rounds: list[Any], key: bool, chunk: int | None
) -> None:
    for db in (source, destination):
        db.execute(f"DROP TABLE IF EXISTS t; CREATE TABLE t (k int {'PRIMARY KEY' if key else ''}, v text)")
    config = job(source, destination, mirror=ALL, chunk_rows=chunk, parallel=1)
    for changes in rounds:
        for side, statement, *values in changes:
            (source if side == "source" else destination).execute(statement.format(*values))
        portl.migrate(config)
        assert held(source) == held(destination)
        before = versions(destination)
        portl.migrate(config)
        assert versions(destination) == before
