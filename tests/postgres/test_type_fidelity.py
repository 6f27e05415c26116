"""Every type of PostgreSQL's arrives as it left: through both routes, into new tables and existing ones.

Equality is the server's word: the text of every value and, where the types are built in, the image of the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import portl
from tests.servers import Db
from tests.typed_values import EVERY, NEW, NUMBERS, OWN_VALUES, QUICK, fill, strategy, tables, with_own_types


def _texts(db: Db, table: str, width: int) -> list[tuple[Any, ...]]:
    columns = ", ".join(f"c{number}::text" for number in range(width))
    return sorted(db.execute(f"SELECT {columns} FROM {table}"), key=repr)


def _images(db: Db, table: str) -> list[tuple[Any, ...]]:
    return db.execute(f"SELECT encode(record_send(t), 'hex') FROM {table} AS t ORDER BY 1")


def _images_compare(types: Sequence[str]) -> bool:
    """Return whether rows of these types have images that mean the same in another database."""
    # aclitem has no binary form; an image holds the oids of user-made types, and of what reg* types name.
    return not any(name.removesuffix("[]") in OWN_VALUES or name.startswith(("aclitem", "reg")) for name in types)


def _check(source: Db, target: Db, types: Sequence[str], rows: Any, *, route: str, existing: bool) -> None:
    table = f"t{next(NUMBERS)}"
    fill(source, table, types, rows)
    if existing:
        fill(target, table, types, [])
    job = {
        "source": source.end(table=table),
        "destination": target.end(table=table),
        "route": route,
        "conflict": "fail",
    }
    result = portl.migrate(job)
    assert (result.rows_inserted, result.tables[0].route) == (len(rows), route)
    assert _texts(target, table, len(types)) == _texts(source, table, len(types))
    if _images_compare(types):
        assert _images(target, table) == _images(source, table)
    described = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
    assert target.execute(described, table) == source.execute(described, table)


@settings(QUICK, max_examples=25)
@given(table=tables(EVERY), route=st.sampled_from(["relay", "rows"]), existing=st.booleans())
def test_values_of_any_types_arrive_unchanged(
    source: Db, destination: Db, table: Any, route: str, existing: bool
) -> None:
    with_own_types(source, destination)
    types, rows = table
    _check(source, destination, types, rows, route=route, existing=existing)


@settings(QUICK, max_examples=2)
@given(rows=st.tuples(*(strategy(name) for name in EVERY)))
@pytest.mark.parametrize("route", ["relay", "rows"])
def test_one_table_with_every_type_and_an_array_of_each(source: Db, destination: Db, route: str, rows: Any) -> None:
    with_own_types(source)
    _check(source, destination, EVERY, [rows, [None] * len(EVERY)], route=route, existing=False)


# Text that fills messages, buffers and batches of its own, and a column that compresses.
HUGE = """SELECT 1 AS id, repeat(E'\\\\\\t\\nä𝄞', 400000) AS t, decode(repeat('00ff5c', 1000000), 'hex') AS b,
    array_agg(g) AS a, jsonb_agg(g::text) AS j, repeat('7', 5000)::numeric AS n FROM generate_series(1, 200000) AS g"""


@pytest.mark.parametrize("route", ["relay", "rows"])
def test_values_of_megabytes_arrive_unchanged(source: Db, destination: Db, route: str) -> None:
    source.execute(f"CREATE TABLE t AS {HUGE}; INSERT INTO t SELECT 2, t, b, a, j, n FROM t")
    job = {
        "source": source.end(table="t"),
        "destination": destination.end(table="t", primary_key=["id"]),
        "route": route,
    }
    portl.migrate(job)
    image = "SELECT id, octet_length(t), md5(t), md5(b), md5(a::text), md5(j::text), md5(n::text) FROM t ORDER BY id"
    assert destination.execute(image) == source.execute(image)
    assert portl.migrate(job).rows_unchanged == 2


@settings(QUICK, max_examples=10)
@given(
    table=tables([name for name in EVERY if name not in NEW]), route=st.sampled_from(["relay", "rows"]), data=st.data()
)
@pytest.mark.system
@pytest.mark.parametrize("newer_to_older", [True, False], ids=["18 to 15", "15 to 18"])
def test_values_arrive_unchanged_at_a_server_of_another_version(
    source: Db, system: Db, newer_to_older: bool, table: Any, route: str, data: st.DataObject
) -> None:
    with_own_types(source, system)
    types, rows = table
    left, right = (source, system) if newer_to_older else (system, source)
    _check(left, right, types, rows, route=route, existing=data.draw(st.booleans()))


@pytest.mark.system
@pytest.mark.parametrize("route", ["relay", "rows"])
def test_xml_and_extensions_arrive_unchanged(system: Db, route: str) -> None:
    for extension in ("citext", "hstore"):
        system.execute(f"CREATE EXTENSION IF NOT EXISTS {extension}")
    system.execute("CREATE TABLE t (x xml, xs xml[], h hstore, c citext, cs citext[])")
    system.execute(
        """INSERT INTO t VALUES ('<a b="1">x &amp; y</a>', ARRAY['<a/><b>\t</b>'::xml, '']::xml[],
        'a=>NULL, "b c"=>"\\"", d=>""', 'Ab', '{Ab,NULL,"c,d"}'), ('', NULL, '', '', '{}')"""
    )
    job = {"source": system.end(table="t"), "destination": system.end(table="u"), "route": route, "conflict": "fail"}
    portl.migrate(job)
    columns = "SELECT x::text, xs::text, h::text, c::text, cs::text FROM"
    assert system.execute(f"{columns} u") == system.execute(f"{columns} t")
    assert system.value("SELECT count(*) FROM u WHERE c = 'aB'") == 1
