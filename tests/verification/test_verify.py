"""``portl.verify`` finds what differs between what a job should have copied and what is there, and nothing else."""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

import portl
from portl.cli.verify import verify as command
from tests.servers import Db
from tests.typed_values import EVERY, NEW, NUMBERS, QUICK, fill, tables, with_own_types


def job(source: Db, target: Db, table: str = "t", **keys: Any) -> dict[str, Any]:
    """Return a job from table to table; ``src`` and ``dst`` add keys to the ends."""
    src, dst = keys.pop("src", {}), keys.pop("dst", {})
    return {
        "source": source.end(**{"table": table, **src}),
        "destination": target.end(**{"table": table, **dst}),
        **keys,
    }


def users(db: Db, rows: int = 5) -> None:
    db.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, name text, at timestamptz);"
        f"INSERT INTO t SELECT g, 'user ' || g, '2024-01-01 00:00+00'::timestamptz + g * interval '1 hour'"
        f" FROM generate_series(1, {rows}) AS g"
    )


def counts(found: portl.Verification) -> tuple[int, int, int]:
    table = found.tables[0]
    return table.missing, table.different, table.extra


MODES = pytest.mark.parametrize("mode", ["checksum", "full"])


# Types


@settings(QUICK, max_examples=1)
@given(data=st.data())
@MODES
def test_a_copy_of_every_type_is_equal(source: Db, destination: Db, mode: str, data: st.DataObject) -> None:
    with_own_types(source)
    table, (types, rows) = f"t{next(NUMBERS)}", data.draw(tables(EVERY))
    fill(source, table, types, rows)
    config = job(source, destination, table, conflict="fail")
    portl.migrate(config)
    found = portl.verify(config, mode=mode)
    assert (found.equal, counts(found), found.tables[0].rows_destination) == (True, (0, 0, 0), len(rows))


@settings(QUICK, max_examples=3)
@given(table=tables([name for name in EVERY if name not in NEW]), route=st.sampled_from(["relay", "rows"]))
@pytest.mark.system
@pytest.mark.parametrize("newer_to_older", [True, False], ids=["18 to 15", "15 to 18"])
def test_a_copy_at_a_server_of_another_version_is_equal(
    source: Db, system: Db, newer_to_older: bool, table: Any, route: str
) -> None:
    with_own_types(source, system)
    (types, rows), name = table, f"t{next(NUMBERS)}"
    left, right = (source, system) if newer_to_older else (system, source)
    fill(left, name, types, rows)
    config = job(left, right, name, conflict="fail", route=route)
    portl.migrate(config)
    for mode in ("checksum", "full"):
        found = portl.verify(config, mode=mode)
        assert (found.equal, found.tables[0].rows) == (True, ())


CHANGES = [
    ("text", "'NULL'", "NULL"),
    ("text", "''", "NULL"),
    ("text", "'a'", "'a '"),
    ("text", "'é'", "'e'"),
    ("bpchar", "'a'", "'a '"),
    ("numeric", "1.0", "1.00"),
    ("numeric", "0", "NULL"),
    ("bigint", "1", "4294967296"),
    ("timestamp", "'2024-01-01 00:00:00'", "'2024-01-01 00:00:00.000001'"),
    ("double precision", "'0'", "'-0'"),
    ("double precision", "0.1", "0.1::float8 + 1e-17::float8 + 1.4e-17::float8"),
    ("json", """'{"a": 1, "b": 2}'""", """'{"b": 2, "a": 1}'"""),
    ("json", """'{"a": 1}'""", """'{"a":1}'"""),
    ("jsonb", """'{"a": 1.0}'""", """'{"a": 1.00}'"""),
    ("interval", "'1 mon'", "'30 days'"),
    ("text[]", "'{NULL}'", """'{"NULL"}'"""),
    ("int[]", "'{1,2}'", "'[0:1]={1,2}'"),
    ("float8[]", "'{0}'", "'{-0}'"),
    ("int4range", "'[1,3)'", "'[1,4)'"),
    ("bytea", "'\\x00'", "'\\x0000'"),
    ("money", "1", "1.01"),
    ("point", "'(0,1)'", "'(-0,1)'"),
]


