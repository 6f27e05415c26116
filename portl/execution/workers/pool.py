"""A pool of workers, each in a thread, for the chunks of one table."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing

from portl.connectors.context import Context
from portl.execution.chunks.progress import Progress
from portl.execution.chunks.work import Report, Work
from portl.execution.telling import moving
from portl.execution.tracking import Tracking
from portl.execution.workers.crew import Crew
from portl.execution.workers.worker import Worker, persistently
from portl.planning.request import Sides
from portl.values import events
from portl.values.errors import Cancelled, Error
from portl.values.runs import ChunkLine


class WorkerPool:
    """Moves several chunks concurrently.

    Args:
        work: what the chunks share.
        sides: those of the run, which hold the snapshot and the lock.
        context: that of the run.
        tracking: receives reports, in the thread that calls ``run``.
        worker: makes the worker with a given number, from 0.
    """

    def __init__(
        self,
        work: Work,
        sides: Sides,
        context: Context,
        tracking: Tracking,
        worker: Callable[[int, Context, Report], Worker],
    ) -> None:
        self._work = work
        self._sides = sides
        self._crew = Crew(context)
        self._tracking = tracking
        self._worker = worker
        self._todo: deque[ChunkLine] = deque()
        #: The chunk lines that workers have committed.
        self._committed: dict[int, ChunkLine] = {}

    def run(self, count: int, todo: Sequence[ChunkLine]) -> None:
        """Move chunks with ``count`` workers; raise the first failure after all workers have ended."""
        self._todo.extend(todo)
        try:
            self._crew.run(count, self._run_worker)
        finally:
            # Committed after the caller stopped listening.
            self._tracking.record.keep(self._committed.values())

    def _run_worker(self, number: int, context: Context) -> None:
        """Move chunks until none is left."""
        with closing(self._worker(number, context, self._progress)) as worker:
            if not opened(worker, self._sides, context):
                return
            while self._todo and not self._crew.stop.cancelled:
                try:
                    line = self._todo.popleft()
                except IndexError:
                    break
                self._move(worker, number, line, context)

    def _keep(self, line: ChunkLine) -> None:
        self._committed[line.number] = line

    def _progress(self, progress: Progress) -> None:
        if not progress.provisional:
            self._keep(progress.line)
        self._crew.tell(lambda: self._tracking.progress(progress))

    def _move(self, worker: Worker, number: int, line: ChunkLine, context: Context) -> None:
        table = self._work.task.destination.name

        def attempt() -> None:
            self._crew.tell(lambda: self._tracking.begun(line.number))
            before = self._committed.get(line.number, line)
            with moving(context, [table], chunk=line.number, worker=number) as moved:
                worker.move(before, self._keep)
                moved.rows = self._committed.get(line.number, before).rows - before.rows

        def retried() -> None:
            self._crew.tell(self._tracking.retried)

        persistently(attempt, self._work.name(line), context, self._sides, retried, own=worker.own)


def opened(worker: Worker, sides: Sides, context: Context) -> bool:
    """Open a worker; if a server has no connection left for it, its work is left to the others."""
    try:
        worker.open()
    except Error as error:
        if not error.transient or isinstance(error, Cancelled) or not sides.source.holds():
            raise
        context.emit(events.Warned(where="parallel", message=f"continuing with one worker less: {error.message}"))
        return False
    return True
