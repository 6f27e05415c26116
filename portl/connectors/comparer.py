"""What an end of a job does for ``portl.verify``: digests of its rows, summed up by buckets, and the rows of a bucket.

Both sides compute at the same time, each in a thread of its own. A row falls into the bucket that a hash of its key
says (of the whole row where there is no key), so no order of keys is needed, and collations do not matter. A bucket is
summed up by its number of rows and the sum of their digests, in whatever order they are met. Only the rows of buckets
that differ are looked at one by one.

``Comparer`` works for every connector whose rows can be read: it computes the digest ``Comparer.PYTHON``. A
connector whose server can hash offers digests of its own; two sides use the first that both have and that gives the
same for fixed values at both.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from portl.schema.types import Kind, Type

if TYPE_CHECKING:
    from portl.connectors.exchange import Intent


#: Enough for the longest number that any column of a known scale holds.
MAX_DIGITS = 2000

#: The texts of a row's key, or of all its columns; None is NULL.
Texts = tuple[str | None, ...]


@attrs.frozen(kw_only=True)
class Comparison:
    """What both sides of a comparison have agreed upon."""

    intent: Intent
    #: The destination's columns that tell rows apart; empty where rows are compared as a whole.
    key: tuple[str, ...]
    #: The name of the digest.
    digest: str
    #: How many buckets there are, a power of two.
    buckets: int
    #: What the source wants the destination to do as it does, such as the time zone in which values are printed.
    terms: Mapping[str, str] = attrs.field(factory=dict)
    #: True if the source can hold two rows with one key: they are told in the order in which it has them.
    repeats: bool = False


@attrs.frozen
class BucketSum:
    """What all rows of a bucket come to."""

    rows: int
    #: The sum of the rows' digests.
    digests: int


@attrs.frozen(slots=True)
class RowLine:
    """A row of a bucket."""

    #: The texts of the key's columns; empty where there is no key.
    key: Texts
    digest: str
    #: The texts of all columns, where they were asked for.
    texts: Texts | None = None


class Comparer:
    """One end of a comparison. This one computes in Python from what ``rows`` yields.

    Args:
        rows: returns the rows, as tuples in the order of the intent's fields, as the destination holds them.
    """

    #: The name of the digest that this class computes.
    PYTHON: ClassVar[str] = "python"

    def __init__(self, rows: Callable[[], Iterable[tuple[Any, ...]]]) -> None:
        self._rows = rows

    def offers(self, intent: Intent) -> Mapping[str, str]:
        """Return the digests that it can compute, best first, each with what it gives for fixed values."""
        return {self.PYTHON: ""}

    def terms(self) -> Mapping[str, str]:
        """Return what the other side has to do likewise; only the source is asked."""
        return {}

    def agree(self, comparison: Comparison) -> None:
        """Get ready; called once, before the following."""
        self._comparison = comparison
        names = [field.target.name for field in comparison.intent.fields]
        self._arriving = [field.target.type for field in comparison.intent.fields]
        self._places = [names.index(name) for name in comparison.key]

    def count(self) -> int:
        """Return the number of rows."""
        return sum(1 for _ in self._rows())

    def sums(self) -> Mapping[int, BucketSum]:
        """Return what the buckets come to that have rows."""
        found: dict[int, BucketSum] = {}
        for bucket, line in self._lines():
            old = found.get(bucket, BucketSum(0, 0))
            found[bucket] = BucketSum(old.rows + 1, old.digests + int(line.digest, 16))
        return found

    def lines(self, buckets: Collection[int] | None, *, texts: bool) -> Iterator[tuple[int, list[RowLine]]]:
        """Yield the rows of each bucket, in the order of the buckets' numbers.

        Args:
            buckets: those wanted; None for all.
            texts: True for the texts of all columns as well.
        """
        found: dict[int, list[RowLine]] = {}
        for bucket, line in self._lines():
            if buckets is None or bucket in buckets:
                found.setdefault(bucket, []).append(line if texts else attrs.evolve(line, texts=None))
        yield from sorted(found.items())

    def _lines(self) -> Iterator[tuple[int, RowLine]]:
        mask = self._comparison.buckets - 1
        for row in self._rows():
            texts = tuple([canonical(value, type) for value, type in zip(row, self._arriving, strict=True)])
            key = tuple([texts[place] for place in self._places])
            digest = _hashed(texts)
            bucket = int(_hashed(key) if key else digest, 16) & mask
            yield bucket, RowLine(key, digest, texts)

    def cancel(self) -> None:
        """End what is being computed, from another thread: the other side has failed."""

    def close(self) -> None:
        """Let go of what ``agree`` and the others have taken, so that the end can be written to again."""


def _hashed(texts: Texts) -> str:
    return hashlib.blake2b(repr(texts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def canonical(value: Any, type: Type | None = None) -> str | None:
    """Return a value of ``portl.schema``'s as a text that is the same whatever connector it came from.

    Args:
        value: the value.
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
    """Return a value as a column of this type holds it, where that is a matter of form alone."""
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
