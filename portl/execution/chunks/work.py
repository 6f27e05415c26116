"""What the chunks of a table have in common, what one of them is moved with, and who moves it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol, Self

import attrs

from portl.config.models import DestinationConfig, MigrationConfig, SourceConfig
from portl.connectors.context import Context
from portl.connectors.destination import Destination
from portl.connectors.ledger import Ledger
from portl.connectors.source import Source
from portl.connectors.writer import Writer
from portl.execution.chunks.progress import Progress
from portl.planning.tasks import TableTask
from portl.values.runs import ChunkLine, Run

#: Seconds between two looks of a waiting thread at Ctrl-C.
LOOK_SECONDS = 0.2


@attrs.frozen(kw_only=True)
class Work:
    """What the chunks of one table have in common."""

    task: TableTask
    config: MigrationConfig
    run: Run
    #: Chunks that are copied again, with their quarantined rows.
    repeated: frozenset[int] = frozenset()

    def slim(self) -> Work:
        """Return what it takes to move one chunk: no other chunks, no preview, nothing that reaches either side."""
        config = attrs.evolve(
            self.config,
            source=SourceConfig(type=self.config.source.type),
            destination=DestinationConfig(type=self.config.destination.type),
        )
        # Messages say whether there are several chunks.
        split = attrs.evolve(self.task.split, chunks=self.task.split.chunks[:2])
        task = attrs.evolve(
            self.task, preview=(), findings=(), run=None, found=None, reported=None, identity={}, split=split
        )
        return attrs.evolve(self, config=config, task=task, run=attrs.evolve(self.run, chunks=(), identity={}))


@attrs.frozen(kw_only=True)
class Worker:
    """What moves a chunk: a source, a writer and, where there is one, the ledger on the writer's session."""

    source: Source[SourceConfig]
    writer: Writer
    ledger: Ledger | None
    #: Parts of a transaction can be undone.
    savepoints: bool

    @classmethod
    def opened(
        cls,
        stack: ExitStack,
        work: Work,
        source: Source[SourceConfig] | None,
        destination: Destination[DestinationConfig] | None,
        context: Context,
    ) -> Worker:
        """Open a worker's own sessions on both sides; the stack closes them."""
        assert source is not None, "asked for when the workers were counted"
        assert destination is not None, "asked for when the workers were counted"
        stack.callback(source.close)
        source.open(context)
        stack.callback(destination.close)
        destination.open(context)
        ledger = destination.ledger(work.config.ledger)
        assert isinstance(ledger, Ledger), "the main connection has one"
        writer = destination.writer(work.task.intent)
        stack.callback(writer.abandon, resumable=True)
        return cls(source=source, writer=writer, ledger=ledger, savepoints=destination.savepoints)


@attrs.frozen(kw_only=True)
class Assignment:
    """One chunk to move: with what, for whom, and in whose transaction."""

    work: Work
    worker: Worker
    #: The chunk's line as it stands.
    line: ChunkLine
    #: Has the token.
    context: Context
    #: Called after each COMMIT.
    report: Callable[[Progress], None]
    #: Called in the first transaction, before its rows; again if that is rolled back.
    first: Callable[[], None] | None = None
    #: False if the caller has opened the transaction and commits it.
    transaction: bool = True
    #: False if another process may be at work on the same chunk, in the same attempt.
    alone: bool = True
    #: False if nothing in the transaction is undone by itself: the caller deals with a refusal.
    undoes: bool = True

    def begin(self) -> None:
        """Do what comes before the rows, in their transaction."""
        if self.first is not None:
            self.first()
        if self.line.number in self.work.repeated:
            self.worker.writer.unreject(self.work.run.id, self.line.number)


class Mover(Protocol):
    """Moves chunks, one at a time, in a thread of its own."""

    @property
    def own(self) -> bool:
        """True if it has sessions of its own, which it opens again after a failure."""

    def __enter__(self) -> Self:
        """Begin; nothing is opened yet."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is its own."""

    def open(self) -> None:
        """Open what it moves chunks with."""

    def move(self, line: ChunkLine, keep: Callable[[ChunkLine], None]) -> None:
        """Move one chunk.

        Args:
            line: the chunk's as it stands.
            keep: told how it stands now, also before an error is raised.
        """


class Movers(Protocol):
    """Makes movers: an executor of the caller's (``portl.execution.executors``)."""

    def mover(self, work: Work, context: Context, report: Callable[[Progress], None]) -> Mover:
        """Return one that moves one chunk at a time."""
