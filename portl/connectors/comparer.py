"""What a side does for ``portl.verify``: sum the digests of its rows by bucket, and return the rows of a bucket.

Both sides compute concurrently, each in its own thread. A hash of a row's key (of the whole row if there is no key)
decides its bucket, so that keys need no order and collations do not matter. A bucket is represented by its row count
and the sum of its rows' digests, neither of which depends on row order. Only rows of buckets that differ are compared
one by one.

``Comparer`` works for every connector whose rows can be read: it computes the digest ``Comparer.PYTHON``. A connector
whose server can hash offers other digests; both sides use the first one in common that yields the same results for a
set of fixed values.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation, localcontext
from typing import Any, ClassVar, NamedTuple

import attrs

from portl.connectors.exchange import Intent
from portl.schema.types import Kind, Type

#: Decimal digits: enough for the longest number in a column with a scale.
MAX_DIGITS = 2000

#: The values of a row's key, or of all its columns, as text; None is NULL.
Texts = tuple[str | None, ...]


@attrs.frozen(kw_only=True)
class Comparison:
    """The terms of a comparison, shared by both sides."""

    intent: Intent
    #: The destination's columns that identify a row; empty if rows are compared as a whole.
    key: tuple[str, ...]
    #: The name of the digest.
    digest: str
    #: The number of buckets, a power of two.
    buckets: int
    #: Settings of the source that the destination must share, such as the time zone in which values are printed.
    terms: Mapping[str, str] = attrs.field(factory=dict)
    #: True if the source can hold two rows with the same key; ``lines`` returns them in the source's order.
    repeats: bool = False


class BucketSum(NamedTuple):
    """The sum of a bucket. A named tuple, because a large table has a hundred thousand of them."""

    rows: int
    #: The sum of the rows' digests.
    digests: int


@attrs.frozen(slots=True)
class RowLine:
    """A row of a bucket."""

    #: The values of the key's columns; empty if there is no key.
    key: Texts
    digest: str
    #: The values of all columns, if they were requested.
    texts: Texts | None = None


class Comparer:
    """One side of a comparison. This class computes in Python from what ``rows`` yields.

    Args:
        rows: returns the rows as the destination holds them: tuples in the order of the intent's fields.
    """

    #: The name of the digest that this class computes.
    PYTHON: ClassVar[str] = "python"

    def __init__(self, rows: Callable[[], Iterable[tuple[Any, ...]]]) -> None:
        self._rows = rows

    def offers(self, intent: Intent) -> Mapping[str, str]:
        """Return the digests that it can compute, best first, each with its result for fixed values."""
        return {self.PYTHON: ""}

    def terms(self) -> Mapping[str, str]:
        """Return the settings that the other side must share. Called for the source only."""
        return {}

    def agree(self, comparison: Comparison) -> None:
        """Prepare under these terms. Called once, before the methods below."""
        self._comparison = comparison
        names = [field.target.name for field in comparison.intent.fields]
        self._arriving = [field.target.type for field in comparison.intent.fields]
        self._key_indexes = [names.index(name) for name in comparison.key]

    def count(self) -> int:
        """Return the number of rows."""
        return sum(1 for _ in self._rows())

    def sums(self) -> Mapping[int, BucketSum]:
        """Return the sums of the buckets that have rows."""
        found: dict[int, BucketSum] = {}
        for bucket, line in self._lines():
            old = found.get(bucket, BucketSum(0, 0))
            found[bucket] = BucketSum(old.rows + 1, old.digests + int(line.digest, 16))
        return found

    def lines(self, buckets: Collection[int] | None, *, texts: bool) -> Iterator[tuple[int, list[RowLine]]]:
        """Yield the rows of each bucket, in the order of the buckets' numbers.

        Args:
            buckets: the buckets to return; None for all.
            texts: True to return the values of all columns, not only of the key.
        """
        found: dict[int, list[RowLine]] = {}
        for bucket, line in self._lines():
            if buckets is None or bucket in buckets:
                found.setdefault(bucket, []).append(line if texts else attrs.evolve(line, texts=None))
        yield from sorted(found.items())

    def alike(self, keys: Sequence[Texts], *, texts: bool) -> Mapping[Texts, RowLine]:
        """Return, for each key, this side's row with an equal key, if there is one.

        Called for the destination, after ``lines``, with source keys that no key here equals as text. A connector with
        columns that are not ``Column.exact`` decides equality as its unique indexes do; this class compares numbers by
        value.

        Args:
            keys: the keys.
            texts: True to return the values of all columns as well.
        """
        wanted: dict[tuple[object, ...], list[Texts]] = {}
        for key in keys:
            wanted.setdefault(self._compared(key), []).append(key)
        rows = ((self._compared(line.key), line) for _, line in self._lines())
        return {
            key: line if texts else attrs.evolve(line, texts=None)
            for compared, line in rows
            for key in wanted.get(compared, ())
        }

    def _compared(self, key: Texts) -> tuple[object, ...]:
        types = [self._arriving[place] for place in self._key_indexes]
        return tuple([_compared(text, type) for text, type in zip(key, types, strict=True)])

    def places(self, keys: Sequence[Texts], *, last: bool) -> Mapping[Texts, int]:
        """Return the position of the last row with each key, or of the first; called for the source."""
        wanted, found = set(keys), {}
        for place, (_, line) in enumerate(self._lines()):
            if line.key in wanted and (last or line.key not in found):
                found[line.key] = place
        return found

    def _lines(self) -> Iterator[tuple[int, RowLine]]:
        mask = self._comparison.buckets - 1
        for row in self._rows():
            texts = tuple([canonical(value, type) for value, type in zip(row, self._arriving, strict=True)])
            key = tuple([texts[index] for index in self._key_indexes])
            digest = _hashed(texts)
            bucket = int(_hashed(key) if key else digest, 16) & mask
            yield bucket, RowLine(key, digest, texts)

    def cancel(self) -> None:
        """Stop computing, because the other side has failed. Called from another thread."""

    def close(self) -> None:
        """Release what the other methods acquired, so that this side can be written to again."""


def _compared(text: str | None, type: Type) -> object:
    """Return a value's text in a form that is equal for equal numbers."""
    if text is None or type.kind not in (Kind.DECIMAL, Kind.FLOAT, Kind.DOUBLE):
        return text
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


