"""A pool of workers, each in a thread; what happens is told in the thread that waits for them."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing

from portl.connectors.context import Context
from portl.execution.chunks.progress import Progress
from portl.execution.chunks.work import Report, Work
from portl.execution.tracking import Tracking
from portl.execution.workers.worker import LOOK_SECONDS, Worker, persistently
from portl.planning.request import Sides
from portl.values import events
from portl.values.cancel import CancelToken
from portl.values.errors import Cancelled, Error
from portl.values.runs import ChunkLine


class WorkerPool:
    """Moves several chunks at the same time.

    Args:
        work: what the chunks have in common.
        sides: the run's, which hold the snapshot and the lock.
        context: the run's.
        tracking: told of what happens, in the thread that calls ``run``.
        worker: makes the worker of a number, counted from 0.
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
        self._context = context
        self._tracking = tracking
        self._worker = worker
        self._todo: deque[ChunkLine] = deque()
        self._told: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        #: Ends all workers once one has failed.
        self._stop = CancelToken()
        self._failures: list[BaseException] = []
        #: The lines of chunks as the workers have committed them.
        self._committed: dict[int, ChunkLine] = {}

    def run(self, count: int, todo: Sequence[ChunkLine]) -> None:
        """Move chunks with ``count`` workers; raise the first failure after all workers have ended."""
        self._todo.extend(todo)
        undo = self._context.token.subscribe(self._stop.cancel)
        threads = [
            threading.Thread(target=self._run_worker, args=(number,), name=f"portl-worker-{number}", daemon=True)
            for number in range(count)
        ]
        try:
            for thread in threads:
                thread.start()
            self._listen(len(threads))
        except BaseException:
            self._stop.cancel()
            raise
        finally:
            for thread in threads:
                if thread.ident is not None:  # Ctrl-C may come before all were started
                    thread.join()
            undo()
            # What was committed after the caller stopped listening.
            self._tracking.record.keep(self._committed.values())
        if self._failures:
            raise self._worst()

    def _listen(self, running: int) -> None:
        while running:
            try:
                told = self._told.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            if told is None:
                running -= 1
            else:
                told()

    def _worst(self) -> BaseException:
        """Return the failure to raise: not the echo of another, and a lasting one before one that passes."""
        token = self._context.token
        real = [e for e in self._failures if not isinstance(e, Cancelled) or token.cancelled] or self._failures
        lasting = [e for e in real if not (isinstance(e, Error) and e.transient)]
        return (lasting or real)[0]

    def _run_worker(self, number: int) -> None:
        """Move chunks until none is left."""
        context = Context(token=self._stop, emit=self._emit, retry=self._context.retry)
        try:
            with closing(self._worker(number, context, self._progress)) as worker:
                if not self._opened(worker, context):
                    return
                while self._todo and not self._stop.cancelled:
                    try:
                        line = self._todo.popleft()
                    except IndexError:
                        break
                    self._move(worker, line, context)
        except BaseException as error:
            self._failures.append(error)
            self._stop.cancel()
        finally:
            self._told.put(None)

    def _opened(self, worker: Worker, context: Context) -> bool:
        """Open a worker; one for which a server has no room leaves its work to the others."""
        try:
            worker.open()
        except Error as error:
            if not error.transient or isinstance(error, Cancelled) or not self._sides.source.holds():
                raise
            context.emit(events.Warned(where="parallel", message=f"continuing with one worker less: {error.message}"))
            return False
        return True

    def _emit(self, event: events.Event) -> None:
        self._told.put(lambda: self._context.emit(event))

    def _keep(self, line: ChunkLine) -> None:
        self._committed[line.number] = line

    def _progress(self, progress: Progress) -> None:
        if not progress.provisional:
            self._keep(progress.line)
        self._told.put(lambda: self._tracking.progress(progress))

    def _move(self, worker: Worker, line: ChunkLine, context: Context) -> None:
        def attempt() -> None:
            self._told.put(lambda: self._tracking.begun(line.number))
            worker.move(self._committed.get(line.number, line), self._keep)

        def retried() -> None:
            self._told.put(self._tracking.retried)

        persistently(attempt, self._work.name(line), context, self._sides, retried, own=worker.own)