def test_values_that_print_differently_are_different(source: Db, destination: Db) -> None:
    for number, (type, *values) in enumerate(CHANGES):
        for db, value in zip((source, destination), values, strict=True):
            db.execute(f"CREATE TABLE t{number} (id int PRIMARY KEY, v {type}, w int)")
            db.execute(f"INSERT INTO t{number} VALUES (1, {value}, 5)")
    config = {"source": source.end(), "destination": destination.end(), "tables": ["t*"]}
    for mode in ("checksum", "full"):
        found = portl.verify(config, mode=mode)
        assert len(found.tables) == len(CHANGES)
        for table in found.tables:
            assert (table.missing, table.different, table.extra) == (0, 1, 0), table
            (row,) = table.rows
            assert (row.kind, dict(row.key), list(row.columns)) == ("different", {"id": "1"}, ["v"])
    assert portl.verify(config, repair=True).equal
    assert portl.verify(config).equal


def test_a_database_in_another_encoding_is_compared(source: Db, destination: Db) -> None:
    users(source)
    source.execute("UPDATE t SET name = 'Bär' WHERE id = 1")
    name = f"portl_latin{next(NUMBERS)}"
    destination.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'")
    try:
        config = job(source, destination, dst={"database": name})
        portl.migrate(config)
        assert portl.verify(config).equal
        source.execute("UPDATE t SET name = 'Bar' WHERE id = 1")
        assert counts(portl.verify(config)) == (0, 1, 0)
    finally:
        destination.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_not_a_number_has_one_form(source: Db, destination: Db) -> None:
    for db, value in ((source, "'NaN'::float8"), (destination, "'inf'::float8 - 'inf'::float8")):
        db.execute(f"CREATE TABLE t AS SELECT 1 AS id, {value} AS v; ALTER TABLE t ADD PRIMARY KEY (id)")
    assert portl.verify(job(source, destination)).equal


SETTINGS = {
    "DateStyle": "'SQL, DMY'",
    "TimeZone": "'Asia/Kolkata'",
    "IntervalStyle": "'iso_8601'",
    "extra_float_digits": "-10",
    "bytea_output": "'escape'",
    "standard_conforming_strings": "off",
}


@MODES
def test_settings_of_the_databases_do_not_matter(source: Db, destination: Db, mode: str) -> None:
    source.execute("""
        CREATE TYPE visit AS (at timestamptz, day date);
        CREATE TABLE t AS SELECT g AS id, now() + g * interval '1 hour' AS at, 1 / g::float8 AS f, 0.1::real AS r,
            '\\x00ff'::bytea AS b, interval '1 mon -2 days' AS i, date '2024-02-03' AS d,
            ARRAY[now()] AS ats, tstzrange(now(), NULL) AS period, ROW(now(), '2024-02-03')::visit AS v
        FROM generate_series(1, 5) AS g""")
    config = job(source, destination, dst={"primary_key": ["id"]})
    portl.migrate(config)
    for name, value in SETTINGS.items():
        destination.execute(f"ALTER DATABASE {destination.connection.info.dbname} SET {name} = {value}")
    try:
        found = portl.verify(config, mode=mode)
    finally:
        destination.execute(f"ALTER DATABASE {destination.connection.info.dbname} RESET ALL")
    assert (found.equal, found.tables[0].rows) == (True, ())


