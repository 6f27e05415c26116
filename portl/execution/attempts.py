"""Execute a job, attempt by attempt, until it is done or fails permanently.

An attempt opens both sides, plans, takes the job's lock, and has the engine execute the plan. After a transient
failure, the next attempt starts from the ledger, on the same path as after a crash. The only state passed from one
attempt to the next is in ``Attempts``:

====================================  ==================================================================
after an attempt                      the next one
====================================  ==================================================================
connecting failed                     is not made: connecting has its own retries
a connection was lost                 resumes the run; committed rows reset the count of attempts
a COMMIT got no answer                asks the ledger first; if it was the last one, only the end remains
all rows are there, the end failed    repeats the steps after the rows, and moves nothing
====================================  ==================================================================

How an attempt ends, step by step, and what the next run of the job does if the process dies after a step:

=============================================  ===========================================================
step                                           the next run
=============================================  ===========================================================
the transaction that closes the run commits    reports the finished run if moving it again would do harm
both sides are compared, if the job verifies   the same
observers receive ``Done`` and may print it    the same: a result may be reported twice, never moved twice
the source is closed                           the same
the ledger records that it was delivered       begins a new run
the destination is closed, the call returns
=============================================  ===========================================================

Between the last two steps lie only the closing of one connection and, for the command line, the end of the process;
docs/reliability.md says how long that takes. Schedulers that retry should pass an id for each run (``run_id``).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from portl.config.models import Verify
from portl.connectors.retry import retrying
from portl.execution.recorder import Recorder
from portl.planning.request import Request, Sides
from portl.values.errors import (
    AlreadyRunning,
    Cancelled,
    CommitInDoubt,
    ConnectionFailed,
    Error,
    Interrupted,
    VerificationFailed,
)
from portl.values.events import Done, TableDone, Warned
from portl.values.results import Result
from portl.values.runs import Run, RunState
from portl.values.text import counted_tables

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from pathlib import Path

    from portl.planning.plan import Plan
    from portl.planning.tasks import TableTask
    from portl.values.text import Line


#: Characters in a line of the plan in a report.
PLAN_WIDTH = 100


def _prepare() -> None:
    """Import what planning and execution need while both servers set up the new connections.

    This takes about as long as a server takes to answer, about 10 ms, which would otherwise be added to the run time.
    """
    from portl.execution import engine  # noqa: F401
    from portl.planning import planner  # noqa: F401


@attrs.define(kw_only=True)
class Attempts:
    """The attempts at one job."""

    request: Request
    #: The plan that the caller has seen; if it no longer matches what would be done, nothing is done.
    planned: Plan | None = None
    #: What moves the chunks; None for threads.
    executor: Executor | None = attrs.field(default=None, repr=False)
    #: Where the report is written; None for no report.
    report: Path | None = None
    _started: float = attrs.field(factory=time.monotonic)
    #: True until an attempt has opened both sides.
    _connecting: bool = True
    #: True once an attempt has begun to move rows.
    _begun: bool = False
    #: Rows committed so far; any increase resets the count of attempts.
    _committed: int = 0
    #: The last attempt's COMMIT, if its outcome is not known yet.
    _doubt: CommitInDoubt | None = None
    #: Whether the run starts over instead of resuming an interrupted one.
    _restart: Restart = attrs.field(init=False)
    #: The plan that was executed last.
    _plan: Plan | None = None
    #: The result, once all rows are there: no later failure may cause them to be moved again.
    _finished: Result | None = None
    _recorder: Recorder = attrs.field(factory=Recorder, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        context = self.request.context
        context = attrs.evolve(context, emit=self._recorder.around(context.emit))
        self.request = attrs.evolve(self.request, context=context)
        self._restart = Restart(wanted=self.request.restart)

    def migrate(self) -> Result:
        """Plan and execute; after a transient failure, do so again from where the ledger stands."""
        try:
            result = self._migrated()
        except Error as error:
            self._report(self._recorded(error))
            raise
        self._report(result)
        return result

    def _migrated(self) -> Result:
        with self.request.reported():
            return retrying(
                self._attempt,
                self.request.context,
                f"the job {self.request.config.name!r}",
                again=self._worth_another,
                progress=lambda: self._committed,
            )

    def _attempt(self) -> Result:
        self._connecting = True
        with self.request.opened(_prepare) as sides:
            self._connecting = False
            self._after_doubt(sides)
            if self._finished is not None:
                result = self._concluded(self._finished, sides, anew=True)
            else:
                plan = self._planned(sides)
                if self.planned is not None and not self._begun:
                    plan = self.planned.stale(plan)
                result = self._run(plan, sides)
            self._acknowledge(result, sides)
        return result

    def _planned(self, sides: Sides) -> Plan:
        with self._recorder.during("plan", self.request.config.name):
            return self._looked(sides)

    def _looked(self, sides: Sides) -> Plan:
        from portl.planning import planner  # see _prepare

        plan = planner.plan(self.request, sides, exact=False, restart=self._restart.wanted)
        if plan.tables and self._restart.overtaken(plan.tables[0].found, begun=self._begun):
            plan = planner.plan(self.request, sides, exact=False, restart=False)
        return plan

    def _worth_another(self, error: BaseException) -> bool:
        """Return whether to make another attempt after a failure, reopening both sides."""
        if not isinstance(error, Error) or isinstance(error, Cancelled) or not error.transient:
            return False
        if error.exhausted and (self._connecting or not isinstance(error, ConnectionFailed)):
            return False  # connecting, or moving a chunk over working connections, has used up its own retries
        if self.request.caller_supplied and isinstance(error, (ConnectionFailed, CommitInDoubt)):
            return False  # a caller-supplied connection cannot be reopened
        if isinstance(error, CommitInDoubt):
            self._doubt = error
        if error.committed is not None:
            self._begun = True
            # A job that starts over may commit more or fewer rows before each failure: only a new maximum is progress.
            self._committed = max(self._committed, error.committed.rows_read)
        return True

    def _run(self, plan: Plan, sides: Sides) -> Result:
        """Execute a plan over two open sides, under the lock of the job."""
        plan.insist()
        ledger = sides.ledger
        if ledger is not None:
            ledger.lock(plan.tables[0].job)
            sides.before_closing(ledger.unlock)
            if plan.overtaken(ledger):
                # The lock may have been waited for until the other process finished.
                plan = self._planned(sides)
                self._insist_undone(plan.tables[0])
                plan.insist()
        return self._carry_out(plan, sides)

    def _insist_undone(self, task: TableTask) -> None:
        """Refuse to repeat a run that another process finished while this one was planning."""
        run = task.found
        if run is not None and run.state is RunState.DONE and task.reported is None:
            raise AlreadyRunning(
                f"another process has meanwhile run the job {self.request.config.name!r} to its end: "
                f"its run of {run.began}",
                hint="nothing is left to do; to copy again, run the job again",
            )

    def _carry_out(self, plan: Plan, sides: Sides) -> Result:
        from portl.execution import engine  # see _prepare

        self._plan = plan
        for finding in plan.warnings:
            self.request.context.emit(Warned(where=finding.where, message=finding.message, remedy=finding.remedy))
        reported = plan.tables[0].reported
        if reported is not None:
            self._finished = attrs.evolve(self._from_ledger(reported, plan), reported=True)
            return self._concluded(self._finished, sides, anew=True)
        self._finished = engine.execute(plan, sides, self.request.context, self._started, self.executor)
        return self._concluded(self._finished, sides)

    def _from_ledger(self, run: Run, plan: Plan) -> Result:
        """Return the result of a finished run, from its lines in the ledger."""
        from portl.execution.counting import counted, result_of  # see _prepare

        parts = [run.of(table) for table in run.tables] or [run]
        seconds = time.monotonic() - self._started
        by_name = {table.name: part for table, part in zip(run.tables, parts, strict=False)}
        tables = (
            counted(by_name.get(task.destination.name, run), task, plan.config.batch_size, seconds)
            for task in plan.tables
        )
        return result_of(plan, tuple(tables), self._started)

    def _acknowledge(self, result: Result, sides: Sides) -> None:
        """Record in the ledger, as the very last step, that the result was delivered, if a repetition would do harm."""
        assert self._plan is not None, "there is a result"
        sides.close_source()
        ledger = sides.ledger
        if ledger is None or all(task.intent.idempotent for task in self._plan.tables):
            return
        try:
            ledger.acknowledge(result.tables[0].run)
        except Error as error:
            said = f"all rows are there, but the ledger could not record that the result was delivered: {error.message}"
            remedy = "the next run of this job reports this one instead of moving rows"
            self.request.context.emit(Warned(where="ledger", message=said, remedy=remedy))

    def _concluded(self, result: Result, sides: Sides, *, anew: bool = False) -> Result:
        """Verify the result, if the job asks for it, and report the run as done.

        Args:
            result: the result so far.
            sides: both sides, open.
            anew: True if both sides were reopened since the rows were read.
        """
        try:
            if self.request.config.verify is not Verify.NONE:
                result = self._verified(result, sides, anew=anew)
            result = attrs.evolve(result, history=self._recorder.history(self._plan_lines(self._plan)))
            self.request.context.emit(Done(result=result))
        except KeyboardInterrupt as error:
            interrupted = Interrupted.of(error)
            interrupted.committed = result
            self._acknowledge(result, sides)
            raise interrupted from None
        except Error as error:
            told = self.request.context.token.verdict(error)
            told.committed = told.committed or result
            if not told.transient:
                self._acknowledge(result, sides)
            raise told
        return result

    def _verified(self, result: Result, sides: Sides, *, anew: bool) -> Result:
        """Compare both sides, the source in the state that was read or, if that is lost, in its current state."""
        with self._recorder.during("verify", self.request.config.name):
            return self._compared(result, sides, anew=anew)

    def _compared(self, result: Result, sides: Sides, *, anew: bool) -> Result:
        from portl.verification.compare import compare  # most jobs never need it

        if self.request.config.tables is not None:
            return self._tables_verified(result, sides, anew=anew)

        if anew:
            said = "compares with the source as it is now: the snapshot that was read was lost with a connection"
            self.request.context.emit(Warned(where="verify", message=said))
        try:
            found = compare(self.request.config, sides, self.request.config.verify)
        except Error as error:
            if not isinstance(error, Cancelled):
                error.message = (
                    "all rows are there, but comparing them failed (`portl verify` compares them again, the job itself "
                    f"need not run again): {error.message}"
                )
            raise
        # Quarantined rows are missing, as the result says.
        aside = found.missing == result.rows_rejected and not found.different
        if not found.equal and not aside:
            since = (
                "; the source was read again after a lost connection, and its changes since then count as differences"
                if anew
                else ""
            )
            failed = VerificationFailed(
                f"{found.destination} is not what the job should have made of {found.source}: {found.missing:,} rows "
                f"missing, {found.different:,} different{since}",
                found,
            )
            failed.committed = attrs.evolve(result, verification=found)
            raise failed
        return attrs.evolve(result, verification=found)

    def _tables_verified(self, result: Result, sides: Sides, *, anew: bool) -> Result:
        """Compare each of many tables."""
        from portl.verification.tables import compare_tables  # most jobs never need it

        found = compare_tables(self.request.config, sides, self.request.config.verify)
        by_name = {verified.destination: verified for verified in found}
        tables = tuple(attrs.evolve(t, verification=by_name.get(t.destination)) for t in result.tables)
        wrong = [
            t.verification
            for t in tables
            if t.verification is not None
            and not t.verification.equal
            and (t.verification.missing != t.rows_rejected or t.verification.different)
        ]
        if wrong:
            names = ", ".join(verified.destination for verified in wrong)
            failed = VerificationFailed(
                f"{counted_tables(len(wrong), 'is', 'are')} not what the job should have made: {names}", wrong[0]
            )
            failed.committed = attrs.evolve(result, tables=tables)
            raise failed
        return attrs.evolve(result, tables=tables)

    @staticmethod
    def _plan_lines(plan: Plan | None) -> list[Line]:
        return plan.lines(width=PLAN_WIDTH, preview=False) if plan is not None else []

    def _recorded(self, error: Error) -> Result:
        """Return the result up to a failure, with its history, and attach it to the error."""
        from portl.planning.plan import PlanError  # see _prepare

        plan = error.plan if isinstance(error, PlanError) else self._plan
        history = self._recorder.history(self._plan_lines(plan), error.without_values)
        if error.committed is not None:
            error.committed = attrs.evolve(error.committed, history=history)
            return error.committed
        sides = (plan.source, plan.destination) if plan is not None else ("", "")
        seconds = time.monotonic() - self._started
        return Result(
            name=self.request.config.name,
            tables=(),
            seconds=seconds,
            source=sides[0],
            destination=sides[1],
            history=history,
        )

    def _report(self, result: Result) -> None:
        """Write the report, if requested; failing to write it does not fail the run."""
        if self.report is None:
            return
        try:
            result.report(self.report)
        except OSError as error:
            said = f"the report could not be written to {self.report}: {error.strerror}"
            self.request.context.emit(Warned(where="report", message=said))

    def _after_doubt(self, sides: Sides) -> None:
        """Ask the ledger about a COMMIT in doubt. If it was the last one, the run is finished."""
        doubt = self._doubt
        if doubt is None or doubt.run is None:
            return
        ledger = sides.ledger
        if ledger is None:
            raise doubt
        line = ledger.settled(doubt.run, doubt.number)
        self._doubt = None
        run = ledger.find(doubt.run.job) if line is not None else None
        if run is None or run.id != doubt.run.id or run.state is not RunState.DONE:
            return
        assert self._plan is not None, "a COMMIT was made"
        self._finished = self._from_ledger(run, self._plan)
        for table in self._finished.tables:
            self.request.context.emit(TableDone(result=table))


@attrs.define(kw_only=True)
class Restart:
    """Whether a run starts over instead of resuming another: only once, however many attempts it takes."""

    wanted: bool
    #: The abandoned run; None if there is none, or before the ledger was read.
    _left: str | None = None

    def overtaken(self, found: Run | None, *, begun: bool) -> bool:
        """Return whether an earlier attempt has already started over, so that this one resumes its run.

        Args:
            found: the latest run in the ledger.
            begun: True once an attempt has begun to move rows.
        """
        latest = found.id if found is not None else None
        if self.wanted and not begun:
            self._left = latest
        elif self.wanted and latest != self._left:
            self.wanted = False
            return True
        return False
