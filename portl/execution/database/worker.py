"""A worker for many tables, whose sessions stay open from chunk to chunk and from table to table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import attrs

from portl.config.models import DestinationConfig, SourceConfig
from portl.connectors.context import Context
from portl.connectors.destination import Destination
from portl.connectors.ledger import Ledger
from portl.connectors.source import Source
from portl.execution.chunks.load import ChunkLoad
from portl.execution.chunks.progress import Progress, in_doubt
from portl.execution.chunks.work import Assignment, Report, Sessions
from portl.execution.database.tables import TableWork
from portl.execution.workers.worker import ExtraWorker
from portl.planning.request import Sides
from portl.values.errors import Error
from portl.values.runs import ChunkLine, ChunkState

#: Tables after which a worker reopens its sessions: a transaction keeps a lock on each table that it has read, and the
#: number of locks on a server is limited.
RENEWED_AFTER = 200


@attrs.frozen(kw_only=True)
class _Base:
    """Open sessions, tied to no particular table."""

    source: Source[SourceConfig]
    destination: Destination[DestinationConfig]
    ledger: Ledger


class TableWorker(ExtraWorker):
    """Moves chunks of many tables, and creates objects, over worker sessions of its own.

    Args:
        sides: those of the run.
        table: the first table.
        context: with the cancel token and the observers.
        report: called after each COMMIT, with the table.
        number: the worker's number, from 1.
    """

    def __init__(
        self, sides: Sides, table: TableWork, context: Context, report: Callable[[TableWork], Report], number: int
    ) -> None:
        super().__init__(sides, table.work, context, report(table))
        self.number = number
        self._table = table
        self._reporting = report
        self._base: _Base | None = None
        #: Closes what is open for the current table only.
        self._of_table = ExitStack()
        self._tables = 0
        #: What to report of small tables whose COMMIT got no answer, if it succeeded.
        self._doubtful: list[tuple[TableWork, Progress]] = []

    def open(self) -> None:
        """See ``Worker.open``."""
        self._opened_base()

    def close(self) -> None:
        """See ``Worker.close``."""
        self._let_go()
        self._base = None
        super().close()

    def _let_go(self) -> None:
        stack, self._of_table, self._sessions = self._of_table, ExitStack(), None
        try:
            stack.close()
        except Error as error:
            self._complain(error)

    def move_of(self, table: TableWork, line: ChunkLine, keep: Callable[[ChunkLine], None]) -> None:
        """Move one chunk of a table; see ``Worker.move``."""
        self._turn_to(table)
        self.move(line, keep)

    def move_together(self, tables: Sequence[TableWork], lines: Sequence[ChunkLine]) -> None:
        """Move small tables, one chunk each, in one transaction.

        Raises:
            DataError: a row was refused; nothing of them is there.
            CommitInDoubt: the COMMIT got no answer.
        """
        self._let_go()
        self._count(len(tables))
        base, run = self._opened_base(), tables[0].work.run
        if self._doubtful:
            # The ledger knows the outcome of the COMMIT in doubt: either all of its tables are there, or none.
            doubtful, self._doubtful = self._doubtful, []
            found = base.ledger.settled(run, lines[0].number)
            if found is not None and found.attempt == run.attempt and found.state is ChunkState.DONE:
                self._tell(doubtful)
                return
        told: list[tuple[TableWork, Progress]] = []
        try:
            with base.destination.transaction():
                for table, line in zip(tables, lines, strict=True):
                    told.append((table, self._moved(base, table, line)))
                base.source.check()
                base.ledger.record_all(run, [progress.line for _, progress in told])
        except Error as error:
            if len(told) == len(tables) and error.transient:
                self._doubtful = told
                raise in_doubt(error, tables[0].task, base.ledger, run, lines[0].number) from None
            raise
        self._tell(told)

    def _tell(self, told: Sequence[tuple[TableWork, Progress]]) -> None:
        for table, progress in told:
            self._reporting(table)(progress)

    def _moved(self, base: _Base, table: TableWork, line: ChunkLine) -> Progress:
        """Move a table in the open transaction; return what to report once it is committed."""
        sides, told = table.sides, list[Progress]()
        source, destination = sides.source.over(base.source), sides.destination.over(base.destination)
        writer = destination.writer(table.work.task.intent)
        sessions = Sessions(source=source, destination=destination, writer=writer, ledger=None)
        assignment = Assignment(
            work=table.work,
            sessions=sessions,
            line=line,
            context=self._context,
            report=told.append,
            transaction=False,
            undoes=False,
            check=False,
        )
        done = ChunkLoad(assignment).load()
        return told[-1] if told and not told[-1].provisional else Progress.of_done(done)

    def destination(self) -> Destination[DestinationConfig]:
        """Return the destination to create objects with, over a working session."""
        self._let_go()
        return self._opened_base().destination

    def finish(self, table: TableWork) -> None:
        """Do what follows the rows of a table that existed before."""
        self._let_go()
        base = self._opened_base()
        destination = table.sides.destination.over(base.destination)
        destination.finisher(table.work.task.intent).finish()

    def _turn_to(self, table: TableWork) -> None:
        if table is not self._table:
            self._let_go()
            self._table, self._work, self._report = table, table.work, self._reporting(table)
            self._count(1)

    def _count(self, tables: int) -> None:
        """Count the tables read, and reopen the sessions after many."""
        self._tables += tables
        if self._tables >= RENEWED_AFTER:
            self._tables = 0
            self.close()

    def _opened_base(self) -> _Base:
        if self._base is not None and not (self._base.source.holds() and self._base.destination.holds()):
            self.close()
        if self._base is None:
            source, destination = self._sides.source.for_worker(), self._sides.destination.for_worker()
            if source is None or destination is None:
                # A caller-supplied connection cannot be opened twice, so the only worker uses the run's sessions.
                own = self._sides.ledger
                assert own is not None, "many tables need one"
                self._base = _Base(source=self._sides.source, destination=self._sides.destination, ledger=own)
                return self._base
            try:
                self._stack.callback(source.close)
                source.open(self._context)
                self._stack.callback(destination.close)
                destination.open(self._context)
                ledger = destination.ledger(self._sides.wanted)
                assert isinstance(ledger, Ledger), "the main connection has one"
                self._base = _Base(source=source, destination=destination, ledger=ledger)
            except BaseException:
                self.close()
                raise
        return self._base

    def _ready(self) -> Sessions:
        """Return sessions for the current table."""
        base = self._opened_base()
        if self._sessions is None:
            sides = self._table.sides
            source, destination = sides.source.over(base.source), sides.destination.over(base.destination)
            writer = destination.writer(self._work.task.intent)
            self._of_table.callback(writer.abandon, resumable=True)
            self._sessions = Sessions(source=source, destination=destination, writer=writer, ledger=base.ledger)
        return self._sessions