@MODES
@pytest.mark.parametrize("version", [15, 18])
def test_a_text_is_read_as_the_source_reads_it(
    source: Db, system: Db, destination: Db, mode: str, version: int
) -> None:
    """As its `where` does, which compares dates that are texts there."""
    first = source if version == 18 else system
    settings = {
        first: {"DateStyle": "'ISO, MDY'", "TimeZone": "'America/Bogota'"},
        destination: {"DateStyle": "'German, DMY'", "TimeZone": "'Asia/Kolkata'"},
    }
    for db, chosen in settings.items():
        for name, value in chosen.items():
            db.execute(f"ALTER DATABASE {db.connection.info.dbname} SET {name} = {value}")
    first.execute("CREATE TABLE t (d text PRIMARY KEY, at text, tz text, a text[], local timestamp)")
    values = "'10:00', ARRAY['05/06/2024'], '2024-01-02 03:04'"
    first.execute(
        f"INSERT INTO t VALUES ('01/02/2024', '03/04/2024 10:00', {values}), ('02/01/2024', NULL, {values}),"
        f" ('03/01/2024', NULL, {values})"
    )
    destination.execute("CREATE TABLE t (d date PRIMARY KEY, at timestamptz, tz timetz, a date[], local timestamptz)")
    config = job(first, destination, src={"where": "CAST(d AS date) < '2024-02-03'"})
    portl.migrate(config)
    look = "SELECT d, at AT TIME ZONE 'UTC', tz, a, local AT TIME ZONE 'UTC' FROM t ORDER BY d"
    (row, second) = destination.execute(look)
    zone = dt.timezone(dt.timedelta(hours=-5))
    assert row[:2] == (dt.date(2024, 1, 2), dt.datetime(2024, 3, 4, 15))
    assert row[2:] == (dt.time(10, tzinfo=zone), [dt.date(2024, 5, 6)], dt.datetime(2024, 1, 2, 8, 4))
    assert second[:2] == (dt.date(2024, 2, 1), None)
    found = portl.verify(config, mode=mode)
    assert (counts(found), found.equal) == ((0, 0, 0), True)
    destination.execute("UPDATE t SET at = at + interval '1 day'")
    if mode != "count":
        assert counts(portl.verify(config, mode=mode)) == (0, 1, 0)
        repaired = portl.verify(config, mode=mode, repair=True)
        assert repaired.equal
        assert destination.execute(look) == [row, second]


# What the job does to rows


@MODES
def test_mapping_casts_where_and_limit_are_part_of_what_is_expected(source: Db, destination: Db, mode: str) -> None:
    source.execute("""
        CREATE TABLE t AS SELECT g AS id, g / 3.0 AS n, g::text AS digits, now() AS at, 'x' AS code
        FROM generate_series(1, 50) AS g""")
    destination.execute("""
        CREATE TABLE t (key bigint PRIMARY KEY, n numeric(10,2), digits int, at timestamp(0), code char(5))""")
    config = job(
        source,
        destination,
        src={"where": "id % 2 = 0", "limit": 20},
        schema_mapping={"id": "key"},
    )
    portl.migrate(config)
    found = portl.verify(config, mode=mode)
    assert (found.equal, found.tables[0].rows, found.tables[0].rows_source) == (True, (), 20)
    destination.execute("UPDATE t SET n = n + 0.01, digits = 0 WHERE key = 4")
    (row,) = portl.verify(config, mode=mode).tables[0].rows
    assert (dict(row.key), sorted(row.columns)) == ({"key": "4"}, ["digits", "n"])


def test_a_query_with_conversions_by_using_is_compared(source: Db, destination: Db) -> None:
    users(source)
    config = job(
        source,
        destination,
        src={"table": None, "query": "SELECT id, name, 1 AS one FROM t WHERE id < 4"},
        dst={"primary_key": ["id"]},
        types=[{"column": "name", "to": "int", "using": "length(name)"}],
    )
    portl.migrate(config)
    assert portl.verify(config).equal
    destination.execute("UPDATE t SET name = 7 WHERE id = 2")
    assert counts(portl.verify(config)) == (0, 1, 0)


def test_a_value_that_the_destination_refuses_is_a_missing_row(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, '5'), (2, 'x'), (3, '07')")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 5), (3, 7)")
    found = portl.verify(job(source, destination))
    assert counts(found) == (1, 0, 0)
    assert dict(found.tables[0].rows[0].key) == {"id": "2"}


