"""Convert between COPY's text and Python values (manual, COPY, Text Format; 8.15.6 for arrays).

A value that its Python type cannot represent stays the text that the server sent; ``portl.schema`` lists these. The
driver's adapters are not used, because they approximate such values: a month becomes thirty days, and an array loses
its lower bounds.
"""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from portl import Kind, Type

Loader = Callable[[str], Any]

#: The end of a day, which Python's time does not have: since 3.14 it takes it for the day's beginning.
MIDNIGHT = "24:00:00"

_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_MUST_ESCAPE = str.maketrans(
    {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f", "\v": "\\v"}
)
# Days and a clock within a day: what timedelta holds exactly. Signs other than of the days would be normalised.
_INTERVAL = re.compile(r"(?:(-?\d+) days?)?(?: ?(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?")
_ARRAY_PLAIN = re.compile(r'[^,{}"\\]+')
_ARRAY_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


def _or_text(convert: Callable[[str], Any]) -> Loader:
    def load(text: str) -> Any:
        try:
            return convert(text)
        except (ValueError, OverflowError):
            return text

    return load


def _clock(text: str) -> Any:
    return text if text.startswith(MIDNIGHT) else _or_text(dt.time.fromisoformat)(text)


def _interval(text: str) -> Any:
    match = _INTERVAL.fullmatch(text)
    if match is None or not text:
        return text
    days, hours, minutes, seconds, fraction = match.groups()
    if hours is not None and int(hours) > 23:
        return text
    try:
        return dt.timedelta(
            days=int(days or 0),
            hours=int(hours or 0),
            minutes=int(minutes or 0),
            seconds=int(seconds or 0),
            microseconds=int((fraction or "0").ljust(6, "0")),
        )
    except OverflowError:
        return text


def _binary(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def _decimal(text: str) -> Decimal:
    return Decimal(text)


_LOADERS: dict[Kind, Loader | None] = {
    Kind.SMALLINT: int,
    Kind.INT: int,
    Kind.BIGINT: int,
    Kind.DECIMAL: _decimal,
    Kind.FLOAT: float,
    Kind.DOUBLE: float,
    Kind.BOOLEAN: lambda text: text == "t",
    Kind.BINARY: _binary,
    Kind.DATE: _or_text(dt.date.fromisoformat),
    Kind.TIME: _clock,
    Kind.TIMETZ: _clock,
    Kind.TIMESTAMP: _or_text(dt.datetime.fromisoformat),
    Kind.TIMESTAMPTZ: _or_text(dt.datetime.fromisoformat),
    Kind.INTERVAL: _interval,
    Kind.UUID: uuid.UUID,
}


def loader(type: Type) -> Loader | None:
    """Return the function that converts text to a Python value; None if the text is the value."""
    if type.kind is Kind.ARRAY:
        return _array_loader(loader(type.element) if type.element else None)
    return _LOADERS.get(type.kind)


def _array_loader(element: Loader | None) -> Loader:
    def load(text: str) -> Any:
        # A text with bounds ([5:6]={1,2}) stays as it is.
        if not text.startswith("{"):
            return text
        value, end = _array(text, 1, element)
        return value if end == len(text) else text

    return load


def _array(text: str, position: int, element: Loader | None) -> tuple[list[Any], int]:
    """Parse after an opening brace; return the list and the position after the closing one."""
    items: list[Any] = []
    while True:
        character = text[position]
        if character == "}":
            return items, position + 1
        if character == ",":
            position += 1
        elif character == "{":
            inner, position = _array(text, position + 1, element)
            items.append(inner)
        elif character == '"':
            match = _ARRAY_QUOTED.match(text, position)
            assert match is not None  # the server closes what it opens
            value = _ESCAPE.sub(r"\1", match[1])
            items.append(element(value) if element else value)
            position = match.end()
        else:
            match = _ARRAY_PLAIN.match(text, position)
            assert match is not None
            value = match[0]
            items.append(None if value == "NULL" else element(value) if element else value)
            position = match.end()


def unescape(text: str) -> str:
    """Undo COPY's backslash escapes in a field."""
    if "\\" not in text:
        return text
    if "\0" in text:  # which no text of the server's holds
        return _ESCAPE.sub(lambda match: _ESCAPES.get(match[1], match[1]), text)
    if "\\\\" in text:
        return _unescape(text.replace("\\\\", "\0")).replace("\0", "\\")
    return _unescape(text)


def _unescape(text: str) -> str:
    """Take out the backslashes of a text in which none stands for itself."""
    for letter, character in _ESCAPES.items():
        text = text.replace(f"\\{letter}", character)
    return text.replace("\\", "")


def dump(value: Any) -> str:
    """Return a value as input for the server, without COPY's escapes."""
    kind = type(value)
    if kind is str:
        return str(value)
    if kind is bool:
        return "t" if value else "f"
    if kind is dt.datetime:
        return value.isoformat(" ")  # type: ignore[no-any-return]  # a datetime
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "\\x" + bytes(value).hex()
    if isinstance(value, dt.timedelta):
        return f"{value.days} days {value.seconds}.{value.microseconds:06d} seconds"
    if isinstance(value, (list, tuple)):
        return "{" + ",".join(_array_item(item) for item in value) + "}"
    return str(value)


def _array_item(value: Any) -> str:
    if value is None:
        return "NULL"
    text = dump(value)
    if isinstance(value, (list, tuple)):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
