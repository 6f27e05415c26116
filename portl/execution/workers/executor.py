"""Move chunks in the caller's executor: other threads, other processes, other machines.

The executor gets one ``PackedTask`` for each chunk (``portl.execution.workers.task``). What exists only once stays with
the run: the job's lock, the connection that holds the snapshot, retries and observers. Two things follow.

* A receiver may die, be cut off, or move the same chunk as another, because some executors resubmit tasks that they
  believe lost. The ledger line decides: it is written in the transaction of the rows, and only over the line that the
  task was made with (``Ledger.record``). The second receiver is rolled back, and returns what the first one wrote.
* A run that is ending tells the servers to terminate its tasks' sessions (``Source.end_workers``), because a function
  in another process cannot be reached. A task that begins to write later finds the attempt closed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future

from portl.connectors.context import Context
from portl.execution.chunks.work import Report, Work
from portl.execution.workers.task import ChunkTask, Near, Outcome, PackedTask, Whereabouts, look_around, move_chunk
from portl.execution.workers.worker import LOOK_SECONDS, Worker
from portl.planning.request import Sides, TableSides
from portl.values import events
from portl.values.errors import Cancelled, CommitInDoubt, ConfigError, Error, OperationError
from portl.values.runs import ChunkLine

logger = logging.getLogger("portl.execution")

#: Seconds after which the user is told that the executor has not started yet.
PATIENCE_SECONDS = 10.0
#: Seconds that an ending run waits for its tasks; the ledger prevents them from writing later.
END_SECONDS = 30.0


class ChunkExecutor:
    """An executor that has been tested for moving chunks.

    Args:
        executor: the caller's; it is not shut down.
        sides: both, open.
        context: the run's.
        work: what the chunks of a table have in common, for a trial.
        of_table: the sides of that table, in a job of many.

    Raises:
        ConfigError: the executor does not run tasks, or the sides cannot be opened where it runs them.
    """

    def __init__(
        self, executor: Executor, sides: Sides, context: Context, work: Work, of_table: TableSides | None = None
    ) -> None:
        self._executor = executor
        self._sides = sides
        self._context = context
        self._ending = threading.Lock()
        found = self._tried(work, of_table or sides)
        here = Whereabouts()
        if found.obstacle is not None:
            raise _unfit(found.obstacle)
        if found.version != here.version:
            raise _unfit(f"portl is {found.version} on {found.host}, and {here.version} here")
        #: True if it runs in this process.
        self.near = (found.host, found.process) == (here.host, here.process)

    def worker(
        self, work: Work, context: Context, report: Report, of_table: TableSides | None = None
    ) -> ExecutorWorker:
        """Return a worker that has this executor move the chunks of a table."""
        return ExecutorWorker(self, work, context, report, of_table or self._sides)

    def _tried(self, work: Work, sides: Sides | TableSides) -> Whereabouts:
        """Have a task run that touches nothing."""
        packed = self.packed("a trial", work, ChunkLine(number=0), sides)
        patience = time.monotonic() + PATIENCE_SECONDS
        try:
            future = self._executor.submit(look_around, packed)
        except Exception as error:
            raise _failed_trial(packed, "it takes nothing", error) from error
        while True:
            try:
                return future.result(timeout=LOOK_SECONDS)
            except Exception as error:
                if future.done():
                    raise _failed_trial(packed, "it runs nothing", error) from error
            try:
                self._context.token.check()
                if time.monotonic() >= patience:
                    patience = float("inf")
                    said = f"waiting for the executor, which has run no task for {PATIENCE_SECONDS:.0f} s"
                    remedy = (
                        "check that it has workers, and that they are not all busy, for example with this call itself"
                    )
                    self._context.emit(events.Warned(where="executor", message=said, remedy=remedy))
            except BaseException:
                future.cancel()
                raise

    def packed(
        self,
        name: str,
        work: Work,
        line: ChunkLine,
        sides: Sides | TableSides,
        *,
        doubt: bool = False,
        near: Near | None = None,
    ) -> PackedTask:
        """Return the task for the executor.

        Raises:
            ConfigError: a side uses a caller-supplied connection.
        """
        source, destination = sides.source.for_worker(), sides.destination.for_worker()
        if source is None or destination is None:
            side = sides.source if source is None else sides.destination
            raise _unfit(
                f"{side.label()} cannot be opened a second time: name it in the job instead of handing in a "
                "connection, or leave `executor` out"
            )
        retry = self._context.retry
        task = ChunkTask(
            work=work, line=line, source=source, destination=destination, retry=retry, doubt=doubt, near=near
        )
        return PackedTask(name, task)

    def submit(self, packed: PackedTask) -> Future[Outcome]:
        """Submit a task to the executor."""
        return self._executor.submit(move_chunk, packed)

    def end(self, future: Future[Outcome]) -> None:
        """End a task because the run is ending, and wait for it."""
        future.cancel()
        patience = time.monotonic() + END_SECONDS
        while time.monotonic() < patience:
            left = self.end_workers()
            if future.done() and not left:
                return
            wait = threading.Event()
            future.add_done_callback(lambda _, wait=wait: wait.set())  # type: ignore[misc]
            wait.wait(LOOK_SECONDS)
        logger.warning("a worker did not end within %.0f s; the ledger takes nothing from it any more", END_SECONDS)

    def end_workers(self) -> int:
        """End what workers elsewhere are doing; return how many there were."""
        if self.near:
            return 0  # they check the cancel token
        with self._ending:
            return self._sides.source.end_workers() + self._sides.destination.end_workers()


class ExecutorWorker(Worker):
    """Delegates chunks to an executor, and waits for each."""

    own = True

    def __init__(
        self, executor: ChunkExecutor, work: Work, context: Context, report: Report, sides: Sides | TableSides
    ) -> None:
        super().__init__(work, context, report)
        self._executor = executor
        self._sides = sides
        self._near = Near(context=context, report=report) if executor.near else None
        #: True if a COMMIT got no answer, so that the next task asks the ledger about it.
        self._doubt = False

    def move(self, line: ChunkLine, keep: Callable[[ChunkLine], None]) -> None:
        """See ``Worker.move``."""
        packed = self._executor.packed(
            self._work.name(line), self._work, line, self._sides, doubt=self._doubt, near=self._near
        )
        outcome = self._outcome(packed)
        for progress in outcome.progress:
            self._report(progress)
        for event in outcome.events:
            self._context.emit(event)
        if outcome.line is not None:
            keep(outcome.line)
        self._doubt = isinstance(outcome.error, CommitInDoubt)
        if outcome.error is not None:
            self._context.token.check()  # a task that was ended has not failed by itself
            raise outcome.error

    def _outcome(self, packed: PackedTask) -> Outcome:
        """Submit a task; wait for its outcome, or for the end of the run."""
        token = self._context.token
        token.check()
        try:
            future = self._executor.submit(packed)
        except Exception as error:
            raise _lost(packed, error) from error
        over = threading.Event()
        future.add_done_callback(lambda _: over.set())
        undo = token.subscribe(over.set)
        try:
            if not token.cancelled:
                over.wait()
        finally:
            undo()
        if not future.done():
            self._executor.end(future)
        try:
            return future.result(timeout=0)
        except BaseException as error:
            if token.cancelled:
                raise Cancelled("the run was cancelled") from None
            if self._near is not None:
                raise
            self._executor.end_workers()  # a dead worker's statements may still be running at the servers
            raise _lost(packed, error) from error


def _unfit(text: str) -> ConfigError:
    return ConfigError([f"executor: {text}"], origin="what was handed in")


def _failed_trial(packed: PackedTask, what: str, error: Exception) -> ConfigError:
    """Return the error for an executor that did not run the trial."""
    if packed.obstacle is not None:
        return _unfit(
            f"chunks cannot go to another process: {packed.obstacle}; name both sides in the job instead of handing in "
            "connections, or use an executor of threads"
        )
    said = f"{what}: {type(error).__name__}: {error}"
    if isinstance(error, BrokenExecutor):
        said += "; a process pool that does not fork needs `if __name__ == '__main__':` around the program"
    return _unfit(said)


def _lost(packed: PackedTask, error: BaseException) -> Error:
    return OperationError(
        f"the executor has lost {packed.name}: {type(error).__name__}: {error}",
        hint="committed rows stay, and the ledger knows whether this chunk is among them: run the job again, with an "
        "executor that works, to move the rest",
    )