def _hashed(texts: Texts) -> str:
    import hashlib  # takes 3 ms, and only a comparison needs it

    return hashlib.blake2b(repr(texts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def canonical(value: Any, type: Type | None = None) -> str | None:
    """Return a value as text that is the same whichever connector it comes from.

    Args:
        value: a Python value of a type in ``portl.schema``.
        type: the destination column's type, which decides a number's scale and the padding of text.
    """
    if value is None:
        return None
    if type is not None:
        value = _shaped(value, type)
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.datetime):
        return (value.astimezone(dt.UTC) if value.tzinfo is not None else value).isoformat(" ")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "\\x" + bytes(value).hex()
    if isinstance(value, (list, tuple)):
        element = type.element if type is not None else None
        return "{" + ",".join("NULL" if item is None else repr(canonical(item, element)) for item in value) + "}"
    return str(value)


def _shaped(value: Any, type: Type) -> Any:
    """Return a value as a column of this type would store it."""
    if type.kind is Kind.DECIMAL and isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        number = Decimal(value)
        if type.scale is None or not number.is_finite():
            return number
        with localcontext(prec=MAX_DIGITS, rounding=ROUND_HALF_UP):
            return number.quantize(Decimal(1).scaleb(-type.scale))
    if type.kind in (Kind.FLOAT, Kind.DOUBLE) and isinstance(value, (int, Decimal)):
        return float(value)
    if type.kind is Kind.CHAR and type.length is not None and isinstance(value, str):
        return value.ljust(type.length)
    return value
