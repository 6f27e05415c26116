"""Values of every generic type, with edge cases, as they appear in rows (``portl.schema``)."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from portl.schema.types import Kind, Type

_EAST = dt.timezone(dt.timedelta(hours=5, minutes=45))

#: Type to values, an ordinary one first. NULL is not included.
VALUES: Mapping[Type, tuple[Any, ...]] = {
    Type(kind=Kind.SMALLINT): (1, 0, -32768, 32767),
    Type(kind=Kind.INT): (1, 0, -2147483648, 2147483647),
    Type(kind=Kind.BIGINT): (1, 0, -9223372036854775808, 9223372036854775807),
    Type(kind=Kind.DECIMAL): (Decimal("1.50"), Decimal(0), Decimal("-1E-20"), Decimal("9" * 60), Decimal("NaN")),
    Type(kind=Kind.DECIMAL, precision=12, scale=2): (Decimal("1.50"), Decimal("-9999999999.99"), Decimal("0.00")),
    Type(kind=Kind.FLOAT): (1.5, 0.0, -1.0),
    Type(kind=Kind.DOUBLE): (1.5, 0.1, 5e-324, 1.7976931348623157e308, float("inf"), float("-inf")),
    Type(kind=Kind.BOOLEAN): (True, False),
    Type(kind=Kind.VARCHAR, length=10): ("text", "", "ten chars!"),
    Type(kind=Kind.TEXT): (
        "text",
        "",
        " ",
        "\\N",
        "NULL",
        "a\"b'c",
        "a\tb\nc\r\n",
        "\x01",
        "ä€😀",
        "\\",
        "x" * 100_000,
    ),
    Type(kind=Kind.BINARY): (b"bytes", b"", b"\x00\xff\\", bytes(range(256))),
    Type(kind=Kind.DATE): (dt.date(2024, 2, 29), dt.date(1, 1, 1), dt.date(9999, 12, 31)),
    Type(kind=Kind.TIME): (dt.time(12, 30), dt.time(0, 0), dt.time(23, 59, 59, 999999)),
    Type(kind=Kind.TIMESTAMP): (dt.datetime(2024, 2, 29, 12, 30), dt.datetime(1, 1, 1), dt.datetime.max),
    Type(kind=Kind.TIMESTAMPTZ): (
        dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC),
        dt.datetime(2024, 2, 29, 12, 30, 0, 1, tzinfo=_EAST),
    ),
    Type(kind=Kind.INTERVAL): (dt.timedelta(hours=1), dt.timedelta(0), dt.timedelta(days=3, microseconds=1)),
    Type(kind=Kind.UUID): (uuid.UUID(int=1), uuid.UUID("f81d4fae-7dec-11d0-a765-00a0c91e6bf6")),
    Type(kind=Kind.JSON): ('{"b": 1.00, "a": [null, "ä"]}', "null", '"text"', "{}"),
    Type(kind=Kind.ARRAY, element=Type(kind=Kind.INT)): ([1, 2], [], [None, 3]),
    Type(kind=Kind.ARRAY, element=Type(kind=Kind.TEXT)): (["a", None, "NULL", 'b"', "{,}", ""], []),
}

#: Names that are long or need quoting or encoding.
NAMES = (
    "select",
    "Upper Case",
    'quo"ted',
    "it's",
    "a.b",
    "per%cent",
    "back\\slash",
    "ünïcödé",
    "new\nline",
    "$1",
    "x" * 60,
)


def alike(one: Any, other: Any) -> bool:
    """Return whether two values are the same: NaN is NaN, an instant is the same in any zone, 1.5 is not 1.50."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, Decimal) and isinstance(other, Decimal):
        return str(one) == str(other) or (one == other and one.as_tuple().exponent == other.as_tuple().exponent)
    if isinstance(one, float) and isinstance(other, float):
        return repr(one) == repr(other)
    return type(one) is type(other) and bool(one == other)
