"""Carry a plan out: read batches, write them in transactions, tell the observers.

One transaction for each batch would cost half the speed. So a transaction holds many batches (``GROUP_BYTES``,
``GROUP_SECONDS``), and their rows stay in memory until it is committed. When it fails, it is rolled back and its
batches are taken through one by one: those before the bad one are kept, the bad one is rolled back, and the user sees
what he would have seen with one transaction a batch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from portl import events
from portl.config import DEFAULT_BATCH_ROWS, DestinationConfig, MigrationConfig, SourceConfig
from portl.connectors import Batch, Chunk, Context, Counts, Destination, Reading, Source, Writer
from portl.errors import DataError, Error, Interrupted
from portl.planning import Plan, TableTask
from portl.result import Result, TableResult

logger = logging.getLogger("portl.engine")

#: A transaction is committed when the batches in it hold this much; it bounds what is kept for a replay.
GROUP_BYTES = 24 * 1024 * 1024
#: … or when it is this old, so that progress is seen and little is redone on a slow link.
GROUP_SECONDS = 2.0
#: Where the job leaves the batch size open, a batch ends early at this size, so that wide rows do not fill memory.
BATCH_BYTES = 8 * 1024 * 1024


def execute(
    plan: Plan,
    source: Source[SourceConfig],
    destination: Destination[DestinationConfig],
    context: Context,
    started: float,
) -> Result:
    """Carry the plan out over two open ends.

    Args:
        plan: without problems.
        source: open.
        destination: open.
        context: the observers and the token.
        started: the ``time.monotonic()`` at which the run began.
    """
    context.emit(
        events.Started(name=plan.config.name, source=plan.source, destination=plan.destination, tables=len(plan.tables))
    )
    done: list[TableResult] = []

    def result(current: TableResult | None = None) -> Result:
        tables = (*done, current) if current else tuple(done)
        return Result(name=plan.config.name, tables=tables, seconds=time.monotonic() - started)

    for task in plan.tables:
        load = _Load(task, plan.config, source, destination, context)
        try:
            done.append(load.run())
        except KeyboardInterrupt as error:
            interrupted = error if isinstance(error, Interrupted) else Interrupted("interrupted by Ctrl-C")
            raise _failed(interrupted, result(load.result()), context) from None
        except Error as error:
            raise _failed(context.token.verdict(error), result(load.result()), context)
        context.emit(events.TableDone(result=done[-1]))
    final = result()
    context.emit(events.Done(result=final))
    return final


def _failed(error: Error, committed: Result, context: Context) -> Error:
    error.committed = committed
    context.emit(events.Failed(kind=type(error).__name__, error=str(error)))
    return error


class _Load:
    """One table on its way."""

    def __init__(
        self,
        task: TableTask,
        config: MigrationConfig,
        source: Source[SourceConfig],
        destination: Destination[DestinationConfig],
        context: Context,
    ) -> None:
        self._task = task
        self._config = config
        self._source = source
        self._destination = destination
        self._context = context
        self._writer: Writer
        self._group: list[Batch] = []
        self._group_size = 0
        self._group_sent = 0
        self._group_since = 0.0
        self._open = False
        self._counts = Counts()
        self._rows = self._bytes = self._batches = 0
        self._started = time.monotonic()

    def run(self) -> TableResult:
        """Move the rows; return what became of them."""
        task = self._task
        count = task.count
        self._context.emit(
            events.TableStarted(
                source=task.source.name,
                destination=task.destination.name,
                route=task.route,
                rows_expected=count.rows if count else None,
                rows_exact=bool(count and count.exact),
            )
        )
        self._writer = self._destination.writer(task.intent)
        try:
            self._begin()
            for chunk in self._task.split.chunks:
                for batch in self._source.read(self._reading(chunk)):
                    self._context.token.check()
                    self._add(batch)
            self._commit()
            self._context.token.check()
            self._writer.finish()
        except BaseException:
            self._give_up()
            raise
        return self.result()

    def result(self) -> TableResult:
        """Return what is committed so far."""
        counts = self._counts
        return TableResult(
            source=self._task.source.name,
            destination=self._task.destination.name,
            route=self._task.route,
            rows_read=self._rows,
            rows_inserted=counts.inserted,
            rows_updated=counts.updated,
            rows_skipped=counts.skipped,
            rows_unchanged=counts.unchanged,
            bytes=self._bytes,
            batches=self._batches,
            seconds=time.monotonic() - self._started,
        )

    def _reading(self, chunk: Chunk) -> Reading:
        size = self._config.batch_size
        return Reading(
            fields=self._task.fields,
            format=self._task.intent.format,
            chunk=chunk,
            batch_rows=size or DEFAULT_BATCH_ROWS,
            batch_bytes=None if size else BATCH_BYTES,
        )

    def _begin(self) -> None:
        self._writer.begin()
        self._open = True
        self._group_since = time.monotonic()

    def _add(self, batch: Batch) -> None:
        if not self._open:
            self._begin()
        self._group.append(batch)
        self._group_size += batch.size
        try:
            self._group_sent += self._writer.write(batch)
        except DataError as error:
            self._recover(error)
            return
        if self._group_size >= GROUP_BYTES or time.monotonic() - self._group_since >= GROUP_SECONDS:
            self._commit()

    def _commit(self) -> None:
        if not self._open:
            return
        try:
            counts = self._writer.commit()
        except DataError as error:
            self._recover(error)
            return
        self._open = False
        self._account(self._group, counts, self._group_sent)
        self._clear()

    def _clear(self) -> None:
        self._group = []
        self._group_size = self._group_sent = 0

    def _account(self, batches: Sequence[Batch], counts: Counts, sent: int) -> None:
        """Add a committed transaction to the totals and report it."""
        rows = sum(batch.rows for batch in batches)
        self._rows += rows
        self._bytes += sent
        self._batches += len({batch.number for batch in batches})
        self._counts += counts
        if not batches:
            return
        event = events.BatchCommitted(
            table=self._task.destination.name,
            first_batch=batches[0].number,
            last_batch=batches[-1].number,
            rows=rows,
            bytes=sent,
            total_rows=self._rows,
            total_bytes=self._bytes,
            rows_per_second=self._rows / max(1e-6, time.monotonic() - self._started),
        )
        logger.debug("committed batches %d to %d: %d rows", event.first_batch, event.last_batch, rows)
        self._context.emit(event)

    def _recover(self, error: DataError) -> None:
        """Roll the transaction back and take its batches through again; raise for the first that cannot go."""
        self._rollback()
        group = self._group
        self._clear()
        if self._writer.reconsider(error):
            try:
                self._transaction(group)
                return
            except DataError:
                logger.debug("a transaction of %d batches failed; taking them one by one", len(group))
        for batch in group:
            self._context.token.check()
            try:
                self._transaction([batch])
            except DataError as refused:
                raise self._located(batch, refused)

    def _transaction(self, batches: Sequence[Batch]) -> None:
        """Write and commit some batches; again if the writer has another way to do it."""
        while True:
            try:
                counts, sent = self._attempt(batches)
            except DataError as error:
                if not self._writer.reconsider(error):
                    raise
            else:
                self._account(batches, counts, sent)
                return

    def _attempt(self, batches: Sequence[Batch]) -> tuple[Counts, int]:
        self._begin()
        try:
            sent = sum(self._writer.write(batch) for batch in batches)
            counts = self._writer.commit()
        except DataError:
            self._rollback()
            raise
        self._open = False
        return counts, sent

    def _rollback(self) -> None:
        self._writer.rollback()
        self._open = False

    def _located(self, batch: Batch, error: DataError) -> DataError:
        """Find the first row of a refused batch that is to blame, by halving, and say so in the error.

        The smallest number of leading rows that is refused ends with that row: about log2(rows) trials, each rolled
        back. The server's own count of lines is not used: it is missing for foreign keys and wrong for rows too big.
        """
        good, bad = 0, batch.rows
        while bad - good > 1:
            middle = (good + bad) // 2
            refusal = self._refusal(batch.take(0, middle))
            if refusal is None:
                good = middle
            else:
                bad, error = middle, refusal
        if bad == batch.rows or good == 0:
            error = self._refusal(batch.take(0, bad)) or error
        error.batch = batch.number
        error.row = batch.first_row + bad - 1
        error.values = batch.values(bad - 1, self._task.fields)
        position = f"row {error.row:,} of the source (batch {batch.number:,})"
        error.message = f"{position}{self._named(error.values)}: {error.message}"
        return error

    def _refusal(self, batch: Batch) -> DataError | None:
        """Write a batch, roll it back, and return what was said against it."""
        self._begin()
        try:
            self._writer.write(batch)
            self._writer.check()
        except DataError as error:
            return error
        finally:
            self._rollback()
        return None

    def _named(self, values: dict[str, str | None]) -> str:
        """Name a row by its key, or by its first column."""
        key = self._task.intent.key or self._task.destination.primary_key
        names = [name for name in key.columns if name in values] if key else []
        shown = ", ".join(f"{name} = {_cut(values[name])}" for name in names or list(values)[:1])
        return f" with {shown}" if shown else ""

    def _give_up(self) -> None:
        """Roll back and tidy up; a failure in doing so must not hide the one that led here."""
        try:
            if self._open:
                self._rollback()
            self._writer.abandon()
        except Error as error:
            logger.warning("tidying up after a failure failed too: %s", error)


def _cut(value: str | None, width: int = 60) -> str:
    if value is None:
        return "NULL"
    return value if len(value) <= width else value[: width - 3] + "..."
