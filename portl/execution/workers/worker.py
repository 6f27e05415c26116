"""The workers of a pool, each of which moves one chunk at a time.

=====================  ========================================================  =====================================
worker                 sessions                                                  after a failure that is retried
=====================  ========================================================  =====================================
``MainWorker``         those of the run, with the snapshot and the job's lock    reuses the same sessions
``ExtraWorker``        worker sessions, which read the same snapshot             opens new ones if they are lost
``ExecutorWorker``     none: an executor opens them where it runs the chunk      submits the chunk again
=====================  ========================================================  =====================================
"""

from __future__ import annotations

import abc
import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import ClassVar, TypeVar

from portl.connectors.context import Context
from portl.connectors.retry import retrying
from portl.execution.chunks.load import ChunkLoad
from portl.execution.chunks.progress import Progress
from portl.execution.chunks.work import Assignment, Report, Sessions, Work
from portl.planning.request import Sides
from portl.values.errors import CommitInDoubt, Error
from portl.values.events import Warned
from portl.values.runs import ChunkLine, ChunkState

T = TypeVar("T")
logger = logging.getLogger("portl.execution")

#: Seconds after which a waiting thread checks for Ctrl-C again.
LOOK_SECONDS = 0.2


class Worker(abc.ABC):
    """Moves chunks, one at a time.

    Args:
        work: that of the table.
        context: with the cancel token and the observers.
        report: called after each COMMIT.
    """

    #: True if it has its own sessions, and opens new ones after a failure.
    own: ClassVar[bool]

    def __init__(self, work: Work, context: Context, report: Report) -> None:
        self._work = work
        self._context = context
        self._report = report

    def open(self) -> None:
        """Open the worker's own sessions; by default none."""

    def close(self) -> None:
        """Close them, whatever their state."""

    @abc.abstractmethod
    def move(self, line: ChunkLine, keep: Callable[[ChunkLine], None]) -> None:
        """Move one chunk.

        Args:
            line: the chunk's current line.
            keep: called with the line if it was found in the ledger; what is committed here is reported instead.
        """

    def _load(self, sessions: Sessions, line: ChunkLine) -> ChunkLoad:
        context, report = self._context, self._report
        return ChunkLoad(Assignment(work=self._work, sessions=sessions, line=line, context=context, report=report))


class MainWorker(Worker):
    """Moves chunks over the run's sessions, which it leaves open."""

    own = False

    def __init__(self, sessions: Sessions, work: Work, context: Context, report: Report) -> None:
        super().__init__(work, context, report)
        self._sessions = sessions

    def move(self, line: ChunkLine, keep: Callable[[ChunkLine], None]) -> None:
        """See ``Worker.move``."""
        self._load(self._sessions, line).load()


class ExtraWorker(Worker):
    """Moves chunks over worker sessions, and opens new ones when they are lost."""

    own = True

    def __init__(self, sides: Sides, work: Work, context: Context, report: Report) -> None:
        super().__init__(work, context, report)
        self._sides = sides
        self._stack = ExitStack()
        self._sessions: Sessions | None = None
        #: True if a COMMIT got no answer and the ledger has not been asked about it yet.
        self._doubt = False

    def open(self) -> None:
        """See ``Worker.open``."""
        self._ready()

    def close(self) -> None:
        """See ``Worker.close``."""
        stack, self._stack, self._sessions = self._stack, ExitStack(), None
        try:
            stack.close()
        except Error as error:
            self._complain(error)

    @staticmethod
    def _complain(error: Error) -> None:
        logger.warning("closing a worker's sessions failed: %s", error.message)

    def _ready(self) -> Sessions:
        """Return working sessions."""
        if self._sessions is not None and not self._sessions.hold():
            self.close()
        if self._sessions is None:
            source, destination = self._sides.source.for_worker(), self._sides.destination.for_worker()
            assert source is not None, "asked for when the workers were counted"
            assert destination is not None, "asked for when the workers were counted"
            try:
                self._sessions = Sessions.opened(self._stack, self._work, source, destination, self._context)
            except BaseException:
                self.close()
                raise
        return self._sessions

    def move(self, line: ChunkLine, keep: Callable[[ChunkLine], None]) -> None:
        """See ``Worker.move``."""
        if self._doubt:
            line = self._settled(line, keep)
            if line.state is ChunkState.DONE:
                return
        load = self._load(self._ready(), line)
        try:
            load.load()
        except CommitInDoubt:
            self._doubt = True
            self.close()
            if self._settled(load.line, keep).state is not ChunkState.DONE:
                raise

    def _settled(self, line: ChunkLine, keep: Callable[[ChunkLine], None]) -> ChunkLine:
        """Ask the ledger, over new sessions, about a chunk whose COMMIT got no answer.

        Until it can be asked, the doubt remains, and the next attempt at the chunk asks again.
        """
        found = self._ready().settled(self._work, line)
        self._doubt = False
        if found is not line:
            keep(found)
        if found.state is ChunkState.DONE:
            self._report(Progress.of_done(found))
            said = f"the COMMIT of chunk {found.number} got no answer, but the ledger shows that it succeeded"
            self._context.emit(Warned(where=self._work.task.destination.name, message=said))
        return found


def persistently(
    attempt: Callable[[], T],
    name: str,
    context: Context,
    sides: Sides,
    retried: Callable[[], None],
    *,
    own: bool = False,
) -> T:
    """Move a chunk, with retries after transient failures that leave the snapshot intact.

    Args:
        attempt: moves the chunk.
        name: the chunk's name, for display.
        context: with the limits, the cancel token and the observers.
        sides: those of the run.
        retried: called before each further attempt.
        own: True if the worker reopens its own sessions, so that the run's destination need not be intact.
    """

    def again(error: BaseException) -> bool:
        if not isinstance(error, Error) or not error.transient:
            return False
        if context.token.cancelled or (isinstance(error, CommitInDoubt) and not own):
            return False
        whole = sides.source.holds() and (own or sides.destination.holds())
        if whole:
            retried()
        return whole

    return retrying(attempt, context, name, again=again)
