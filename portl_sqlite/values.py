"""How values are stored, and read back as the generic type of their column says.

SQLite stores integers, floats, text and bytes (its manual, *Datatypes*). All else is text, in a form that its own
functions and other databases read: decimals with all their digits, dates and times by ISO 8601, with the offset where
there is one, intervals as ISO durations, arrays as JSON. A value that is not of that form crosses as ``str``.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from types import NoneType
from typing import Any

from portl import DataError, Kind, Type

_DURATION = re.compile(r"P(-?\d+)DT(-?\d+)\.(\d{6})S")


def dumped(value: Any, column: str) -> Any:
    """Return a value as it is stored.

    Raises:
        DataError: SQLite has no form for it.
    """
    if value is None or isinstance(value, (str, bytes)):
        return value
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise DataError(f"column {column}: an integer has at most 64 bits in SQLite", column=column)
        return value
    if isinstance(value, float):
        if value != value:
            raise DataError(f"column {column}: SQLite has no NaN and would store NULL", column=column)
        return value
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return f"P{value.days}DT{value.seconds}.{value.microseconds:06}S"
    if isinstance(value, (list, tuple)):
        return json.dumps([_item(item) for item in value], ensure_ascii=False)
    return str(value)


def _item(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_item(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return str(value)  # JSON has neither infinities nor NaN
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return value.hex() if isinstance(value, bytes) else _text(value)


#: What stored values of a generic type have to be to need no conversion.
_NATIVE: Mapping[Kind, frozenset[type]] = {
    **dict.fromkeys((Kind.SMALLINT, Kind.INT, Kind.BIGINT), frozenset({int, NoneType})),
    **dict.fromkeys((Kind.FLOAT, Kind.DOUBLE), frozenset({float, NoneType})),
    **dict.fromkeys((Kind.CHAR, Kind.VARCHAR, Kind.TEXT, Kind.JSON, Kind.JSONB), frozenset({str, NoneType})),
    Kind.BINARY: frozenset({bytes, NoneType}),
}


def loaded(rows: list[tuple[Any, ...]], types: Sequence[Type]) -> list[tuple[Any, ...]]:
    """Return stored rows as values of generic types; column by column, as most columns need no conversion."""
    columns: list[Any] = list(zip(*rows, strict=True))
    changed = False
    for place, wanted in enumerate(types):
        if not set(map(type, columns[place])) <= _NATIVE.get(wanted.kind, frozenset()):
            load = loader(wanted)
            columns[place] = columns[place] if load is None else list(map(load, columns[place]))
            changed = True
    return list(zip(*columns, strict=True)) if changed else rows


def loader(type: Type) -> Callable[[Any], Any] | None:
    """Return what makes a stored value one of the generic type; None: it is one as it is."""
    if type.kind is Kind.ARRAY:
        element = loader(type.element or Type(kind=Kind.TEXT))
        return lambda value: None if value is None else _array(value, element)
    load = _LOADERS.get(type.kind)
    if load is None:
        return None

    def loaded(value: Any) -> Any:
        if value is None:
            return None
        try:
            return load(value)
        except (ValueError, TypeError, InvalidOperation, OverflowError):
            return value.hex() if isinstance(value, bytes) else str(value)

    return loaded


def _array(value: Any, element: Callable[[Any], Any] | None) -> Any:
    def loaded(items: Any) -> Any:
        if isinstance(items, list):
            return [loaded(item) for item in items]
        return items if element is None else element(items)

    try:
        found = json.loads(value)
    except (ValueError, TypeError):
        return str(value)
    return loaded(found) if isinstance(found, list) else str(value)


def _whole(value: Any) -> int:
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise ValueError


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bytes):
        raise TypeError
    return Decimal(repr(value) if isinstance(value, float) else value)


def _float(value: Any) -> float:
    if isinstance(value, (int, float)) or (isinstance(value, str) and value in ("inf", "-inf", "nan")):
        return float(value)
    raise TypeError


def _boolean(value: Any) -> bool:
    if value in (0, 1) and not isinstance(value, (str, bytes)):
        return bool(value)
    return {"true": True, "false": False}[value.lower()]


def _string(value: Any) -> str:
    return value if isinstance(value, str) else value.decode() if isinstance(value, bytes) else str(value)


def _binary(value: Any) -> bytes:
    return (
        value.encode() if isinstance(value, str) else bytes(value) if isinstance(value, bytes) else str(value).encode()
    )


def _timestamp(value: Any) -> dt.datetime:
    found = dt.datetime.fromisoformat(value)
    if found.tzinfo is not None:
        raise ValueError
    return found


def _instant(value: Any) -> dt.datetime:
    """Without an offset it is UTC, as SQLite's own functions have it."""
    found = dt.datetime.fromisoformat(value)
    return found if found.tzinfo is not None else found.replace(tzinfo=dt.UTC)


def _interval(value: Any) -> dt.timedelta:
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ValueError
    return dt.timedelta(days=int(match[1]), seconds=int(match[2]), microseconds=int(match[3]))


_LOADERS: Mapping[Kind, Callable[[Any], Any]] = {
    Kind.SMALLINT: _whole,
    Kind.INT: _whole,
    Kind.BIGINT: _whole,
    Kind.DECIMAL: _decimal,
    Kind.FLOAT: _float,
    Kind.DOUBLE: _float,
    Kind.BOOLEAN: _boolean,
    Kind.CHAR: _string,
    Kind.VARCHAR: _string,
    Kind.TEXT: _string,
    Kind.BINARY: _binary,
    Kind.DATE: dt.date.fromisoformat,
    Kind.TIME: dt.time.fromisoformat,
    Kind.TIMETZ: dt.time.fromisoformat,
    Kind.TIMESTAMP: _timestamp,
    Kind.TIMESTAMPTZ: _instant,
    Kind.INTERVAL: _interval,
    Kind.UUID: uuid.UUID,
    Kind.JSON: _string,
    Kind.JSONB: _string,
}