def test_of_rows_with_one_key_the_last_counts_under_overwrite(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b'), (1, 'c')")
    config = job(source, destination, dst={"primary_key": ["id"]})
    portl.migrate(config)
    found = portl.verify(config)
    assert (found.equal, found.tables[0].repeated) == (True, 1)
    assert "of source rows with the same key, the last was compared" in found.tables[0].notes
    assert portl.verify(config, mode="count").equal
    destination.execute("UPDATE t SET v = 'a' WHERE id = 1")
    assert counts(portl.verify(config)) == (0, 1, 0)
    assert portl.verify(config, repair=True).equal
    assert destination.execute("SELECT * FROM t ORDER BY id") == [(1, "c"), (2, "b")]


@pytest.mark.parametrize("strategy", ["skip", "merge"])
def test_under_skip_and_merge_missing_rows_count_and_different_ones_are_reported(
    source: Db, destination: Db, strategy: str
) -> None:
    users(source)
    users(destination)
    destination.execute("UPDATE t SET name = 'own' WHERE id = 1")
    config = job(source, destination, conflict=strategy)
    found = portl.verify(config)
    assert (found.equal, counts(found)) == (True, (0, 1, 0))
    assert found.tables[0].notes
    destination.execute("DELETE FROM t WHERE id = 2")
    assert not portl.verify(config).equal
    assert portl.verify(config, repair=True).equal
    assert destination.value("SELECT name FROM t WHERE id = 1") == "own"


# Which rows differ


@MODES
def test_missing_extra_and_different_rows_are_named(source: Db, destination: Db, mode: str) -> None:
    users(source)
    config = job(source, destination)
    portl.migrate(config)
    destination.execute("DELETE FROM t WHERE id = 2; UPDATE t SET name = NULL WHERE id = 3")
    destination.execute("INSERT INTO t VALUES (9, 'other')")
    found = portl.verify(config, mode=mode)
    rows = {(row.kind, row.key["id"]): dict(row.columns) for row in found.tables[0].rows}
    assert rows == {
        ("missing", "2"): {},
        ("extra", "9"): {},
        ("different", "3"): {"name": ("user 3", None)},
    }
    assert found.summary() == "not equal: 5 rows of the source, 1 missing, 1 different, 1 extra"
    assert json.loads(json.dumps(found.to_dict()))["tables"][0]["missing"] == 1


def test_extra_rows_beside_a_key_are_listed_and_do_not_count(source: Db, destination: Db) -> None:
    users(source)
    users(destination, 7)
    found = portl.verify(job(source, destination))
    assert (found.equal, counts(found)) == (True, (0, 0, 2))


def test_one_changed_row_in_a_hundred_thousand_is_found(source: Db, destination: Db) -> None:
    for db in (source, destination):
        users(db, 100_000)
        db.execute("ANALYZE t")
    for ids in ([77_777], [1, 50_000, 100_000], list(range(1, 100_001, 777))):
        destination.execute("UPDATE t SET at = at + interval '1 microsecond' WHERE id = ANY(%s)", ids)
        found = portl.verify(job(source, destination), named=1000)
        assert sorted(int(row.key["id"] or 0) for row in found.tables[0].rows) == ids
        assert {name for row in found.tables[0].rows for name in row.columns} == {"at"}
        destination.execute("UPDATE t SET at = at - interval '1 microsecond' WHERE id = ANY(%s)", ids)


def test_values_swapped_between_two_rows_are_found(source: Db, destination: Db) -> None:
    for db in (source, destination):
        users(db)
    destination.execute("UPDATE t SET name = 'user ' || CASE id WHEN 1 THEN 2 ELSE 1 END WHERE id < 3")
    assert counts(portl.verify(job(source, destination))) == (0, 2, 0)


@MODES
def test_rows_without_a_key_are_compared_as_multisets(source: Db, destination: Db, mode: str) -> None:
    source.execute("CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x'), (1, 'x'), (1, 'x'), (NULL, '')")
    config = job(source, destination, conflict="fail")
    portl.migrate(config)
    assert portl.verify(config, mode=mode).equal
    destination.execute("INSERT INTO t SELECT * FROM t")
    found = portl.verify(config, mode=mode)
    assert (found.equal, counts(found)) == (False, (0, 0, 4))
    destination.execute("DELETE FROM t; INSERT INTO t VALUES (1, 'x'), (NULL, NULL)")
    found = portl.verify(config, mode=mode)
    assert counts(found) == (3, 0, 1)
    kinds = Counter((row.kind, row.key["a"], row.key["b"]) for row in found.tables[0].rows)
    assert kinds == {("missing", "1", "x"): 2, ("missing", None, ""): 1, ("extra", None, None): 1}
    found = portl.verify(config, mode=mode, repair=True)
    assert (counts(found), found.repaired) == ((0, 0, 1), 3)


@pytest.mark.system
@pytest.mark.parametrize("newer_to_older", [True, False], ids=["C to ICU", "ICU to C"])
def test_composite_text_keys_under_different_collations(source: Db, system: Db, newer_to_older: bool) -> None:
    for db, collation in ((source, '"C"'), (system, '"und-x-icu"')):
        db.execute(
            f"CREATE TABLE t (a text COLLATE {collation}, b text COLLATE {collation}, v int, PRIMARY KEY (b, a))"
        )
    source, destination = (source, system) if newer_to_older else (system, source)
    source.execute("INSERT INTO t SELECT chr(64 + g % 60), repeat('ä-_ ', g), g FROM generate_series(1, 300) AS g")
    config = job(source, destination)
    portl.migrate(config)
    assert portl.verify(config).equal
    destination.execute("UPDATE t SET v = 0 WHERE v = 7; DELETE FROM t WHERE v = 8")
    assert counts(portl.verify(config)) == (1, 1, 0)
    assert portl.verify(config, repair=True).equal


HOSTILE = ['a"b', "sel ect", "c1", "portl_order", "%s$1", "é\\", "portl_key", "'"]


def test_hostile_names(source: Db, destination: Db) -> None:
    names = [sql.Identifier(name).as_string(None) for name in HOSTILE]
    columns = ", ".join(f"{name} text" for name in names)
    source.execute(f'CREATE TABLE "t\'""x" ({columns}, PRIMARY KEY ({names[0]}))')
    source.execute(f'INSERT INTO "t\'""x" VALUES ({", ".join(["%s"] * 8)})', *HOSTILE)
    config = job(source, destination, "t'\"x")
    portl.migrate(config)
    assert portl.verify(config).equal
    destination.execute('DELETE FROM "t\'""x"')
    found = portl.verify(config)
    assert dict(found.tables[0].rows[0].key) == {'a"b': 'a"b'}
    assert portl.verify(config, repair=True).equal


@pytest.mark.parametrize("mode", ["count", "checksum", "full"])
def test_empty_tables_are_equal_and_an_empty_destination_lacks_everything(
    source: Db, destination: Db, mode: str
) -> None:
    for db in (source, destination):
        users(db, 0)
    assert portl.verify(job(source, destination), mode=mode).equal
    source.execute("INSERT INTO t VALUES (1)")
    found = portl.verify(job(source, destination), mode=mode)
    assert (found.equal, counts(found)) == (False, (1, 0, 0))


def test_a_count_sees_numbers_alone(source: Db, destination: Db) -> None:
    users(source)
    users(destination)
    destination.execute("UPDATE t SET name = ''")
    config = job(source, destination, verify="count")
    found = portl.verify(config)
    assert (found.equal, found.tables[0].mode) == (True, "count")
    destination.execute("DELETE FROM t WHERE id > 3")
    assert counts(portl.verify(config)) == (2, 0, 0)


def test_values_of_masked_columns_are_not_shown(source: Db, destination: Db) -> None:
    for db in (source, destination):
        users(db)
    destination.execute("UPDATE t SET name = 'hush' WHERE id = 1")
    found = portl.verify(job(source, destination, mask=["name"]))
    (row,) = found.tables[0].rows
    assert list(row.columns) == ["name"]
    assert "hush" not in repr(found) + json.dumps(found.to_dict())
    assert "user 1" not in repr(found)


# Errors


def test_a_destination_that_does_not_exist_is_an_error(source: Db, destination: Db) -> None:
    users(source)
    with pytest.raises(portl.SchemaError, match=r"there is no table public\.t to compare with"):
        portl.verify(job(source, destination))


def test_a_role_without_select_at_the_destination_is_told_what_it_needs(source: Db, destination: Db) -> None:
    for db in (source, destination):
        users(db)
    role = f"portl_verify_{next(NUMBERS)}"
    destination.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT INSERT ON t TO {role}")
    try:
        for mode in ("count", "checksum", "full"):
            with pytest.raises(portl.PermissionDenied, match="permission denied for table t") as caught:
                portl.verify(job(source, destination, dst={"username": role, "password": "x"}), mode=mode)
            assert "the destination's role needs SELECT on public.t" in str(caught.value)
    finally:
        destination.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_role_that_may_only_read_both_sides_can_verify(source: Db, destination: Db) -> None:
    for db in (source, destination):
        users(db)
    role = f"portl_verify_{next(NUMBERS)}"
    destination.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT SELECT ON t TO {role}")
    try:
        assert portl.verify(job(source, destination, dst={"username": role, "password": "x"})).equal
    finally:
        destination.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_columns_that_no_longer_fit_are_a_problem_of_the_plan(source: Db, destination: Db) -> None:
    users(source)
    users(destination)
    destination.execute("ALTER TABLE t DROP COLUMN at")
    with pytest.raises(portl.PlanError, match="has no such column"):
        portl.verify(job(source, destination))


def test_an_unknown_mode_is_refused(source: Db, destination: Db) -> None:
    with pytest.raises(portl.ConfigError, match="mode: expected one of count, checksum, full, found 'fast'"):
        portl.verify(job(source, destination), mode="fast")


# Repair


def test_a_repair_touches_the_rows_that_differ_and_no_others(source: Db, destination: Db) -> None:
    users(source, 3000)
    config = job(source, destination)
    portl.migrate(config)
    destination.execute("DELETE FROM t WHERE id IN (5, 2999); UPDATE t SET name = '' WHERE id = 7")
    destination.execute("INSERT INTO t VALUES (0, 'other')")
    before = dict(destination.execute("SELECT id, xmin::text FROM t"))
    found = portl.verify(config, repair=True)
    assert (found.equal, found.repaired, counts(found)) == (True, 3, (0, 0, 1))
    after = dict(destination.execute("SELECT id, xmin::text FROM t"))
    assert {id for id in after if after[id] != before.get(id)} == {5, 7, 2999}
    assert set(before) <= set(after)


def test_an_equal_table_is_not_written_to_by_a_repair(source: Db, destination: Db) -> None:
    users(source)
    config = job(source, destination)
    portl.migrate(config)
    before = destination.execute("SELECT id, xmin::text FROM t")
    assert portl.verify(config, repair=True).repaired == 0
    assert destination.execute("SELECT id, xmin::text FROM t") == before


@pytest.mark.parametrize("route", ["relay", "rows"])
def test_a_repair_goes_by_the_route_of_the_job(source: Db, destination: Db, route: str) -> None:
    users(source)
    config = job(source, destination, route=route, schema_mapping={"name": "called"})
    portl.migrate(config)
    destination.execute("DELETE FROM t WHERE id < 3")
    assert portl.verify(config, repair=True).equal
    assert destination.execute("SELECT * FROM t ORDER BY id") == source.execute("SELECT * FROM t ORDER BY id")


# Random mutations

VALUES = st.sampled_from([None, "", "NULL", "a", "a ", "1.0", "1.00", "ä", "\\N", "\t", "{}", '"'])
MUTATIONS = st.lists(
    st.tuples(st.sampled_from(["delete", "insert", "update"]), st.integers(0, 19), st.sampled_from("vw"), VALUES),
    max_size=6,
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutations=MUTATIONS, mode=st.sampled_from(["checksum", "full"]))
def test_random_changes_of_a_copy_are_reported_exactly(
    source: Db, destination: Db, mutations: list[tuple[str, int, str, str | None]], mode: str
) -> None:
    for db in (source, destination):
        db.execute("DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, v text, w text)")
        db.execute(
            "INSERT INTO t SELECT g, 'a', CASE WHEN g % 2 = 0 THEN '1.0' END FROM generate_series(0, 19, 2) AS g"
        )
    for what, id, column, value in mutations:
        if what == "delete":
            destination.execute("DELETE FROM t WHERE id = %s", id)
        elif what == "insert":
            destination.execute("INSERT INTO t (id, v) VALUES (%s, %s) ON CONFLICT DO NOTHING", id, value)
        else:
            destination.execute(f"UPDATE t SET {column} = %s WHERE id = %s", value, id)
    ours, theirs = (dict_of(db) for db in (source, destination))
    expected: dict[tuple[str, str], Mapping[str, Any]] = {}
    for id in {*ours, *theirs}:
        if id not in theirs:
            expected["missing", str(id)] = {}
        elif id not in ours:
            expected["extra", str(id)] = {}
        elif ours[id] != theirs[id]:
            pairs = zip("vw", ours[id], theirs[id], strict=True)
            expected["different", str(id)] = {name: (a, b) for name, a, b in pairs if a != b}
    found = portl.verify(job(source, destination), mode=mode)
    assert {(row.kind, row.key["id"]): dict(row.columns) for row in found.tables[0].rows} == expected
    assert sum(counts(found)) == len(expected)


def dict_of(db: Db) -> dict[int, tuple[Any, ...]]:
    return {id: rest for id, *rest in db.execute("SELECT id, v, w FROM t")}  # type: ignore[misc]


# The command


def test_the_command_prints_what_differs_at_eighty_columns(source: Db, destination: Db, tmp_path: Path) -> None:
    for db in (source, destination):
        users(db)
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(job(source, destination)), encoding="utf-8")

    def run(*options: str) -> tuple[int, str]:
        found = CliRunner().invoke(command, [str(path), *options], standalone_mode=False)
        return found.return_value, found.output

    code, output = run()
    assert code == 0
    assert output.splitlines()[:2] == [
        "public.t -> public.t (checksum)",
        "  rows       5 at the source, 5 at the destination",
    ]
    destination.execute("UPDATE t SET name = repeat('long \x1b', 100) WHERE id = 1; DELETE FROM t WHERE id = 2")
    code, output = run()
    assert code == 1
    assert "  missing    id = '2'" in output.splitlines()
    assert "not equal: 5 rows of the source, 1 missing, 1 different" in output
    assert all(len(line) <= 80 and "\x1b" not in line for line in output.splitlines())
    code, output = run("--json", "--full")
    assert (code, json.loads(output)["tables"][0]["mode"]) == (1, "full")
    assert run("--repair")[0] == 0
    path.write_text("source: {}", encoding="utf-8")
    assert run()[0] == 2


