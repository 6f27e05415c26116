"""What converts to what: the verdicts, and that each conversion does what its verdict says."""

from __future__ import annotations

from typing import Any

import pytest

import portl
from portl import Kind, Risk, Type, Verdict
from portl_postgres.catalog.spellings import spelled
from tests.postgres.types import generic
from tests.servers import Db


def job(source: Db, destination: Db, **keys: Any) -> dict[str, Any]:
    return {"source": source.end(table="t"), "destination": destination.end(table="t"), "conflict": "fail", **keys}


def findings(plan: portl.Plan) -> list[str]:
    return [str(finding) for finding in (*plan.problems, *plan.warnings)]


# The table of the specification, its aliases, parameters.

SPECIFIED = [
    ("integer", "int"),
    ("int4", "int"),
    ("INT", "int"),
    ("bigint", "bigint"),
    ("int8", "bigint"),
    ("smallint", "smallint"),
    ("int2", "smallint"),
    ("numeric", "decimal"),
    ("decimal", "decimal"),
    ("numeric(12,2)", "decimal(12, 2)"),
    ("numeric( 3 , -2 )", "decimal(3, -2)"),
    ("decimal(5)", "decimal(5, 0)"),
    ("real", "float"),
    ("float4", "float"),
    ("float(24)", "float"),
    ("double precision", "double"),
    ("float8", "double"),
    ("float", "double"),
    ("varchar", "varchar"),
    ("character varying", "varchar"),
    ("character varying(20)", "varchar(20)"),
    ("varchar(7)", "varchar(7)"),
    ("char", "char(1)"),
    ("character", "char(1)"),
    ("character(3)", "char(3)"),
    ("bpchar", "char"),
    ('"char"', "text"),
    ("text", "text"),
    ("boolean", "boolean"),
    ("bool", "boolean"),
    ("bytea", "binary"),
    ("date", "date"),
    ("time", "time"),
    ("time(3) without time zone", "time(3)"),
    ("timetz", "timetz"),
    ("time with time zone", "timetz"),
    ("timestamp", "timestamp"),
    ("timestamp without time zone", "timestamp"),
    ("timestamp(0)", "timestamp(0)"),
    ("timestamptz", "timestamptz"),
    ("timestamp(3) with time zone", "timestamptz(3)"),
    ("interval", "interval"),
    ("interval day to second(3)", "interval(3)"),
    ("json", "json"),
    ("jsonb", "jsonb"),
    ("uuid", "uuid"),
    ("integer[]", "array of int"),
    ("varchar(3)[][4]", "array of varchar(3)"),
    ("numeric(5,2) ARRAY[3]", "array of decimal(5, 2)"),
    ("inet", "text"),
    ("tsvector[]", "array of text"),
]


def test_a_native_type_has_the_generic_type_of_the_specification(source: Db) -> None:
    source.execute(
        f"CREATE TABLE t ({', '.join(f'c{number} {native}' for number, (native, _) in enumerate(SPECIFIED))})"
    )
    plan = portl.plan({"source": source.end(table="t"), "destination": source.end(table="u"), "conflict": "fail"})
    found = [str(column.type) for column in plan.tables[0].source.columns]
    assert dict(zip(SPECIFIED, found, strict=True)) == {(native, generic): generic for native, generic in SPECIFIED}


def _types() -> list[Type]:
    plain = [Type(kind=kind) for kind in Kind if kind is not Kind.ARRAY]
    clocks = [
        Type(kind=k, precision=3) for k in (Kind.TIME, Kind.TIMETZ, Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.INTERVAL)
    ]
    others = [
        Type(kind=Kind.CHAR, length=3),
        Type(kind=Kind.VARCHAR, length=9),
        Type(kind=Kind.DECIMAL, precision=10, scale=2),
        Type(kind=Kind.DECIMAL, precision=3, scale=-2),
    ]
    return [*plain, *clocks, *others, *(Type(kind=Kind.ARRAY, element=t) for t in (*plain, *others))]


def test_every_generic_type_has_a_native_one_that_the_server_reads_back_alike(source: Db) -> None:
    natives = [spelled(type) for type in _types()]
    source.execute(f"CREATE TABLE t ({', '.join(f'c{number} {native}' for number, native in enumerate(natives))})")
    plan = portl.plan({"source": source.end(table="t"), "destination": source.end(table="u"), "conflict": "fail"})
    assert [column.type for column in plan.tables[0].source.columns] == _types()


