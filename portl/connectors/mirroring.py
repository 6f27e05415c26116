"""What both sides of ``mode: mirror`` do beyond comparing: find the rows that differ, and remove surplus rows.

Sums by bucket tell which buckets differ (``portl.connectors.comparer``). For each row in those, the source sends a
pair, the hash of its key and the digest of the row, with a place where it finds the row again in the same state. The
destination compares the pairs with its own rows and determines which rows it lacks and which the source does not have.
Missing rows travel in chunks like any others. No Python object is kept for each row, unless a connector has no other
way.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Iterable, Iterator

import attrs

from portl.config.models import Deletes
from portl.connectors.comparer import Comparer
from portl.connectors.exchange import Batch, Chunk

#: The kind of chunk bounds for rows that a comparison found.
PLACES = "places"


@attrs.frozen(kw_only=True)
class Mirroring:
    """How a table is mirrored."""

    #: What happens to rows that the source does not have.
    deletes: Deletes
    #: The destination's column that marks rows as deleted; None unless ``deletes`` is soft.
    column: str | None = None
    #: Which rows are mirrored, as a condition on the source's columns (``Source.condition``); None for all.
    where: str | None = None
    #: The most rows in a part, which is moved or removed in one transaction.
    part_rows: int


@attrs.frozen(kw_only=True)
class Differences:
    """How a destination differs from the source."""

    #: The number of rows to fetch from the source, for each part.
    fetched: tuple[int, ...] = ()
    #: The number of rows to remove, for each part.
    removed: tuple[int, ...] = ()
    #: Source rows that share their key with another.
    repeated: int = 0


class MirrorSource(Comparer):
    """The source's side."""

    @abc.abstractmethod
    def pairs(self, buckets: Collection[int] | None) -> Iterator[Batch]:
        """Yield a pair for each row of these buckets; None for all."""

    @abc.abstractmethod
    def aim(self, part: int, place: object) -> Chunk:
        """Return a chunk of the rows at a place.

        Args:
            part: the part's number.
            place: as returned by ``MirrorDestination.place``.
        """

    def forget(self) -> None:
        """Forget all places. Called once, last."""


class MirrorDestination(Comparer):
    """The destination's side.

    ``close`` ends the comparison; ``place``, ``restore`` and ``remove`` are called after it.
    """

    @abc.abstractmethod
    def differ(self, pairs: Iterable[Batch], buckets: Collection[int] | None) -> tuple[Differences, int]:
        """Store the source's pairs, and return the differences and the size of the pairs in bytes.

        The differences are kept until ``forget``, even after ``close``.
        """

    def forget(self) -> None:
        """Discard the differences. Called once, last, also on a broken connection."""

    @abc.abstractmethod
    def place(self, part: int) -> object:
        """Return the place of a part's rows at the source, for ``MirrorSource.aim``."""

    @abc.abstractmethod
    def restore(self) -> int:
        """Clear the mark of rows that were marked as deleted and are back at the source; return their number.

        Called in the writer's transaction, before rows that differ are written.
        """

    @abc.abstractmethod
    def remove(self, part: int) -> int:
        """Remove the rows of a part, or mark them as deleted; return their number.

        Called in the writer's transaction. Rows that have changed since they were compared stay.

        Raises:
            DataError: another table refers to one of them; the hint names it.
        """
