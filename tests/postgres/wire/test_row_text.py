"""COPY's text and Python values: what the server writes is read, and what is written the server reads as the same."""

from __future__ import annotations

import datetime as dt
import decimal
import struct
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from portl import Kind, RowBatch, Type
from portl_postgres.wire.column_codecs import CopiedRows, rows_dumper, rows_loader
from portl_postgres.wire.row_text import loader, unescape
from tests.postgres.types import generic
from tests.servers import Db

dump_rows = rows_dumper(())
QUICK = settings(deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.reuse, Phase.generate))
TEXTS = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=10) | st.lists(
    st.sampled_from(
        ["\\", "\\N", "\\.", "\t", "\n", "\r", '"', "{", "}", ",", "NULL", "\b", "\f", "\v", "\x01", "\x7f"]
    )
).map("".join)
ZONES = st.integers(-15 * 3600 - 59 * 60, 15 * 3600 + 59 * 60).map(lambda s: dt.timezone(dt.timedelta(seconds=s)))

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "numeric": st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30)
    | st.sampled_from([Decimal("NaN"), Decimal("Infinity"), Decimal("-Infinity"), Decimal("1E+300"), Decimal("1.50")]),
    "real": st.floats(width=32, allow_nan=False),
    "double precision": st.floats(allow_nan=False),
    "boolean": st.booleans(),
    "text": TEXTS,
    "bytea": st.binary(max_size=30),
    "date": st.dates(),
    "time": st.times(),
    "time with time zone": st.times(timezones=ZONES),
    "timestamp": st.datetimes(),
    "timestamp with time zone": st.datetimes(
        dt.datetime(2, 1, 1), dt.datetime(9998, 1, 1), timezones=ZONES | st.just(dt.UTC)
    ),
    "interval": st.integers(-(10**9) + 1, 10**9 - 1).map(lambda days: dt.timedelta(days=days))
    | st.timedeltas(dt.timedelta(0), dt.timedelta(days=10**6)),
    "uuid": st.uuids(),
    "json": st.sampled_from(['{"b": 1,  "a": "\\\\n\\t"}', "1.50", "null"]),
    "text[]": st.lists(st.none() | TEXTS, max_size=4)
    | st.lists(st.lists(TEXTS, min_size=2, max_size=2), min_size=1, max_size=3),
    "numeric[]": st.lists(st.none() | st.decimals(allow_nan=False, allow_infinity=False, min_value=-99, max_value=99)),
    "bytea[]": st.lists(st.none() | st.binary(max_size=5)),
    "timestamp[]": st.lists(st.none() | st.datetimes()),
    "boolean[]": st.lists(st.none() | st.booleans()),
}  # fmt: skip
NATIVES = list(VALUES)
TYPES = [generic(native) for native in NATIVES]


