"""Move one table, by the planned delivery.

=========  ===========================================================================================================
delivery   transactions
=========  ===========================================================================================================
chunks     first one alone, which creates what is missing and records the run (and may take several chunks of a new
           table); then one for each chunk, over several workers; then one for what follows the rows and closes the run
repeat     the same, but each chunk in pieces; an interrupted run starts over
whole      one for everything
=========  ===========================================================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import attrs

from portl.config.models import MigrationConfig, OnError
from portl.connectors.context import Context
from portl.execution.chunks.load import ChunkLoad
from portl.execution.chunks.progress import in_doubt
from portl.execution.chunks.work import Assignment, Report, Sessions, Work
from portl.execution.counting import counted
from portl.execution.first_transaction import FirstTransaction
from portl.execution.record import RunRecord
from portl.execution.telling import making, moving
from portl.execution.tracking import Tracking
from portl.execution.workers.count import worker_count
from portl.execution.workers.pool import WorkerPool
from portl.execution.workers.worker import ExtraWorker, MainWorker, Worker, persistently
from portl.planning.delivery import Delivery
from portl.planning.request import Sides
from portl.planning.tasks import TableTask
from portl.values.errors import Cancelled, DataError, Error, Interrupted
from portl.values.events import Warned
from portl.values.results import TableResult
from portl.values.runs import ChunkLine, RunState

if TYPE_CHECKING:
    from concurrent.futures import Executor  # for a type alone, it would take 5 ms

    from portl.execution.workers.executor import ChunkExecutor  # most runs have none; importing it takes 10 ms

T = TypeVar("T")
logger = logging.getLogger("portl.execution")


class TableRun:
    """Moves one table.

    Args:
        task: that of the table.
        config: the job.
        sides: both sides, open, with the job's lock held.
        context: with the observers and the cancel token.
    """

    def __init__(self, task: TableTask, config: MigrationConfig, sides: Sides, context: Context) -> None:
        self._config = config
        self._sides = sides
        self._context = context
        self._record = RunRecord(task, sides, config.run_id)
        self._task = attrs.evolve(task, intent=attrs.evolve(task.intent, run=self._record.id))
        self._tracking = Tracking(self._task, config, self._record, context)
        #: The run's sessions, set once there is a writer.
        self._sessions: Sessions
        #: The route that rows took last, as a refused row can switch to another.
        self._route = task.route
        #: True once everything that must precede the rows has been created.
        self._made = False
        self._executor: ChunkExecutor | None = None

    def use(self, executor: Executor) -> None:
        """Have an executor move the chunks, if there are several that allow it. Called before anything is written.

        Raises:
            ConfigError: the executor is not suitable.
        """
        task = self._task
        if task.delivery is not Delivery.CHUNKS:
            why = "the job is one transaction" if task.delivery is Delivery.WHOLE else "it is not cut into chunks"
        elif task.ordered is not None:
            why = f"they come one after the other: {task.ordered}"
        elif len(task.run.chunks if task.run is not None else task.split.chunks) > 1:
            from portl.execution.workers.executor import ChunkExecutor  # most runs have none; importing it takes 10 ms

            self._executor = ChunkExecutor(executor, self._sides, self._context, self._work())
            return
        else:
            return
        said = f"rows are moved by this process, not by the executor: {why}"
        self._context.emit(Warned(where="executor", message=said))

    def carry_out(self) -> TableResult:
        """Move the rows; return the table's result."""
        self._tracking.announce()
        source, destination = self._sides.source, self._sides.destination
        writer, ledger = destination.writer(self._task.intent), self._sides.ledger
        self._sessions = Sessions(source=source, destination=destination, writer=writer, ledger=ledger)
        try:
            resumed = self._record.enter()
            if resumed is not None:
                self._context.emit(resumed)
            if self._task.delivery is Delivery.WHOLE:
                self._whole()
            else:
                self._chunks()
        except BaseException as error:
            self._give_up(error)
            raise
        return self.result()

    def _whole(self) -> None:
        """Move everything in one transaction."""
        record = self._record
        try:
            with self._sessions.transaction(self._work(), 1):
                record.start(self._sessions.writer)
                for line in self._in_order(record.todo):
                    self._load(line, transaction=False)
                self._make_rest()
                if record.ledger is not None:
                    record.ledger.close(record.run, RunState.DONE)
        except BaseException:
            record.lines = {}
            raise

    def _in_order(self, todo: Sequence[ChunkLine]) -> Sequence[ChunkLine]:
        """Return the chunks in the order in which one transaction moves them."""
        return todo

    def _chunks(self) -> None:
        """Move chunk by chunk until none is left according to the ledger, then do what follows the rows."""
        record = self._record
        while todo := record.todo:
            if not record.entered or (self._task.examination.before and not self._made):
                todo = todo[self._move_first(todo) :]
                record.entered, self._made = record.ledger is not None, True
            self._move_rest(todo)
            if record.ledger is None:
                break
        self._context.token.check()
        self._finish()

    def _move_rest(self, todo: Sequence[ChunkLine]) -> None:
        """Move the chunks after the first transaction."""
        count = self._workers(len(todo))
        if count > 1 or (self._executor is not None and todo):
            self._pool().run(count, todo)
            if self._record.ledger is not None:
                self._record.refresh()
        else:
            # No re-reading needed: no one else writes, and a server crash that loses commits ends this session too.
            for line in todo:
                self._move(line)

    def _finish(self) -> None:
        """Do what follows the rows and close the run, in one transaction."""
        record, ledger = self._record, self._record.ledger
        if ledger is None:
            self._make_rest()
            return
        try:
            self._make_rest(lambda: ledger.close(record.run, RunState.DONE))
        except Error as error:
            if not error.transient or self._sides.destination.holds():
                raise
            # The run may already be closed; another attempt would then begin a new one.
            raise in_doubt(error, self._task, ledger, record.run, max(record.lines)) from None

    def _make_rest(self, last: Callable[[], None] | None = None) -> None:
        """Do what follows the rows, and report the objects that are created."""
        writer = self._sessions.writer
        if not self._task.examination.after:
            writer.finish(last)
            return
        name = self._task.destination.name
        objects = [made.label for made in self._task.intent.objects if not made.property]
        with making(self._context, objects or [f"keys of {name}"], table=name, worker=0):
            writer.finish(last)

    def _workers(self, chunks: int, *, tell: bool = True) -> int:
        """Return how many chunks move concurrently; tell the user if these are fewer than requested."""
        remote = self._executor is not None and not self._executor.near
        lines = self._record.lines.values()
        count, said = worker_count(chunks, self._task, self._config, self._sides, lines, remote=remote)
        if said is not None and tell:
            self._context.emit(said)
        return count

    def _pool(self) -> WorkerPool:
        """Return the workers: those of the executor, or one on the run's sessions and extra ones."""
        work, sessions, executor = self._work(), self._sessions, self._executor

        def worker(number: int, context: Context, report: Report) -> Worker:
            if executor is not None:
                return executor.worker(work, context, report)
            if number == 0:
                return MainWorker(sessions, work, context, report)
            return ExtraWorker(self._sides, work, context, report)

        return WorkerPool(work, self._sides, self._context, self._tracking, worker)

    def _work(self) -> Work:
        repeated = frozenset(self._record.repeated)
        return Work(task=self._task, config=self._config, run=self._record.run, repeated=repeated)

    def _move_first(self, todo: Sequence[ChunkLine]) -> int:
        """Move the chunks of the first transaction; return their number."""

        def attempt() -> int:
            moved = self._move_together(todo) if self._takes_several(todo) else 0
            if not moved:
                self._attempt(todo[0], lambda: self._record.start(self._sessions.writer))
            return moved or 1

        return self._persistently(attempt, todo[0])

    def _takes_several(self, todo: Sequence[ChunkLine]) -> bool:
        """Return whether the first transaction takes several chunks: only if a single worker moves the rest, too.

        Not if bad rows are quarantined, because finding them would take reading the rows again.
        """
        config = self._config
        chunks = self._task.delivery is Delivery.CHUNKS and config.chunk_rows is None
        alone = self._executor is None and self._workers(len(todo), tell=False) == 1
        return chunks and alone and self._sessions.writer.fresh and config.on_error is OnError.FAIL

    def _move_together(self, todo: Sequence[ChunkLine]) -> int:
        """Move the first chunks in one transaction; return their number, 0 if a row was refused."""
        first = FirstTransaction(self._work(), self._sessions, self._context, self._tracking.progress)
        try:
            first.load(todo, lambda: self._record.start(self._sessions.writer))
            self._record.keep(first.lines.values())
        except DataError as error:
            logger.debug("the first chunks did not go together: %s", error.message)
            return 0
        finally:
            self._tracking.undone()
        first.tell()
        return len(first.lines)

    def _move(self, line: ChunkLine) -> None:
        """Move one chunk over the run's sessions."""
        self._persistently(lambda: self._attempt(line), line)

    def _persistently(self, attempt: Callable[[], T], line: ChunkLine) -> T:
        return persistently(attempt, self._work().name(line), self._context, self._sides, self._tracking.retried)

    def _attempt(self, line: ChunkLine, first: Callable[[], None] | None = None) -> None:
        self._tracking.begun(line.number)
        self._load(self._record.lines[line.number], first)

    def _load(self, line: ChunkLine, first: Callable[[], None] | None = None, *, transaction: bool = True) -> None:
        assignment = Assignment(
            work=self._work(),
            sessions=self._sessions,
            line=line,
            context=self._context,
            report=self._tracking.progress,
            first=first,
            transaction=transaction,
        )
        load = ChunkLoad(assignment)
        try:
            with moving(self._context, [self._task.destination.name], chunk=line.number, worker=0) as moved:
                moved.rows = load.load().rows - line.rows
        finally:
            self._route = load.route

    @property
    def onward(self) -> str | None:
        """What running the job again would do, for display; None if nothing is there yet."""
        if not any(line.rows for line in self._record.lines.values()):
            return None
        resumes = self._record.entered and self._task.delivery is Delivery.CHUNKS
        return "run the job again to go on from there" if resumes else "run the job again: it starts over"

    def result(self) -> TableResult:
        """Return what has been committed so far, by this attempt and earlier ones."""
        return counted(
            self._record.complete,
            self._task,
            self._config.batch_size,
            self._tracking.seconds,
            route=self._route,
            retries=self._tracking.retries,
            rows_before=self._record.earlier_rows,
        )

    def _give_up(self, error: BaseException) -> None:
        """Clean up and record how the attempt ended; a failure to do so must not hide the original error."""
        self._record.see_what_stands(error)
        entered = self._record.entered and self._task.delivery is not Delivery.WHOLE
        try:
            self._sessions.writer.abandon(resumable=entered and self._task.delivery is Delivery.CHUNKS)
            if entered:
                cancelled = isinstance(error, (Cancelled, KeyboardInterrupt)) or self._context.token.cancelled
                self._record.close(RunState.CANCELLED if cancelled else RunState.FAILED, _words(error))
        except Error as second:
            logger.warning("tidying up after a failure failed too: %s", second)


def _words(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt) and not isinstance(error, Error):
        error = Interrupted.of(error)
    return error.message if isinstance(error, Error) else f"{type(error).__name__}: {error}"
