"""Values of every type of PostgreSQL, as hypothesis draws them, and tables of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from psycopg import sql

from tests.servers import Db

NUMBERS = count()

# Characters that some layer may treat as its own: COPY's escapes, quotes, controls, planes beyond the first.
TEXTS = st.one_of(
    st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=12),
    st.lists(
        st.sampled_from(
            ["\\", "\\N", "\\.", "\t", "\n", "\r", '"', "'", "{", "}", ",", "NULL", "\x01", "\x7f", "𝄞", " "]
        ),
        max_size=8,
    ).map("".join),
)


def _of(*literals: str) -> st.SearchStrategy[str]:
    return st.sampled_from(literals)


def _whole(bits: int) -> st.SearchStrategy[str]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).map(str)


def _cents(cents: int) -> str:
    return f"{'-' if cents < 0 else ''}{abs(cents) // 100}.{abs(cents) % 100:02d}"


NUMERICS = st.one_of(
    st.decimals(allow_nan=False, min_value=-(10**40), max_value=10**40).map(str),
    _of(
        "Infinity",
        "-Infinity",
        "NaN",
        "0.000",
        "-0.00",
        "1" + "0" * 400,
        "1e131071",
        "1e-16383",
        "-1.5e-300",
        "1" * 900,
    ),
)
POINTS = st.tuples(st.integers(-99, 99), st.floats(-1e9, 1e9)).map(lambda p: f"({p[0]},{p[1]!r})")
JSONS = _of("{}", '{"b": 1, "a": [1.50, null, "\\u00e9\\n\\t"]}', "[1e400]", '"\\\\ \\" / "', "null", "12.3400", "-0")
HEX = st.binary(max_size=20).map(lambda data: "\\x" + data.hex())
BITS = st.text("01", max_size=40)
YEARS = _of("4713-01-01 BC", "0044-03-15 BC", "0001-01-01", "0999-12-31", "9999-12-31", "10000-01-01", "101112-10-10",
            "infinity", "-infinity", "2000-02-29")  # fmt: skip
MOMENTS = _of(
    "4713-11-24 00:00:00 BC", "0044-03-15 12:00:00.000001 BC", "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999",
    "294276-12-31 23:59:59.999999", "10000-01-01 00:00:00", "infinity", "-infinity", "2024-02-29 23:59:59.5",
)  # fmt: skip
CLOCKS = _of("00:00:00", "24:00:00", "23:59:59.999999", "12:00:00.1", "00:00:00.000001")
INTERVALS = st.one_of(
    st.tuples(
        st.integers(-(10**4), 10**4), st.integers(-(10**5), 10**5), st.integers(-(10**14), 10**14)
    ).map(lambda i: f"{i[0]} months {i[1]} days {i[2] // 10**6}.{abs(i[2]) % 10**6:06d} seconds"),
    _of("1 mon -1 day", "-1 year +2 mons", "178000000 years", "-00:00:00.000001", "2147483647 days", "infinity",
        "1 day -23:59:59", "-1 day", "00:00:00", "23:59:59.999999", "24:00:00", "-infinity"),
)  # fmt: skip

#: Every built-in type that a column may have, with values as the server reads them.
VALUES: Mapping[str, st.SearchStrategy[str]] = {
    "smallint": _whole(16),
    "integer": _whole(32),
    "bigint": _whole(64),
    "numeric": NUMERICS,
    "numeric(20,5)": st.decimals(min_value=-(10**14), max_value=10**14, places=5).map(str) | st.just("NaN"),
    "numeric(3,-2)": _of("12300", "-100", "0"),
    "real": st.floats(width=32).map(repr),
    "double precision": st.floats().map(repr),
    "money": st.integers(-(2**63), 2**63 - 1).map(_cents),
    "boolean": _of("t", "f"),
    "text": TEXTS,
    "character varying": TEXTS,
    "character varying(40)": TEXTS.map(lambda t: t[:40]),
    "character(9)": TEXTS.map(lambda t: t[:9]),
    "bpchar": TEXTS,
    "name": TEXTS.map(lambda t: t[:12]),
    '"char"': _of("a", "", "\\", " ", "\\200", "\\001", "{"),
    "bytea": HEX,
    "date": YEARS | st.dates().map(str),
    "time": CLOCKS | st.times().map(str),
    "time(2)": CLOCKS,
    "time with time zone": _of("24:00:00+15:59:59", "00:00:00-15:59:59", "12:00:00.5+05:30",
                               "23:59:59.999999-00:00:30"),
    "timestamp": MOMENTS | st.datetimes().map(str),
    # Rounded up, the last moment is one that the server cannot read back.
    "timestamp(0)": MOMENTS.filter(lambda t: t[:6] != "294276") | st.datetimes().map(str),
    "timestamp with time zone": MOMENTS.map(lambda t: t if "inf" in t or t.endswith("BC") else f"{t}+00"),
    "interval": INTERVALS,
    "interval year to month": INTERVALS,
    "uuid": st.uuids().map(str),
    "json": JSONS | _of(' { "b" : 1,  "a":2, "b":3 } '),
    "jsonb": JSONS,
    "jsonpath": _of("$.a[*] ? (@ > 1)", 'strict $."x y"'),
    "inet": _of("10.1.2.3/8", "::1", "10.0.0.1", "fe80::1/64", "0.0.0.0/0"),
    "cidr": _of("10.0.0.0/8", "::/0", "2001:db8::/32"),
    "macaddr": _of("08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"),
    "macaddr8": _of("08:00:2b:01:02:03:04:05"),
    "bit(5)": _of("00000", "10101"),
    "bit varying": BITS,
    "bit varying(40)": BITS,
    "point": POINTS,
    "line": _of("{1,-2,3.5}", "{0,1,0}"),
    "lseg": st.tuples(POINTS, POINTS).map(lambda p: f"[{p[0]},{p[1]}]"),
    "box": st.tuples(POINTS, POINTS).map(lambda p: f"{p[0]},{p[1]}"),
    "path": st.lists(POINTS, min_size=1, max_size=3).map(lambda p: f"[{','.join(p)}]"),
    "polygon": st.lists(POINTS, min_size=1, max_size=3).map(lambda p: f"({','.join(p)})"),
    "circle": POINTS.map(lambda p: f"<{p},2.5>"),
    "tsvector": _of("a:1A fat:2B,4C 'it''s':3", "", "'x \\\\ y'"),
    "tsquery": _of("fat & (rat | !cat:*A) <-> 'o''k'", ""),
    "int4range": _of("empty", "[1,5)", "(,)", "[,0]", "[7,7]"),
    "int8range": _of("[-9223372036854775808,5)", "empty"),
    "numrange": _of("[1.50,2.500]", "(NaN,)", "empty"),
    "daterange": _of("[2020-01-01,infinity]", "[0044-03-15 BC,2020-01-01)", "(,)"),
    "tsrange": _of('["2020-01-01 00:00:00","294276-12-31 23:59:59")', "empty"),
    "tstzrange": _of('["2020-01-01 00:00:00+00",infinity]'),
    "int4multirange": _of("{}", "{[1,3),[5,9)}", "{(,)}"),
    "nummultirange": _of("{[1.50,2.0],(3,4)}"),
    "tstzmultirange": _of('{["2020-01-01 00:00:00+00","2021-01-01 00:00:00+00")}'),
    "oid": _of("0", "4294967295"),
    "xid": _of("0", "4294967295"),
    "xid8": _of("18446744073709551615"),
    "cid": _of("7"),
    "tid": _of("(0,1)", "(4294967295,65535)"),
    "pg_lsn": _of("0/0", "FFFFFFFF/FFFFFFFF"),
    "pg_snapshot": _of("10:20:10,14,15"),
    "refcursor": TEXTS,
    "int2vector": _of("1 2 3", ""),
    "oidvector": _of("1 4294967295", ""),
    "aclitem": _of("postgres=arwdDxt/postgres"),
    "regclass": _of("pg_class", "-", "54321"),
    "regtype": _of("integer", "numeric[]", "-"),
    "regproc": _of("now", "-"),
    "regprocedure": _of("sum(integer)"),
    "regoper": _of("||/"),
    "regoperator": _of("+(integer,integer)"),
    "regrole": _of("postgres", "-"),
    "regnamespace": _of("pg_catalog"),
    "regconfig": _of("english"),
    "regdictionary": _of("simple"),
    "regcollation": _of('"C"'),
}  # fmt: skip

#: Types that the job has to create, or that stand at both sides already, and values of theirs.
OWN_TYPES = """
    CREATE TYPE mood AS ENUM ('sad', 'it''s', 'a,b "c" \\', '{}', 'NULL');
    CREATE DOMAIN posint AS integer CHECK (VALUE > 0);
    CREATE DOMAIN ints AS integer[];
    CREATE DOMAIN label AS varchar(20) DEFAULT 'x';
    CREATE TYPE pair AS ("left" posint, "Right" text, moods mood[], price numeric(12,3));
    CREATE TYPE nested AS (p pair, ps pair[], at timestamptz);
