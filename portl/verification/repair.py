"""Copy rows that a comparison has found missing or different once more (``portl.verify(job, repair=True)``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from portl.config.models import DEFAULT_BATCH_ROWS, Conflict, DestinationConfig, SourceConfig, Strategy
from portl.connectors.comparer import Texts
from portl.connectors.destination import Destination
from portl.connectors.exchange import ROWS, Batch, Chunk, Intent, Reading
from portl.connectors.source import Source
from portl.connectors.writer import Writer
from portl.values.errors import DataError, OperationError


class Repair:
    """Rows that are fetched by their keys and written, a portion of keys in each transaction.

    Args:
        source: open.
        destination: open.
        intent: the job's.
        key: the destination's columns by which rows were matched; empty: the whole row is meant.
        in_python: True if the keys were told by the comparer of the core.
    """

    def __init__(
        self,
        source: Source[SourceConfig],
        destination: Destination[DestinationConfig],
        intent: Intent,
        key: Sequence[str],
        *,
        in_python: bool,
    ) -> None:
        self._source = source
        self._destination = destination
        self._key = tuple(key)
        self._in_python = in_python
        self._aside = intent
        self._intent = self._repairing(intent)

    def _repairing(self, intent: Intent) -> Intent:
        """Return the intent to write with: ``overwrite`` on the key, plain inserts where there is none."""
        named = {frozenset(key.columns): key for key in intent.target.keys}
        key = named.get(frozenset(self._key)) if self._key else None
        strategy = Strategy.OVERWRITE if key is not None else Strategy.FAIL
        if strategy not in self._destination.strategies:
            strategy = Strategy.FAIL
        conflict = Conflict(strategy=strategy, key=self._key or None)
        format = ROWS if self._in_python else intent.format.then or intent.format
        return attrs.evolve(intent, conflict=conflict, key=key, format=format, distinct=False, quarantine=None)

    def carry_out(self, portions: Iterable[Mapping[Texts, int]]) -> int:
        """Write the rows; return how many there were.

        Args:
            portions: keys as the comparer told them, and how many rows of each at most.

        Raises:
            OperationError: quarantined rows are missing, and nothing would tell them from those that come back.
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
        """Refuse to bring rows that a later ``retry_rejected`` would bring once more: without a key both would stay."""
        if self._key or self._aside.quarantine is None or not self._destination.savepoints:
            return
        writer.begin()
        try:
            waiting = self._destination.rejected(self._aside, limit=1)
        finally:
            writer.rollback()
        if waiting:
            raise OperationError(
                "quarantined rows are among the missing ones, and there is no key by which they would be recognised "
                "when they come back from the quarantine",
                hint="take them through first with `portl retry-rejected`, or remove them there, then repair",
            )

    def _write(self, writer: Writer, batches: Sequence[Batch]) -> int:
        """Write batches in one transaction, in another way if the writer knows one."""
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
