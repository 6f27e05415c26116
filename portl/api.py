"""The two calls: ``migrate`` and ``plan``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from portl import plugins
from portl.config import DestinationConfig, MigrationConfig, SourceConfig, Verify
from portl.connectors import CancelToken, Context, Destination, Finding, Source
from portl.errors import (
    AlreadyRunning,
    Cancelled,
    CommitInDoubt,
    ConnectionFailed,
    Error,
    Interrupted,
    PlanError,
    PluginError,
    VerificationFailed,
)
from portl.events import Done, Event, Failed, Observer, TableDone, Warned
from portl.ledger import Ledger, Run, RunState
from portl.retrying import retrying

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from portl.plans import Plan
    from portl.result import Result

Job = str | os.PathLike[str] | Mapping[str, Any] | MigrationConfig


def migrate(
    job: Job,
    *,
    source: object | None = None,
    destination: object | None = None,
    observers: Sequence[Observer] = (),
    cancel: CancelToken | None = None,
    overrides: Mapping[str, str] | None = None,
    restart: bool = False,
    executor: Executor | None = None,
) -> Result:
    """Plan a job and carry it out. One that was interrupted goes on where it stopped.

    Args:
        job: the path of a job file, a dict with the same keys, or a ``MigrationConfig``.
        source: a connection or pool of your own to read with, of the kind that the connector's driver has. portl
            neither closes it nor commits a transaction that is already open on it.
        destination: the same to write with.
        observers: functions that are called with each event, in the thread that called ``migrate``.
        cancel: a token with which another thread can end the run.
        overrides: dotted path of a key to the YAML text of its new value, as ``portl run --set`` takes them.
        restart: True to begin again where an earlier run was interrupted.
        executor: what moves the chunks, ``parallel`` of them at a time; by default threads of portl's own. Any
            ``concurrent.futures.Executor`` (docs/scaling.md); portl does not shut it down.

    Returns:
        What was done.

    Raises:
        ConfigError: the job is wrong.
        PlanError: the plan has problems; nothing was written.
        AlreadyRunning: another process is at work on the same job.
        Error: anything else; ``committed`` says what stays.
    """
    session = Session.of(job, source, destination, observers, cancel, overrides, restart=restart)
    return session.migrate(executor=executor)


def plan(
    job: Job,
    *,
    source: object | None = None,
    destination: object | None = None,
    observers: Sequence[Observer] = (),
    cancel: CancelToken | None = None,
    overrides: Mapping[str, str] | None = None,
    restart: bool = False,
) -> Plan:
    """Look at both ends and return what would be done. Writes nothing. The arguments are those of ``migrate``."""
    session = Session.of(job, source, destination, observers, cancel, overrides, restart=restart)
    with session.reported(), session.ends() as (reading, writing):
        return session.plan(reading, writing, exact=True)


@attrs.define(kw_only=True)
class Session:
    """A job with all that its caller has handed in."""

    config: MigrationConfig
    _source: object | None = attrs.field(repr=False)
    _destination: object | None = attrs.field(repr=False)
    _context: Context = attrs.field(repr=False)
    _restart: bool
    #: The run that ``restart`` leaves behind; None: there is none, or it was not looked for yet.
    _left: str | None = None
    _started: float = attrs.field(factory=time.monotonic)
    #: A COMMIT of the last attempt whose outcome is not known yet.
    _doubt: CommitInDoubt | None = None
    #: The plan that the caller has seen, and wants carried out.
    _planned: Plan | None = None
    #: What moves the chunks.
    _executor: Executor | None = attrs.field(default=None, repr=False)
    #: The plan that was carried out last.
    _plan: Plan | None = None
    #: True while an attempt has not reached both ends.
    _reaching: bool = True
    #: True once an attempt has gone as far as moving rows.
    _begun: bool = False
    #: Rows that attempts have committed: with each further one, patience begins anew.
    _reached: int = 0
    #: What was done, from the moment on when all rows are there: nothing that fails then may bring them again.
    _finished: Result | None = None

    @classmethod
    def of(
        cls,
        job: Job,
        source: object | None,
        destination: object | None,
        observers: Sequence[Observer],
        cancel: CancelToken | None,
        overrides: Mapping[str, str] | None,
        *,
        restart: bool = False,
    ) -> Session:
        """Load the job and gather the arguments of ``migrate``."""
        from portl.loading import load

        config = load(job, overrides=overrides)

        def emit(event: Event) -> None:
            for observer in observers:
                try:
                    observer(event)
                except Error as error:
                    error.transient = False  # what an observer raises ends the run; it is no failure of the run's
                    raise

        context = Context(token=cancel or CancelToken(), emit=emit, retry=config.retry)
        return cls(config=config, source=source, destination=destination, context=context, restart=restart)

    def migrate(self, planned: Plan | None = None, executor: Executor | None = None) -> Result:
        """Plan and carry out; again from where the ledger stands after a failure that passes.

        Args:
            planned: the plan that the caller has seen. If what would be done now is not the same, nothing is done.
            executor: what moves the chunks; None: threads.
        """
        self._planned = planned
        self._executor = executor
        self._started = time.monotonic()
        self._finished = None
        with self.reported():
            return retrying(
                self._attempt,
                self._context,
                f"the job {self.config.name!r}",
                again=self._worth_another,
                progress=lambda: self._reached,
            )

    def _attempt(self) -> Result:
        self._reaching = True
        with self.ends() as (reading, writing):
            self._reaching = False
            self._after_doubt(writing)
            if self._finished is not None:
                return self._concluded(self._finished, reading, writing, anew=True)
            ledger = writing.ledger(self.config.ledger)
            plan = self.plan(reading, writing, exact=False, ledger=ledger)
            if self._planned is not None and not self._begun:
                plan = self._planned.stale(plan)
            return self._run(plan, reading, writing, ledger if isinstance(ledger, Ledger) else None)

    def _worth_another(self, error: BaseException) -> bool:
        """Tell whether a failed attempt should be followed by another, with both ends opened anew."""
        if not isinstance(error, Error) or isinstance(error, Cancelled) or not error.transient:
            return False
        if error.exhausted and not isinstance(error, ConnectionFailed):
            return False  # a chunk that was tried again and again, over connections that work
        lent = self._source is not None or self._destination is not None
        if lent and isinstance(error, (ConnectionFailed, CommitInDoubt)):
            return False  # a connection that was handed in cannot be opened again
        if self._reaching and not self._begun:
            return False  # that was tried often enough already
        if isinstance(error, CommitInDoubt):
            self._doubt = error
        if error.committed is not None:
            self._begun = True
            # A job that starts over commits now more, now less before it fails: that alone is no progress.
            self._reached = max(self._reached, error.committed.rows_read)
        return True

    @contextmanager
    def ends(self) -> Iterator[tuple[Source[SourceConfig], Destination[DestinationConfig]]]:
        """Open both ends; close them whatever happens."""
        reading, writing = self._connectors()
        try:
            self._context.token.check()
            reading.connect(self._context)
            writing.connect(self._context)
            from portl import engine, planning  # noqa: F401  # takes its time, and the servers take theirs

            reading.open(self._context)
            writing.open(self._context)
            yield reading, writing
        finally:
            try:
                writing.close()
            finally:
                reading.close()

    def _connectors(self) -> tuple[Source[SourceConfig], Destination[DestinationConfig]]:
        read_by = plugins.load(self.config.source.type)
        written_by = plugins.load(self.config.destination.type)
        if read_by.source is None:
            raise PluginError(f"the connector {read_by.name!r} has no source")
        if written_by.destination is None:
            raise PluginError(f"the connector {written_by.name!r} has no destination")
        return (
            read_by.source(self.config.source, self._source),
            written_by.destination(self.config.destination, self._destination),
        )

    def plan(
        self,
        reading: Source[SourceConfig],
        writing: Destination[DestinationConfig],
        *,
        exact: bool,
        ledger: Ledger | Finding | None = None,
    ) -> Plan:
        """Return the plan; see ``portl.planning``. Without a ledger the destination is asked for it."""
        from portl.planning import plan_table
        from portl.plans import Plan

        ledger = ledger or writing.ledger(self.config.ledger)
        task = plan_table(self.config, reading, writing, ledger, exact=exact, restart=self._restart)
        latest = task.found.id if task.found is not None else None
        if self._restart and not self._begun:
            self._left = latest
        elif self._restart and latest != self._left:
            # An attempt has begun the run that was asked for, and this one takes it up.
            self._restart = False
            task = plan_table(self.config, reading, writing, ledger, exact=exact, restart=False)
        return Plan(
            config=self.config, source=reading.label(), destination=writing.label(), tables=(task,), session=self
        )

    def _run(
        self,
        plan: Plan,
        reading: Source[SourceConfig],
        writing: Destination[DestinationConfig],
        ledger: Ledger | None,
    ) -> Result:
        """Carry a plan out over two open ends, as the only one who works on the job."""
        if plan.problems:
            raise PlanError(plan)
        if ledger is None:
            return self._carry_out(plan, reading, writing, None)
        ledger.lock(plan.tables[0].job)
        try:
            if self._overtaken(plan, ledger):
                # It may have waited for the lock just that long.
                self._insist_undone(ledger.find(plan.tables[0].job))
                plan = self.plan(reading, writing, exact=False)
                if plan.problems:
                    raise PlanError(plan)
            return self._carry_out(plan, reading, writing, ledger)
        finally:
            ledger.unlock()

    def _insist_undone(self, run: Run | None) -> None:
        """Refuse to do once more what another process has done while this one was getting ready."""
        if run is not None and run.state is RunState.DONE:
            raise AlreadyRunning(
                f"another process has carried out the job {self.config.name!r} meanwhile: its run of {run.began}",
                hint="nothing is left to do; run the job again if it is to be carried out once more",
            )

    @staticmethod
    def _overtaken(plan: Plan, ledger: Ledger) -> bool:
        """Tell whether another process has worked on the job between the plan and the lock."""
        from portl.plans import standing

        planned, now = plan.tables[0].found, ledger.find(plan.tables[0].job)
        return standing(planned) != standing(now)

    def _carry_out(
        self,
        plan: Plan,
        reading: Source[SourceConfig],
        writing: Destination[DestinationConfig],
        ledger: Ledger | None,
    ) -> Result:
        self._plan = plan
        for finding in plan.warnings:
            self._context.emit(Warned(where=finding.where, message=finding.message, remedy=finding.remedy))
        from portl import engine

        self._finished = engine.execute(plan, reading, writing, ledger, self._context, self._started, self._executor)
        return self._concluded(self._finished, reading, writing)

    def _concluded(
        self,
        result: Result,
        reading: Source[SourceConfig],
        writing: Destination[DestinationConfig],
        *,
        anew: bool = False,
    ) -> Result:
        """Do what comes after the last row: the comparison that the job asks for, and the word that it is done.

        Args:
            result: what was done.
            reading: the source.
            writing: the destination.
            anew: True if both ends were opened again since the rows were read.
        """
        try:
            if self.config.verify is not Verify.NONE:
                result = self._verified(result, reading, writing, anew=anew)
            self._context.emit(Done(result=result))
        except KeyboardInterrupt as error:
            interrupted = Interrupted.of(error)
            interrupted.committed = result
            raise interrupted from None
        except Error as error:
            told = self._context.token.verdict(error)
            told.committed = result
            raise told
        return result

    def _verified(
        self,
        result: Result,
        reading: Source[SourceConfig],
        writing: Destination[DestinationConfig],
        *,
        anew: bool,
    ) -> Result:
        """Compare both ends, the source in the state that was read, or, if that is lost, as it is now."""
        from portl.verifying import compare

        if anew:
            said = "compares with the source as it is now: the state that was read went with a lost connection"
            self._context.emit(Warned(where="verify", message=said))
        try:
            found = compare(self, reading, writing, self.config.verify)
        except Error as error:
            if not isinstance(error, Cancelled):
                error.message = (
                    "all rows are there, but comparing them failed (`portl verify` compares them again, the job itself "
                    f"need not run again): {error.message}"
                )
            raise
        # Rows that were put aside are missing, and the result says so.
        aside = found.missing == result.rows_rejected and not found.different
        if not found.equal and not aside:
            since = (
                "; it was looked at anew after a lost connection, and what it has changed since counts" if anew else ""
            )
            raise VerificationFailed(
                f"{found.destination} is not what the job should have made of {found.source}: {found.missing:,} rows "
                f"missing, {found.different:,} different{since}",
                found,
            )
        return attrs.evolve(result, verification=found)

    def _after_doubt(self, writing: Destination[DestinationConfig]) -> None:
        """Ask the ledger what became of a COMMIT that got lost. If it was the last one, the run is finished."""
        doubt = self._doubt
        if doubt is None or doubt.run is None:
            return
        ledger = writing.ledger(self.config.ledger)
        if not isinstance(ledger, Ledger):
            raise doubt
        line = ledger.settled(doubt.run, doubt.number)
        self._doubt = None
        run = ledger.find(doubt.run.job) if line is not None else None
        if run is None or run.id != doubt.run.id or run.state is not RunState.DONE:
            return
        assert self._plan is not None, "a COMMIT was made"
        from portl import engine

        self._finished = engine.result_of(run, self._plan, self._started)
        for table in self._finished.tables:
            self._context.emit(TableDone(result=table))

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Tell the observers of a failure, and make Ctrl-C one of portl's errors."""
        try:
            yield
        except KeyboardInterrupt as error:
            raise self._failed(Interrupted.of(error, "; nothing was written")) from None
        except Error as error:
            raise self._failed(self._context.token.verdict(error))

    def _failed(self, error: Error) -> Error:
        self._context.emit(Failed(kind=type(error).__name__, error=str(error)))
        return error
