"""Convert values between JSON and the types of rows (``portl.schema``)."""

from __future__ import annotations

import base64
import datetime as dt
import json
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from portl import Kind, Type

_MICROSECOND = dt.timedelta(microseconds=1)


def dumped(value: Any, type: Type) -> Any:
    """Return a value as ``json.dumps`` takes it."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if type.kind in (Kind.JSON, Kind.JSONB):
        return json.loads(value)
    if isinstance(value, float):
        return value if value - value == 0 else str(value)  # JSON has neither infinities nor NaN
    if isinstance(value, (list, tuple)):
        element = type.element or type
        return [dumped(item, element) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, dt.timedelta):
        return f"{value // _MICROSECOND} us"
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    return str(value)


def loader(type: Type) -> Callable[[Any], Any]:
    """Return the function that turns what ``json.loads`` returns into a value of this type."""
    if type.kind is Kind.ARRAY:
        element = loader(type.element or Type(kind=Kind.TEXT))
        return lambda items: None if items is None else [element(item) for item in items]
    load: Callable[[Any], Any] = _LOADERS.get(type.kind, _text)
    return lambda value: None if value is None else load(value)


def parsed(line: str | bytes) -> dict[str, Any]:
    """Parse a line; numbers with a decimal point keep their digits."""
    found = json.loads(line, parse_float=Decimal)
    if not isinstance(found, dict):
        raise ValueError(f"expected an object, found {found!r}")
    return found


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=float)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, Decimal) else _json(value)


def _only(kind: type) -> Callable[[Any], Any]:
    """Return a function that refuses values of other types, as converting them would change them."""

    def loaded(value: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"expected {kind.__name__}, found {value!r}")
        return value

    return loaded


def _duration(text: str) -> Any:
    return int(text.removesuffix(" us")) * _MICROSECOND if text.endswith(" us") else text


def _or_text(load: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a function that passes a text through if the Python type cannot hold it, such as a date BC."""

    def loaded(text: str) -> Any:
        try:
            return load(text)
        except ValueError:
            return text

    return loaded


_LOADERS: Mapping[Kind, Callable[[Any], Any]] = {
    **dict.fromkeys((Kind.SMALLINT, Kind.INT, Kind.BIGINT), _only(int)),
    **dict.fromkeys((Kind.FLOAT, Kind.DOUBLE), float),
    **dict.fromkeys((Kind.JSON, Kind.JSONB), _json),
    **dict.fromkeys((Kind.TIMESTAMP, Kind.TIMESTAMPTZ), _or_text(dt.datetime.fromisoformat)),
    **dict.fromkeys((Kind.TIME, Kind.TIMETZ), _or_text(dt.time.fromisoformat)),
    Kind.DECIMAL: lambda value: Decimal(str(value)),
    Kind.BOOLEAN: _only(bool),
    Kind.BINARY: base64.b64decode,
    Kind.DATE: _or_text(dt.date.fromisoformat),
    Kind.INTERVAL: _duration,
    Kind.UUID: uuid.UUID,
}


def guessed(values: list[Any]) -> Type:
    """Return the narrowest type for the values of a column; ``text`` if they are mixed or all NULL."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return Type(kind=Kind.BOOLEAN)
    if kinds == {int}:
        return Type(kind=Kind.BIGINT)
    if kinds and kinds <= {int, float}:
        return Type(kind=Kind.DOUBLE)
    if kinds and kinds <= {dict, list}:
        return Type(kind=Kind.JSON)
    return Type(kind=Kind.TEXT)
