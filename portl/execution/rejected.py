"""Take rows that were quarantined through again, after what they were refused for was repaired.

A row stands in the quarantine as texts under the names of the destination's columns; one that was edited there goes as
it stands. Rows go in the order in which they were quarantined, in halves down to those that are refused still, in
transactions that remove from the quarantine what they bring. So nothing is lost and nothing comes twice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import attrs

from portl.config.models import DestinationConfig
from portl.connectors.destination import Destination
from portl.connectors.exchange import ROWS, Counts, Intent, Rejected
from portl.connectors.writer import Writer
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
    """Take a job's rejected rows through again; remove from the quarantine those that go through.

    The arguments are those of ``migrate``. The source is looked at for its columns; no row is read from it.

    Returns:
        What was done: ``rows_read`` were tried, ``rows_rejected`` are refused still, with the reason as it is now.

    Raises:
        PlanError: the plan of the job has problems.
        LedgerError: the job was interrupted, so it has to be run to its end first; or it is running.
    """
    request = Request.of(
        job, source=source, destination=destination, observers=observers, cancel=cancel, overrides=overrides
    )
    with request.reported(), request.opened() as sides:
        plan = planner.plan(request, sides, exact=False, restart=False)
        task = plan.tables[0]
        if task.run is not None:
            raise LedgerError(
                f"the job {request.config.name!r} was interrupted, and its rejected rows come after the others",
                hint="run the job to its end first, then take them through again",
            )
        plan.insist()
        ledger = sides.ledger
        if ledger is None:
            return _Again(plan, sides.destination).run()
        ledger.lock(task.job)
        try:
            return _Again(plan, sides.destination).run()
        finally:
            ledger.unlock()


class _Again:
    """One job's quarantine on its way back."""

    def __init__(self, plan: Plan, destination: Destination[DestinationConfig]) -> None:
        self._task: TableTask = plan.tables[0]
        self._config = plan.config
        self._destination = destination
        self._token = destination.context.token
        self._emit = destination.context.emit
        # Texts, in the format that every destination takes; rows that were edited may have a key twice.
        self._intent: Intent = attrs.evolve(
            self._task.intent,
            format=ROWS,
            distinct=False,
            quarantine=plan.config.quarantine,
            job=plan.config.name,
        )
        self._started = time.monotonic()
        self._counts = Counts()
        self._tried = self._refused = self._bytes = 0
        self._writer: Writer

    def run(self) -> Result:
        if not self._destination.savepoints:
            raise OperationError(f"{self._destination.label()} quarantines no rows")
        if self._intent.create:
            raise SchemaError(
                f"{self._intent.target.name} does not exist, so there is nothing to bring rejected rows to",
                hint="run the job itself",
            )
        self._writer = self._destination.writer(self._intent)
        try:
            last = 0
            while (found := self._portion(last)) is not None:
                last = found
            self._token.check()
            self._writer.finish()
        except Error as error:
            self._give_up()
            told = self._token.verdict(error)
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
            self._emit(events.Warned(where="destination", message=f"tidying up failed too: {error.message}"))

    def _portion(self, after: int) -> int | None:
        """Take the next rows through in one transaction; return the last one's ``id``, None if there was none."""
        writer = self._writer
        writer.begin()
        try:
            rows = self._destination.rejected(self._intent, after=after, limit=PORTION_ROWS)
            trial = _Trial(writer, self._token)
            if rows:
                trial.take(rows)
                for rejected, error in trial.still:
                    self._cover(rejected, error)
                self._destination.settle(self._intent, trial.gone, trial.still)
            counts = trial.counts + writer.commit()
        except BaseException:
            writer.rollback()
            raise
        self._counts += counts
        self._tried += len(rows)
        self._refused += len(trial.still)
        self._bytes += trial.bytes
        return rows[-1].id if rows else None

    def _cover(self, rejected: Rejected, error: DataError) -> None:
        values = rejected.row.values(0, self._intent.fields) if rejected.row is not None else None
        masked(error, values, self._intent.mask)

    def _result(self) -> Result:
        table = TableResult(
            source=self._task.rejected_to or "the quarantine",
            destination=self._intent.target.name,
            route=ROWS.route,
            rows_read=self._tried,
            rows_inserted=self._counts.inserted,
            rows_updated=self._counts.updated,
            rows_unchanged=self._counts.unchanged,
            rows_skipped=self._counts.skipped,
            rows_kept=self._counts.kept,
            rows_rejected=self._refused,
            bytes=self._bytes,
            seconds=time.monotonic() - self._started,
        )
        return Result(name=self._config.name, tables=(table,), seconds=table.seconds)


class _Trial:
    """Rows taken through in one transaction, in halves where they are refused."""

    def __init__(self, writer: Writer, token: CancelToken) -> None:
        self._writer = writer
        self._token = token
        self.gone: list[Rejected] = []
        self.still: list[tuple[Rejected, DataError]] = []
        self.counts = Counts()
        self.bytes = 0

    def take(self, rows: Sequence[Rejected]) -> None:
        """Write rows behind a savepoint; those that are refused stay out."""
        self.still += [(row, DataError(row.trouble or "it is no row of this job")) for row in rows if row.row is None]
        whole = [row for row in rows if row.row is not None]
        if whole:
            self._writer.save()
            self._halve(whole)
            self._writer.release()

    def _halve(self, rows: Sequence[Rejected]) -> None:
        self._token.check()
        error = self._attempt(rows)
        while error is not None and self._writer.reconsider(error):
            error = self._attempt(rows)
        if error is None:
            self.gone += rows
        elif len(rows) == 1:
            self.still.append((rows[0], error))
        else:
            middle = len(rows) // 2
            self._halve(rows[:middle])
            self._halve(rows[middle:])

    def _attempt(self, rows: Sequence[Rejected]) -> DataError | None:
        try:
            sent = sum(self._writer.write(rejected.row) for rejected in rows if rejected.row is not None)
            counts = self._writer.check()
        except DataError as error:
            self._writer.restore()
            return error
        self._writer.save()
        self.bytes += sent
        self.counts += counts
        return None
