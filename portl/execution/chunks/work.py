"""What the chunks of a table have in common, the sessions that move one of them, and one chunk to move."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import attrs

from portl.config.models import DestinationConfig, MigrationConfig, SourceConfig
from portl.connectors.comparer import Texts
from portl.connectors.context import Context
from portl.connectors.destination import Destination
from portl.connectors.exchange import Counts
from portl.connectors.ledger import Ledger
from portl.connectors.source import Source
from portl.connectors.writer import Writer
from portl.execution.chunks.progress import Progress, in_doubt
from portl.planning.tasks import TableTask
from portl.values.errors import Error
from portl.values.runs import ChunkLine, Run

#: Told of each COMMIT, and of rows that are written in a transaction that goes on.
Report = Callable[[Progress], None]


@attrs.frozen(kw_only=True)
class Work:
    """What the chunks of one table have in common."""

    task: TableTask
    config: MigrationConfig
    run: Run
    #: Chunks that are copied again, with their quarantined rows.
    repeated: frozenset[int] = frozenset()
    #: The keys of the rows that chunks of ``PLACES`` fetch; None: the source knows where they are.
    wanted: Mapping[Texts, int] | None = None

    def name(self, line: ChunkLine) -> str:
        """Return what messages call a chunk."""
        return f"chunk {line.number} of {self.task.destination.name}"

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
class Sessions:
    """What a worker moves chunks with: a session on each side."""

    source: Source[SourceConfig]
    destination: Destination[DestinationConfig]
    writer: Writer
    #: On the writer's session; None: there is none.
    ledger: Ledger | None

    @classmethod
    def opened(
        cls,
        stack: ExitStack,
        work: Work,
        source: Source[SourceConfig],
        destination: Destination[DestinationConfig],
        context: Context,
    ) -> Sessions:
        """Open worker sessions on both sides; the stack closes them."""
        stack.callback(source.close)
        source.open(context)
        stack.callback(destination.close)
        destination.open(context)
        ledger = destination.ledger(work.config.ledger)
        assert isinstance(ledger, Ledger), "the main connection has one"
        writer = destination.writer(work.task.intent)
        stack.callback(writer.abandon, resumable=True)
        return cls(source=source, destination=destination, writer=writer, ledger=ledger)

    @property
    def savepoints(self) -> bool:
        """True if parts of a transaction can be undone."""
        return self.destination.savepoints

    def hold(self) -> bool:
        """Return whether the source still has its snapshot, and the destination its connection."""
        return self.source.holds() and self.destination.holds()

    @contextmanager
    def transaction(self, work: Work, number: int) -> Iterator[None]:
        """Open a transaction for several chunks and commit it; roll it back if anything in it fails.

        Args:
            work: the table's.
            number: see ``commit``.
        """
        self.writer.begin()
        try:
            yield
        except BaseException:
            self.writer.rollback()
            raise
        self.commit(work, number)

    def commit(self, work: Work, number: int) -> Counts:
        """Commit the open transaction; return what ``Writer.check`` has not counted. No error leaves it open.

        Args:
            work: the table's.
            number: the chunk that the ledger is asked about if there is no answer.

        Raises:
            DataError: a row is refused only now.
            CommitInDoubt: the COMMIT got no answer.
        """
        try:
            return self.writer.commit()
        except BaseException as error:
            if isinstance(error, Error) and error.transient:
                raise in_doubt(error, work.task, self.ledger, work.run, number) from None
            self.writer.rollback()
            raise

    def settled(self, work: Work, line: ChunkLine) -> ChunkLine:
        """Return a chunk's line as this attempt has committed it; ``line`` if it has not.

        Waits for a transaction whose COMMIT got no answer.
        """
        assert self.ledger is not None, "workers have one"
        found = self.ledger.settled(work.run, line.number)
        return found if found is not None and found.attempt == work.run.attempt else line


@attrs.frozen(kw_only=True)
class Assignment:
    """One chunk to move: over which sessions, for whom, and in whose transaction."""

    work: Work
    sessions: Sessions
    #: The chunk's line as it stands.
    line: ChunkLine
    #: Has the token.
    context: Context
    report: Report
    #: Called in the first transaction, before its rows; again if that is rolled back.
    first: Callable[[], None] | None = None
    #: False if the caller has opened the transaction and commits it.
    transaction: bool = True
    #: False if another process may be moving the same chunk, in the same attempt.
    alone: bool = True
    #: False if the caller deals with a refusal: then no part of the transaction is undone by itself.
    undoes: bool = True
    #: False if the caller checks what was read, before it commits: ``Source.check``.
    check: bool = True

    def begin(self) -> None:
        """Do what comes before the rows, in their transaction."""
        if self.first is not None:
            self.first()
        if self.line.number in self.work.repeated:
            self.sessions.writer.unreject(self.work.run.id, self.line.number)
