"""What both sides of ``mode: mirror`` do beside comparing: they find the rows that differ, and remove the surplus.

Sums by bucket tell which buckets differ (``portl.connectors.comparer``). For each row of those, the source sends a
pair, the hash of its key and the digest of the row, and a place by which it finds that row again in the same state.
The destination takes the pairs in, compares them with its own rows, and says what it lacks and what the source does
not have. Rows that it lacks travel as chunks like any others. Nothing here holds an object for each row, unless a
connector knows no other way.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Iterable, Iterator

import attrs

from portl.config.models import Deletes
from portl.connectors.comparer import Comparer
from portl.connectors.exchange import Batch, Chunk

#: The kind of bounds of a chunk whose rows were found by a comparison.
PLACES = "places"


@attrs.frozen(kw_only=True)
class Mirroring:
    """How a table is mirrored."""

    #: What becomes of rows that the source does not have.
    deletes: Deletes
    #: The destination's column that marks rows as deleted; None unless ``deletes`` is soft.
    column: str | None = None
    #: Which rows are mirrored, as a condition over the source's columns (``Source.condition``); None: all.
    where: str | None = None
    #: Rows in a part, at most: what is moved, or removed, in one transaction.
    part_rows: int


@attrs.frozen(kw_only=True)
class Differences:
    """What keeps a destination from holding exactly the source's rows."""

    #: The numbers of rows to fetch from the source, part by part.
    fetched: tuple[int, ...] = ()
    #: The numbers of rows to remove, part by part.
    removed: tuple[int, ...] = ()
    #: Rows of the source that share their key with another.
    repeated: int = 0


class MirrorSource(Comparer):
    """The source's side."""

    @abc.abstractmethod
    def pairs(self, buckets: Collection[int] | None) -> Iterator[Batch]:
        """Yield a pair for each row of some buckets; None: of all."""

    @abc.abstractmethod
    def aim(self, part: int, place: object) -> Chunk:
        """Return the chunk of the rows at a place.

        Args:
            part: the part's number.
            place: as ``MirrorDestination.place`` has returned it.
        """

    def forget(self) -> None:
        """Forget what it was aimed at. Called once, last."""


class MirrorDestination(Comparer):
    """The destination's side.

    ``close`` ends the comparison; ``place``, ``restore`` and ``remove`` are called after it.
    """

    @abc.abstractmethod
    def differ(self, pairs: Iterable[Batch], buckets: Collection[int] | None) -> tuple[Differences, int]:
        """Take in the source's pairs, and return what differs, with the number of bytes that the pairs took.

        What was found is kept until ``forget``, also after ``close``.
        """

    def forget(self) -> None:
        """Drop what was found. Called once, last, also on a broken connection."""

    @abc.abstractmethod
    def place(self, part: int) -> object:
        """Return where the rows of a part are in the source, for ``MirrorSource.aim``."""

    @abc.abstractmethod
    def restore(self) -> int:
        """Take the mark from rows that were marked as deleted and are in the source again; return how many.

        Called in the writer's transaction, before rows that differ are written.
        """

    @abc.abstractmethod
    def remove(self, part: int) -> int:
        """Remove the rows of a part, or mark them as deleted; return how many.

        Called in the writer's transaction. A row that was changed since it was compared stays.

        Raises:
            DataError: another table refers to one of them; the hint names it.
        """