def test_a_repair_waits_for_an_interrupted_run_to_be_ended(source: Db, destination: Db) -> None:
    users(source, 300)
    config = {**job(source, destination), "chunk_rows": 100, "batch_size": 100, "parallel": 1}
    with pytest.raises(ZeroDivisionError):
        portl.migrate(config, observers=[lambda event: 1 // (not isinstance(event, portl.BatchCommitted))])
    assert portl.verify(config).tables[0].missing == 200
    with pytest.raises(portl.LedgerError, match="was interrupted: rows that it has yet to copy are not missing"):
        portl.verify(config, repair=True)
    portl.migrate(config)
    assert portl.verify(config, repair=True).repaired == 0
    assert destination.value("SELECT count(*) FROM t") == 300


def test_a_repair_is_refused_while_the_job_runs(source: Db, destination: Db) -> None:
    users(source, 300)
    config = {**job(source, destination), "chunk_rows": 100, "parallel": 1}
    refused: list[portl.AlreadyRunning] = []

    def second(event: portl.Event) -> None:
        if isinstance(event, portl.BatchCommitted) and not refused:
            with pytest.raises(portl.AlreadyRunning) as caught:
                portl.verify(config, repair=True)
            refused.append(caught.value)

    portl.migrate(config, observers=[second])
    assert len(refused) == 1


@pytest.mark.parametrize("slow", ["source", "destination"])
def test_a_comparison_is_cancelled_at_both_sides(source: Db, destination: Db, slow: str) -> None:
    users(source, 10)
    config = job(source, destination)
    portl.migrate(config)
    db = source if slow == "source" else destination
    db.execute(
        "ALTER TABLE t RENAME TO real; CREATE VIEW t AS SELECT id, name, at FROM real WHERE pg_sleep(30) IS NULL"
    )
    token = portl.CancelToken()
    threading.Timer(1.5, token.cancel).start()
    with pytest.raises(portl.Cancelled):
        portl.verify(config, cancel=token, mode="full")
    running = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'portl' AND state = 'active'"
    for _ in range(100):
        if (source.value(running), destination.value(running)) == (0, 0):
            break
        time.sleep(0.05)
    assert (source.value(running), destination.value(running)) == (0, 0)
