"""The events of a table: progress, rejected rows, and the counts behind them."""

from __future__ import annotations

import time

from portl.config.models import MigrationConfig, OnError
from portl.connectors.context import Context
from portl.execution.chunks.progress import Progress, too_many
from portl.execution.record import RunRecord
from portl.planning.delivery import Delivery
from portl.planning.tasks import TableTask
from portl.values import events
from portl.values.runs import ChunkLine, RunTable


class Tracking:
    """Notes the progress of chunks, and reports it to the observers. Called in one thread.

    Args:
        task: that of the table.
        config: the job.
        record: the record of the chunk lines.
        context: with the observers.
        part: the table's part of a run of many tables; None if the run has one table.
    """

    def __init__(
        self,
        task: TableTask,
        config: MigrationConfig,
        record: RunRecord,
        context: Context,
        part: RunTable | None = None,
    ) -> None:
        self._part = part
        self._task = task
        self._config = config
        self.record = record
        self._context = context
        #: By chunk, rows and bytes written in a transaction that is still open.
        self._written: dict[int, tuple[int, int]] = {}
        self.retries = 0
        #: The ``time.monotonic()`` at which the table began and, in a run of many, of its last report.
        self.started = time.monotonic()
        self._heard: float | None = None

    @property
    def lines(self) -> list[ChunkLine]:
        """The chunk lines of the table."""
        lines, part = self.record.lines, self._part
        return [*lines.values()] if part is None else [lines[n] for n in part.numbers]

    @property
    def seconds(self) -> float:
        """How long the table took; in a run of many, from its first chunk to its last."""
        if self._part is None:
            return time.monotonic() - self.started
        return self._heard - self.started if self._heard is not None else 0.0

    @property
    def earlier_rows(self) -> int:
        """Rows that earlier attempts moved."""
        if self._part is None:
            return self.record.earlier_rows
        return sum(line.rows for line in self.lines if line.attempt != self.record.run.attempt)

    def announce(self) -> None:
        """Report that the table begins."""
        count = self._task.count
        self._context.emit(
            events.TableStarted(
                source=self._task.source.name,
                destination=self._task.destination.name,
                route=self._task.route,
                rows_expected=count.rows if count else None,
                rows_exact=bool(count and count.exact),
            )
        )

    def begun(self, number: int) -> None:
        """Note that a chunk is being moved, perhaps again, and reset its counts."""
        self._written.pop(number, None)
        self.record.begun(number)
        if self._heard is None:
            self.started = self._heard = time.monotonic()

    def retried(self) -> None:
        """Count a retried chunk."""
        self.retries += 1

    def undone(self) -> None:
        """Discard what was written in a transaction that was rolled back."""
        self._written.clear()

    def progress(self, progress: Progress) -> None:
        """Note a COMMIT, or written rows, and report it.

        Raises:
            OperationError: more rows are rejected than the job allows.
        """
        number, self._heard = progress.line.number, time.monotonic()
        if progress.provisional:
            rows, size = self._written.get(number, (0, 0))
            self._written[number] = (rows + progress.rows, size + progress.bytes)
        else:
            self.record.committed(progress.line)
            self._written.pop(number, None)
        lines = self.lines
        rows = sum(line.rows for line in lines) + sum(rows for rows, _ in self._written.values())
        size = sum(line.bytes for line in lines) + sum(size for _, size in self._written.values())
        if progress.rows or (progress.last_batch and not progress.rejected):
            self._context.emit(
                events.BatchCommitted(
                    table=self._task.destination.name,
                    chunk=number,
                    first_batch=progress.first_batch,
                    last_batch=progress.last_batch,
                    rows=progress.rows,
                    bytes=progress.bytes,
                    total_rows=rows,
                    total_bytes=size,
                    rows_per_second=(rows - self.earlier_rows) / max(1e-6, time.monotonic() - self.started),
                    provisional=progress.provisional or self._task.delivery is Delivery.WHOLE,
                )
            )
        if progress.rejected:
            self._rejected(progress)

    def _rejected(self, progress: Progress) -> None:
        total = sum(line.rejected for line in self.lines)
        place = self._task.rejected_to or ""
        self._context.emit(
            events.RowsRejected(
                table=self._task.destination.name,
                chunk=progress.line.number,
                rows=progress.rejected,
                total=total,
                place=place,
                example=progress.example or "",
                reasons=progress.reasons,
            )
        )
        if total > self._config.quarantine.limit and self._config.on_error is OnError.QUARANTINE:
            raise too_many(self._config.quarantine.limit, place)
