"""Compare the rows of one table on both sides.

Both sides compute concurrently: each sums the digests of its rows by bucket (``portl.connectors.comparer``). If all
buckets agree, the tables are equal, and two scans were enough. If some differ, their rows are fetched and matched by
key: a row is missing, extra or different. Memory only holds one bucket, about a thousand rows, and the rows that the
result names.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from itertools import zip_longest
from typing import TextIO

import attrs

from portl.config.models import MigrationConfig, Strategy, Verify
from portl.connectors.comparer import BucketSum, Comparer, RowLine
from portl.planning.plan import Plan, PlanError
from portl.planning.request import Sides, TableSides
from portl.planning.table import plan_table
from portl.planning.tasks import TableTask
from portl.values.differences import DIFFERENT, MISSING, TableVerification
from portl.values.errors import SchemaError
from portl.values.findings import Severity, note
from portl.verification.both import Both
from portl.verification.criteria import Criteria
from portl.verification.match import Difference, ahead, as_multisets, by_key, side_by_side
from portl.verification.tally import Tally
from portl.verification.unmatched import Unmatched

#: Approximate rows in a bucket, all of which are fetched if one differs.
BUCKET_ROWS = 1000
#: How many rows a result names by default.
NAMED = 100
#: Up to this many rows in differing buckets, all columns are fetched in the scan that finds the differences.
FETCH_AT_ONCE = 50_000
#: The places of plan problems that prevent a comparison; other problems only concern writing.
_FATAL = ("source", "column", "types", "schema_mapping", "exclude_columns", "mask")


def compare(config: MigrationConfig, sides: Sides | TableSides, mode: Verify, named: int = NAMED) -> TableVerification:
    """Compare two open sides; after a run, the source in the state that the run read.

    Args:
        config: the job.
        sides: both sides, open.
        mode: any mode but ``none``.
        named: how many differing rows to name.

    Raises:
        PlanError: rows of the source cannot become rows of the destination.
        SchemaError: the destination's table does not exist, or lacks columns.
        PermissionDenied: a role may not read its side.
    """
    sides.source.all_rows()
    return TableComparison(config, sides, mode, named).run()


class TableComparison:
    """One comparison over two open sides.

    Args:
        config: the job.
        sides: both sides, open.
        mode: how to compare.
        named: how many differing rows to name.
        spool: takes the keys of the rows that a repair is to copy again, for ``portl.verification.repair``.
    """

    def __init__(
        self, config: MigrationConfig, sides: Sides | TableSides, mode: Verify, named: int, spool: TextIO | None = None
    ) -> None:
        self._config = config
        self._source = sides.source
        self._destination = sides.destination
        self._mode = mode
        self.task = self._planned()
        intent = self.task.intent
        self.criteria = Criteria.of(intent)
        #: What is compared.
        self._intent = attrs.evolve(intent, fields=tuple(f for f in intent.fields if f.target.name not in intent.kept))
        #: The digest that both sides compute.
        self.digest = ""
        repairable = {MISSING} if self.criteria.keeps_own else {MISSING, DIFFERENT}
        self._tally = Tally(
            intent=self._intent, key=self.criteria.key, named=named, repairable=frozenset(repairable), spool=spool
        )

    def _planned(self) -> TableTask:
        source, destination = self._source, self._destination
        task = plan_table(self._config, source, destination, note("ledger", "not needed to compare"), exact=False)
        if task.intent.create:
            raise SchemaError(
                f"{destination.label()}: there is no table {task.destination.name} to compare with",
                hint="run the job first, or correct `destination.schema` and `destination.table`",
            )
        if task.intent.add:
            names = ", ".join(column.name for column in task.intent.add)
            raise SchemaError(f"{task.destination.name} lacks columns that the job adds: {names}; run the job first")
        problems = [f for f in task.findings if f.severity is Severity.PROBLEM]
        if fatal := [f for f in problems if f.where.startswith(_FATAL)]:
            others = [f for f in task.findings if f not in problems]
            task = attrs.evolve(task, findings=(*fatal, *others))
            labels = source.label(), destination.label()
            raise PlanError(Plan(config=self._config, source=labels[0], destination=labels[1], tables=(task,)))
        return task

    def run(self) -> TableVerification:
        """Compare, and return the result."""
        started = time.monotonic()
        intent = self._intent
        with closing(self._source.comparer(intent)) as left, closing(self._destination.comparer(intent)) as right:
            counts = self._compare(left, right)
        tally, limited = self._tally, self._config.source.limit is not None
        return TableVerification(
            source=intent.source.name,
            destination=intent.target.name,
            mode=self._mode.value,
            key=self.criteria.key,
            rows_source=counts[0],
            rows_destination=counts[1],
            missing=tally.missing,
            extra=tally.extra,
            different=tally.different,
            repeated=tally.repeated,
            rows=tuple(tally.rows),
            equal=self.criteria.equal(tally),
            notes=tuple(self.criteria.notes(tally, rejected_to=self.task.rejected_to, limited=limited)),
            seconds=time.monotonic() - started,
        )

    def _compare(self, left: Comparer, right: Comparer) -> tuple[int, int]:
        """Compare both sides into the tally; return their row counts."""
        self._agree(left, right)
        if self._mode is Verify.COUNT and not self.criteria.repeats:
            counts = self._paired(left, right).do(lambda side: side.count())
            self._tally.missing = max(0, counts[0] - counts[1])
            self._tally.extra = max(0, counts[1] - counts[0])
            return counts
        if self._mode is Verify.FULL:
            return self._rows(left, right, None, texts=True, by_texts=True)
        sums = self._paired(left, right).do(lambda side: side.sums())
        differing = {b for b in {*sums[0], *sums[1]} if sums[0].get(b) != sums[1].get(b)}
        if differing:
            self._descend(left, right, differing, sums)
        return _total(sums[0]), _total(sums[1])

    def _descend(
        self,
        left: Comparer,
        right: Comparer,
        differing: set[int],
        sums: tuple[Mapping[int, BucketSum], Mapping[int, BucketSum]],
    ) -> None:
        """Compare the rows of buckets that differ."""
        rows = sum(found[bucket].rows for found in sums for bucket in differing if bucket in found)
        every = differing == {*sums[0], *sums[1]}
        # Without a key, only the values of all columns identify the row that a repair has to copy.
        at_once = rows <= FETCH_AT_ONCE or (self._tally.spool is not None and not self.criteria.key)
        self._rows(left, right, None if every else differing, texts=at_once, by_texts=False)
        if not at_once and self._tally.buckets:
            counted, self._tally = self._tally, self._tally.fresh()
            self._rows(left, right, counted.buckets, texts=True, by_texts=False)
            self._tally = attrs.evolve(counted, rows=self._tally.rows)
        if self._mode is Verify.COUNT:
            self._tally = attrs.evolve(self._tally, different=0, rows=[])

    def _agree(self, left: Comparer, right: Comparer) -> None:
        """Agree with both sides on what is compared, and how."""
        comparison = self._paired(left, right).agree(
            self._intent,
            self.criteria.key,
            repeats=self.criteria.repeats,
            rows=self.task.count.rows if self.task.count else 0,
            bucket_rows=BUCKET_ROWS,
        )
        self.digest = comparison.digest

    def _paired(self, left: Comparer, right: Comparer) -> Both[Comparer, Comparer]:
        return Both(left, right, self.task.destination.name)

    def _rows(
        self, left: Comparer, right: Comparer, buckets: Collection[int] | None, *, texts: bool, by_texts: bool
    ) -> tuple[int, int]:
        """Match the rows of buckets into the tally; return each side's row count."""
        counts = [0, 0]
        with closing(Unmatched(self.criteria, texts=texts)) as unmatched:
            with (
                closing(ahead(left.lines(buckets, texts=texts))) as ours,
                closing(ahead(right.lines(buckets, texts=texts))) as theirs,
            ):
                for bucket, sent, there in side_by_side(ours, theirs):
                    counts[0] += len(sent)
                    counts[1] += len(there)
                    for difference in self._differences(sent, there, by_texts=by_texts):
                        if self.criteria.exact or not unmatched.take(difference, bucket):
                            self._tally.add(difference, bucket)
            unmatched.settle(self._tally, left, right)
        return counts[0], counts[1]

    def _differences(self, sent: list[RowLine], there: list[RowLine], *, by_texts: bool) -> Iterator[Difference]:
        """Yield the rows of a bucket that differ; count those that share a key."""
        criteria = self.criteria
        if not criteria.key:
            yield from as_multisets(sent, there, by_texts=by_texts)
            return
        ours, theirs = by_key(sent), by_key(there)
        for key, lines in ours.items():
            if len(lines) > 1 and criteria.repeats and (None not in key or criteria.nulls_equal):
                self._tally.repeated += len(lines) - 1
                lines = [lines[0] if criteria.strategy is Strategy.SKIP else lines[-1]]
            rest = list(as_multisets(lines, theirs.pop(key, []), by_texts=by_texts))
            lacking = [source for source, _ in rest if source is not None]
            besides = [destination for _, destination in rest if destination is not None]
            yield from zip_longest(lacking, besides)
        for lines in theirs.values():
            yield from ((None, line) for line in lines)


def _total(sums: Mapping[int, BucketSum]) -> int:
    return sum(found.rows for found in sums.values())
