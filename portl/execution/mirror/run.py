"""Mirror one table: compare, move the rows that differ, then remove those that the source does not have.

New and changed rows are moved in chunks like any others, over several workers. Surplus rows are removed afterwards,
when rows that referenced them have been updated. If the destination refuses that order, for example because a unique
value passes from a removed row to a new one, the opposite order is tried.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import attrs

from portl.config.models import MigrationConfig, OnError
from portl.connectors.context import Context
from portl.connectors.exchange import Counts
from portl.connectors.mirroring import MirrorDestination
from portl.execution.chunks.transaction import ChunkTransaction
from portl.execution.chunks.work import Assignment, Work
from portl.execution.counting import counted
from portl.execution.mirror.comparison import COMPARED, REMOVED, Compared, MirrorComparison
from portl.execution.table_run import TableRun
from portl.planning.request import Sides
from portl.planning.tasks import TableTask
from portl.values import events
from portl.values.errors import DataError
from portl.values.results import TableResult
from portl.values.runs import ChunkLine, ChunkState, Run


class MirrorRun:
    """Mirrors one table. Takes the arguments of ``TableRun``."""

    def __init__(self, task: TableTask, config: MigrationConfig, sides: Sides, context: Context) -> None:
        self._task = task
        self._config = config
        self._sides = sides
        self._context = context
        self._began = time.monotonic()
        #: Set once both sides are compared.
        self._run: DifferencesRun | None = None

    def carry_out(self) -> TableResult:
        """Compare, move and remove; return the table's result."""
        comparison = MirrorComparison(self._task, self._config, self._sides)
        with ExitStack() as stack:
            stack.callback(comparison.forget)
            compared = comparison.compare()
            self._context.token.check()
            self._context.emit(announced(self._task, comparison, compared, time.monotonic() - self._began))
            task = attrs.evolve(self._task, split=comparison.split(compared), count=comparison.counted(compared))
            self._run = DifferencesRun(task, self._config, self._sides, self._context, comparison, compared)
            self._run.carry_out()
        return self.result()

    @property
    def onward(self) -> str | None:
        """What running the job again would do, for display; None if nothing is there yet."""
        there = self._run is not None and self._run.onward is not None
        return "run the job again: it compares both sides again, and moves what still differs" if there else None

    def result(self) -> TableResult:
        """Return what is committed so far."""
        if self._run is None:
            nothing = Run(id="", job=self._task.job, identity={})
            return counted(nothing, self._task, self._config.batch_size, time.monotonic() - self._began)
        return attrs.evolve(self._run.result(), seconds=time.monotonic() - self._began)


class DifferencesRun(TableRun):
    """Moves and removes the rows that differ. Also takes the arguments of ``TableRun``.

    Args:
        comparison: the comparison that found them.
        compared: its outcome.
    """

    def __init__(
        self,
        task: TableTask,
        config: MigrationConfig,
        sides: Sides,
        context: Context,
        comparison: MirrorComparison,
        compared: Compared,
    ) -> None:
        super().__init__(task, config, sides, context)
        self._comparison = comparison
        self._compared = compared
        #: Otherwise rows that conflict with rows still to be removed would be quarantined.
        self._removes_first = config.on_error is OnError.QUARANTINE

    def _work(self) -> Work:
        return attrs.evolve(super()._work(), wanted=self._comparison.wanted)

    def _whole(self) -> None:
        try:
            super()._whole()
        except DataError:
            if not self._compared.differences.removed or self._removes_first:
                raise
            self._removes_first = True
            self._record.entered = False  # that was rolled back too
            self._record.keep(self._record.run.chunks)
            super()._whole()

    def _in_order(self, todo: Sequence[ChunkLine]) -> Sequence[ChunkLine]:
        if not self._removes_first:
            return todo
        return sorted(todo, key=lambda line: (kind_of(line) != COMPARED, kind_of(line) != REMOVED, line.number))

    def _move_rest(self, todo: Sequence[ChunkLine]) -> None:
        gone = [line for line in todo if kind_of(line) == REMOVED]
        steps: list[tuple[Callable[[Sequence[ChunkLine]], None], list[ChunkLine]]] = [
            (super()._move_rest, [line for line in todo if line not in gone]),
            (self._remove_all, gone),
        ]
        if self._removes_first:
            steps.reverse()
        (first, lines), (second, others) = steps
        try:
            first(lines)
        except DataError:
            if not others:
                raise
            second(others)
            first([line for line in self._record.todo if line.number in {line.number for line in lines}])
        else:
            second(others)

    def _remove_all(self, lines: Sequence[ChunkLine]) -> None:
        for line in lines:
            self._move(line)

    def _load(self, line: ChunkLine, first: Callable[[], None] | None = None, *, transaction: bool = True) -> None:
        if kind_of(line) not in (COMPARED, REMOVED):
            super()._load(line, first, transaction=transaction)
            return
        assignment = Assignment(
            work=self._work(),
            sessions=self._sessions,
            line=line,
            context=self._context,
            report=self._tracking.progress,
            first=first,
            transaction=transaction,
            undoes=False,
        )
        change(assignment, self._comparison.destination, self._compared)


def change(assignment: Assignment, destination: MirrorDestination, compared: Compared) -> None:
    """Record the comparison, or remove rows, in a transaction with the chunk's line."""
    transaction, line = ChunkTransaction(assignment), assignment.line
    transaction.begin()
    try:
        if kind_of(line) == COMPARED:
            counts, sent = Counts(unchanged=compared.unchanged), compared.bytes
            destination.restore()
        else:
            assert line.bounds is not None, "it says which part"
            counts, sent = Counts(deleted=destination.remove(line.bounds["part"])), 0
        transaction.tally.add([], counts, sent)
        committed = transaction.commit(ChunkState.DONE)
    except BaseException:
        transaction.rollback()
        raise
    transaction.settle(committed)


def kind_of(line: ChunkLine) -> str | None:
    """Return what a chunk does: COMPARED, REMOVED, or anything else if it moves rows."""
    return line.bounds.get("by") if line.bounds is not None else None


def announced(task: TableTask, comparison: MirrorComparison, compared: Compared, seconds: float) -> events.Compared:
    """Return the event of a comparison."""
    return events.Compared(
        table=task.destination.name,
        rows_source=compared.rows[0],
        rows_destination=compared.rows[1],
        rows_to_fetch=comparison.counted(compared).rows,
        rows_to_delete=sum(compared.differences.removed),
        bytes=compared.bytes,
        seconds=seconds,
    )
