"""Chunks moved by an executor of the caller's: other threads, other processes, other machines.

What is handed to the executor is a ``PackedTask``: one chunk with all that it takes to move it. Whoever receives it
opens a session of its own on each side, moves the chunk in one transaction with its ledger line, closes both, and
returns an ``Outcome``. The run keeps what exists once: the lock of the job, the connection that holds the snapshot, the
retries and the observers. Three things follow.

* A worker may die, be cut off, or do the same chunk as another, for some executors hand out again what they believe
  lost. The ledger's line decides: it is written in the transaction of the rows, and only over the line that the task
  was made with (``Ledger.record``). Whoever comes second is rolled back, and returns what the first has written.
* A run that ends tells the servers to end what its workers have under way (``Source.end_workers``): no message reaches
  a function that runs in another process. What begins to write later finds the attempt closed.
* A packed task shows nothing of itself but its number and its table. Its content travels as one opaque text in which
  passwords cannot be read (``portl.values.secrets.carried``); whoever can unpack the text has them.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
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
from portl.execution.chunks.work import LOOK_SECONDS, Assignment, Work, Worker
from portl.planning.request import Sides
from portl.values import events
from portl.values.cancel import CancelToken
from portl.values.errors import Cancelled, CommitInDoubt, ConfigError, Error, OperationError, Superseded
from portl.values.runs import ChunkLine, ChunkState
from portl.values.secrets import carried

logger = logging.getLogger("portl.execution")

#: Seconds after which the user is told that his executor has not begun yet.
PATIENCE_SECONDS = 10.0
#: Seconds that a run which ends waits for what others have under way; the ledger keeps them from writing later.
END_SECONDS = 30.0


@attrs.frozen(kw_only=True)
class Near:
    """What a worker in the same process can use of the run's."""

    token: CancelToken
    emit: Callable[[events.Event], None]
    report: Callable[[Progress], None]


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of a chunk."""

    #: Its line, if any of it is committed.
    line: ChunkLine | None = None
    #: What there is to tell, where that could not be done at once.
    progress: tuple[Progress, ...] = ()
    events: tuple[events.Event, ...] = ()
    error: Error | None = None


@attrs.frozen(kw_only=True)
class ChunkTask:
    """One chunk with all that it takes to move it."""

    work: Work
    line: ChunkLine
    #: Sessions for a worker on both sides, not yet open.
    source: Source[SourceConfig]
    destination: Destination[DestinationConfig]
    retry: Retry
    #: True if a COMMIT of this chunk got lost: the ledger is asked first.
    doubt: bool = False
    near: Near | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what belongs to this process."""
        state = {field.name: getattr(self, field.name) for field in attrs.fields(ChunkTask)}
        return {**state, "work": self.work.slim(), "near": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    def carry_out(self) -> Outcome:
        """Move the chunk over connections of its own."""
        told: list[events.Event] = []
        reported: list[Progress] = []
        near = self.near or Near(token=CancelToken(), emit=told.append, report=reported.append)
        context = Context(token=near.token, emit=near.emit, retry=self.retry)
        line: ChunkLine | None = None
        error: Error | None = None
        try:
            with ExitStack() as stack:
                worker = Worker.opened(stack, self.work, self.source, self.destination, context)
                line, error = self._moved(worker, context, near.report)
        except Error as failure:
            error = failure
        except Exception as failure:
            if self.near is not None:
                raise
            error = OperationError(f"chunk {self.line.number}: {type(failure).__name__}: {failure}")
            error.add_note(traceback.format_exc())
        return Outcome(line=line, progress=tuple(reported), events=tuple(told), error=error)

    def _moved(
        self, worker: Worker, context: Context, report: Callable[[Progress], None]
    ) -> tuple[ChunkLine | None, Error | None]:
        """Move the chunk with an open worker; return its line, and what has kept the rest of it from moving."""
        base = self._found(worker) if self.doubt else self.line
        if base.state is ChunkState.DONE:
            report(Progress.of_done(base))
            return base, None
        load = ChunkLoad(
            Assignment(work=self.work, worker=worker, line=base, context=context, report=report, alone=False)
        )
        try:
            return load.load(), None
        except Superseded as error:
            found = self._found(worker)
            if (found.attempt, found.state, found.rows) == (base.attempt, base.state, base.rows):
                return None, error
            if found.state is not ChunkState.DONE:
                # Another worker has it, and has not come to its end.
                said = f"chunk {self.line.number} was moved in part by another worker: {error.message}"
                return found, OperationError(said, hint=error.hint, transient=True)
            report(Progress.of_done(found))
            return found, None
        except Error as error:
            return load.line, error

    def _found(self, worker: Worker) -> ChunkLine:
        """Return the chunk's line as this attempt has written it, or as it was when the task was made."""
        assert worker.ledger is not None
        found = worker.ledger.settled(self.work.run, self.line.number)
        return found if found is not None and found.attempt == self.work.run.attempt else self.line


class PackedTask:
    """A chunk's task on its way to a worker; shows its name alone, in logs, on dashboards and in tracebacks.

    Args:
        name: for people.
        task: packed when it is pickled, and only then.
    """

    def __init__(self, name: str, task: ChunkTask) -> None:
        self.name = name
        #: No two are the same to an executor that remembers results.
        self.id = uuid.uuid4().hex
        self._task: ChunkTask | None = task
        self._packed = b""
        #: Why it cannot be packed; None as long as that was not tried, or went well.
        self.obstacle: str | None = None

    def unpacked(self) -> ChunkTask:
        """Return the task."""
        if self._task is None:
            self._task = pickle.loads(self._packed)
        return self._task

    def __reduce__(self) -> tuple[Any, ...]:
        if not self._packed:
            try:
                with carried():
                    self._packed = pickle.dumps(self._task)
            except Exception as error:
                self.obstacle = f"{type(error).__name__}: {error}"
                raise
        return _arrived, (self.name, self.id, self._packed)

    def __repr__(self) -> str:
        return f"<portl: {self.name}>"

    def __dask_tokenize__(self) -> str:
        """Return what tells this task from others; without it, Dask takes the content apart."""
        return self.id


def _arrived(name: str, id: str, content: bytes) -> PackedTask:
    packed = PackedTask.__new__(PackedTask)
    packed.name, packed.id = name, id
    packed._task, packed._packed, packed.obstacle = None, content, None
    return packed


def move_chunk(packed: PackedTask) -> Outcome:
    """Move one chunk. This is what an executor runs: its name is what a dashboard shows."""
    try:
        task = packed.unpacked()
    except Exception as error:
        return Outcome(error=OperationError(_not_unpacked(packed, error)))
    return task.carry_out()


@attrs.frozen(kw_only=True)
class Whereabouts:
    """Where an executor runs what it is given."""

    version: str
    host: str
    process: int
    #: Why a task cannot be unpacked there; None: it can.
    obstacle: str | None = None

    @classmethod
    def here(cls, obstacle: str | None = None) -> Whereabouts:
        """Return where this runs."""
        return cls(version=__version__, host=socket.gethostname(), process=os.getpid(), obstacle=obstacle)


def look_around(packed: PackedTask) -> Whereabouts:
    """Return where a task has arrived, and whether it can be unpacked there. Touches nothing."""
    try:
        packed.unpacked()
    except Exception as error:
        return Whereabouts.here(_not_unpacked(packed, error))
    return Whereabouts.here()


def _not_unpacked(packed: PackedTask, error: Exception) -> str:
    return f"{packed.name} cannot be unpacked on {socket.gethostname()}: {type(error).__name__}: {error}"


class ExecutorMovers:
    """An executor, found fit to move chunks.

    Args:
        executor: the caller's; it is not shut down.
        sides: both, open.
        context: the run's.
        work: what the chunks have in common, for a trial.

    Raises:
        ConfigError: if it does not run what it is given, or if the sides cannot be opened where it does.
    """

    def __init__(
        self,
        executor: Executor,
        sides: Sides,
        context: Context,
        work: Work,
    ) -> None:
        self._executor = executor
        self._source = sides.source
        self._destination = sides.destination
        self._context = context
        self._ending = threading.Lock()
        found = self._tried(work)
        here = Whereabouts.here()
        if found.obstacle is not None:
            raise _unfit(found.obstacle)
        if found.version != here.version:
            raise _unfit(f"portl is {found.version} on {found.host}, and {here.version} here")
        #: It runs in this process.
        self.near = (found.host, found.process) == (here.host, here.process)

    def mover(self, work: Work, context: Context, report: Callable[[Progress], None]) -> RemoteMover:
        """Return a worker that moves one chunk at a time, by this executor."""
        return RemoteMover(self, work, context, report)

    def _tried(self, work: Work) -> Whereabouts:
        """Have something run that touches nothing."""
        packed = self.packed_task("a trial", work, ChunkLine(number=0))
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
                    said = f"waits for the executor, which has run nothing for {PATIENCE_SECONDS:.0f} s"
                    remedy = "see whether it has workers, and whether they are all busy, with this very call perhaps"
                    self._context.emit(events.Warned(where="executor", message=said, remedy=remedy))
            except BaseException:
                future.cancel()
                raise

    def packed_task(
        self, name: str, work: Work, line: ChunkLine, *, doubt: bool = False, near: Near | None = None
    ) -> PackedTask:
        """Return the task to hand to the executor."""
        source, destination = self._source.for_worker(), self._destination.for_worker()
        for end, found in ((self._source, source), (self._destination, destination)):
            if found is None:
                raise _unfit(
                    f"{end.label()} cannot be opened a second time: name it in the job instead of handing in a "
                    "connection, or leave `executor` out"
                )
        assert source is not None
        assert destination is not None
        task = ChunkTask(
            work=work,
            line=line,
            source=source,
            destination=destination,
            retry=self._context.retry,
            doubt=doubt,
            near=near,
        )
        return PackedTask(name, task)

    def submit(self, packed: PackedTask) -> Future[Outcome]:
        """Hand a task to the executor."""
        return self._executor.submit(move_chunk, packed)

    def end(self, future: Future[Outcome]) -> None:
        """End what is under way, because the run ends, and wait for it."""
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
        """End what workers elsewhere have under way; return how many there were."""
        if self.near:
            return 0  # they heed the token
        with self._ending:
            return self._source.end_workers() + self._destination.end_workers()


class RemoteMover:
    """A worker whose chunks are moved by an executor, one at a time."""

    own = True

    def __init__(
        self, movers: ExecutorMovers, work: Work, context: Context, report: Callable[[Progress], None]
    ) -> None:
        self._movers = movers
        self._work = work
        self._context = context
        self._near = Near(token=context.token, emit=context.emit, report=report) if movers.near else None
        self._report = report
        self._doubt = False

    def __enter__(self) -> RemoteMover:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing is open between chunks."""

    def open(self) -> None:
        """Nothing is opened here."""

    def move(self, line: ChunkLine, keep: Callable[[ChunkLine], None]) -> None:
        """See ``Mover.move``."""
        name = f"chunk {line.number} of {self._work.task.destination.name}"
        packed = self._movers.packed_task(name, self._work, line, doubt=self._doubt, near=self._near)
        outcome = self._outcome(name, packed)
        for progress in outcome.progress:
            self._report(progress)
        for event in outcome.events:
            self._context.emit(event)
        if outcome.line is not None:
            keep(outcome.line)
        self._doubt = isinstance(outcome.error, CommitInDoubt)
        if outcome.error is not None:
            self._context.token.check()  # what failed because it was ended is no failure of its own
            raise outcome.error

    def _outcome(self, name: str, packed: PackedTask) -> Outcome:
        """Have a task delivered; wait for what becomes of it, or for the end of the run."""
        token = self._context.token
        token.check()
        try:
            future = self._movers.submit(packed)
        except Exception as error:
            raise _lost(name, error) from error
        over = threading.Event()
        future.add_done_callback(lambda _: over.set())
        undo = token.subscribe(over.set)
        try:
            if not token.cancelled:
                over.wait()
        finally:
            undo()
        if not future.done():
            self._movers.end(future)
        try:
            return future.result(timeout=0)
        except BaseException as error:
            if token.cancelled:
                raise Cancelled("the run was cancelled") from None
            if self._near is not None:
                raise
            self._movers.end_workers()  # of a worker that has died, what it had under way may live on
            raise _lost(name, error) from error


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


def _lost(name: str, error: BaseException) -> Error:
    return OperationError(
        f"the executor has lost {name}: {type(error).__name__}: {error}",
        hint="what is committed stays, and the ledger knows whether this chunk is: run the job again, with an executor "
        "that works, and it goes on",
    )
