"""Mirror many tables from one state of the source.

====================  ================================================================================================
step                  what is done
====================  ================================================================================================
compare               all tables, before anything is changed; too many rows to delete in one ends the run
begin                 columns are added, the run is recorded
move                  the rows that differ, each table after those that its foreign keys reference
remove                rows that the source does not have, in the opposite order
end                   sequences are set, the run is closed
====================  ================================================================================================

An interrupted run is not resumed: the next one compares again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import attrs

from portl.connectors.context import Context
from portl.connectors.objects import SchemaObject, Stage
from portl.connectors.writer import Writer
from portl.execution.chunks.load import ChunkLoad
from portl.execution.chunks.progress import in_doubt
from portl.execution.chunks.work import Assignment, Sessions, Work
from portl.execution.counting import counted
from portl.execution.mirror.comparison import COMPARED, REMOVED, Compared, MirrorComparison
from portl.execution.mirror.run import announced, change, kind_of
from portl.execution.record import RunRecord
from portl.execution.tracking import Tracking
from portl.execution.workers.worker import persistently
from portl.planning.database.planner import run_tables
from portl.planning.plan import Plan
from portl.planning.request import Sides, TableSides
from portl.planning.tasks import TableTask
from portl.values import events
from portl.values.errors import Cancelled, DataError, Error
from portl.values.results import TableResult
from portl.values.runs import ChunkLine, ChunkState, RunState, RunTable

logger = logging.getLogger("portl.execution")


@attrs.frozen(kw_only=True, eq=False)
class _Mirrored:
    """A table and its comparison."""

    task: TableTask
    sides: TableSides
    comparison: MirrorComparison
    compared: Compared


@attrs.frozen(kw_only=True, eq=False)
class _Moving:
    """A table whose rows are being moved."""

    mirrored: _Mirrored
    part: RunTable
    work: Work
    tracking: Tracking


class MirrorTables:
    """Executes a plan that mirrors many tables.

    Args:
        plan: without problems.
        sides: both sides, open, with the job's lock held, and the sides of each table.
        context: with the observers and the cancel token.
    """

    def __init__(self, plan: Plan, sides: Sides, context: Context) -> None:
        self._plan = plan
        self._config = plan.config
        self._sides = sides
        self._context = context
        self._record: RunRecord | None = None
        self._tables: list[_Moving] = []

    def carry_out(self) -> tuple[TableResult, ...]:
        """Compare, move and remove; return the result of each table."""
        with ExitStack() as stack:
            compared = list(self._compared(stack))
            record = self._record = self._recorded(compared)
            try:
                self._begin(record, compared)
                tables = list(_parents_first(self._tables))
                for table in tables:
                    self._move_rows(record, table)
                for table in reversed(tables):
                    self._move_lines(record, table, [REMOVED])
                    self._context.emit(events.TableDone(result=self._result(table)))
                self._end(record)
            except BaseException as error:
                self._give_up(record, error)
                raise
        return self.results()

    def _compared(self, stack: ExitStack) -> Iterator[_Mirrored]:
        """Compare all tables; the stack discards what the destination stores of the comparisons."""
        first = 1
        for task in self._plan.tables:
            sides = self._sides.tables[task.destination.name]
            began = time.monotonic()
            comparison = MirrorComparison(task, sides.config, sides)
            stack.callback(comparison.forget)
            compared = comparison.compare()
            self._context.token.check()
            self._context.emit(announced(task, comparison, compared, time.monotonic() - began))
            split = comparison.split(compared)
            chunks = tuple(attrs.evolve(chunk, number=first + n) for n, chunk in enumerate(split.chunks))
            first += len(chunks)
            count = comparison.counted(compared)
            task = attrs.evolve(task, split=attrs.evolve(split, chunks=chunks), count=count)
            yield _Mirrored(task=task, sides=sides, comparison=comparison, compared=compared)

    def _recorded(self, compared: Sequence[_Mirrored]) -> RunRecord:
        tasks = [table.task for table in compared]
        split = attrs.evolve(tasks[0].split, chunks=tuple(chunk for task in tasks for chunk in task.split.chunks))
        whole = attrs.evolve(tasks[0], split=split)
        return RunRecord(whole, self._sides, self._config.run_id, run_tables(tasks, self._sides))

    def _begin(self, record: RunRecord, compared: Sequence[_Mirrored]) -> None:
        """Add columns, and record the run."""
        record.enter({})
        added = [
            SchemaObject(
                kind="table",
                name=table.task.destination.name,
                group=None,
                table=table.task.destination.name,
                stage=Stage.BEFORE,
                statements=table.task.examination.before,
            )
            for table in compared
            if table.task.examination.before
        ]
        if added:
            self._sides.destination.make(added, record.start)
        else:
            record.start()
        record.entered = True
        parts = {part.name: part for part in record.run.tables}
        run = attrs.evolve(record.run, chunks=(), tables=(), identity={})
        for table in compared:
            task = attrs.evolve(table.task, intent=attrs.evolve(table.task.intent, run=record.id))
            part, config = parts[task.destination.name], table.sides.config
            self._tables.append(
                _Moving(
                    mirrored=attrs.evolve(table, task=task),
                    part=part,
                    work=Work(task=task, config=config, run=run, wanted=table.comparison.wanted),
                    tracking=Tracking(task, config, record, self._context, part),
                )
            )

    def _move_rows(self, record: RunRecord, table: _Moving) -> None:
        """Move the rows that differ; if they conflict with rows to be removed, remove these first."""
        table.tracking.announce()
        self._move_lines(record, table, [COMPARED])
        try:
            self._move_lines(record, table, [None])
        except DataError:
            if not table.mirrored.compared.differences.removed:
                raise
            self._move_lines(record, table, [REMOVED])
            self._move_lines(record, table, [None])

    def _move_lines(self, record: RunRecord, table: _Moving, kinds: Sequence[str | None]) -> None:
        """Process a table's remaining chunks of some kinds; None stands for those that move rows."""
        lines = [record.lines[number] for number in table.part.numbers]
        chosen = [
            line
            for line in lines
            if line.state is not ChunkState.DONE
            and (kind_of(line) if kind_of(line) in (COMPARED, REMOVED) else None) in kinds
        ]
        if not chosen:
            return
        mirrored = table.mirrored
        writer = mirrored.sides.destination.writer(table.work.task.intent)
        sessions = Sessions(
            source=mirrored.sides.source,
            destination=mirrored.sides.destination,
            writer=writer,
            ledger=record.ledger,
        )
        try:
            for line in chosen:
                self._move(table, sessions, line)
        finally:
            writer.abandon(resumable=True)

    def _move(self, table: _Moving, sessions: Sessions, line: ChunkLine) -> None:
        assignment = Assignment(
            work=table.work,
            sessions=sessions,
            line=line,
            context=self._context,
            report=table.tracking.progress,
            first=(lambda: self._unreject(table, sessions.writer)) if kind_of(line) == COMPARED else None,
            undoes=kind_of(line) not in (COMPARED, REMOVED),
        )

        def attempt() -> None:
            self._context.token.check()
            table.tracking.begun(line.number)
            if kind_of(line) in (COMPARED, REMOVED):
                change(assignment, table.mirrored.comparison.destination, table.mirrored.compared)
            else:
                ChunkLoad(assignment).load()

        persistently(attempt, table.work.name(line), self._context, self._sides, table.tracking.retried)

    @staticmethod
    def _unreject(table: _Moving, writer: Writer) -> None:
        """Remove what the previous run quarantined, as all rows are compared again."""
        earlier = table.work.task.found or table.mirrored.task.found
        if earlier is not None and any(line.rejected for line in earlier.chunks):
            writer.unreject(earlier.id)

    def _end(self, record: RunRecord) -> None:
        """Do what follows the rows, and close the run."""
        for table in self._tables:
            table.mirrored.sides.destination.finisher(table.work.task.intent).finish()
        ledger, first = record.ledger, self._tables[0]
        assert ledger is not None, "many tables need one"
        writer = first.mirrored.sides.destination.writer(first.work.task.intent)
        try:
            writer.finish(lambda: ledger.close(record.run, RunState.DONE))
        except Error as error:
            if not error.transient or self._sides.destination.holds():
                raise
            raise in_doubt(error, first.work.task, ledger, record.run, first.part.first) from None

    def results(self) -> tuple[TableResult, ...]:
        """Return the result of each table so far."""
        return tuple(map(self._result, self._tables))

    def _result(self, table: _Moving) -> TableResult:
        assert self._record is not None, "tables move"
        tracking = table.tracking
        run = attrs.evolve(self._record.run, chunks=tuple(tracking.lines))
        size = table.mirrored.sides.config.batch_size
        return counted(run, table.mirrored.task, size, tracking.started, retries=tracking.retries)

    @property
    def onward(self) -> str | None:
        """What running the job again would do, for display; None if nothing is there yet."""
        entered = self._record is not None and self._record.entered
        return "run the job again: it compares all tables, and goes on with what differs still" if entered else None

    def _give_up(self, record: RunRecord, error: BaseException) -> None:
        """Record how the attempt ended, if the destination can be reached."""
        record.see_what_stands(error)
        ended = isinstance(error, (Cancelled, KeyboardInterrupt)) or self._context.token.cancelled
        if not record.entered:
            return
        try:
            said = error.message if isinstance(error, Error) else type(error).__name__
            record.close(RunState.CANCELLED if ended else RunState.FAILED, said)
        except Error as second:
            logger.warning("tidying up after a failure failed too: %s", second)


def _parents_first(tables: Sequence[_Moving]) -> Iterator[_Moving]:
    """Yield tables, each after those that its foreign keys reference; tables in a cycle keep their order."""
    left = list(tables)
    while left:
        names = {table.part.name for table in left}
        ready = [table for table in left if not table.work.task.waits_for & names] or left
        yield from ready
        left = [table for table in left if table not in ready]
