"""Several chunks at the same time: lanes, each with connections of its own that read one snapshot.

A lane is a source, a writer and a ledger. The first one has the connections of the run, which hold the snapshot and
the lock of the job; the others are opened beside them. Where the caller has handed in an executor, each lane hands it
one chunk after the other instead (``portl.execution.executors``).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import attrs

from portl.config.models import DestinationConfig, MigrationConfig, SourceConfig
from portl.connectors.context import Context
from portl.connectors.destination import Destination
from portl.connectors.ledger import Ledger
from portl.connectors.source import Source
from portl.execution.chunk_load import ChunkLoad
from portl.execution.progress import Lane, Progress
from portl.execution.retry import retrying
from portl.planning.tasks import TableTask
from portl.values import events
from portl.values.cancel import CancelToken
from portl.values.errors import Cancelled, CommitInDoubt, DataError, Error
from portl.values.runs import ChunkLine, ChunkState, Run

if TYPE_CHECKING:
    from portl.execution.executors import FarLane, Workers

logger = logging.getLogger("portl.execution")

#: Seconds between two looks of the waiting thread at Ctrl-C.
LOOK_SECONDS = 0.2


@attrs.frozen(kw_only=True)
class Work:
    """What the chunks of one table have in common."""

    task: TableTask
    config: MigrationConfig
    run: Run
    #: Chunks that come once more, with the rows of theirs that were quarantined.
    repeated: frozenset[int] = frozenset()

    def slim(self) -> Work:
        """Return what it takes to move one chunk: no other chunks, no rows that were looked at, no way to the ends."""
        config = attrs.evolve(
            self.config,
            source=SourceConfig(type=self.config.source.type),
            destination=DestinationConfig(type=self.config.destination.type),
        )
        # Whether there are several chunks is told to people.
        split = attrs.evolve(self.task.split, chunks=self.task.split.chunks[:2])
        task = attrs.evolve(self.task, preview=(), findings=(), run=None, found=None, identity={}, split=split)
        return attrs.evolve(self, config=config, task=task, run=attrs.evolve(self.run, chunks=(), identity={}))

    def load(
        self,
        lane: Lane,
        line: ChunkLine,
        context: Context,
        report: Callable[[Progress], None],
        first: Callable[[], None] | None = None,
        *,
        transaction: bool = True,
        alone: bool = True,
        undoes: bool = True,
    ) -> ChunkLoad:
        """Return what moves one chunk over a lane; the arguments are those of ``ChunkLoad``."""

        def begin() -> None:
            if first is not None:
                first()
            if line.number in self.repeated:
                lane.writer.unreject(self.run.id, line.number)

        return ChunkLoad(
            self.task,
            self.config,
            lane,
            self.run,
            line,
            context,
            report,
            begin,
            transaction=transaction,
            alone=alone,
            undoes=undoes,
        )


def open_lane(
    stack: ExitStack,
    work: Work,
    source: Source[SourceConfig] | None,
    destination: Destination[DestinationConfig] | None,
    context: Context,
) -> Lane:
    """Open siblings of both sides; they are closed with the stack, whatever happens."""
    assert source is not None, "asked for when the lanes were counted"
    assert destination is not None, "asked for when the lanes were counted"
    stack.callback(source.close)
    source.open(context)
    stack.callback(destination.close)
    destination.open(context)
    ledger = destination.ledger(work.config.ledger)
    assert isinstance(ledger, Ledger), "the main connection has one"
    writer = destination.writer(work.task.intent)
    stack.callback(writer.abandon, resumable=True)
    return Lane(source=source, writer=writer, ledger=ledger, savepoints=destination.savepoints)


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


class Lanes:
    """Several chunks at the same time, in threads; what happens is told in the thread that waits.

    Args:
        work: what the chunks have in common.
        source: the run's, which holds the snapshot.
        destination: the run's, which holds the lock.
        main: their lane, the first of all.
        context: the run's.
        watcher: told of what happens, in the thread that calls ``run``.
        count: lanes.
        todo: the chunks to move.
        workers: who moves them; None: threads of this process.
    """

    def __init__(
        self,
        work: Work,
        source: Source[SourceConfig],
        destination: Destination[DestinationConfig],
        main: Lane,
        context: Context,
        watcher: Watcher,
        count: int,
        todo: Sequence[ChunkLine],
        workers: Workers | None = None,
    ) -> None:
        self._work = work
        self._workers = workers
        self._source = source
        self._destination = destination
        self._main = main
        self._context = context
        self._watcher = watcher
        self._count = count
        self._todo = deque(todo)
        self._told: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        #: Ends all lanes once one has failed.
        self._stop = CancelToken()
        self._failures: list[BaseException] = []
        #: The lines of chunks as the lanes have committed them.
        self._committed: dict[int, ChunkLine] = {}

    def run(self) -> None:
        """Move all chunks; raise the first failure after all lanes have ended."""
        undo = self._context.token.subscribe(self._stop.cancel)
        threads = [
            threading.Thread(target=self._run_lane, args=(number,), name=f"portl-lane-{number}", daemon=True)
            for number in range(self._count)
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

    def _run_lane(self, number: int) -> None:
        """Move chunks until none is left."""
        context = Context(token=self._stop, emit=self._emit, retry=self._context.retry)
        try:
            with self._lane(number, context) as lane:
                if not self._opened(lane, context):
                    return
                while self._todo and not self._stop.cancelled:
                    try:
                        line = self._todo.popleft()
                    except IndexError:
                        break
                    self._move(lane, line, context)
        except BaseException as error:
            self._failures.append(error)
            self._stop.cancel()
        finally:
            self._told.put(None)

    def _lane(self, number: int, context: Context) -> MainLane | SideLane | FarLane:
        if self._workers is not None:
            return self._workers.lane(self._work, context, self._progress)
        if number == 0:
            return MainLane(self._work, self._main, context, self._progress)
        return SideLane(self._work, self._source, self._destination, context, self._progress)

    def _opened(self, lane: MainLane | SideLane | FarLane, context: Context) -> bool:
        """Open a lane; one for which a server has no room leaves its work to the others."""
        try:
            lane.open()
        except Error as error:
            if not error.transient or isinstance(error, Cancelled) or not self._source.holds():
                raise
            context.emit(events.Warned(where="parallel", message=f"goes on with a lane less: {error.message}"))
            return False
        return True

    def _emit(self, event: events.Event) -> None:
        self._told.put(lambda: self._context.emit(event))

    def _progress(self, progress: Progress) -> None:
        if not progress.provisional:
            self._committed[progress.line.number] = progress.line
        self._told.put(lambda: self._watcher.progress(progress))

    def _move(self, lane: MainLane | SideLane | FarLane, line: ChunkLine, context: Context) -> None:
        """Move one chunk, again after a failure that passes and leaves the snapshot whole."""
        current = [line]

        def keep(line: ChunkLine) -> None:
            current[0] = self._committed[line.number] = line

        def attempt() -> None:
            self._told.put(lambda: self._watcher.begun(line.number))
            lane.move(current[0], keep)

        def again(error: BaseException) -> bool:
            if not isinstance(error, Error) or not error.transient or self._stop.cancelled:
                return False
            if isinstance(error, CommitInDoubt) and not lane.own:
                return False
            whole = self._source.holds() and (lane.own or self._destination.holds())
            if whole:
                self._told.put(self._watcher.retried)
            return whole

        retrying(attempt, context, f"chunk {line.number} of {self._work.task.destination.name}", again=again)


def after_doubt(line: ChunkLine) -> Progress:
    """Return what is told of a chunk that turns out to be done."""
    return Progress(line=line, first_batch=1, last_batch=line.batches, rows=line.rows, bytes=line.bytes, rejected=0)


class MainLane:
    """The connections that hold the snapshot and the lock, as a lane among others."""

    own = False

    def __init__(self, work: Work, lane: Lane, context: Context, report: Callable[[Progress], None]) -> None:
        self._work = work
        self._lane = lane
        self._context = context
        self._report = report

    def __enter__(self) -> MainLane:
        return self

    def __exit__(self, *exc: object) -> None:
        """Leave them to the run."""

    def open(self) -> None:
        """They are open."""

    def move(self, line: ChunkLine, keep: Callable[[ChunkLine], None]) -> None:
        """Move one chunk.

        Args:
            line: the chunk's as it stands.
            keep: told how it stands now, also before an error is raised.
        """
        load = self._work.load(self._lane, line, self._context, self._report)
        try:
            load.load()
        except DataError:
            keep(load.line)
            raise


class SideLane:
    """Connections of a lane's own, opened again after a failure."""

    own = True

    def __init__(
        self,
        work: Work,
        source: Source[SourceConfig],
        destination: Destination[DestinationConfig],
        context: Context,
        report: Callable[[Progress], None],
    ) -> None:
        self._work = work
        self._beside = source, destination
        self._context = context
        self._report = report
        self._stack = ExitStack()
        self._lane: Lane | None = None
        self._source: Source[SourceConfig] | None = None
        self._destination: Destination[DestinationConfig] | None = None
        #: A COMMIT got lost, and the ledger was not asked yet what became of it.
        self._doubt = False

    def __enter__(self) -> SideLane:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()

    def _close(self) -> None:
        stack, self._stack, self._lane = self._stack, ExitStack(), None
        try:
            stack.close()
        except Error as error:
            logger.warning("closing a lane failed: %s", error.message)

    def open(self) -> None:
        """Open connections, unless there are some that work."""
        self._ready()

    def _ready(self) -> Lane:
        lost = self._source is not None and self._destination is not None
        if lost and not (self._source.holds() and self._destination.holds()):  # type: ignore[union-attr]
            self._close()
        if self._lane is None:
            source, destination = self._beside[0].for_worker(), self._beside[1].for_worker()
            try:
                self._lane = open_lane(self._stack, self._work, source, destination, self._context)
            except BaseException:
                self._close()
                raise
            self._source, self._destination = source, destination
        return self._lane

    def move(self, line: ChunkLine, keep: Callable[[ChunkLine], None]) -> None:
        """See ``MainLane.move``."""
        if self._doubt:
            line = self._settled(line, keep)
            if line.state is ChunkState.DONE:
                return
        load = self._work.load(self._ready(), line, self._context, self._report)
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
        """Ask the ledger, over new connections, what became of a chunk whose COMMIT got lost.

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
            self._report(after_doubt(found))
            said = f"the answer to the COMMIT of chunk {found.number} got lost; the ledger says that it was carried out"
            self._context.emit(events.Warned(where=self._work.task.destination.name, message=said))
        return found
