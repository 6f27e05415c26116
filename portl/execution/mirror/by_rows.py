"""Compare two sides whose servers have no digest in common, by reading rows and computing digests here.

This works for connectors that can only read, write and remove rows. The keys of the rows that differ are kept in
memory, and the rows are read again from the whole source, which presents one state as long as it is open.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from portl.connectors.comparer import BucketSum, Comparer, Comparison, RowLine, Texts
from portl.connectors.exchange import Batch, Chunk, Intent, RowBatch
from portl.connectors.mirroring import PLACES, Differences, MirrorDestination, MirrorSource
from portl.verification.match import side_by_side


class _ByRows(Comparer):
    """Makes a connector's comparer compute the digest that every one supports.

    Args:
        comparer: that of the connector.
    """

    def __init__(self, comparer: Comparer) -> None:
        self._comparer = comparer

    def offers(self, intent: Intent) -> Mapping[str, str]:
        """See ``Comparer.offers``."""
        return {Comparer.PYTHON: self._comparer.offers(intent)[Comparer.PYTHON]}

    def terms(self) -> Mapping[str, str]:
        """See ``Comparer.terms``."""
        return self._comparer.terms()

    def agree(self, comparison: Comparison) -> None:
        """See ``Comparer.agree``."""
        self._comparison = comparison
        self._comparer.agree(comparison)

    def sums(self) -> Mapping[int, BucketSum]:
        """See ``Comparer.sums``."""
        return self._comparer.sums()

    def lines(self, buckets: Collection[int] | None, *, texts: bool) -> Iterator[tuple[int, list[RowLine]]]:
        """See ``Comparer.lines``."""
        return self._comparer.lines(buckets, texts=texts)

    def cancel(self) -> None:
        """See ``Comparer.cancel``."""
        self._comparer.cancel()

    def close(self) -> None:
        """See ``Comparer.close``."""
        self._comparer.close()


class RowsMirrorSource(_ByRows, MirrorSource):
    """The source's side. Takes the argument of ``_ByRows``."""

    def __init__(self, comparer: Comparer) -> None:
        super().__init__(comparer)
        #: The keys of the rows to fetch, as ``Source.select`` takes them.
        self.wanted: dict[Texts, int] = {}

    def pairs(self, buckets: Collection[int] | None) -> Iterator[Batch]:
        """See ``MirrorSource.pairs``. A pair is a bucket and a row of it."""
        for bucket, lines in self.lines(buckets, texts=False):
            data = [(bucket, line) for line in lines]
            yield RowBatch(number=1, first_row=1, rows=len(data), size=0, data=data)

    def aim(self, part: int, place: object) -> Chunk:
        """See ``MirrorSource.aim``. There is only one part."""
        assert isinstance(place, dict), "what the other side has returned"
        self.wanted = place
        return Chunk(bounds={"by": PLACES, "part": part})


class RowsMirrorDestination(_ByRows, MirrorDestination):
    """The destination's side. Also takes the argument of ``_ByRows``.

    Args:
        remove: ``Destination.remove``, for this job.
        part_rows: how many rows are removed in a transaction; 0 if none are removed.
    """

    def __init__(self, comparer: Comparer, remove: Callable[[Sequence[Texts]], int], part_rows: int) -> None:
        super().__init__(comparer)
        self._remove = remove
        self._part_rows = part_rows
        self._wanted: dict[Texts, int] = {}
        self._extra: list[Texts] = []

    def differ(self, pairs: Iterable[Batch], buckets: Collection[int] | None) -> tuple[Differences, int]:
        """See ``MirrorDestination.differ``."""
        missing: list[Texts] = []
        repeated = 0
        for _, ours, there in side_by_side(_by_bucket(pairs), self.lines(buckets, texts=False)):
            sent = {line.key: line.digest for line in ours}
            repeated += len(ours) - len(sent)
            held = {line.key: line.digest for line in there}
            self._wanted |= {key: 1 for key, digest in sent.items() if held.get(key) != digest}
            missing += [key for key in sent if key not in held]
            self._extra += [key for key in held if key not in sent]
        if missing and self._extra:
            # A key may be equal to one here without being the same, such as 1.0 and 1.00: that row is overwritten.
            alike = {line.key for line in self._comparer.alike(missing, texts=False).values()}
            self._extra = [key for key in self._extra if key not in alike]
        removed = [len(part) for part in self._parts()]
        fetched = (len(self._wanted),) if self._wanted else ()
        return Differences(fetched=fetched, removed=tuple(removed), repeated=repeated), 0

    def _parts(self) -> list[list[Texts]]:
        starts = range(0, len(self._extra), self._part_rows) if self._part_rows else ()
        return [self._extra[start : start + self._part_rows] for start in starts]

    def place(self, part: int) -> object:
        """See ``MirrorDestination.place``."""
        return self._wanted

    def restore(self) -> int:
        """See ``MirrorDestination.restore``. Rows are never marked here."""
        return 0

    def remove(self, part: int) -> int:
        """See ``MirrorDestination.remove``. Rows are removed by key, even if their other columns have changed since."""
        return self._remove(self._parts()[part - 1])


def _by_bucket(pairs: Iterable[Batch]) -> Iterator[tuple[int, list[RowLine]]]:
    found = itertools.chain.from_iterable(batch.data for batch in pairs if isinstance(batch, RowBatch))
    for bucket, group in itertools.groupby(found, key=lambda pair: pair[0]):
        yield bucket, [line for _, line in group]
