"""Several chunks at the same time: workers, each with sessions of its own that read one snapshot.

The first worker has the connections of the run, which hold the snapshot and the lock of the job; the others open
sessions beside them. Where the caller supplies an executor, each hands it one chunk after the other instead
(``portl.execution.executors``).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol

from portl.connectors.context import Context
from portl.connectors.retry import retrying
from portl.execution.chunks.load import ChunkLoad
from portl.execution.chunks.progress import Progress
from portl.execution.chunks.work import LOOK_SECONDS, Assignment, Mover, Movers, Work, Worker
from portl.planning.request import Sides
from portl.values import events
from portl.values.cancel import CancelToken
from portl.values.errors import Cancelled, CommitInDoubt, DataError, Error
from portl.values.runs import ChunkLine, ChunkState

logger = logging.getLogger("portl.execution")


class Watcher(Protocol):
    """Who is told how the chunks get on."""

    def begun(self, number: int) -> None:
        """Forget what was counted of a chunk that is moved once more."""

    def progress(self, progress: Progress) -> None:
        """Take note of a COMMIT and tell the observers."""

    def keep(self, lines: Mapping[int, ChunkLine]) -> None:
        """Take note of how chunks stand."""

    def retried(self) -> None:
        """Count a chunk that is tried again."""


class WorkerPool:
    """Moves several chunks at the same time, in threads; what happens is told in the thread that waits.

    Args:
        work: what the chunks have in common.
        sides: the run's, which hold the snapshot and the lock.
        main: the worker that has their connections, the first of all.
        context: the run's.
        watcher: told of what happens, in the thread that calls ``run``.
        movers: who moves the chunks; None: threads of this process.
    """

    def __init__(
        self,
        work: Work,
        sides: Sides,
        main: Worker,
        context: Context,
        watcher: Watcher,
        movers: Movers | None = None,
    ) -> None:
        self._work = work
        self._sides = sides
        self._main = main
        self._context = context
        self._watcher = watcher
        self._movers = movers
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
            self._watcher.keep(self._committed)
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
        """Return the failure to raise: not the echo of another, and one that does not pass before one that does."""
        token = self._context.token
        real = [e for e in self._failures if not isinstance(e, Cancelled) or token.cancelled] or self._failures
        lasting = [e for e in real if not (isinstance(e, Error) and e.transient)]
        return (lasting or real)[0]

    def _run_worker(self, number: int) -> None:
        """Move chunks until none is left."""
        context = Context(token=self._stop, emit=self._emit, retry=self._context.retry)
        try:
            with self._mover(number, context) as mover:
                if not self._opened(mover, context):
                    return
                while self._todo and not self._stop.cancelled:
                    try:
                        line = self._todo.popleft()
                    except IndexError:
                        break
                    self._move(mover, line, context)
        except BaseException as error:
            self._failures.append(error)
            self._stop.cancel()
        finally:
            self._told.put(None)

    def _mover(self, number: int, context: Context) -> Mover:
        if self._movers is not None:
            return self._movers.mover(self._work, context, self._progress)
        if number == 0:
            return MainMover(self._work, self._main, context, self._progress)
        return OwnMover(self._work, self._sides, context, self._progress)

    def _opened(self, mover: Mover, context: Context) -> bool:
        """Open a mover; one for which a server has no room leaves its work to the others."""
        try:
            mover.open()
        except Error as error:
            if not error.transient or isinstance(error, Cancelled) or not self._sides.source.holds():
                raise
            context.emit(events.Warned(where="parallel", message=f"goes on with one worker less: {error.message}"))
            return False
        return True

    def _emit(self, event: events.Event) -> None:
        self._told.put(lambda: self._context.emit(event))

    def _progress(self, progress: Progress) -> None:
        if not progress.provisional:
            self._committed[progress.line.number] = progress.line
        self._told.put(lambda: self._watcher.progress(progress))

    def _move(self, mover: Mover, line: ChunkLine, context: Context) -> None:
        """Move one chunk, again after a failure that passes and leaves the snapshot whole."""
        current = [line]

        def keep(line: ChunkLine) -> None:
            current[0] = self._committed[line.number] = line

        def attempt() -> None:
            self._told.put(lambda: self._watcher.begun(line.number))
            mover.move(current[0], keep)

        def again(error: BaseException) -> bool:
            if not isinstance(error, Error) or not error.transient or self._stop.cancelled:
                return False
            if isinstance(error, CommitInDoubt) and not mover.own:
                return False
            whole = self._sides.source.holds() and (mover.own or self._sides.destination.holds())
            if whole:
                self._told.put(self._watcher.retried)
            return whole

        retrying(attempt, context, f"chunk {line.number} of {self._work.task.destination.name}", again=again)


class MainMover:
    """The worker with the connections that hold the snapshot and the lock, as one among others."""

    own = False

    def __init__(self, work: Work, worker: Worker, context: Context, report: Callable[[Progress], None]) -> None:
        self._work = work
        self._worker = worker
        self._context = context
        self._report = report

    def __enter__(self) -> MainMover:
        return self

    def __exit__(self, *exc: object) -> None:
        """Leave the connections to the run."""

    def open(self) -> None:
        """They are open."""

    def move(self, line: ChunkLine, keep: Callable[[ChunkLine], None]) -> None:
        """See ``Mover.move``."""
        load = ChunkLoad(
            Assignment(work=self._work, worker=self._worker, line=line, context=self._context, report=self._report)
        )
        try:
            load.load()
        except DataError:
            keep(load.line)
            raise


class OwnMover:
    """A worker with sessions of its own, which are opened again after a failure."""

    own = True

    def __init__(self, work: Work, sides: Sides, context: Context, report: Callable[[Progress], None]) -> None:
        self._work = work
        self._beside = sides
        self._context = context
        self._report = report
        self._stack = ExitStack()
        self._worker: Worker | None = None
        #: Whether both of its sessions work.
        self._holds: Callable[[], bool] = lambda: False
        #: A COMMIT got no answer, and the ledger was not asked yet what became of it.
        self._doubt = False

    def __enter__(self) -> OwnMover:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()

    def _close(self) -> None:
        stack, self._stack, self._worker = self._stack, ExitStack(), None
        try:
            stack.close()
        except Error as error:
            logger.warning("closing a worker's sessions failed: %s", error.message)

    def open(self) -> None:
        """Open sessions, unless there are some that work."""
        self._ready()

    def _ready(self) -> Worker:
        if self._worker is not None and not self._holds():
            self._close()
        if self._worker is None:
            source, destination = self._beside.source.for_worker(), self._beside.destination.for_worker()
            try:
                self._worker = Worker.opened(self._stack, self._work, source, destination, self._context)
            except BaseException:
                self._close()
                raise
            assert source is not None, "it was opened"
            assert destination is not None, "it was opened"
            self._holds = lambda: source.holds() and destination.holds()
        return self._worker

    def move(self, line: ChunkLine, keep: Callable[[ChunkLine], None]) -> None:
        """See ``Mover.move``."""
        if self._doubt:
            line = self._settled(line, keep)
            if line.state is ChunkState.DONE:
                return
        worker = self._ready()
        load = ChunkLoad(
            Assignment(work=self._work, worker=worker, line=line, context=self._context, report=self._report)
        )
        try:
            load.load()
        except DataError:
            keep(load.line)
            raise
        except CommitInDoubt:
            self._doubt = True
            self._close()
            if self._settled(load.line, keep).state is not ChunkState.DONE:
                raise

    def _settled(self, line: ChunkLine, keep: Callable[[ChunkLine], None]) -> ChunkLine:
        """Ask the ledger, over new connections, what became of a chunk whose COMMIT got no answer.

        As long as it cannot be asked, the doubt stays, and with it the question for the next attempt at the chunk.
        """
        ledger = self._ready().ledger
        assert ledger is not None
        found = ledger.settled(self._work.run, line.number)
        self._doubt = False
        if found is None or found.attempt != self._work.run.attempt:
            return line
        keep(found)
        if found.state is ChunkState.DONE:
            self._report(Progress.of_done(found))
            said = f"the COMMIT of chunk {found.number} got no answer; the ledger says that it was carried out"
            self._context.emit(events.Warned(where=self._work.task.destination.name, message=said))
        return found
