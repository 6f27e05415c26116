"""Retry quarantined rows, once the cause of their refusal is fixed.

The quarantine stores a row as text by the destination's column names; a row edited there is written as edited. Rows are
written in the order in which they were quarantined, bisected down to those that are still refused, in transactions that
also remove the written rows from the quarantine. So nothing is lost and nothing is written twice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import attrs

from portl.config.models import DestinationConfig, MigrationConfig
from portl.connectors.destination import Destination
from portl.connectors.exchange import ROWS, Counts, Intent, Rejected
from portl.connectors.writer import Writer
from portl.execution.chunks.progress import Tally
from portl.execution.chunks.transaction import put
from portl.planning import planner
from portl.planning.plan import Plan
from portl.planning.request import Job, Request
from portl.planning.tasks import TableTask
from portl.values import events
from portl.values.cancel import CancelToken
from portl.values.errors import DataError, Error, LedgerError, OperationError, SchemaError
from portl.values.masking import masked
from portl.values.results import Result, TableResult

#: Rows in one transaction.
PORTION_ROWS = 1000


def retry_rejected(
    job: Job,
    *,
    source: object | None = None,
    destination: object | None = None,
    observers: Sequence[events.Observer] = (),
    cancel: CancelToken | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Result:
    """Write a job's quarantined rows to the destination, and remove the accepted ones from the quarantine.

    Takes the arguments of ``migrate``. The source is only asked for its columns; no rows are read from it.

    Returns:
        The result: ``rows_read`` were tried, ``rows_rejected`` are still refused, now with the current reason.

    Raises:
        PlanError: the plan of the job has problems.
        LedgerError: the job was interrupted and has to be finished first.
        AlreadyRunning: the job is running.
    """
    request = Request.of(
        job, source=source, destination=destination, observers=observers, cancel=cancel, overrides=overrides
    )
    with request.reported(), request.opened() as sides:
        plan = planner.plan(request, sides, exact=False, restart=False)
        if not plan.tables:
            plan.insist()
        task = plan.tables[0]
        if task.run is not None:
            raise LedgerError(
                f"the job {request.config.name!r} was interrupted, and rejected rows are retried only after all others",
                hint="run the job to its end first, then retry them",
            )
        plan.insist()
        if sides.ledger is not None:
            sides.ledger.lock(task.job)
            sides.before_closing(sides.ledger.unlock)
        if plan.config.tables is None:
            return _Retry(plan, plan.config, task, sides.destination).run()
        started = time.monotonic()
        done: list[TableResult] = []
        for task in plan.tables:
            table = sides.tables[task.destination.name]
            done += _Retry(plan, table.config, task, table.destination).run().tables
        return Result(name=plan.config.name, tables=tuple(done), seconds=time.monotonic() - started)


class _Retry:
    """Retries the quarantine of one table."""

    def __init__(
        self, plan: Plan, config: MigrationConfig, task: TableTask, destination: Destination[DestinationConfig]
    ) -> None:
        self._task = task
        self._config = plan.config
        self._destination = destination
        # Text, in the format that every destination accepts; edited rows may share a key.
        self._intent: Intent = attrs.evolve(
            self._task.intent, format=ROWS, distinct=False, quarantine=config.quarantine, job=plan.config.name
        )
        self._started = time.monotonic()
        self._tally = Tally()
        self._refused = 0
        self._writer: Writer

    def run(self) -> Result:
        if not self._destination.savepoints:
            raise OperationError(f"{self._destination.label()} cannot quarantine rows")
        if self._intent.create:
            raise SchemaError(
                f"{self._intent.target.name} does not exist, so rejected rows have nowhere to go",
                hint="run the job itself",
            )
        token = self._destination.context.token
        self._writer = self._destination.writer(self._intent)
        try:
            last = 0
            while (found := self._portion(last)) is not None:
                last = found
            token.check()
            self._writer.finish()
        except Error as error:
            self._give_up()
            told = token.verdict(error)
            told.committed = self._result()
            raise told from None
        except BaseException:
            self._give_up()
            raise
        return self._result()

    def _give_up(self) -> None:
        try:
            self._writer.abandon()
        except Error as error:
            warned = events.Warned(where="destination", message=f"tidying up failed too: {error.message}")
            self._destination.context.emit(warned)

    def _portion(self, after: int) -> int | None:
        """Write the next rows in one transaction; return the last one's ``id``, or None if none are left."""
        writer, tally = self._writer, self._tally
        writer.begin()
        try:
            rows = self._destination.rejected(self._intent, after=after, limit=PORTION_ROWS)
            trial = _Trial(writer, self._destination.context.token)
            if rows:
                trial.write(rows)
                for rejected, error in trial.refused:
                    self._cover(rejected, error)
                self._destination.settle(self._intent, trial.accepted, trial.refused)
            counts = trial.counts + writer.commit()
        except BaseException:
            writer.rollback()
            raise
        tally.counts += counts
        tally.rows += len(rows)
        tally.bytes += trial.bytes
        self._refused += len(trial.refused)
        return rows[-1].id if rows else None

    def _cover(self, rejected: Rejected, error: DataError) -> None:
        values = rejected.row.values(0, self._intent.fields) if rejected.row is not None else None
        masked(error, values, self._intent.mask)

    def _result(self) -> Result:
        tally = self._tally
        table = TableResult(
            source=self._task.rejected_to or "the quarantine",
            destination=self._intent.target.name,
            route=ROWS.route,
            rows_read=tally.rows,
            rows_inserted=tally.counts.inserted,
            rows_updated=tally.counts.updated,
            rows_unchanged=tally.counts.unchanged,
            rows_skipped=tally.counts.skipped,
            rows_kept=tally.counts.kept,
            rows_rejected=self._refused,
            bytes=tally.bytes,
            seconds=time.monotonic() - self._started,
        )
        return Result(name=self._config.name, tables=(table,), seconds=table.seconds)


class _Trial:
    """Writes rows in one transaction, bisecting those that are refused."""

    def __init__(self, writer: Writer, token: CancelToken) -> None:
        self._writer = writer
        self._token = token
        self.accepted: list[Rejected] = []
        self.refused: list[tuple[Rejected, DataError]] = []
        self.counts = Counts()
        self.bytes = 0

    def write(self, rows: Sequence[Rejected]) -> None:
        """Write rows after a savepoint, leaving out those that are refused."""
        self.refused += [(row, DataError(row.trouble or "it is no row of this job")) for row in rows if row.row is None]
        whole = [row for row in rows if row.row is not None]
        if whole:
            self._writer.save()
            self._write(whole)
            self._writer.release()

    def _write(self, rows: Sequence[Rejected]) -> None:
        self._token.check()
        error = self._attempt(rows)
        while error is not None and self._writer.reconsider(error):
            error = self._attempt(rows)
        if error is None:
            self.accepted += rows
        elif len(rows) == 1:
            self.refused.append((rows[0], error))
        else:
            middle = len(rows) // 2
            self._write(rows[:middle])
            self._write(rows[middle:])

    def _attempt(self, rows: Sequence[Rejected]) -> DataError | None:
        try:
            sent, counts = put(self._writer, [rejected.row for rejected in rows if rejected.row is not None])
        except DataError as error:
            return error
        self.bytes += sent
        self.counts += counts
        return None
