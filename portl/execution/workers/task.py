"""One chunk as a task for an executor: moved by whoever receives it, in this process or in another.

The receiver opens a session on each side, moves the chunk in one transaction with its ledger line, closes both, and
returns an ``Outcome``. A task shows nothing of itself but its number and its table: its content travels as one opaque
text in which passwords cannot be read (``portl.values.secrets.carried``); whoever can unpack the text has them.
"""

from __future__ import annotations

import os
import pickle
import socket
import traceback
import uuid
from contextlib import ExitStack
from typing import Any

import attrs

from portl._version import __version__
from portl.config.models import DestinationConfig, Retry, SourceConfig
from portl.connectors.context import Context
from portl.connectors.destination import Destination
from portl.connectors.source import Source
from portl.execution.chunks.load import ChunkLoad
from portl.execution.chunks.progress import Progress
from portl.execution.chunks.work import Assignment, Report, Sessions, Work
from portl.values import events
from portl.values.errors import Error, OperationError, Superseded
from portl.values.runs import ChunkLine, ChunkState
from portl.values.secrets import carried


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of a chunk."""

    #: Its line, if any of it is committed.
    line: ChunkLine | None = None
    #: What could not be reported at once.
    progress: tuple[Progress, ...] = ()
    events: tuple[events.Event, ...] = ()
    error: Error | None = None


@attrs.frozen(kw_only=True)
class Near:
    """What a receiver in the same process uses of the run's."""

    context: Context
    report: Report


@attrs.frozen(kw_only=True)
class ChunkTask:
    """One chunk with all that it takes to move it."""

    work: Work
    line: ChunkLine
    #: Worker sessions on both sides, not yet open.
    source: Source[SourceConfig]
    destination: Destination[DestinationConfig]
    retry: Retry
    #: True if a COMMIT of this chunk got no answer: the ledger is asked first.
    doubt: bool = False
    near: Near | None = None

    def slim(self) -> ChunkTask:
        """Return the task without what belongs to this process."""
        return attrs.evolve(self, work=self.work.slim(), near=None)

    def carry_out(self) -> Outcome:
        """Move the chunk over sessions of its own."""
        told: list[events.Event] = []
        reported: list[Progress] = []
        near = self.near or Near(context=Context(emit=told.append, retry=self.retry), report=reported.append)
        line: ChunkLine | None = None
        error: Error | None = None
        try:
            with ExitStack() as stack:
                sessions = Sessions.opened(stack, self.work, self.source, self.destination, near.context)
                line, error = self._moved(sessions, near)
        except Error as failure:
            error = failure
        except Exception as failure:
            if self.near is not None:
                raise
            error = OperationError(f"chunk {self.line.number}: {type(failure).__name__}: {failure}")
            error.add_note(traceback.format_exc())
        return Outcome(line=line, progress=tuple(reported), events=tuple(told), error=error)

    def _moved(self, sessions: Sessions, near: Near) -> tuple[ChunkLine | None, Error | None]:
        """Move the chunk; return its line, and what kept the rest of it from moving."""
        base = sessions.settled(self.work, self.line) if self.doubt else self.line
        if base.state is ChunkState.DONE:
            near.report(Progress.of_done(base))
            return base, None
        context, report = near.context, near.report
        load = ChunkLoad(
            Assignment(work=self.work, sessions=sessions, line=base, context=context, report=report, alone=False)
        )
        try:
            return load.load(), None
        except Superseded as error:
            found = sessions.settled(self.work, self.line)
            if (found.attempt, found.state, found.rows) == (base.attempt, base.state, base.rows):
                return None, error
            if found.state is not ChunkState.DONE:
                said = f"another worker has moved a part of chunk {self.line.number}: {error.message}"
                return found, OperationError(said, hint=error.hint, transient=True)
            near.report(Progress.of_done(found))
            return found, None
        except Error as error:
            return load.line, error


class PackedTask:
    """A task on its way to its receiver; shows its name alone, in logs, on dashboards and in tracebacks.

    Args:
        name: for display.
        task: packed when it is pickled, and only then; None: it was packed already.
        content: the packed task.
        id: tells the task from others, for executors that remember results.
    """

    def __init__(self, name: str, task: ChunkTask | None, content: bytes = b"", id: str = "") -> None:
        self.name = name
        self.id = id or uuid.uuid4().hex
        self._task = task
        self._content = content
        #: Why it cannot be packed; None: it can, or that was not tried.
        self.obstacle: str | None = None

    def unpacked(self) -> ChunkTask:
        """Return the task.

        Raises:
            OperationError: it cannot be unpacked here.
        """
        if self._task is None:
            try:
                self._task = pickle.loads(self._content)
            except Exception as error:
                where = socket.gethostname()
                said = f"{self.name} cannot be unpacked on {where}: {type(error).__name__}: {error}"
                raise OperationError(said) from error
        return self._task

    def __reduce__(self) -> tuple[Any, ...]:
        if not self._content:
            assert self._task is not None, "it has one or the other"
            try:
                with carried():
                    self._content = pickle.dumps(self._task.slim())
            except Exception as error:
                self.obstacle = f"{type(error).__name__}: {error}"
                raise
        return PackedTask, (self.name, None, self._content, self.id)

    def __repr__(self) -> str:
        return f"<portl: {self.name}>"

    def __dask_tokenize__(self) -> str:
        """Return what tells this task from others; without it, Dask takes the content apart."""
        return self.id


def move_chunk(packed: PackedTask) -> Outcome:
    """Move one chunk. This is what an executor runs: its name is what a dashboard shows."""
    try:
        task = packed.unpacked()
    except OperationError as error:
        return Outcome(error=error)
    return task.carry_out()


@attrs.frozen(kw_only=True)
class Whereabouts:
    """Where an executor runs what it is given."""

    version: str = __version__
    host: str = attrs.field(factory=socket.gethostname)
    process: int = attrs.field(factory=os.getpid)
    #: Why a task cannot be unpacked there; None: it can.
    obstacle: str | None = None


def look_around(packed: PackedTask) -> Whereabouts:
    """Return where a task has arrived, and whether it can be unpacked there. Touches nothing."""
    try:
        packed.unpacked()
    except OperationError as error:
        return Whereabouts(obstacle=error.message)
    return Whereabouts()