# The verdicts.

KINDS = {name: generic(name) for name in (
    "smallint", "int", "bigint", "numeric", "numeric(4,0)", "numeric(10,2)", "numeric(12,1)", "numeric(5,-2)", "real",
    "double precision", "boolean", "char(3)", "varchar(5)", "varchar(40)", "text", "bytea", "date", "time", "timetz",
    "timestamp", "timestamp(0)", "timestamptz", "interval", "uuid", "json", "jsonb", "int[]", "bigint[]", "text[]",
)}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("smallint", "int", ""),
        ("int", "smallint", "overflow"),
        ("int", "bigint", ""),
        ("bigint", "int", "overflow"),
        ("int", "numeric", ""),
        ("int", "numeric(10,2)", "overflow"),
        ("smallint", "numeric(10,2)", ""),
        ("smallint", "numeric(5,-2)", "precision"),
        ("int", "double precision", ""),
        ("int", "real", "precision"),
        ("bigint", "double precision", "precision"),
        ("numeric", "int", "overflow precision"),
        ("numeric(4,0)", "int", "overflow"),
        ("numeric(5,-2)", "int", "overflow"),
        ("numeric(10,2)", "bigint", "overflow precision"),
        ("numeric(10,2)", "numeric", ""),
        ("numeric", "numeric(10,2)", "overflow precision"),
        ("numeric(10,2)", "numeric(12,1)", "precision"),
        ("numeric(12,1)", "numeric(10,2)", "overflow"),
        ("numeric", "double precision", "precision overflow"),
        ("real", "double precision", ""),
        ("double precision", "real", "precision overflow"),
        ("double precision", "int", "precision overflow"),
        ("double precision", "numeric", "precision overflow"),
        ("varchar(5)", "varchar(40)", ""),
        ("varchar(40)", "varchar(5)", "truncation"),
        ("text", "varchar(40)", "truncation"),
        ("char(3)", "varchar(5)", ""),
        ("uuid", "varchar(40)", ""),
        ("uuid", "varchar(5)", "truncation"),
        ("boolean", "varchar(5)", ""),
        ("boolean", "char(3)", "truncation"),
        ("bigint", "varchar(5)", "truncation"),
        ("text", "int", "form"),
        ("text", "numeric(10,2)", "form precision"),
        ("text", "real", "form precision"),
        ("text", "timestamp(0)", "form precision"),
        ("text", "jsonb", "form"),
        ("bytea", "text", "impossible"),
        ("text", "bytea", "form"),
        ("json", "jsonb", "form"),
        ("jsonb", "json", ""),
        ("json", "text", ""),
        ("json", "int", "impossible"),
        ("date", "timestamp", ""),
        ("date", "timestamptz", "zone"),
        ("timestamp", "timestamptz", "zone"),
        ("timestamptz", "timestamp", "zone"),
        ("timestamptz", "date", "precision zone"),
        ("timestamp", "time", "precision"),
        ("timestamp", "timestamp(0)", "precision"),
        ("timestamp(0)", "timestamp", ""),
        ("time", "interval", ""),
        ("interval", "time", "impossible"),
        ("boolean", "int", "impossible"),
        ("int", "boolean", "impossible"),
        ("uuid", "int", "impossible"),
        ("int[]", "bigint[]", ""),
        ("bigint[]", "int[]", "overflow"),
        ("int[]", "int", "impossible"),
        ("int[]", "text", ""),
        ("text", "int[]", "form"),
    ],
)
def test_the_verdict_names_the_risk(source: str, target: str, expected: str) -> None:
    verdict = portl.conversion(KINDS[source], KINDS[target])
    found = "impossible" if verdict.verdict is Verdict.IMPOSSIBLE else " ".join(verdict.risks)
    assert found == expected


def test_each_type_becomes_itself_without_loss_and_each_verdict_explains_its_risks() -> None:
    for source in KINDS.values():
        assert portl.conversion(source, source) == portl.Conversion.of()
        for target in KINDS.values():
            verdict = portl.conversion(source, target)
            assert bool(verdict.explanation) == (verdict.verdict is Verdict.LOSSY)
            assert verdict.explanation.count(";") == max(0, len(verdict.risks) - 1)