"""

MOODS = _of("sad", "it's", 'a,b "c" \\', "{}", "NULL")


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def row(*values: str | None) -> str:
    return "(" + ",".join("" if value is None else quoted(value) for value in values) + ")"


@st.composite
def arrays(draw: st.DrawFn, element: st.SearchStrategy[str], separator: str = ",") -> str:
    """Text forms of arrays: empty, of one or two dimensions, with NULLs, with bounds of their own."""
    item = st.none() | element.map(quoted)
    shape = draw(st.sampled_from(["empty", "one", "one", "two", "bounds"]))

    def written(items: Sequence[str | None]) -> str:
        return "{" + separator.join("NULL" if text is None else text for text in items) + "}"

    if shape == "empty":
        return "{}"
    if shape == "two":
        width = draw(st.integers(1, 3))
        rows = draw(st.lists(st.lists(item, min_size=width, max_size=width), min_size=1, max_size=3))
        return written([written(row) for row in rows])
    items = draw(st.lists(item, min_size=1, max_size=4))
    low = draw(st.integers(-3, 7)) if shape == "bounds" else 1
    return f"[{low}:{low + len(items) - 1}]={written(items)}" if low != 1 else written(items)


PAIRS = st.builds(
    row,
    st.integers(1, 99).map(str) | st.none(),
    TEXTS | st.none(),
    arrays(MOODS) | st.none(),
    st.just("12.500") | st.none(),
)

OWN_VALUES: Mapping[str, st.SearchStrategy[str]] = {
    "mood": MOODS,
    "posint": st.integers(1, 2**31 - 1).map(str),
    "ints": arrays(_whole(32)),
    "label": TEXTS.map(lambda t: t[:20]),
    "pair": PAIRS,
    "nested": st.builds(row, PAIRS, arrays(PAIRS), st.just("infinity")),
}
BY_NAME = {**VALUES, **OWN_VALUES}


def strategy(name: str) -> st.SearchStrategy[str]:
    if name.endswith("[]"):
        element = name[:-2]
        return arrays(BY_NAME[element], ";" if element == "box" else ",")
    return BY_NAME[name]


@st.composite
def tables(draw: st.DrawFn, names: Sequence[str]) -> tuple[list[str], list[list[str | None]]]:
    """Column types, and rows of literals."""
    types = draw(st.lists(st.sampled_from(names), min_size=6, max_size=16))
    rows = draw(st.lists(st.tuples(*(st.none() | strategy(name) for name in types)), min_size=1, max_size=4))
    return types, [list(row) for row in rows]


def fill(db: Db, table: str, types: Sequence[str], rows: Sequence[Sequence[str | None]]) -> None:
    columns = ", ".join(f"c{number} {name}" for number, name in enumerate(types))
    db.execute(f"CREATE TABLE {table} ({columns})")
    tuples = [
        ", ".join(f"{sql.Literal(value).as_string(None)}::{name}" for value, name in zip(row, types, strict=True))
        for row in rows
    ]
    if tuples:
        db.execute(f"INSERT INTO {table} VALUES ({'), ('.join(tuples)})")


ALL = [*VALUES, *OWN_VALUES]
#: Values that older servers do not read: infinite intervals, "char" in octal, negative scales.
NEW = {
    name for base in ("interval", "interval year to month", '"char"', "numeric(3,-2)") for name in (base, f"{base}[]")
}
EVERY = [*ALL, *(f"{name}[]" for name in ALL)]
# A failing table is reported as it is: to shrink one takes hundreds of migrations.
QUICK = settings(
    deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.explicit, Phase.reuse, Phase.generate)
)


def with_own_types(*dbs: Db) -> None:
    for db in dbs:
        if db.value("SELECT to_regtype('mood') IS NULL"):
            db.execute(OWN_TYPES)
