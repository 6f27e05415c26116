"""One chunk as a task for an executor, in this process or in another.

The receiver opens a session on each side, moves the chunk in one transaction with its ledger line, closes both, and
returns an ``Outcome``. A task only shows its number and its table: its content travels as one opaque text in which
passwords are not readable (``portl.values.secrets.carried``), although anyone who can unpack the text has them.
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
    """The outcome of moving a chunk."""

    #: Its line, if any of it was committed.
    line: ChunkLine | None = None
    #: Reports that could not be delivered right away.
    progress: tuple[Progress, ...] = ()
    events: tuple[events.Event, ...] = ()
    error: Error | None = None


@attrs.frozen(kw_only=True)
class Near:
    """What a receiver in the same process shares with the run."""

    context: Context
    report: Report


@attrs.frozen(kw_only=True)
class ChunkTask:
    """One chunk with everything needed to move it."""

    work: Work
    line: ChunkLine
    #: Worker sessions on both sides, not yet open.
    source: Source[SourceConfig]
    destination: Destination[DestinationConfig]
    retry: Retry
    #: True if a COMMIT of this chunk got no answer, so that the ledger is asked first.
    doubt: bool = False
    near: Near | None = None

    def slim(self) -> ChunkTask:
        """Return the task without what is tied to this process."""
        return attrs.evolve(self, work=self.work.slim(), near=None)

    def carry_out(self) -> Outcome:
        """Move the chunk over new sessions."""
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
        """Move the chunk; return its line, and the error that stopped it, if any."""
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
    """A task ready to be sent; only its name shows in logs, on dashboards and in tracebacks.

    Args:
        name: for display.
        task: packed only when it is pickled; None if it has been packed.
        content: the packed task.
        id: identifies the task, for executors that remember results.
    """

    def __init__(self, name: str, task: ChunkTask | None, content: bytes = b"", id: str = "") -> None:
        self.name = name
        self.id = id or uuid.uuid4().hex
        self._task = task
        self._content = content
        #: Why it cannot be packed; None if it can, or if that was not tried.
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
        """Return what identifies this task; without it, Dask would inspect the content."""
        return self.id


def move_chunk(packed: PackedTask) -> Outcome:
    """Move one chunk. Executors run this function, and dashboards show its name."""
    try:
        task = packed.unpacked()
    except OperationError as error:
        return Outcome(error=error)
    return task.carry_out()


@attrs.frozen(kw_only=True)
class Whereabouts:
    """Where an executor runs tasks."""

    version: str = __version__
    host: str = attrs.field(factory=socket.gethostname)
    process: int = attrs.field(factory=os.getpid)
    #: Why a task cannot be unpacked there; None if it can.
    obstacle: str | None = None


def look_around(packed: PackedTask) -> Whereabouts:
    """Return where a task has arrived, and whether it can be unpacked there. Touches nothing."""
    try:
        packed.unpacked()
    except OperationError as error:
        return Whereabouts(obstacle=error.message)
    return Whereabouts()
