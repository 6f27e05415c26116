"""Decode and encode rows of COPY's text format column by column, many rows at a time.

A call per value costs more than what most calls do. So the fields of many rows are split at once, every column goes
through one function that loops in C (``map``, ``str.replace``), and rows come out of a ``zip``. ``row_text`` defines
the conversion of single values, and is used for columns with unusual values.
"""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from itertools import chain, repeat
from operator import add, attrgetter, sub
from typing import Any, Literal

from portl import Batch, Kind, RowBatch, Type
from portl_postgres.wire.messages import Piece
from portl_postgres.wire.row_text import MIDNIGHT, Loader, dump, loader, unescape

#: Rows processed together: more would not fit into the processor's cache.
PORTION_ROWS = 1000
#: The same limit in bytes of COPY text, for decoding.
PORTION_BYTES = 256 * 1024

NULL = "\\N"

#: The characters that COPY's text format escapes (manual, COPY, Text Format), the backslash first.
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f", "\v": "\\v"}
_MUST_ESCAPE = str.maketrans(_ESCAPES)

_LoadRows = Callable[[Iterable[Piece]], list[tuple[Any, ...]]]
_Texts = list[str]
_Load = Callable[[_Texts], Sequence[Any]]
_Dump = Callable[[Sequence[Any]], Iterable[str]]

#: What converting a whole column raises for text that is not a regular value, such as NULL's.
_UNUSUAL = (ValueError, OverflowError, ArithmeticError, KeyError)
_ITEM = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,{}"\\]+)', re.DOTALL)


class CopiedRows(RowBatch):
    """Decoded rows that are kept as their original text.

    Python objects take several times the memory of the text, and burden the garbage collector. So a batch that waits
    for its COMMIT keeps only the text, and is decoded again in the rare case that it is needed again.

    Args:
        batch: supplies number, first row, rows and size.
        pieces: lines of COPY's text format.
        load: decodes them.
    """

    def __init__(self, batch: Batch, pieces: Sequence[Piece], load: _LoadRows) -> None:
        # Not the parent's: it would set ``data``.
        self.number, self.first_row, self.rows, self.size = batch.number, batch.first_row, batch.rows, batch.size
        self._pieces = pieces
        self._load = load
        self._decoded: list[tuple[Any, ...]] | None = None

    @property
    def data(self) -> list[tuple[Any, ...]]:
        """The rows."""
        if self._decoded is None:
            self._decoded = self._load(self._pieces)
        return self._decoded

    @data.setter
    def data(self, rows: list[tuple[Any, ...]]) -> None:
        self._decoded = rows
        self._pieces, self._load = (b"",), lambda _: rows

    def portions(self) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows piece by piece, without keeping them.

        If rows are freed before the next ones are created, the garbage collector hardly ever runs, and the objects stay
        in the processor's cache.
        """
        return (self._load([piece]) for piece in self._pieces)

    def release(self) -> None:
        """See ``Batch.release``."""
        self._decoded = None

    def __repr__(self) -> str:
        return f"CopiedRows(number={self.number}, first_row={self.first_row}, rows={self.rows}, size={self.size})"


def rows_loader(types: Sequence[Type]) -> _LoadRows:
    """Return a function that converts pieces of COPY text, each of whole lines, to tuples."""
    loaders = [_column_loader(type) for type in types]
    width = len(loaders)

    def portion(data: Piece) -> Iterable[tuple[Any, ...]]:
        if not width:
            return repeat((), bytes(data).count(b"\n"))
        texts = str(data, "utf-8", "surrogateescape").replace("\n", "\t").split("\t")
        del texts[-1]  # behind the last line
        return zip(*[load(texts[number::width]) for number, load in enumerate(loaders)], strict=True)

    def load(pieces: Iterable[Piece]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for data in _portions(pieces):
            rows += portion(data)
        return rows

    return load


def _portions(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Join pieces up to a size at which the loops pay off while intermediate memory stays small."""
    gathered: list[Piece] = []
    size = 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= PORTION_BYTES:
            yield piece if len(gathered) == 1 else b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)


def _column_loader(type: Type) -> _Load:
    """Return a function that converts the fields of one column to values."""
    single, bulk = (_escaped_binary if type.kind is Kind.BINARY else loader(type)), _bulk_loader(type)
    #: Numbers, dates and so on contain no escaped characters, or always the same ones.
    escapes = single is None or type.kind is Kind.ARRAY

    def load(texts: _Texts) -> Sequence[Any]:
        if not (escapes and "\\" in "".join(texts)):
            if single is None:
                return texts
            with suppress(*_UNUSUAL):  # a NULL, or a value beyond Python's type: looking for them first costs more
                if bulk is not None:
                    return bulk(texts)
        nulls = NULL in texts
        present = [text for text in texts if text != NULL] if nulls else texts
        if escapes:
            present = [unescape(text) if "\\" in text else text for text in present]
        values = convert(present)
        if not nulls:
            return values
        left = iter(values)
        return [None if text == NULL else next(left) for text in texts]

    def convert(texts: _Texts) -> Sequence[Any]:
        if single is None:
            return texts
        with suppress(*_UNUSUAL):
            if bulk is not None:
                return bulk(texts)
        return [single(text) for text in texts]

    return load


