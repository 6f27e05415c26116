"""One table on its way, by the delivery that was planned.

=========  ===========================================================================================================
delivery   transactions
=========  ===========================================================================================================
chunks     the first alone: it makes what is missing and writes the run down (several chunks of a new table may go with
           it); then one a chunk, over several workers; then one for what comes after the rows, which closes the run
repeat     the same, each chunk piece by piece; a run that is interrupted starts over
whole      one for everything
=========  ===========================================================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs

from portl.config.models import MigrationConfig, OnError
from portl.connectors.context import Context
from portl.connectors.ledger import Ledger
from portl.connectors.retry import retrying
from portl.connectors.writer import Writer
from portl.execution.chunks.load import ChunkLoad
from portl.execution.chunks.progress import in_doubt
from portl.execution.chunks.work import Assignment, Work, Worker
from portl.execution.counting import counted
from portl.execution.first_transaction import FirstTransaction
from portl.execution.record import RunRecord
from portl.execution.staffing import workers_for
from portl.execution.tracking import Tracking
from portl.execution.workers import WorkerPool
from portl.planning.delivery import Delivery
from portl.planning.request import Sides
from portl.planning.tasks import TableTask
from portl.values.errors import Cancelled, CommitInDoubt, DataError, Error, Interrupted
from portl.values.events import Warned
from portl.values.results import TableResult
from portl.values.runs import ChunkLine, RunState

if TYPE_CHECKING:
    from concurrent.futures import Executor  # for a type alone, it would take 5 ms

    from portl.execution.executors import ExecutorMovers  # most runs have none, and it would take 10 ms

logger = logging.getLogger("portl.execution")


class TableRun:
    """One table on its way."""

    def __init__(
        self, task: TableTask, config: MigrationConfig, sides: Sides, ledger: Ledger | None, context: Context
    ) -> None:
        self._config = config
        self._sides = sides
        self._context = context
        self._record = RunRecord(task, sides, ledger, config.run_id)
        self._task = attrs.evolve(task, intent=attrs.evolve(task.intent, run=self._record.id))
        self._tracking = Tracking(self._task, config, self._record, context)
        self._writer: Writer
        #: The route that rows took last: one that refuses a row may give way to another.
        self._route = task.route
        #: What has to be there before the rows was made.
        self._made = False
        self._movers: ExecutorMovers | None = None

    def use(self, executor: Executor) -> None:
        """Have the chunks moved by an executor, if there are several that can be; nothing is touched before.

        Raises:
            ConfigError: if it is not fit for that.
        """
        task = self._task
        if task.delivery is not Delivery.CHUNKS:
            why = "the job is one transaction" if task.delivery is Delivery.WHOLE else "it is not cut into chunks"
        elif task.ordered is not None:
            why = f"they come one after the other: {task.ordered}"
        else:
            if len(task.run.chunks if task.run is not None else task.split.chunks) > 1:
                from portl.execution.executors import ExecutorMovers  # most runs have none, and it would take 10 ms

                self._movers = ExecutorMovers(executor, self._sides, self._context, self._work())
            return
        said = f"rows are moved by this process, not by the executor: {why}"
        self._context.emit(Warned(where="executor", message=said))

    def carry_out(self) -> TableResult:
        """Move the rows; return what became of them."""
        self._tracking.announce()
        self._writer = self._sides.destination.writer(self._task.intent)
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
        record, ledger = self._record, self._record.ledger
        self._writer.begin()
        try:
            record.start(self._writer)
            for line in record.todo:
                self._load(line, transaction=False)
            self._writer.finish()
            if ledger is not None:
                ledger.close(record.run, RunState.DONE)
            try:
                self._writer.commit()
            except Error as error:
                if error.transient:
                    raise in_doubt(error, self._task, ledger, record.run, 1) from None
                raise
        except CommitInDoubt:
            record.lines = {}
            raise
        except BaseException:
            record.lines = {}
            self._writer.rollback()
            raise

    def _chunks(self) -> None:
        """Move chunk by chunk until the ledger says that none is left, then do what comes after the rows."""
        record = self._record
        while todo := record.todo:
            if not record.entered or (self._task.examination.before and not self._made):
                todo = todo[self._move_first(todo) :]
                record.entered, self._made = record.ledger is not None, True
            count = self._workers(len(todo))
            if count > 1 or (self._movers is not None and todo):
                pool = WorkerPool(
                    self._work(), self._sides, self._main_worker(), self._context, self._tracking, self._movers
                )
                pool.run(count, todo)
            else:
                for line in todo:
                    self._retrying(lambda line=line: self._attempt(line), line)  # type: ignore[misc]
            if record.ledger is None:
                break
            record.refresh()
        self._context.token.check()
        self._finish()

    def _finish(self) -> None:
        """Do what comes after the rows and close the run, in one transaction."""
        record, ledger = self._record, self._record.ledger
        if ledger is None:
            self._writer.finish()
            return
        try:
            self._writer.finish(lambda: ledger.close(record.run, RunState.DONE))
        except Error as error:
            if not error.transient or self._sides.destination.holds():
                raise
            # The run may be closed: then another attempt would begin a new one.
            raise in_doubt(error, self._task, ledger, record.run, max(record.lines)) from None

    def _workers(self, chunks: int, *, tell: bool = True) -> int:
        """Return how many chunks move at the same time; tell the user where they are fewer than asked for."""
        remote = self._movers is not None and not self._movers.near
        count, said = workers_for(
            chunks, self._task, self._config, self._sides, self._record.lines.values(), remote=remote
        )
        if said is not None and tell:
            self._context.emit(said)
        return count

    def _work(self) -> Work:
        repeated = frozenset(self._record.repeated)
        return Work(task=self._task, config=self._config, run=self._record.run, repeated=repeated)

    def _main_worker(self) -> Worker:
        destination = self._sides.destination
        return Worker(
            source=self._sides.source,
            writer=self._writer,
            ledger=self._record.ledger,
            savepoints=destination.savepoints,
        )

    def _load(self, line: ChunkLine, first: Callable[[], None] | None = None, *, transaction: bool = True) -> None:
        """Move a chunk over the main connections."""
        load = ChunkLoad(
            Assignment(
                work=self._work(),
                worker=self._main_worker(),
                line=line,
                context=self._context,
                report=self._tracking.progress,
                first=first,
                transaction=transaction,
            )
        )
        try:
            self._record.lines[line.number] = load.load()
        finally:
            self._route = load.route

    def _move_first(self, todo: Sequence[ChunkLine]) -> int:
        """Move what the first transaction takes; return how many chunks that were."""
        moved = 1

        def attempt() -> None:
            nonlocal moved
            together = self._move_together(todo) if self._takes_several(todo) else 0
            if not together:
                self._attempt(todo[0], lambda: self._record.start(self._writer))
            moved = together or 1

        self._retrying(attempt, todo[0])
        return moved

    def _takes_several(self, todo: Sequence[ChunkLine]) -> bool:
        """Return whether the first transaction takes several chunks: what comes after it is one worker's, too.

        Not where bad rows are quarantined: to find them, the rows would have to be read once more.
        """
        config = self._config
        chunks = self._task.delivery is Delivery.CHUNKS and config.chunk_rows is None
        alone = self._movers is None and self._workers(len(todo), tell=False) == 1
        return chunks and alone and self._writer.fresh and config.on_error is OnError.FAIL

    def _move_together(self, todo: Sequence[ChunkLine]) -> int:
        """Move the first chunks in one transaction; return how many: none if a row was refused."""
        first = FirstTransaction(self._work(), self._main_worker(), self._context, self._tracking.progress)
        try:
            first.load(todo, lambda: self._record.start(self._writer))
            self._record.lines.update(first.lines)
        except DataError as error:
            logger.debug("the first chunks did not go together: %s", error.message)
            return 0
        finally:
            self._tracking.undone()
        first.tell()
        return len(first.lines)

    def _attempt(self, line: ChunkLine, first: Callable[[], None] | None = None) -> None:
        self._tracking.begun(line.number)
        self._load(self._record.lines[line.number], first)

    def _retrying(self, attempt: Callable[[], None], line: ChunkLine) -> None:
        """Move a chunk; again after a failure that leaves both sides whole."""

        def again(error: BaseException) -> bool:
            if not isinstance(error, Error) or not error.transient or isinstance(error, (Cancelled, CommitInDoubt)):
                return False
            whole = self._sides.source.holds() and self._sides.destination.holds()
            if whole:
                self._tracking.retried()
            return whole

        retrying(attempt, self._context, f"chunk {line.number} of {self._task.destination.name}", again=again)

    @property
    def onward(self) -> str | None:
        """What running the job again would do, for people; None if nothing is there yet."""
        if not any(line.rows for line in self._record.lines.values()):
            return None
        resumes = self._record.entered and self._task.delivery is Delivery.CHUNKS
        return "run the job again to go on from there" if resumes else "run the job again: it starts over"

    def result(self) -> TableResult:
        """Return what is committed so far, by this attempt and those before it."""
        return counted(
            self._record.complete,
            self._task,
            self._config.batch_size,
            self._tracking.started,
            route=self._route,
            retries=self._tracking.retries,
            rows_before=self._record.earlier_rows,
        )

    def _give_up(self, error: BaseException) -> None:
        """Tidy up and write down how the attempt has ended; a failure in doing so must not hide the one before."""
        self._record.see_what_stands(error)
        entered = self._record.entered and self._task.delivery is not Delivery.WHOLE
        try:
            self._writer.abandon(resumable=entered and self._task.delivery is Delivery.CHUNKS)
            if entered:
                cancelled = isinstance(error, (Cancelled, KeyboardInterrupt)) or self._context.token.cancelled
                self._record.close(RunState.CANCELLED if cancelled else RunState.FAILED, _words(error))
        except Error as second:
            logger.warning("tidying up after a failure failed too: %s", second)


def _words(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt) and not isinstance(error, Error):
        error = Interrupted.of(error)
    return error.message if isinstance(error, Error) else f"{type(error).__name__}: {error}"