def through(db: Db, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Write rows with COPY and read them with COPY."""
    db.execute(f"CREATE TEMPORARY TABLE t ({', '.join(f'c{n} {native}' for n, native in enumerate(NATIVES))})")
    try:
        with db.connection.cursor() as cursor:
            with cursor.copy("COPY t FROM STDIN") as copy:
                copy.write(b"".join(rows_dumper(TYPES)(rows)))
            with cursor.copy("COPY t TO STDOUT") as copy:
                lines = [bytes(line) for line in copy]
    finally:
        db.execute("DROP TABLE t")
    return rows_loader(TYPES)(lines)


def single(value: float | None) -> bytes | None:
    """Return the bits of a float as a real holds them: its text has fewer digits than that of a double."""
    return None if value is None else struct.pack("f", value)


def same(left: Any, right: Any) -> bool:
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, Decimal) and isinstance(right, Decimal) and left.is_nan():
        return right.is_nan()
    if isinstance(left, dt.time) and left.tzinfo is not None:
        return bool(left.replace(tzinfo=None) == right.replace(tzinfo=None) and left.utcoffset() == right.utcoffset())
    return bool(left == right and type(left) is type(right))


@settings(QUICK, max_examples=60)
@given(rows=st.lists(st.tuples(*(st.none() | VALUES[native] for native in NATIVES)), min_size=1, max_size=4))
def test_a_python_value_comes_back_from_the_server_as_it_went(source: Db, rows: list[tuple[Any, ...]]) -> None:
    for sent, found in zip(rows, through(source, rows), strict=True):
        for native, left, right in zip(NATIVES, sent, found, strict=True):
            equal = single(left) == single(right) if native == "real" else same(left, right)
            assert equal, (native, left, right)


@pytest.mark.parametrize(
    ("native", "text", "value"),
    [
        ("date", "2024-02-29", dt.date(2024, 2, 29)),
        ("date", "0044-03-15 BC", "0044-03-15 BC"),
        ("date", "10000-01-01", "10000-01-01"),
        ("date", "infinity", "infinity"),
        ("time", "24:00:00", "24:00:00"),
        ("time", "12:00:00.1", dt.time(12, 0, 0, 100000)),
        ("timestamp", "-infinity", "-infinity"),
        ("timestamp", "0001-01-01 00:00:00", dt.datetime(1, 1, 1)),
        ("timestamp", "294276-12-31 23:59:59.999999", "294276-12-31 23:59:59.999999"),
        (
            "timestamptz",
            "2024-01-01 00:00:00+05:30",
            dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5.5))),
        ),
        ("interval", "1 day", dt.timedelta(1)),
        ("interval", "-3 days", dt.timedelta(-3)),
        ("interval", "1 day 02:00:00.5", dt.timedelta(1, 7200, 500000)),
        ("interval", "00:00:00", dt.timedelta(0)),
        ("interval", "1 mon", "1 mon"),
        ("interval", "24:00:00", "24:00:00"),
        ("interval", "-00:00:01", "-00:00:01"),
        ("interval", "-1 days +01:00:00", "-1 days +01:00:00"),
        ("interval", "2147483647 days", "2147483647 days"),
        ("numeric", "NaN", "NaN"),
        ("int[]", "{1,NULL,3}", [1, None, 3]),
        ("int[]", "{{1,2},{3,4}}", [[1, 2], [3, 4]]),
        ("int[]", "[5:6]={1,2}", "[5:6]={1,2}"),
        ("int[]", "{}", []),
        ("text[]", '{"NULL",NULL,"a\\"b\\\\c","{x}",""}', ["NULL", None, 'a"b\\c', "{x}", ""]),
        ("date[]", "{infinity,2024-01-01}", ["infinity", dt.date(2024, 1, 1)]),
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", uuid.UUID("a0eebc999c0b4ef8bb6d6bb9bd380a11")),
        ("bytea", "\\x00ff", b"\0\xff"),
        ("boolean", "f", False),
        ("inet", "10.0.0.1/8", "10.0.0.1/8"),
    ],
)
def test_what_python_cannot_hold_stays_the_text_that_the_server_sent(native: str, text: str, value: Any) -> None:
    load = loader(generic(native))
    found = load(text) if load else text
    assert (str(found) if native == "numeric" else found) == value


@settings(QUICK, max_examples=60)
@given(texts=st.lists(st.none() | TEXTS, min_size=1, max_size=5))
def test_a_line_holds_any_text(texts: list[str | None]) -> None:
    line = b"".join(dump_rows([tuple(texts)]))
    assert line.count(b"\n") == 1
    assert rows_loader([Type(kind=Kind.TEXT)] * len(texts))([line]) == [tuple(texts)]


def test_the_escapes_are_those_of_the_server(source: Db) -> None:
    every = "".join(map(chr, range(1, 256)))
    source.connection.execute("CREATE TEMPORARY TABLE t (v text)")
    source.connection.execute("INSERT INTO t VALUES (%s)", (every,))
    with source.connection.cursor().copy("COPY t TO STDOUT") as copy:
        (line,) = [bytes(line) for line in copy]
    assert unescape(line[:-1].decode()) == every
    assert b"".join(dump_rows([(every,)])) == line


@settings(QUICK, max_examples=200)
@given(
    lists=st.lists(
        st.none() | st.lists(st.none() | TEXTS | st.lists(TEXTS, min_size=1, max_size=2), max_size=3), max_size=5
    )
)
def test_arrays_of_any_texts_come_back_whatever_their_neighbours_in_the_column(lists: list[Any]) -> None:
    lists = [None if items is None else [i for i in items if type(i) is type(items[0])] for items in lists]
    load = rows_loader([Type(kind=Kind.ARRAY, element=Type(kind=Kind.TEXT))])
    assert load(dump_rows([(items,) for items in lists])) == [(items,) for items in lists]


def test_a_value_that_python_cannot_hold_leaves_its_neighbours_in_the_column_as_they_are() -> None:
    texts = ["2024-01-01", "infinity", "\\N", "2024-01-02"]
    load = rows_loader([generic("date")])
    found = [row[0] for row in load(text.encode() + b"\n" for text in texts)]
    assert found == [dt.date(2024, 1, 1), "infinity", None, dt.date(2024, 1, 2)]
    assert b"".join(dump_rows([(value,) for value in found])) == "".join(f"{text}\n" for text in texts).encode()


def test_values_of_several_types_in_one_column_are_written_each_in_its_way() -> None:
    values: list[Any] = [
        1,
        True,
        "a\tb",
        None,
        Decimal("1.50"),
        b"\x01",
        [1, [2]],
        0.5,
        dt.timedelta(1, 1),
        uuid.UUID(int=1),
    ]
    lines = b"".join(dump_rows([(value,) for value in values]))
    alone = b"".join(b"".join(dump_rows([(value,)])) for value in values)
    assert lines == alone
    assert lines.splitlines()[:4] == [b"1", b"t", b"a\\tb", b"\\N"]


def test_rows_of_different_lengths_reach_the_server_as_they_are() -> None:
    """It says which of them is wrong."""
    assert b"".join(dump_rows([(1, 2), (3,), (None, "a\nb")])) == b"1\t2\n3\n\\N\ta\\nb\n"


def test_rows_without_columns_are_lines_without_text() -> None:
    lines = b"".join(dump_rows([()] * 2500))
    assert lines == b"\n" * 2500
    assert rows_loader([])([lines]) == [()] * 2500


def test_a_nul_byte_in_one_value_reaches_the_server_in_that_value_alone() -> None:
    """NUL is what separates the values of a column while they are escaped together."""
    assert b"".join(dump_rows([("a\tb",), ("c\0d",), ("\\",)])) == b"a\\tb\nc\0d\n\\\\\n"
    assert b"".join(dump_rows([("\0",), (None,), ("\n",)])) == b"\0\n\\N\n\\n\n"


def test_uuids_are_those_that_their_constructor_makes() -> None:
    texts = [str(uuid.UUID(int=n * 2**90 + n)) for n in range(50)]
    found = [row[0] for row in rows_loader([Type(kind=Kind.UUID)])(f"{text}\n".encode() for text in texts)]
    assert found == [uuid.UUID(text) for text in texts]
    assert {hash(u) for u in found} == {hash(uuid.UUID(text)) for text in texts}
    assert [u.is_safe for u in found] == [uuid.SafeUUID.unknown] * 50
    assert list(map(str, found)) == texts


def test_instants_become_those_of_utc_and_keep_their_own_form_where_that_is_no_year_of_python() -> None:
    east, west = (dt.timezone(dt.timedelta(hours=hours)) for hours in (5.5, -5))
    dump = rows_dumper([Type(kind=Kind.TIMESTAMPTZ)])
    noon = dt.datetime(2024, 5, 6, 12)
    inside = [(noon.replace(tzinfo=east),), (None,), (noon.replace(tzinfo=dt.UTC, microsecond=1),)]
    assert b"".join(dump(inside)) == b"2024-05-06 06:30:00+00\n\\N\n2024-05-06 12:00:00.000001+00\n"
    last = dt.datetime(9999, 12, 31, 23, tzinfo=west)
    assert b"".join(dump([*inside[:1], (last,)])) == b"2024-05-06 12:00:00+05:30\n9999-12-31 23:00:00-05:00\n"
    assert b"".join(dump([*inside[:1], (noon,)])) == b"2024-05-06 12:00:00+05:30\n2024-05-06 12:00:00\n"


def test_a_text_column_gets_uuids_and_instants_as_people_write_them() -> None:
    row = (uuid.UUID(int=10), dt.datetime(2024, 5, 6, 12, tzinfo=dt.timezone(dt.timedelta(hours=2))))
    text, own = Type(kind=Kind.TEXT), [Type(kind=Kind.UUID), Type(kind=Kind.TIMESTAMPTZ)]
    expected = b"00000000-0000-0000-0000-00000000000a\t2024-05-06 12:00:00+02:00\n"
    assert b"".join(rows_dumper([text, text])([row])) == expected
    assert b"".join(rows_dumper(own)([row])) == b"0000000000000000000000000000000a\t2024-05-06 10:00:00+00\n"


@pytest.mark.parametrize("native", NATIVES)
def test_a_column_decodes_null_among_its_values_and_columns_of_null_alone(source: Db, native: str) -> None:
    load = rows_loader([generic(native)])
    assert load([b"\\N\n\\N\n"]) == [(None,), (None,)]
    texts = {"boolean": "t", "bytea": "\\x00ff", "json": "[1]", "uuid": str(uuid.UUID(int=1)), "interval": "1 day"}
    plain = texts.get(native, "1")
    if native.startswith(("date", "time")):
        plain = source.execute("SELECT now()::text::%s::text" % native.removesuffix("[]"))[0][0]  # noqa: UP031
    if native.endswith("[]"):
        plain = "{" + {"boolean[]": "t", "bytea[]": '"\\\\x00"'}.get(native, f'"{plain}"') + "}"
    text = plain.replace("\\", "\\\\").encode()
    ((value,),) = load([text + b"\n"])
    assert value is not None
    assert load([text + b"\n\\N\n" + text + b"\n"]) == [(value,), (None,), (value,)]


def test_the_end_of_a_day_is_not_its_beginning() -> None:
    load = rows_loader([Type(kind=Kind.TIME), Type(kind=Kind.TIMETZ)])
    assert load([b"10:24:00\t24:00:00+02\n24:00:00\t10:24:00+00\n"]) == [
        (dt.time(10, 24), "24:00:00+02"),
        ("24:00:00", dt.time(10, 24, tzinfo=dt.UTC)),
    ]


def test_null_is_no_nan_where_the_application_takes_any_text_for_a_decimal() -> None:
    load = rows_loader([Type(kind=Kind.DECIMAL)])
    with decimal.localcontext() as context:
        context.traps[decimal.InvalidOperation] = False
        assert load([b"1.50\n\\N\n"]) == [(Decimal("1.50"),), (None,)]


def test_a_batch_that_has_let_go_of_its_rows_has_the_same_again() -> None:
    rows = [(number, f"a\t{number}") for number in range(5)]
    plain = RowBatch(number=3, first_row=11, rows=5, size=99, data=rows)
    lines = list(b"".join(dump_rows(rows)).splitlines(keepends=True))
    batch = CopiedRows(plain, lines, rows_loader([Type(kind=Kind.INT), Type(kind=Kind.TEXT)]))
    first = batch.data
    assert first == rows
    assert batch.data is first
    batch.release()
    assert batch.data == rows
    assert batch.data is not first
    assert [row for portion in batch.portions() for row in portion] == rows
    half = batch.take(2, 4)
    assert (half.number, half.first_row, half.rows, half.data) == (3, 13, 2, rows[2:4])
    assert str(batch) == "CopiedRows(number=3, first_row=11, rows=5, size=99)"
    batch.data = rows[:1]
    batch.release()
    assert [*batch.portions()] == [rows[:1]] == [batch.data]
