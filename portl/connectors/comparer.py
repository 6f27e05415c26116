"""What a side does for ``portl.verify``: it sums the digests of its rows by bucket, and returns the rows of a bucket.

Both sides compute at the same time, each in its own thread. A hash of a row's key (of the whole row if there is no key)
decides its bucket, so that no order of keys is needed and collations do not matter. A bucket is represented by its
number of rows and the sum of their digests, which do not depend on the order of the rows. Only the rows of buckets that
differ are compared one by one.

``Comparer`` works for every connector whose rows can be read: it computes the digest ``Comparer.PYTHON``. A connector
whose server can hash offers other digests; both sides use the first that they share and that yields the same for a set
of fixed values.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation, localcontext
from typing import Any, ClassVar

import attrs

from portl.connectors.exchange import Intent
from portl.schema.types import Kind, Type

#: Digits: enough for the longest number in a column with a scale.
MAX_DIGITS = 2000

#: The values of a row's key, or of all its columns, as texts; None is NULL.
Texts = tuple[str | None, ...]


@attrs.frozen(kw_only=True)
class Comparison:
    """What both sides of a comparison have agreed on."""

    intent: Intent
    #: The destination's columns that identify a row; empty: rows are compared as a whole.
    key: tuple[str, ...]
    #: The name of the digest.
    digest: str
    #: The number of buckets, a power of two.
    buckets: int
    #: Settings of the source that the destination must share, such as the time zone in which values are printed.
    terms: Mapping[str, str] = attrs.field(factory=dict)
    #: True if the source can hold two rows with the same key; ``lines`` returns them in the source's order.
    repeats: bool = False


@attrs.frozen
class BucketSum:
    """The sum of a bucket."""

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
        """Prepare. Called once, before the methods below."""
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
            texts: True for the values of all columns, not only of the key.
        """
        found: dict[int, list[RowLine]] = {}
        for bucket, line in self._lines():
            if buckets is None or bucket in buckets:
                found.setdefault(bucket, []).append(line if texts else attrs.evolve(line, texts=None))
        yield from sorted(found.items())

    def alike(self, keys: Sequence[Texts], *, texts: bool) -> Mapping[Texts, RowLine]:
        """Return the row of this side whose key is equal to each of some keys, where there is one.

        Called for the destination, after ``lines``, with keys of the source that equal no key here as text. A connector
        with columns that are not ``Column.exact`` decides what is equal as its unique indexes do; here, numbers are.

        Args:
            keys: the keys.
            texts: True for the texts of all columns as well.
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
        """Return where the last row of each of some keys comes, or the first; called for the source."""
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
        """Stop the computation, from another thread, because the other side has failed."""

    def close(self) -> None:
        """Release what the other methods have acquired, so that this side can be written to again."""


def _compared(text: str | None, type: Type) -> object:
    """Return what two texts have in common that mean the same number."""
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
    """Return a value as a text that does not depend on the connector that it comes from.

    Args:
        value: of a type in ``portl.schema``.
        type: that of the destination's column: a number gets its scale, a text its padding.
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
    """Return a value in the form in which a column of this type holds it."""
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