# What the verdicts promise, kept on a server. Each case: types, a value that goes, what comes of it, one that does not.

LOSSY = [
    ("bigint", "integer", "7", "7", "3000000000", "out of range"),
    ("integer", "smallint", "7", "7", "40000", "out of range"),
    ("integer", "numeric(3,0)", "999", "999", "1000", "numeric field overflow"),
    ("bigint", "double precision", "9007199254740993", "9.007199254740992e+15", None, ""),
    ("numeric", "integer", "2.5", "3", "NaN", "NaN"),
    ("numeric", "bigint", "-9223372036854775808", "-9223372036854775808", "9223372036854775808", "out of range"),
    ("numeric", "numeric(5,2)", "1.235", "1.24", "1000", "numeric field overflow"),
    ("numeric", "double precision", "0.1", "0.1", "1e400", "out of range"),
    ("numeric", "real", "0.1", "0.1", "1e-60", "out of range"),
    ("double precision", "bigint", "9.007199254740992e+15", "9007199254740992", "1e19", "bigint"),
    ("double precision", "bigint", "-9223372036854775808", "-9223372036854775808", "Infinity", "bigint"),
    ("double precision", "integer", "2.5", "2", "NaN", "integer"),
    ("double precision", "smallint", "-1.6", "-2", "1e5", "out of range"),
    ("double precision", "numeric", "0.12345678901234568", "0.12345678901234568", None, ""),
    ("double precision", "real", "0.1", "0.1", "1e300", "out of range"),
    ("real", "integer", "16777216", "16777216", "3e9", "out of range"),
    ("text", "character varying(3)", "äöü", "äöü", "abcd", "too long"),
    ("text", "character(3)", "ab", "ab ", "abcd", "too long"),
    ("integer", "character varying(3)", "123", "123", "1234", "too long"),
    ("text[]", "character varying(3)[]", "{abc,NULL}", "{abc,NULL}", "{abcd}", "too long"),
    ("text", "integer", "12", "12", "twelve", "invalid input syntax"),
    ("text", "uuid", "a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "x", "uuid"),
    ("text", "date", "2024-02-29", "2024-02-29", "2023-02-29", "out of range"),
    ("text", "jsonb", '{"b":1,"a":2}', '{"a": 2, "b": 1}', "{", "json"),
    ("json", "jsonb", '{"b":1, "a":2, "b":3}', '{"a": 2, "b": 3}', '"\\u0000"', "\\u0000"),
    ("text", "numeric(5,2)", "1.235", "1.24", "1000", "overflow"),
    ("timestamp", "timestamp(0)", "2024-01-01 00:00:00.6", "2024-01-01 00:00:01", None, ""),
    ("timestamp", "date", "2024-01-01 23:59:59", "2024-01-01", None, ""),
    ("timestamp", "time", "2024-01-01 23:59:59.5", "23:59:59.5", "infinity", "infinity"),
    ("interval", "interval year to month", "1 year 2 mons 3 days", "1 year 2 mons", None, ""),
    ("interval", "interval day to minute", "1 day 00:00:59", "1 day", None, ""),
    ("inet", "cidr", "10.0.0.0/8", "10.0.0.0/8", "10.1.0.0/8", "invalid cidr"),
    ("bit(4)", "bit(3)", None, None, "1011", "does not match type"),
    ("bit varying", "bit varying(3)", "101", "101", "1011", "too long"),
    ("bit varying", "bit(3)", "101", "101", "1011", "does not match type"),
    ("oid", "integer", "7", "7", "4294967295", "out of range"),
    ("bigint[]", "integer[]", "{1,NULL}", "{1,NULL}", "{3000000000}", "out of range"),
]


@pytest.mark.parametrize("route", ["relay", "rows"])
def test_a_lossy_conversion_is_warned_of_and_refuses_at_the_destination_what_does_not_fit(
    source: Db, destination: Db, route: str
) -> None:
    for number, (left, right, good, arrives, bad, words) in enumerate(LOSSY):
        table = f"t{number}"
        keys = {"route": route, "batch_size": 2, "conflict": "fail"}
        config = {"source": source.end(table=table), "destination": destination.end(table=table), **keys}
        source.execute(f"CREATE TABLE {table} (id int, v {left})")
        source.execute(
            f"INSERT INTO {table} VALUES (10, {'NULL' if good is None else repr(good)})".replace("\\\\", "\\")
        )
        source.execute(f"INSERT INTO {table} VALUES (11, NULL), (12, NULL)")
        if bad is not None:
            source.execute(f"INSERT INTO {table} VALUES (13, '{bad}')")
        destination.execute(f"CREATE TABLE {table} (id int, v {right})")
        plan = portl.plan(config)
        _, field = plan.tables[0].fields
        assert findings(plan) == [
            f"column 'v': {field.sent.native} to {field.target.native}: {field.conversion.explanation}"
        ], (left, right)
        arrived = f"SELECT format('%s', v) FROM {table} WHERE id = 10"
        if bad is None:
            plan.execute()
            assert destination.execute(arrived) == [(arrives or "",)], (left, right)
            continue
        with pytest.raises(portl.DataError) as caught:
            plan.execute()
        assert destination.execute(arrived) == [(arrives or "",)], (left, right)
        assert caught.value.message.startswith("row 4 of the source (batch 2) with id = 13: destination"), (left, right)
        assert words in caught.value.message
        assert caught.value.row == 4
        assert destination.execute(f"SELECT id FROM {table} ORDER BY 1") == [(10,), (11,)]


LOSSLESS = [
    ("integer", "bigint", "-5", "-5"),
    ("bigint", "numeric", "9223372036854775807", "9223372036854775807"),
    ("smallint", "numeric(10,2)", "-32768", "-32768.00"),
    ("real", "double precision", "0.5", "0.5"),
    ("integer", "text", "5", "5"),
    ("boolean", "text", "t", "true"),
    ("boolean", "character varying(5)", "f", "false"),
    ("boolean[]", "character(5)[]", "{f,t}", '{false,"true "}'),
    ("character varying(3)[]", "character(5)[]", "{abc}", '{"abc  "}'),
    ("character varying(3)", "character varying(9)", "a\tb", "a\tb"),
    ("character(5)", "text", "ab", "ab"),
    ("name", "text", "ab", "ab"),
    ("character varying(15)", "name", "ääääääääääääääa", "ääääääääääääääa"),
    ("uuid", "name", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("jsonb", "json", '{"a": 1}', '{"a": 1}'),
    ("date", "timestamp", "0044-03-15 BC", "0044-03-15 00:00:00 BC"),
    ("time", "interval", "24:00", "24:00:00"),
    ("cidr", "inet", "10.0.0.0/8", "10.0.0.0/8"),
    ("bit(3)", "bit varying(4)", "101", "101"),
    ("interval year", "interval", "3 years", "3 years"),
    ("integer[]", "bigint[]", "[5:6]={1,NULL}", "[5:6]={1,NULL}"),
    ("int4range", "text", "[1,5)", "[1,5)"),
    ("oid", "bigint", "4294967295", "4294967295"),
]  # fmt: skip


@pytest.mark.parametrize("route", ["relay", "rows"])
def test_a_lossless_conversion_says_nothing_and_keeps_the_value(source: Db, destination: Db, route: str) -> None:
    columns = [(f"c{number}", *case) for number, case in enumerate(LOSSLESS)]
    source.execute(f"CREATE TABLE t ({', '.join(f'{name} {left}' for name, left, *_ in columns)})")
    values = ", ".join(f"'{value}'" for *_, value, _ in columns)
    source.execute(f"INSERT INTO t VALUES ({values})")
    source.execute("INSERT INTO t DEFAULT VALUES")
    destination.execute(f"CREATE TABLE t ({', '.join(f'{name} {right}' for name, _, right, *_ in columns)})")
    plan = portl.plan(job(source, destination, route=route))
    assert findings(plan) == []
    assert {field.conversion.verdict for field in plan.tables[0].fields} == {Verdict.LOSSLESS}
    assert plan.execute().rows_inserted == 2
    shown = ", ".join(f"format('%s', {name})" for name, *_ in columns)
    arrived, nothing = destination.execute(f"SELECT {shown} FROM t ORDER BY c0 NULLS LAST")
    assert dict(zip(LOSSLESS, arrived, strict=True)) == {case: case[3] for case in LOSSLESS}
    assert set(nothing) == {""}


IMPOSSIBLE = [
    ("bytea", "text"),
    ("boolean", "integer"),
    ("integer", "boolean"),
    ("money", "numeric"),
    ("integer", "oid"),
    ("text", "name"),
    ("character varying(16)", "name"),
    ("text", '"char"'),
    ("integer", "integer[]"),
    ("point", "box"),
    ("timestamp with time zone", "time with time zone"),
    ("int4range", "int8range"),
    ("tsvector", "jsonb"),
]


def test_an_impossible_conversion_is_a_problem_that_says_what_to_do(source: Db, destination: Db) -> None:
    columns = [(f"c{number}", *case) for number, case in enumerate(IMPOSSIBLE)]
    source.execute(f"CREATE TABLE t ({', '.join(f'{name} {left}' for name, left, _ in columns)})")
    destination.execute(f"CREATE TABLE t ({', '.join(f'{name} {right}' for name, _, right in columns)})")
    assert findings(portl.plan(job(source, destination))) == [
        f"column '{name}': {left} to {right}: no conversion -> give one in `types` with `using`, or exclude the column"
        for name, left, right in columns
    ]


def test_a_zone_is_that_of_the_session(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (a timestamp, b timestamptz, c date)")
    source.execute("INSERT INTO t VALUES ('2024-01-01 12:00', '2024-01-01 12:00+00', '2024-01-01')")
    destination.execute("CREATE TABLE t (a timestamptz, b timestamp, c timestamptz)")
    config = job(source, destination)
    config["source"]["params"] = {"options": "-c TimeZone=Asia/Tokyo"}
    plan = portl.plan(config)
    assert (
        len(
            [
                text
                for text in findings(plan)
                if text.endswith(portl.conversion(KINDS["timestamp"], KINDS["timestamptz"]).explanation)
            ]
        )
        == 3
    )
    plan.execute()
    destination.execute("SET TimeZone = UTC")
    assert destination.execute("SELECT a::text, b::text, c::text FROM t") == [
        ("2024-01-01 03:00:00+00", "2024-01-01 21:00:00", "2023-12-31 15:00:00+00")
    ]


def test_spaces_at_the_end_are_no_length(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (v text)")
    source.execute("INSERT INTO t VALUES ('abc   ')")
    destination.execute("CREATE TABLE t (v varchar(4))")
    (said,) = findings(portl.plan(job(source, destination)))
    assert "never truncated" in said
    assert "spaces" in said
    portl.migrate(job(source, destination))
    assert destination.value("SELECT v FROM t") == "abc "


# User-made types on both sides.


def both(source: Db, destination: Db, statement: str) -> None:
    for db in (source, destination):
        db.execute(statement)


def test_an_enum_that_lacks_a_label_refuses_the_row_with_it(source: Db, destination: Db) -> None:
    source.execute("CREATE TYPE mood AS ENUM ('sad', 'ok', 'new'); CREATE TABLE t (id int, v mood)")
    destination.execute("CREATE TYPE mood AS ENUM ('ok', 'sad'); CREATE TABLE t (id int, v mood)")
    source.execute("INSERT INTO t VALUES (1, 'sad'), (2, 'new')")
    plan = portl.plan(job(source, destination))
    assert [f.conversion.risks for f in plan.tables[0].fields] == [(), (Risk.FORM,)]
    with pytest.raises(portl.DataError, match=r'row 2 .*id = 2: .*invalid input value for enum.* "new"'):
        plan.execute()
    source.execute("DELETE FROM t WHERE v = 'new'")
    portl.migrate(job(source, destination))
    assert destination.value("SELECT v::text FROM t") == "sad"


@pytest.mark.parametrize("route", ["relay", "rows"])
def test_a_domain_of_the_destination_refuses_what_it_forbids(source: Db, destination: Db, route: str) -> None:
    source.execute("CREATE TABLE t (id int, v int, w int[])")
    destination.execute("CREATE DOMAIN pos AS int CHECK (VALUE > 0); CREATE DOMAIN more AS pos")
    destination.execute("CREATE TABLE t (id int, v more, w pos[])")
    source.execute("INSERT INTO t VALUES (1, 1, '{2}')")
    plan = portl.plan(job(source, destination, route=route))
    assert [f.conversion.risks for f in plan.tables[0].fields] == [(), (Risk.FORM,), (Risk.FORM,)]
    plan.execute()
    assert destination.execute("SELECT v::int, w::int[] FROM t") == [(1, [2])]
    for bad in ("(2, -1, NULL)", "(2, NULL, '{5,-1}')"):
        source.execute(f"TRUNCATE t; INSERT INTO t VALUES {bad}")
        with pytest.raises(portl.DataError, match=r"row 1 .*id = 2: .*violates check constraint"):
            portl.migrate(job(source, destination, route=route))


def test_domains_of_one_name_over_different_types_are_converted(source: Db, destination: Db) -> None:
    source.execute("CREATE DOMAIN d AS int; CREATE TABLE t (v d); INSERT INTO t VALUES (5)")
    destination.execute("CREATE DOMAIN d AS bigint; CREATE TABLE t (v d)")
    portl.migrate(job(source, destination))
    assert destination.value("SELECT v::bigint FROM t") == 5


@pytest.mark.parametrize("route", ["relay", "rows"])
def test_composites_that_differ_in_a_type_go_by_their_text(source: Db, destination: Db, route: str) -> None:
    source.execute("CREATE TYPE p AS (a int, b text); CREATE TABLE t (id int, v p, w p[])")
    destination.execute("CREATE TYPE p AS (a smallint, b varchar(3)); CREATE TABLE t (id int, v p, w p[])")
    source.execute("INSERT INTO t VALUES (1, (5, 'abc'), ARRAY[(6, NULL)::p])")
    portl.migrate(job(source, destination, route=route))
    assert destination.execute("SELECT v::text, w::text FROM t") == [("(5,abc)", '{"(6,)"}')]
    source.execute("TRUNCATE t; INSERT INTO t VALUES (2, (5, 'abcd'), NULL)")
    with pytest.raises(portl.DataError, match=r"id = 2: .*too long"):
        portl.migrate(job(source, destination, route=route))


def test_composites_whose_attributes_stand_in_another_order_are_not_mixed_up(source: Db, destination: Db) -> None:
    source.execute("CREATE TYPE p AS (a int, b int); CREATE TABLE t (v p)")
    destination.execute("CREATE TYPE p AS (b int, a int); CREATE TABLE t (v p)")
    (problem,) = portl.plan(job(source, destination)).problems
    assert problem.message.endswith(": no conversion")


# `types:` in the job.


def test_a_rule_for_a_column_with_an_expression(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int, price text); INSERT INTO t VALUES (1, '12,349')")
    rule = {"column": "price", "to": "numeric(12,2)", "using": "replace(price, ',', '.')::numeric"}
    plan = portl.plan(job(source, destination, types=[rule]))
    assert plan.tables[0].preview == (("1", "12.35"),)
    plan.execute()
    assert destination.execute("SELECT price::text FROM t") == [("12.35",)]
    assert (
        destination.value("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attname = 'price'")
        == "numeric(12,2)"
    )


@pytest.mark.parametrize("route", ["relay", "rows"])
@pytest.mark.parametrize("types", [[{"type": "money", "to": "numeric"}], {"money": "numeric"}])
def test_a_rule_for_a_type_goes_for_each_column_of_it(source: Db, destination: Db, types: Any, route: str) -> None:
    source.execute("CREATE TABLE t (a money, b money, c int); INSERT INTO t VALUES ('1.50', NULL, 3)")
    portl.migrate(job(source, destination, types=types, route=route))
    assert destination.execute("SELECT a::text, b::text, c FROM t") == [("1.50", None, 3)]


def test_a_rule_for_a_column_goes_before_one_for_its_type(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (a int, b int); INSERT INTO t VALUES (1, 2)")
    types = [{"type": "integer", "to": "bigint"}, {"column": "b", "to": "text"}]
    portl.migrate(job(source, destination, types=types))
    assert destination.execute("SELECT pg_typeof(a)::text, pg_typeof(b)::text FROM t") == [("bigint", "text")]


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("route", ["relay", "rows"])
def test_a_rule_without_an_expression_cuts_nothing_and_names_the_row_that_does_not_fit(
    source: Db, destination: Db, existing: bool, route: str
) -> None:
    for number, (left, right, bad, risk) in enumerate(
        [
            ("text", "character varying(3)", "abcd", Risk.TRUNCATION),
            ("text", "integer", "x", Risk.FORM),
            ("bigint", "integer", "3000000000", Risk.OVERFLOW),
            ("numeric", "numeric(4,2)", "100", Risk.OVERFLOW),
            ("bit varying", "bit varying(2)", "101", Risk.TRUNCATION),
        ]
    ):
        table = f"t{number}"
        source.execute(f"CREATE TABLE {table} (id int, v {left}); INSERT INTO {table} VALUES (1, NULL), (2, '{bad}')")
        if existing:
            destination.execute(f"CREATE TABLE {table} (id int, v {right})")
        keys = {"route": route, "conflict": "fail", "types": [{"column": "v", "to": right}]}
        plan = portl.plan({"source": source.end(table=table), "destination": destination.end(table=table), **keys})
        assert risk in plan.tables[0].fields[1].conversion.risks
        assert any(text.startswith(f"column 'v': {left} to {right}: ") for text in findings(plan))
        with pytest.raises(portl.DataError, match=r"row 2 of the source .*id = 2"):
            plan.execute()


@pytest.mark.parametrize("route", ["relay", "rows"])
def test_a_rule_to_an_enum_that_only_the_destination_has(source: Db, destination: Db, route: str) -> None:
    destination.execute("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE t (id int, v mood, w mood)")
    source.execute("CREATE TABLE t (id int, v text, w int); INSERT INTO t VALUES (1, 'ok', 1)")
    rules = [
        {"column": "v", "to": "mood"},
        {"column": "w", "to": "mood", "using": "CASE w WHEN 1 THEN 'sad' ELSE 'no' END"},
    ]
    portl.migrate(job(source, destination, types=rules, route=route))
    assert destination.execute("SELECT v::text, w::text FROM t") == [("ok", "sad")]
    source.execute("TRUNCATE t; INSERT INTO t VALUES (2, 'no', 1)")
    with pytest.raises(portl.DataError, match=r'row 1 .*id = 2: .*invalid input value for enum mood: "no"'):
        portl.migrate(job(source, destination, types=rules, route=route))


def test_a_rule_that_the_source_cannot_read_is_a_problem_with_its_words(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (a int)")

    def said(**rule: str) -> str:
        return str(portl.plan(job(source, destination, types=[rule])).problems[0])

    assert said(column="a", to="text", using="nothing_such(a)").startswith(
        "types, column 'a': cannot convert to 'text' using 'nothing_such(a)':"
        " function nothing_such(integer) does not exist"
    )
    assert "the conversion to 'text); DROP TABLE t; --' cannot be read: a ) has no (" in said(
        column="a", to="text); DROP TABLE t; --"
    )
    assert said(column="b", to="text") == "types: the source has no column 'b' -> it has: a"
    assert said(column="a", to="nosuch") == (
        "column 'a': neither side has the type 'nosuch' -> use one that exists in `types`"
    )


def test_a_new_column_gets_a_type_that_only_the_destination_has(source: Db, destination: Db) -> None:
    destination.execute("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    source.execute("CREATE TABLE t (v text); INSERT INTO t VALUES ('ok')")
    portl.migrate(job(source, destination, types=[{"column": "v", "to": "mood"}]))
    assert destination.execute("SELECT v::text, pg_typeof(v)::text FROM t") == [("ok", "mood")]


def test_a_type_that_neither_side_has_is_a_problem_for_an_existing_table_too(source: Db, destination: Db) -> None:
    for db in (source, destination):
        db.execute("CREATE TABLE t (id int PRIMARY KEY, x text)")
    job = {"source": source.end(table="t"), "destination": destination.end(table="t")}
    plan = portl.plan({**job, "types": [{"column": "x", "to": "nosuch"}]})
    assert [str(p) for p in plan.problems] == [
        "column 'x': neither side has the type 'nosuch' -> use one that exists in `types`"
    ]


def test_a_rule_for_a_type_that_no_column_has_is_warned_of(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, x money)")
    job = {"source": source.end(table="t"), "destination": destination.end(table="t"), "types": {"monye": "numeric"}}
    assert (
        "types: no column is of the type 'monye', so this rule has no effect -> the source's types are: integer, money"
        in [str(warned) for warned in portl.plan(job).warnings]
    )
