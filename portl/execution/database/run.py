"""Execute a plan of many tables.

==========  ==========================================================================================================
stage       what is done
==========  ==========================================================================================================
before      types, schemas, sequences, tables are created; the first transaction starts the run in the ledger
rows        workers take chunks of all tables, the largest first; as soon as a table has its rows, its keys and
            indexes are built
after       foreign keys are created, then validated, several at a time; then views, triggers, policies, comments and
            so on; sequences are set; the run is closed
==========  ==========================================================================================================

An object is created only if it does not exist, so that the next attempt finds what an interrupted run created, and
objects need not be recorded. Rows are recorded chunk by chunk, as for one table.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from portl.config.models import Auto, Mode, OnTableError
from portl.connectors.context import Context
from portl.connectors.objects import SchemaObject, Stage
from portl.execution.chunks.progress import Progress, in_doubt
from portl.execution.chunks.work import Report, Work
from portl.execution.counting import counted
from portl.execution.database.building import Builds
from portl.execution.database.tables import LARGE_ROWS, Piece, Queue, TableWork
from portl.execution.database.worker import TableWorker
from portl.execution.record import RunRecord
from portl.execution.telling import making, moving
from portl.execution.tracking import Tracking
from portl.execution.workers.count import MOST_WORKERS
from portl.execution.workers.crew import Crew
from portl.execution.workers.pool import opened
from portl.execution.workers.worker import persistently
from portl.planning.database.planner import in_stage, run_tables
from portl.planning.delivery import Delivery
from portl.planning.plan import Plan
from portl.planning.request import Sides
from portl.planning.tasks import TableTask
from portl.values import events
from portl.values.errors import Cancelled, CommitInDoubt, Error
from portl.values.results import TableResult
from portl.values.runs import ChunkLine, RunState
from portl.values.text import counted_tables

if TYPE_CHECKING:
    from concurrent.futures import Executor  # for a type alone, it would take 5 ms

    from portl.execution.workers.executor import ChunkExecutor

logger = logging.getLogger("portl.execution")


class DatabaseRun:
    """Executes a plan of many tables.

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
        first = plan.tables[0]
        tables = first.run.tables if first.run is not None else run_tables(plan.tables, sides, plan.dropped)
        split = attrs.evolve(first.split, chunks=tuple(c for task in plan.tables for c in task.split.chunks))
        whole = attrs.evolve(first, split=split)
        self._record = RunRecord(whole, sides, plan.config.run_id, tables)
        self._crew = Crew(context)
        self._tables: list[TableWork] = []
        self._builds = Builds(sides.destination, context)
        #: The chunk lines that workers have committed.
        self._committed: dict[int, ChunkLine] = {}
        self._executor: ChunkExecutor | None = None

    def use(self, executor: Executor) -> None:
        """Have an executor move the chunks of tables that have several; nothing is touched before.

        Small tables, which share transactions, and objects, which are created, stay with this process.

        Raises:
            ConfigError: the executor is not fit for that.
        """
        several = [task for task in self._plan.tables if len(task.split.chunks) > 1]
        task = next(filter(_handed_out, several), None)
        if task is None:
            if several:
                said = "rows are moved by this process, not by the executor: no table's chunks can go one by one"
                self._context.emit(events.Warned(where="executor", message=said))
            return
        from portl.execution.workers.executor import ChunkExecutor  # most runs have none, and it would take 10 ms

        sides = self._sides.tables[task.destination.name]
        work = Work(task=task, config=sides.config, run=self._record.run)
        self._executor = ChunkExecutor(executor, self._sides, self._context, work, sides)

    def carry_out(self) -> tuple[TableResult, ...]:
        """Move everything; return the result of each table."""
        try:
            resumed = self._record.enter(self._states())
            if resumed is not None:
                self._context.emit(resumed)
            self._begin()
            self._rows()
            self._end()
        except BaseException as error:
            self._give_up(error)
            raise
        return self.results()

    def _states(self) -> dict[str, Mapping[str, Any]]:
        """Return what tells apart the states of tables that may be resumed halfway."""
        tables = self._sides.tables
        # The watermark of each table, too, is part of its state.
        every = self._config.mode is Mode.INCREMENTAL
        names = [task.destination.name for task in self._plan.tables if every or len(task.split.chunks) > 1]
        return {name: tables[name].source.snapshot() for name in names}

    def _begin(self) -> None:
        """Create the objects that precede the rows, and start the run in the ledger."""
        record, destination = self._record, self._sides.destination
        objects = [SchemaObject.of_key(key, Stage.BEFORE, key.drop) for key in record.run.dropped]
        objects += in_stage(self._plan.objects, Stage.BEFORE)
        made = {found.label for found in objects}
        for task in self._plan.tables:
            if task.examination.before:
                name = task.destination.name
                # Schemas and types that several tables need are created once.
                again = {text for o in task.examination.makes if o.label in made for text in o.statements}
                made |= {o.label for o in task.examination.makes}
                statements = tuple(text for text in task.examination.before if text not in again)
                objects.append(
                    SchemaObject(
                        kind="table", name=name, group=None, table=name, stage=Stage.BEFORE, statements=statements
                    )
                )
        if objects:
            with making(self._context, _labels(objects), table=None, worker=0):
                destination.make(objects, None if record.entered else record.start)
        elif not record.entered:
            record.start()
        record.entered = True
        parts = {part.name: part for part in record.run.tables}
        after = self._by_table()
        for task in self._plan.tables:
            part, sides = parts[task.destination.name], self._sides.tables[task.destination.name]
            task = attrs.evolve(task, intent=attrs.evolve(task.intent, run=record.id))
            run = attrs.evolve(record.run, chunks=(), tables=(), identity={})
            self._tables.append(
                TableWork(
                    task=task,
                    part=part,
                    sides=sides,
                    work=Work(task=task, config=sides.config, run=run),
                    tracking=Tracking(task, sides.config, record, self._context, part),
                    after=tuple(after.get(task.source.name, ())),
                )
            )

    def _by_table(self) -> dict[str, list[SchemaObject]]:
        """Return what is created after a table's rows, by its name at the source; partitions go with their parents."""
        names = {task.source.name for task in self._plan.tables}
        found: dict[str, list[SchemaObject]] = {}
        for made in in_stage(self._plan.objects, Stage.INDEXES):
            if made.table in names:
                found.setdefault(made.table, []).append(made)
        return found

    def _rows(self) -> None:
        """Move the rows of all tables."""
        todo = {line.number: line for line in self._record.todo}
        queue = Queue(self._tables, todo, self._done)
        for table in self._tables:
            if any(n in todo for n in table.part.numbers):
                table.tracking.announce()
        try:
            self._crew.run(
                self._count(), lambda number, context: self._work(queue, number + 1, context), self._builds.look
            )
        finally:
            self._record.keep(self._committed.values())
        self._context.token.check()

    def _done(self, table: TableWork) -> None:
        """Report that all rows of a table are there."""
        self._crew.tell(lambda: self._context.emit(events.TableDone(result=self._result(table))))

    def _count(self) -> int:
        """Return the number of workers."""
        if self._sides.source.for_worker() is None or self._sides.destination.for_worker() is None:
            return 1
        wanted = self._config.parallel
        count = MOST_WORKERS if isinstance(wanted, Auto) else wanted
        room = [found for found in (self._sides.source.room(), self._sides.destination.room()) if found is not None]
        return max(1, min([count, *room]))

    def _work(self, queue: Queue, number: int, context: Context) -> None:
        """Process the queue until it is empty."""
        worker = TableWorker(self._sides, self._tables[0], context, self._reporting, number)
        with closing(worker):
            if not opened(worker, self._sides, context):
                return
            while True:
                with queue.taken(self._crew.stop) as piece:
                    if piece is None:
                        return
                    self._do(worker, piece, context)

    def _do(self, worker: TableWorker, piece: Piece, context: Context) -> None:
        if len(piece.tables) > 1 and self._together(worker, piece, context):
            return
        for number, table in enumerate(piece.tables):
            lines = piece.lines if len(piece.tables) == 1 else piece.lines[number : number + 1]
            objects = piece.objects if len(piece.tables) == 1 else table.after
            try:
                self._one(worker, table, attrs.evolve(piece, lines=lines, objects=objects if piece.objects else ()))
            except Error as error:
                if not self._goes_on(error, context):
                    raise
                table.failure = error
                name = table.task.destination.name
                said, public = (
                    f"{name} has failed; the other tables continue: {text}"
                    for text in (error.message, error.without_values)
                )
                context.emit(events.Warned(where=name, message=said, remedy=error.hint, without_values=public))

    def _together(self, worker: TableWorker, piece: Piece, context: Context) -> bool:
        """Move or finish several small tables together; return False if each has to be handled separately."""
        first = piece.tables[0]
        name = f"{first.task.destination.name} and {len(piece.tables) - 1} more"

        def attempt() -> None:
            if piece.objects:
                self._make_by(worker, piece.objects, context)
                return
            for table in piece.tables:
                self._crew.tell(lambda table=table: table.tracking.begun(table.part.first))  # type: ignore[misc]
            names = [table.task.destination.name for table in piece.tables]
            with moving(context, names, chunk=None, worker=worker.number) as moved:
                worker.move_together(piece.tables, piece.lines)
                moved.rows = sum(self._committed[line.number].rows for line in piece.lines)

        try:
            self._persistently(attempt, name, first, context)
        except Error as error:
            if isinstance(error, Cancelled) or error.transient:
                raise
            logger.debug("%s did not go together: %s", name, error.message)
            return False
        return True

    def _one(self, worker: TableWorker, table: TableWork, piece: Piece) -> None:
        """Move a piece of one table, or finish it."""
        if table.failure is not None:
            return
        context = self._crew.context()
        for line in piece.lines:
            self._move(worker, table, line, context)
        if piece.objects:
            name = table.task.destination.name
            attempt = partial(self._make_by, worker, piece.objects, context, name)
            self._persistently(attempt, piece.objects[0].label, table, context)
        if piece.finish:
            self._persistently(lambda: worker.finish(table), table.task.destination.name, table, context)

    def _make_by(
        self, worker: TableWorker, objects: Sequence[SchemaObject], context: Context, table: str | None = None
    ) -> None:
        """Create objects over a worker's sessions."""
        labels, session = _labels(objects), worker.destination()
        with (
            making(context, labels, table=table, worker=worker.number),
            self._builds.during(session, table, labels, worker.number),
        ):
            session.make(objects)

    def _goes_on(self, error: Error, context: Context) -> bool:
        """Return whether the other tables continue after this error in one."""
        wanted = self._config.on_table_error is OnTableError.CONTINUE
        ends = isinstance(error, (Cancelled, CommitInDoubt)) or error.transient or context.token.cancelled
        return wanted and not ends

    def _move(self, worker: TableWorker, table: TableWork, line: ChunkLine, context: Context) -> None:
        move: Callable[[ChunkLine, Callable[[ChunkLine], None]], None] = partial(worker.move_of, table)
        if self._executor is not None and _handed_out(table.task):
            move = self._executor.worker(table.work, context, self._reporting(table), table.sides).move

        def attempt() -> None:
            self._crew.tell(lambda: table.tracking.begun(line.number))
            before = self._committed.get(line.number, line)
            with moving(context, [table.task.destination.name], chunk=line.number, worker=worker.number) as moved:
                move(before, self._keep)
                moved.rows = self._committed.get(line.number, before).rows - before.rows

        self._persistently(attempt, table.work.name(line), table, context)

    def _persistently(self, attempt: Callable[[], None], name: str, table: TableWork, context: Context) -> None:
        persistently(attempt, name, context, self._sides, lambda: self._crew.tell(table.tracking.retried), own=True)

    def _keep(self, line: ChunkLine) -> None:
        self._committed[line.number] = line

    def _reporting(self, table: TableWork) -> Report:
        def report(progress: Progress) -> None:
            if not progress.provisional:
                self._keep(progress.line)
            self._crew.tell(lambda: table.tracking.progress(progress))

        return report

    def _end(self) -> None:
        """Create what follows once all rows are there, and close the run."""
        failed = {table.task.source.name for table in self._tables if table.failure is not None}
        names = {task.source.name for task in self._plan.tables}
        kept = [found for found in self._plan.objects if found.table not in failed]
        self._make([found for found in in_stage(kept, Stage.INDEXES) if found.table not in names])
        keys = self._record.run.dropped
        self._make(
            [*in_stage(kept, Stage.CONSTRAINTS), *(SchemaObject.of_key(k, Stage.CONSTRAINTS, k.make) for k in keys)]
        )
        to_validate = [SchemaObject.of_key(k, Stage.VALIDATION, k.validate) for k in keys if k.validate and not failed]
        self._validate([*in_stage(kept, Stage.VALIDATION), *to_validate])
        self._make(in_stage(kept, Stage.AFTER))
        ledger = self._record.ledger
        assert ledger is not None, "many tables need one"
        if failed:
            said = f"{counted_tables(len(failed))} failed: {', '.join(sorted(failed))}"
            ledger.close(self._record.run, RunState.FAILED, said)
            return
        # This transaction, unlike earlier ones, waits for the disk.
        table, run = self._tables[0], self._record.run
        try:
            table.sides.destination.writer(table.work.task.intent).finish(lambda: ledger.close(run, RunState.DONE))
        except Error as error:
            if not error.transient or self._sides.destination.holds():
                raise
            # The run may already be closed; another attempt would then begin a new one.
            raise in_doubt(error, table.task, ledger, run, table.part.first) from None

    def _make(self, objects: Sequence[SchemaObject]) -> None:
        """Create objects over the run's session."""
        if objects:
            with making(self._context, _labels(objects), table=None, worker=0):
                self._sides.destination.make(objects)

    def _validate(self, objects: Sequence[SchemaObject]) -> None:
        """Validate foreign keys: those of large tables concurrently, the others together."""
        rows = {table.task.source.name: table.rows for table in self._tables}
        large = [found for found in objects if rows.get(found.table or "", 0) >= LARGE_ROWS]
        if len(large) < 2 or self._count() < 2:
            self._make(objects)
            return
        large.sort(key=lambda found: rows[found.table or ""])
        others = [found for found in objects if found not in large]
        left = [others, *([found] for found in large)] if others else [[found] for found in large]

        def work(number: int, context: Context) -> None:
            with closing(TableWorker(self._sides, self._tables[0], context, self._reporting, number)) as worker:
                if not opened(worker, self._sides, context):
                    return
                while left and not context.token.cancelled:
                    try:
                        some = left.pop()  # largest first
                    except IndexError:
                        return
                    attempt = partial(self._make_by, worker, some, context)
                    self._persistently(attempt, some[0].label, self._tables[0], context)

        self._crew.run(
            min(self._count(), len(left)), lambda number, context: work(number + 1, context), self._builds.look
        )
        self._context.token.check()
        self._make([found for some in left for found in some])

    def results(self) -> tuple[TableResult, ...]:
        """Return the result of each table so far."""
        return tuple(map(self._result, self._tables))

    def _result(self, table: TableWork) -> TableResult:
        tracking = table.tracking
        run = attrs.evolve(self._record.run.of(table.part), chunks=tuple(tracking.lines))
        result = counted(
            run,
            table.task,
            table.sides.config.batch_size,
            tracking.seconds,
            retries=tracking.retries,
            rows_before=tracking.earlier_rows,
        )
        failure = table.failure
        if failure is None:
            return result
        return attrs.evolve(result, error=failure.message, error_without_values=failure.without_values)

    @property
    def onward(self) -> str | None:
        """What running the job again would do, for display; None if nothing is there yet."""
        if not self._record.entered:
            return None
        count = len(self._record.run.dropped)
        keys = f"; that creates {count:,} foreign keys again, and so does `portl clean`" if count else ""
        return f"run the job again to go on from there{keys}"

    def _give_up(self, error: BaseException) -> None:
        """Record how the attempt ended, if the destination can be reached."""
        self._record.see_what_stands(error)
        ended = isinstance(error, (Cancelled, KeyboardInterrupt)) or self._context.token.cancelled
        state = RunState.CANCELLED if ended else RunState.FAILED
        if not self._record.entered:
            return
        try:
            if self._tables:
                # The run's session is idle: whatever was under way when the run was cancelled has ended.
                table = self._tables[0]
                table.sides.destination.writer(table.work.task.intent).abandon(resumable=True)
            self._record.close(state, str(error))
        except Error as second:
            logger.warning("the end of the run could not be written down: %s", second.message)


def _handed_out(task: TableTask) -> bool:
    """Return whether an executor may move the chunks of a table."""
    return task.delivery is Delivery.CHUNKS and task.ordered is None and len(task.split.chunks) > 1


def _labels(objects: Sequence[SchemaObject]) -> list[str]:
    """Return the labels of objects for events, without properties of other objects, unless there is nothing else."""
    return [made.label for made in objects if not made.property] or [objects[0].label]