def _escaped_binary(text: str) -> bytes:
    """Read a ``bytea`` as COPY writes it, with a second backslash before the x: what is large is not searched."""
    return bytes.fromhex(text[3:])


def _mapped(convert: Callable[[str], Any]) -> _Load:
    return lambda texts: list(map(convert, texts))


def _decimals(texts: _Texts) -> list[Decimal]:
    if NULL in texts:
        raise ValueError(NULL)  # to Decimal that is NaN where the application has switched its trap off
    return list(map(Decimal, texts))


def _clocks(texts: _Texts) -> list[dt.time]:
    if MIDNIGHT in "\t".join(texts):
        raise ValueError(MIDNIGHT)
    return list(map(dt.time.fromisoformat, texts))


def _uuids(texts: _Texts) -> list[uuid.UUID]:
    """Make UUIDs without the checks of their constructor, in the way in which it sets its own attributes."""
    numbers = map(int, "\n".join(texts).replace("-", "").split("\n"), repeat(16))
    made = list(map(object.__new__, repeat(uuid.UUID, len(texts))))
    deque(map(object.__setattr__, made, repeat("int"), numbers), maxlen=0)
    deque(map(object.__setattr__, made, repeat("is_safe"), repeat(uuid.SafeUUID.unknown)), maxlen=0)
    return made


def _same_as_made(text: str) -> bool:
    """Return whether this Python's UUIDs have the attributes that are set here."""
    try:
        found, made = _uuids([text])[0], uuid.UUID(text)
    except (AttributeError, TypeError):
        return False
    return found == made and str(found) == text and found.is_safe is made.is_safe


_BULK: dict[Kind, _Load] = {
    Kind.SMALLINT: _mapped(int),
    Kind.INT: _mapped(int),
    Kind.BIGINT: _mapped(int),
    Kind.DECIMAL: _decimals,
    Kind.FLOAT: _mapped(float),
    Kind.DOUBLE: _mapped(float),
    Kind.BOOLEAN: _mapped({"t": True, "f": False}.__getitem__),
    Kind.DATE: _mapped(dt.date.fromisoformat),
    Kind.TIME: _clocks,
    Kind.TIMETZ: _clocks,
    Kind.TIMESTAMP: _mapped(dt.datetime.fromisoformat),
    Kind.TIMESTAMPTZ: _mapped(dt.datetime.fromisoformat),
    Kind.UUID: _uuids if _same_as_made("12345678-9abc-def0-0fed-cba987654321") else _mapped(uuid.UUID),
}


def _bulk_loader(type: Type) -> _Load | None:
    """Return what is as good as the loader of single values, and raises one of ``_UNUSUAL`` for what it cannot do."""
    if type.kind is Kind.ARRAY:
        return _arrays_loader(type, type.element or Type(kind=Kind.TEXT))
    return _BULK.get(type.kind)


def _arrays_loader(type: Type, element: Type) -> _Load:
    single, item = loader(type), loader(element)
    assert single is not None
    bulk = _bulk_loader(element) if item is not None else None

    def load(texts: _Texts) -> list[Any]:
        joined = "".join(texts)
        if '"' in joined or "NULL" in joined or "{{" in joined or "{}" in joined or "[" in joined:
            return [_flat(text, item) if text[:1] == "{" != text[1:2] else single(text) for text in texts]
        lists = [text[1:-1].split(",") for text in texts]
        if item is None:
            return lists
        return [list(bulk(items)) for items in lists] if bulk else [list(map(item, items)) for items in lists]

    return load


def _flat(text: str, item: Loader | None) -> list[Any]:
    """Return the list that an array of one dimension is."""
    if item is None:
        return [
            plain if plain and plain != "NULL" else None if plain else _without_backslashes(quoted)
            for quoted, plain in _ITEM.findall(text, 1)
        ]
    return [
        None if plain == "NULL" else item(plain or _without_backslashes(quoted))
        for quoted, plain in _ITEM.findall(text, 1)
    ]


def _without_backslashes(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL) if "\\" in text else text


