"""What the chunks of a table share, the sessions that move one, and the assignment of a chunk."""

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

#: Called after each COMMIT, and when rows have been written in a transaction that stays open.
Report = Callable[[Progress], None]


@attrs.frozen(kw_only=True)
class Work:
    """What the chunks of one table share."""

    task: TableTask
    config: MigrationConfig
    run: Run
    #: Chunks that are copied again, with their quarantined rows.
    repeated: frozenset[int] = frozenset()
    #: The keys of the rows that chunks of ``PLACES`` fetch; None if the source knows their places.
    wanted: Mapping[Texts, int] | None = None

    def name(self, line: ChunkLine) -> str:
        """Return a chunk's name in messages."""
        return f"chunk {line.number} of {self.task.destination.name}"

    def slim(self) -> Work:
        """Return a copy with only what moving one chunk takes: no other chunks, no preview, no connections."""
        config = attrs.evolve(
            self.config,
            source=SourceConfig(type=self.config.source.type),
            destination=DestinationConfig(type=self.config.destination.type),
        )
        # Two are enough for messages to tell whether there are several chunks.
        split = attrs.evolve(self.task.split, chunks=self.task.split.chunks[:2])
        task = attrs.evolve(
            self.task, preview=(), findings=(), run=None, found=None, reported=None, identity={}, split=split
        )
        return attrs.evolve(self, config=config, task=task, run=attrs.evolve(self.run, chunks=(), identity={}))


@attrs.frozen(kw_only=True)
class Sessions:
    """The sessions that a worker moves chunks over, one on each side."""

    source: Source[SourceConfig]
    destination: Destination[DestinationConfig]
    writer: Writer
    #: The ledger on the writer's session; None if there is none.
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
        """Open worker sessions on both sides, to be closed by the stack."""
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
        """Return whether the source still has its snapshot and the destination its connection."""
        return self.source.holds() and self.destination.holds()

    @contextmanager
    def transaction(self, work: Work, number: int) -> Iterator[None]:
        """Open a transaction for several chunks and commit it; roll it back if anything in it fails.

        Args:
            work: that of the table.
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
        """Commit the open transaction; return the counts that ``Writer.check`` has not. It is closed even on error.

        Args:
            work: that of the table.
            number: the chunk to ask the ledger about if there is no answer.

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
        """Return a chunk's line as committed by this attempt, or ``line`` if it did not commit one.

        Waits for a transaction whose COMMIT is in doubt to end.
        """
        assert self.ledger is not None, "workers have one"
        found = self.ledger.settled(work.run, line.number)
        return found if found is not None and found.attempt == work.run.attempt else line


@attrs.frozen(kw_only=True)
class Assignment:
    """One chunk to move, with the sessions, the receiver of reports, and the owner of the transaction."""

    work: Work
    sessions: Sessions
    #: The chunk's current line.
    line: ChunkLine
    #: With the cancel token.
    context: Context
    report: Report
    #: Called in the first transaction, before its rows, and again if that is rolled back.
    first: Callable[[], None] | None = None
    #: False if the caller opens and commits the transaction.
    transaction: bool = True
    #: False if another process may be moving the same chunk, in the same attempt.
    alone: bool = True
    #: False if the caller deals with refusals, so that no part of the transaction is undone separately.
    undoes: bool = True
    #: False if the caller calls ``Source.check`` before it commits.
    check: bool = True

    def begin(self) -> None:
        """Do what has to precede the rows, in their transaction."""
        if self.first is not None:
            self.first()
        if self.line.number in self.work.repeated:
            self.sessions.writer.unreject(self.work.run.id, self.line.number)
