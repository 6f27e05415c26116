"""Find how a destination differs from its source, without changing the destination's rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import closing

import attrs

from portl.config.models import Deletes, MigrationConfig
from portl.connectors.comparer import BucketSum, Texts
from portl.connectors.exchange import ROWS, Chunk, Intent, RowCount, Split
from portl.connectors.mirroring import Differences, MirrorDestination, MirrorSource
from portl.execution.mirror.by_rows import RowsMirrorDestination, RowsMirrorSource
from portl.planning.modes.mirror import DeleteLimit, digest_kind, mirroring
from portl.planning.request import Sides, TableSides
from portl.planning.tasks import TableTask
from portl.values.errors import OperationError
from portl.values.text import counted_rows
from portl.verification.both import Both
from portl.verification.match import ahead

#: Approximate rows in a bucket: if one row in a hundred has changed, five buckets in six have not.
BUCKET_ROWS = 16
#: The most buckets, as sums are kept in memory, a few hundred bytes each. Large tables have larger buckets.
MOST_BUCKETS = 1 << 17
#: Batches of the source's pairs buffered while the destination computes its own; for PostgreSQL, 1 MiB each.
PAIRS_AHEAD = 16

#: What a chunk of a mirror does, as recorded in its bounds.
COMPARED, REMOVED = "compared", "removed"


@attrs.frozen(kw_only=True)
class Compared:
    """The outcome of a comparison."""

    #: Rows at the source and at the destination.
    rows: tuple[int, int]
    differences: Differences
    #: Bytes that the comparison moved over the wire, not counting sums of buckets.
    bytes: int
    #: True if the destination is empty, so that all rows are moved.
    all: bool = False

    @property
    def unchanged(self) -> int:
        """Rows that are the same on both sides."""
        return 0 if self.all else max(0, self.rows[0] - sum(self.differences.fetched))


class MirrorComparison:
    """The comparison of one table. ``forget`` must be called at the end.

    Args:
        task: that of the table.
        config: the job.
        sides: both sides, open.
    """

    def __init__(self, task: TableTask, config: MigrationConfig, sides: Sides | TableSides) -> None:
        self._task = task
        self._config = config
        intent = task.intent
        how = mirroring(config, sides.source)
        self.source: MirrorSource
        self.destination: MirrorDestination
        if digest_kind(sides.source, sides.destination) != ROWS.name:
            self.source = sides.source.mirror(intent)
            self.destination = sides.destination.mirror(intent, how)
            return
        compared = self._compared(intent)
        self.source = RowsMirrorSource(sides.source.comparer(compared))
        self.destination = RowsMirrorDestination(
            sides.destination.comparer(compared),
            lambda keys: sides.destination.remove(intent, keys),
            0 if how.deletes is Deletes.KEEP else how.part_rows,
        )

    @property
    def wanted(self) -> Mapping[Texts, int] | None:
        """The keys of the rows to fetch, if rows are found by key; None if they are found by place."""
        return self.source.wanted if isinstance(self.source, RowsMirrorSource) else None

    def compare(self) -> Compared:
        """Compare both sides.

        Raises:
            OperationError: more rows would be removed than the job allows, or two source rows share a key.
            PermissionDenied: a role may not read its side.
        """
        try:
            return self._compare()
        finally:
            try:
                self.source.close()
            finally:
                self.destination.close()

    def _compare(self) -> Compared:
        intent = self._compared(self._task.intent)
        both = Both(self.source, self.destination, self._task.destination.name, "to mirror")
        both.agree(
            intent,
            intent.key.columns if intent.key is not None else (),
            repeats=intent.key is not None and not intent.distinct,
            rows=self._task.count.rows if self._task.count else 0,
            bucket_rows=BUCKET_ROWS,
            most=MOST_BUCKETS,
        )
        sums = both.do(lambda side: side.sums())
        rows = _total(sums[0]), _total(sums[1])
        if not rows[1] and not self._config.mirror.column:
            return Compared(rows=rows, differences=Differences(), bytes=0, all=rows[0] > 0)
        differing = {bucket for bucket in {*sums[0], *sums[1]} if sums[0].get(bucket) != sums[1].get(bucket)}
        if not differing:
            return Compared(rows=rows, differences=Differences(), bytes=0)
        every = len(differing) == len({*sums[0], *sums[1]})
        found, sent = self._differ(both, None if every else differing)
        self._insist(found, rows[1])
        return Compared(rows=rows, differences=found, bytes=sent)

    @staticmethod
    def _compared(intent: Intent) -> Intent:
        """Return the intent without the columns in which existing rows keep their own value."""
        return attrs.evolve(intent, fields=tuple(f for f in intent.fields if f.target.name not in intent.kept))

    def _differ(
        self, both: Both[MirrorSource, MirrorDestination], buckets: Collection[int] | None
    ) -> tuple[Differences, int]:
        with closing(ahead(self.source.pairs(buckets), PAIRS_AHEAD)) as pairs:
            try:
                return both.readable(lambda: self.destination.differ(pairs, buckets))
            except BaseException:
                self.source.cancel()
                raise

    def _insist(self, found: Differences, rows: int) -> None:
        """Refuse what a mirror cannot or must not do, before anything is changed."""
        if found.repeated:
            key = ", ".join(self._task.intent.key.columns) if self._task.intent.key else ""
            raise OperationError(
                f"{self._task.source.name}: {counted_rows(found.repeated)} share ({key}) with another row, and"
                f" {self._task.destination.name} can hold one of them",
                hint="leave the others out in the source, or name a key in `conflict.key` that tells them apart",
            )
        removed, limit = sum(found.removed), DeleteLimit.of(self._config)
        if not limit.allows(removed, rows):
            raise OperationError(
                f"{self._task.destination.name}: {removed:,} of its {counted_rows(rows)} are not at the source, and"
                f" `mirror.max_deletes` allows {limit.text}: nothing was changed",
                hint="see whether the source is complete; if it is, raise `mirror.max_deletes`",
            )

    def split(self, compared: Compared) -> Split:
        """Return the chunks: the comparison, rows to fetch, rows to remove."""
        if compared.all:
            moved = list(self._task.split.chunks)
        else:
            moved = [
                attrs.evolve(self.source.aim(part, self.destination.place(part)), rows=count)
                for part, count in enumerate(compared.differences.fetched, 1)
            ]
        gone = [
            Chunk(bounds={"by": REMOVED, "part": part}, rows=count)
            for part, count in enumerate(compared.differences.removed, 1)
        ]
        chunks = [Chunk(bounds={"by": COMPARED}, rows=0), *moved, *gone]
        numbered = tuple(attrs.evolve(chunk, number=number) for number, chunk in enumerate(chunks, 1))
        return Split(chunks=numbered, by="rows that differ", reason="both sides were compared", resumable=True)

    def counted(self, compared: Compared) -> RowCount:
        """Return the number of rows to move."""
        return RowCount(rows=compared.rows[0] if compared.all else sum(compared.differences.fetched), exact=True)

    def forget(self) -> None:
        """Discard what both sides have stored."""
        try:
            self.source.forget()
        finally:
            self.destination.forget()


def _total(sums: Mapping[int, BucketSum]) -> int:
    return sum(found.rows for found in sums.values())