def rows_dumper(types: Sequence[Type]) -> Callable[[Sequence[Sequence[Any]]], Iterator[bytes]]:
    """Return a function that yields rows as COPY text, alternately ``PORTION_ROWS`` lines and a line end.

    Args:
        types: those of the target columns; without one, a value's Python type alone decides its form.
    """
    dumpers = [{**_BULK_DUMP, **_FOR_KIND.get(type.kind, {})} for type in types]

    def dump_rows(rows: Sequence[Sequence[Any]]) -> Iterator[bytes]:
        for start in range(0, len(rows), PORTION_ROWS):
            yield _dump_portion(rows[start : start + PORTION_ROWS], dumpers).encode("utf-8", "surrogateescape")
            yield b"\n"  # separately, because appending it would copy a large row

    return dump_rows


def _dump_portion(rows: Sequence[Sequence[Any]], dumpers: Sequence[Mapping[type, _Dump]]) -> str:
    try:
        columns = list(map(_dump_column, zip(*rows, strict=True), chain(dumpers, repeat(_BULK_DUMP))))
    except ValueError:  # rows of different lengths: the server will report which one is wrong
        columns = []
    lines = map("\t".join, zip(*columns, strict=True)) if columns else ("\t".join(map(dump_field, row)) for row in rows)
    return "\n".join(lines)


def _dump_column(values: Sequence[Any], dumpers: Mapping[type, _Dump]) -> Iterable[str]:
    kinds = set(map(type, values))
    nulls = type(None) in kinds
    kinds.discard(type(None))
    if not kinds:
        return repeat(NULL, len(values))
    bulk = dumpers.get(kinds.pop()) if len(kinds) == 1 else None
    if bulk is None:
        return [dump_field(value) for value in values]
    if not nulls:
        return bulk(values)
    left = iter(bulk([value for value in values if value is not None]))
    return [NULL if value is None else next(left) for value in values]


def dump_field(value: Any) -> str:
    """Return a value as a field of COPY's text format."""
    return NULL if value is None else dump(value).translate(_MUST_ESCAPE)


def _escaped(values: Sequence[str]) -> Sequence[str]:
    """Return texts as fields, searching and replacing in all of them at once."""
    joined = "\0".join(values)
    if not any(map(joined.__contains__, _ESCAPES)):
        return values
    if joined.count("\0") != len(values) - 1:
        return [value.translate(_MUST_ESCAPE) for value in values]  # what separates them here is in a value
    for character, escape in _ESCAPES.items():
        joined = joined.replace(character, escape)
    return joined.split("\0")


def _dump_lists(values: Sequence[list[Any]]) -> Iterable[str]:
    kinds = set(map(type, chain.from_iterable(values)))
    if kinds == {str}:
        joined = '{"' + '"}\0{"'.join(map('","'.join, values)) + '"}'
        if joined.count('"') == 2 * sum(map(len, values)) and not any(map(joined.__contains__, _ESCAPES)):
            texts = joined.split("\0")
            if len(texts) == len(values):
                return texts
    elif kinds <= {int, float, Decimal}:
        return ["{" + ",".join(map(str, items)) + "}" for items in values]
    return _escaped([dump(items) for items in values])


def _dump_times(values: Sequence[dt.datetime]) -> Iterable[str]:
    return map(dt.datetime.isoformat, values, repeat(" "))


def _dump_instants(values: Sequence[dt.datetime]) -> Iterable[str]:
    """Write aware times in UTC: asking each for its offset takes as long as everything else."""
    try:
        in_utc = list(map(add, map(sub, values, repeat(_AWARE)), repeat(_NAIVE)))
    except (TypeError, OverflowError):  # one has no zone, or falls outside Python's years in UTC
        return _dump_times(values)
    return "+00\0".join([*_dump_times(in_utc), ""]).split("\0")[:-1]


def _dump_uuids(values: Sequence[uuid.UUID]) -> Iterable[str]:
    """Write UUIDs without hyphens (manual, 8.12)."""
    order: Literal["big"] = "big"
    return map(bytes.hex, map(int.to_bytes, map(attrgetter("int"), values), repeat(16), repeat(order)))


_AWARE = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_NAIVE = dt.datetime(2000, 1, 1)

#: By the exact type shared by all values of a column.
_BULK_DUMP: dict[type, _Dump] = {
    int: lambda values: map(int.__repr__, values),
    float: lambda values: map(float.__repr__, values),
    Decimal: lambda values: map(str, values),
    bool: lambda values: ["t" if value else "f" for value in values],
    str: _escaped,
    bytes: lambda values: ("\\\\x" + value.hex() for value in values),
    dt.date: lambda values: map(dt.date.isoformat, values),
    dt.time: lambda values: map(dt.time.isoformat, values),
    dt.datetime: _dump_times,
    dt.timedelta: lambda values: map(dump, values),
    uuid.UUID: lambda values: map(str, values),
    list: _dump_lists,
}
#: Faster forms that the column's type accepts, by the column's kind.
_FOR_KIND: Mapping[Kind, dict[type, _Dump]] = {
    Kind.UUID: {uuid.UUID: _dump_uuids},
    Kind.TIMESTAMPTZ: {dt.datetime: _dump_instants},
}
