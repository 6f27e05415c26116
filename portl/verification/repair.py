"""Copy rows again that a comparison found missing or different (``portl.verify(job, repair=True)``)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TextIO

import attrs

from portl.config.models import DEFAULT_BATCH_ROWS, Conflict, MigrationConfig, Strategy
from portl.connectors.comparer import Comparer, Texts
from portl.connectors.exchange import ROWS, Batch, Chunk, Intent, Reading
from portl.connectors.source import Source
from portl.connectors.writer import Writer
from portl.planning.plan import Plan, PlanError
from portl.planning.request import Sides, TableSides
from portl.values.errors import DataError, OperationError
from portl.values.findings import Severity
from portl.verification.compare import TableComparison

#: Keys fetched in one statement, and rows written in one transaction.
PORTION = 5000


def repair(config: MigrationConfig, sides: Sides | TableSides, comparison: TableComparison, spool: TextIO) -> int:
    """Copy the rows again whose keys are in the spool; return the number written.

    Args:
        config: the job.
        sides: both sides, still open.
        comparison: the comparison that filled the spool.
        spool: the keys as JSON, one per line.

    Raises:
        PlanError: the job's rows cannot be written.
        OperationError: some of the missing rows are in the quarantine, and there is no key to recognise them by.
    """
    task = comparison.task
    problems = tuple(finding for finding in task.findings if finding.severity is Severity.PROBLEM)
    if problems:
        labels = sides.source.label(), sides.destination.label()
        task = attrs.evolve(task, findings=problems)
        raise PlanError(Plan(config=config, source=labels[0], destination=labels[1], tables=(task,)))
    spool.seek(0)
    return _Repair(sides, comparison).carry_out(_portions(spool, PORTION))


def _portions(lines: Iterable[str], size: int) -> Iterator[dict[Texts, int]]:
    """Yield the keys in a spool, up to ``size`` at a time, and how often each occurs."""
    found: Counter[Texts] = Counter()
    for line in lines:
        found[tuple(json.loads(line))] += 1
        if len(found) >= size:
            yield dict(found)
            found = Counter()
    if found:
        yield dict(found)


class _Repair:
    """Fetches rows by their keys and writes them, one portion of keys in each transaction."""

    def __init__(self, sides: Sides | TableSides, comparison: TableComparison) -> None:
        self._source = sides.source
        self._destination = sides.destination
        self._key = comparison.criteria.key
        #: True if the keys come from the core's comparer, not the connector's.
        self._in_python = comparison.digest == Comparer.PYTHON
        self._planned = comparison.task.intent
        self._intent = self._repairing(self._planned)

    def _repairing(self, intent: Intent) -> Intent:
        """Return the intent to write with: ``overwrite`` on the key, or plain inserts if there is none."""
        named = {frozenset(key.columns): key for key in intent.target.keys}
        key = named.get(frozenset(self._key)) if self._key else None
        strategy = Strategy.OVERWRITE if key is not None else Strategy.FAIL
        if strategy not in self._destination.strategies:
            strategy = Strategy.FAIL
        conflict = Conflict(strategy=strategy, key=self._key or None)
        format = ROWS if self._in_python else intent.format.then or intent.format
        return attrs.evolve(intent, conflict=conflict, key=key, format=format, distinct=False, quarantine=None)

    def carry_out(self, portions: Iterable[Mapping[Texts, int]]) -> int:
        """Write the rows; return their number.

        Args:
            portions: keys in the comparer's form, each with the most rows to write.
        """
        writer = self._destination.writer(self._intent)
        written = 0
        try:
            self._insist_on_an_empty_quarantine(writer)
            for wanted in portions:
                written += self._write(writer, list(self._selected(wanted)))
            writer.finish()
        except BaseException:
            writer.abandon()
            raise
        return written

    def _insist_on_an_empty_quarantine(self, writer: Writer) -> None:
        """Refuse to copy rows that a later ``retry_rejected`` would insert again: without a key both would stay."""
        if self._key or self._planned.quarantine is None or not self._destination.savepoints:
            return
        writer.begin()
        try:
            waiting = self._destination.rejected(self._planned, limit=1)
        finally:
            writer.rollback()
        if waiting:
            raise OperationError(
                "some of the missing rows are in the quarantine, and there is no key to recognise them by when they are"
                " retried",
                hint="write them first with `portl retry-rejected`, or delete them from the quarantine, then repair",
            )

    def _write(self, writer: Writer, batches: Sequence[Batch]) -> int:
        """Write batches in one transaction; after an error, try another way if the writer has one."""
        while True:
            writer.begin()
            try:
                for batch in batches:
                    writer.write(batch)
                writer.commit()
            except DataError as error:
                writer.rollback()
                if not writer.reconsider(error):
                    raise
            except BaseException:
                writer.rollback()
                raise
            else:
                return sum(batch.rows for batch in batches)

    def _selected(self, wanted: Mapping[Texts, int]) -> Iterable[Batch]:
        intent = self._intent
        reading = Reading(fields=intent.fields, format=intent.format, chunk=Chunk(), batch_rows=DEFAULT_BATCH_ROWS)
        if self._in_python:
            return Source.select(self._source, reading, self._key, wanted)
        return self._source.select(reading, self._key, wanted)
