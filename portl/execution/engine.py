"""Carry a plan out: chunks on their way over one or several lanes, the ledger, what comes after the rows.

The first chunk goes alone, in the transaction that makes what is missing and starts the ledger's run: when it fails,
nothing is left. The others follow over as many lanes as the job has; a lane is a source, a writer and a ledger on
connections of their own, all reading one snapshot. With several lanes the work is done in threads, or by an executor of
the caller's, and what happens is told in the thread that called.

Two kinds of failure pass. One that leaves the source's snapshot and the main connections whole (a deadlock, a lane
that is cut off) is tried again here, chunk by chunk. Any other ends the attempt with a transient error; the caller
opens both sides anew and takes the run up where the ledger says it stands, as he would after a crash.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from portl.config.models import DEFAULT_BATCH_ROWS, Auto, MigrationConfig, OnError
from portl.connectors.context import Context
from portl.connectors.ledger import Ledger
from portl.connectors.writer import Writer
from portl.execution.chunk_load import ChunkLoad
from portl.execution.first_transaction import Opening
from portl.execution.progress import Lane, Progress, in_doubt, too_many
from portl.execution.retry import retrying
from portl.execution.workers import Lanes, Work
from portl.planning import delivery
from portl.planning import planner as planning
from portl.planning.delivery import Delivery
from portl.planning.plan import Plan
from portl.planning.request import Sides
from portl.planning.tasks import TableTask
from portl.values import events
from portl.values.errors import Cancelled, CommitInDoubt, DataError, Error, Interrupted, Superseded
from portl.values.results import Result, TableResult
from portl.values.runs import ChunkLine, ChunkState, Run, RunState

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from portl.execution.executors import Workers

logger = logging.getLogger("portl.execution")

#: Lanes where the job leaves it open: more did not help in trials (docs/performance.md).
MOST_LANES = 4
#: Bytes from which on a row counts as wide: those that PostgreSQL compresses, and stores apart (manual, TOAST).
WIDE_BYTES = 2000


def execute(
    plan: Plan,
    sides: Sides,
    ledger: Ledger | None,
    context: Context,
    started: float,
    executor: Executor | None = None,
) -> Result:
    """Carry the plan out.

    Args:
        plan: without problems.
        sides: both, open.
        ledger: the destination's, with the lock of the job in hand; None: it has none.
        context: the observers and the token.
        started: the ``time.monotonic()`` at which the run began.
        executor: what moves the chunks; None: threads.

    Raises:
        Error: with ``committed``; the observers are told by the caller.
    """
    context.emit(
        events.Started(name=plan.config.name, source=plan.source, destination=plan.destination, tables=len(plan.tables))
    )
    done: list[TableResult] = []

    def result(current: TableResult | None = None) -> Result:
        tables = (*done, current) if current else tuple(done)
        return _result(plan, tables, started)

    for task in plan.tables:
        load = _TableRun(task, plan.config, sides, ledger, context)
        if executor is not None:
            load.hire(executor)
        try:
            finished = load.carry_out()
            context.emit(events.TableDone(result=finished))
        except KeyboardInterrupt as error:
            interrupted = Interrupted.of(error)
            interrupted.committed = result(load.result())
            interrupted.hint = load.onward
            raise interrupted from None
        except Error as error:
            told = context.token.verdict(error)
            told.committed = result(load.result())
            if isinstance(told, Cancelled):
                told.hint = load.onward
            raise told
        done.append(finished)
    return result()


class _TableRun:
    """One table on its way."""

    def __init__(
        self,
        task: TableTask,
        config: MigrationConfig,
        sides: Sides,
        ledger: Ledger | None,
        context: Context,
    ) -> None:
        self._config = config
        self._source = sides.source
        self._destination = sides.destination
        self._ledger = ledger
        self._context = context
        self._writer: Writer
        self._run = Run(id=str(uuid.uuid4()), job=task.job, identity=task.identity, idempotency_key=config.run_id)
        known = task.run.id if task.run is not None else self._run.id
        self._task = attrs.evolve(task, intent=attrs.evolve(task.intent, run=known))
        #: Chunks that come once more, with the rows of theirs that were quarantined.
        self._repeated: set[int] = set()
        self._lines: dict[int, ChunkLine] = {}
        #: The run stands in the ledger, and this attempt is its last.
        self._entered = False
        #: What has to be there before the rows was made.
        self._made = False
        self._retries = 0
        #: The way that rows took last: one that refuses a row may give way to another.
        self._route = task.route
        #: By chunk: rows and bytes that are written in a transaction that is still open.
        self._written: dict[int, tuple[int, int]] = {}
        self._workers: Workers | None = None
        self._earlier_rows = 0
        self._started = time.monotonic()

    def hire(self, executor: Executor) -> None:
        """Have the chunks moved by an executor, if there are several that can be; nothing is touched before.

        Raises:
            ConfigError: if it is not fit for that.
        """
        task = self._task
        if task.delivery is not Delivery.CHUNKS:
            why = "the job is one transaction" if task.delivery is Delivery.WHOLE else "it is not cut into chunks"
        elif task.ordered is not None:
            why = f"they come one after the other: {task.ordered}"
        else:
            if len(task.run.chunks if task.run is not None else task.split.chunks) > 1:
                from portl.execution.executors import Workers

                self._workers = Workers(executor, self._source, self._destination, self._context, self._work())
            return
        said = f"rows are moved by this process, not by the executor: {why}"
        self._context.emit(events.Warned(where="executor", message=said))

    def carry_out(self) -> TableResult:
        """Move the rows; return what became of them."""
        self._announce()
        self._writer = self._destination.writer(self._task.intent)
        try:
            self._enter()
            if self._task.delivery is Delivery.WHOLE:
                self._whole()
            else:
                self._chunks()
        except BaseException as error:
            self._give_up(error)
            raise
        return self.result()

    def _announce(self) -> None:
        count = self._task.count
        self._context.emit(
            events.TableStarted(
                source=self._task.source.name,
                destination=self._task.destination.name,
                route=self._task.route,
                rows_expected=count.rows if count else None,
                rows_exact=bool(count and count.exact),
            )
        )

    def _enter(self) -> None:
        """Take up the run that was interrupted, or prepare a new one, which the first transaction writes down."""
        earlier = self._task.run
        snapshot = self._source.snapshot()
        if self._ledger is not None:
            self._ledger.prepare()
        if earlier is None or self._ledger is None:
            self._run = attrs.evolve(
                self._run,
                snapshots={1: snapshot},
                source=self._source.label(),
                destination=self._destination.label(),
                resumable=self._task.delivery is Delivery.CHUNKS,
                chunks=tuple(ChunkLine(number=c.number, bounds=c.bounds) for c in self._task.split.chunks),
            )
            self._lines = {line.number: line for line in self._run.chunks}
            return
        attempt = earlier.attempt + 1
        run = attrs.evolve(
            earlier,
            attempt=attempt,
            snapshots={**earlier.snapshots, attempt: snapshot},
            idempotency_key=self._config.run_id or earlier.idempotency_key,
        )
        self._ledger.resume(run)
        self._run, self._entered = run, True
        lines = self._ledger.lines(run)
        if self._task.recopy:
            self._repeated = {line.number for line in lines if line.rejected}
            lines = [delivery.again(line) if line.attempt < attempt else line for line in lines]
        self._lines = {line.number: line for line in lines}
        self._earlier_rows = sum(line.rows for line in lines)
        self._context.emit(
            events.Resumed(
                job=run.job,
                attempt=attempt,
                started=run.started.isoformat(timespec="seconds") if run.started else None,
                chunks_done=sum(line.state is ChunkState.DONE for line in lines),
                chunks=len(lines),
                rows=self._earlier_rows,
            )
        )

    def _start(self) -> None:
        """Write the run down, in the first transaction."""
        if self._ledger is None or self._entered:
            return
        self._run = attrs.evolve(self._run, incarnation=self._destination.incarnation())
        self._ledger.start(self._run)
        earlier = self._task.found
        if earlier is not None and earlier.state is not RunState.DONE and any(line.rejected for line in earlier.chunks):
            self._writer.unreject(earlier.id)  # this run begins where that one did

    def _whole(self) -> None:
        """Move everything in one transaction."""
        self._writer.begin()
        try:
            self._start()
            for line in self._todo():
                load = self._load(line, transaction=False)
                self._lines[line.number] = load.load()
                self._route = load.route
            self._writer.finish()
            if self._ledger is not None:
                self._ledger.close(self._run, RunState.DONE)
            try:
                self._writer.commit()
            except Error as error:
                if error.transient:
                    raise in_doubt(error, self._task, self._ledger, self._run, 1) from None
                raise
        except CommitInDoubt:
            self._lines = {}
            raise
        except BaseException:
            self._lines = {}
            self._writer.rollback()
            raise

    def _chunks(self) -> None:
        """Move chunk by chunk until the ledger says that none is left, then do what comes after the rows."""
        while todo := self._todo():
            if not self._entered or (self._task.examination.before and not self._made):
                todo = todo[self._move_first(todo) :]
                self._entered, self._made = self._ledger is not None, True
            lanes = self._lanes(len(todo))
            if lanes > 1 or (self._workers is not None and todo):
                self._side_by_side(lanes, todo)
            else:
                for line in todo:
                    self._move(line)
            if self._ledger is None:
                break
            # A server that crashed may have lost its last commits. The ledger has lost them too.
            self._lines = {line.number: line for line in self._ledger.lines(self._run)}
        self._context.token.check()
        ledger = self._ledger
        if ledger is None:
            self._writer.finish()
        else:
            self._finish(ledger)

    def _opens(self, todo: Sequence[ChunkLine]) -> bool:
        """Tell whether the first transaction is to take several chunks: what comes after it is one lane's, too.

        Not where bad rows are quarantined: to find them, the rows would have to be read once more.
        """
        config = self._config
        chunks = self._task.delivery is Delivery.CHUNKS and config.chunk_rows is None
        alone = self._workers is None and self._lanes(len(todo), tell=False) == 1
        return chunks and alone and self._writer.fresh and config.on_error is OnError.FAIL

    def _open(self, todo: Sequence[ChunkLine]) -> int:
        """Move the first chunks in one transaction; return how many: none if a row was refused."""
        opening = Opening(self._work(), self._main_lane(), self._context, self.progress)
        try:
            opening.load(todo, self._start)
            self._lines.update(opening.lines)
        except DataError as error:
            logger.debug("the first chunks did not go together: %s", error.message)
            return 0
        finally:
            self._written.clear()
        opening.tell()
        return len(opening.lines)

    def _finish(self, ledger: Ledger) -> None:
        """Do what comes after the rows and close the run, in one transaction."""
        try:
            self._writer.finish(lambda: ledger.close(self._run, RunState.DONE))
        except Error as error:
            if not error.transient or self._destination.holds():
                raise
            # The run may be closed: then another attempt would begin a new one.
            raise in_doubt(error, self._task, ledger, self._run, max(self._lines)) from None

    def _todo(self) -> list[ChunkLine]:
        return [line for _, line in sorted(self._lines.items()) if line.state is not ChunkState.DONE]

    def _lanes(self, chunks: int, *, tell: bool = True) -> int:
        """Return how many chunks move at the same time; tell the user where they are fewer than asked for."""
        if self._task.ordered is not None or self._task.delivery is not Delivery.CHUNKS:
            return 1
        asked = None if isinstance(self._config.parallel, Auto) else self._config.parallel
        if self._workers is not None and not self._workers.near:
            return min(chunks, asked or MOST_LANES)  # each process has pools of its own
        wanted = min(chunks, asked or self._helpful())
        if wanted < 2 or self._source.for_worker() is None or self._destination.for_worker() is None:
            return 1
        room = [found + 1 for found in (self._source.room(), self._destination.room()) if found is not None]
        lanes = min([wanted, *room])
        if lanes < wanted and asked is not None and tell:
            said = f"{wanted} lanes are wanted, and the pool of connections has room for {lanes}"
            self._context.emit(
                events.Warned(where="parallel", message=said, remedy="raise `pool.max_size` at both sides")
            )
        return lanes

    def _helpful(self) -> int:
        """Return how many lanes are likely to help.

        Each keeps something busy at either side. Where that is on this machine, more than the processors can do at once
        slows all down, and rows get into the order of an index less often, which makes it larger. With wide rows most
        of the work is the destination's, which has to compress them: then each processor may have a lane.
        """
        near = self._source.near + self._destination.near
        if not near:
            return MOST_LANES
        busy = 1 if self._row_bytes() >= WIDE_BYTES else near
        return min(MOST_LANES, max(1, (os.cpu_count() or 1) // busy))

    def _row_bytes(self) -> float:
        """Return how many bytes a row has: of those that were moved, or else about; 0 where nobody knows."""
        rows = sum(line.rows for line in self._lines.values())
        if rows:
            return sum(line.bytes for line in self._lines.values()) / rows
        chunks = [chunk.rows for chunk in self._task.split.chunks if chunk.rows]
        return planning.CHUNK_BYTES / max(chunks) if len(chunks) > 1 and self._config.chunk_rows is None else 0.0

    def _work(self) -> Work:
        return Work(task=self._task, config=self._config, run=self._run, repeated=frozenset(self._repeated))

    def _side_by_side(self, lanes: int, todo: list[ChunkLine]) -> None:
        """Move chunks over several lanes; raise the first failure."""
        main = self._main_lane()
        moving = Lanes(
            self._work(), self._source, self._destination, main, self._context, self, lanes, todo, self._workers
        )
        moving.run()

    def _main_lane(self) -> Lane:
        return Lane(
            source=self._source,
            writer=self._writer,
            ledger=self._ledger,
            savepoints=self._destination.savepoints,
        )

    def _load(self, line: ChunkLine, first: Callable[[], None] | None = None, *, transaction: bool = True) -> ChunkLoad:
        """Return what moves a chunk over the main lane."""
        return self._work().load(self._main_lane(), line, self._context, self.progress, first, transaction=transaction)

    def _move_first(self, todo: Sequence[ChunkLine]) -> int:
        """Move what the first transaction takes; return how many chunks that were."""
        moved = 1

        def attempt() -> None:
            nonlocal moved
            together = self._open(todo) if self._opens(todo) else 0
            if not together:
                self._attempt(todo[0], self._start)
            moved = together or 1

        self._retrying(attempt, todo[0])
        return moved

    def _move(self, line: ChunkLine) -> None:
        """Move one chunk over the main lane."""
        self._retrying(lambda: self._attempt(line), line)

    def _attempt(self, line: ChunkLine, first: Callable[[], None] | None = None) -> None:
        self.begun(line.number)
        load = self._load(self._lines[line.number], first)
        try:
            self._lines[line.number] = load.load()
        finally:
            self._route = load.route

    def _retrying(self, attempt: Callable[[], None], line: ChunkLine) -> None:
        """Move a chunk; again after a failure that leaves both sides whole."""

        def again(error: BaseException) -> bool:
            if not isinstance(error, Error) or not error.transient or isinstance(error, (Cancelled, CommitInDoubt)):
                return False
            whole = self._source.holds() and self._destination.holds()
            self._retries += whole
            return whole

        retrying(attempt, self._context, f"chunk {line.number} of {self._task.destination.name}", again=again)

    def begun(self, number: int) -> None:
        """See ``portl.execution.workers.Watcher``."""
        self._written.pop(number, None)
        if self._task.delivery is Delivery.REPEAT:
            if self._lines[number].rejected:
                self._repeated.add(number)
            self._lines[number] = delivery.again(self._lines[number])

    def keep(self, lines: Mapping[int, ChunkLine]) -> None:
        """See ``portl.execution.workers.Watcher``."""
        self._lines.update(lines)

    def retried(self) -> None:
        """See ``portl.execution.workers.Watcher``."""
        self._retries += 1

    def progress(self, progress: Progress) -> None:
        """See ``portl.execution.workers.Watcher``."""
        number = progress.line.number
        if progress.provisional:
            rows, size = self._written.get(number, (0, 0))
            self._written[number] = (rows + progress.rows, size + progress.bytes)
        else:
            self._lines[number] = progress.line
            self._written.pop(number, None)
            self._entered = self._ledger is not None
        rows = sum(line.rows for line in self._lines.values()) + sum(rows for rows, _ in self._written.values())
        size = sum(line.bytes for line in self._lines.values()) + sum(size for _, size in self._written.values())
        if progress.rows or (progress.last_batch and not progress.rejected):
            self._context.emit(
                events.BatchCommitted(
                    table=self._task.destination.name,
                    chunk=number,
                    first_batch=progress.first_batch,
                    last_batch=progress.last_batch,
                    rows=progress.rows,
                    bytes=progress.bytes,
                    total_rows=rows,
                    total_bytes=size,
                    rows_per_second=(rows - self._earlier_rows) / max(1e-6, time.monotonic() - self._started),
                    provisional=progress.provisional or self._task.delivery is Delivery.WHOLE,
                )
            )
        if progress.rejected:
            self._rejected(progress)

    def _rejected(self, progress: Progress) -> None:
        total = sum(line.rejected for line in self._lines.values())
        place = self._task.rejected_to or ""
        self._context.emit(
            events.RowsRejected(
                table=self._task.destination.name,
                chunk=progress.line.number,
                rows=progress.rejected,
                total=total,
                place=place,
                example=progress.example or "",
            )
        )
        if total > self._config.quarantine.limit and self._config.on_error is OnError.QUARANTINE:
            raise too_many(self._config.quarantine.limit, place)

    @property
    def onward(self) -> str | None:
        """What running the job again would do, for people; None if nothing is there yet."""
        if not any(line.rows for line in self._lines.values()):
            return None
        resumes = self._entered and self._task.delivery is Delivery.CHUNKS
        return "run the job again to go on from there" if resumes else "run the job again: it starts over"

    def result(self) -> TableResult:
        """Return what is committed so far, by this attempt and those before it."""
        run = attrs.evolve(self._run, chunks=tuple(self._lines.values()))
        found = _counted(
            run,
            self._task,
            self._config.batch_size,
            self._started,
            retries=self._retries,
            rows_before=self._earlier_rows,
        )
        return attrs.evolve(found, route=self._route)

    def _give_up(self, error: BaseException) -> None:
        """Tidy up and write down how the attempt has ended; a failure in doing so must not hide the one before."""
        self._see_what_stands(error)
        entered = self._entered and self._task.delivery is not Delivery.WHOLE
        try:
            self._writer.abandon(resumable=entered and self._task.delivery is Delivery.CHUNKS)
            if self._ledger is not None and entered and self._destination.holds():
                cancelled = isinstance(error, (Cancelled, KeyboardInterrupt)) or self._context.token.cancelled
                state = RunState.CANCELLED if cancelled else RunState.FAILED
                self._ledger.close(self._run, state, _words(error))
        except Error as second:
            logger.warning("tidying up after a failure failed too: %s", second)

    def _see_what_stands(self, error: BaseException) -> None:
        """Ask the ledger what is there: a COMMIT may be carried out, though nobody could tell of it any more."""
        if self._ledger is None or isinstance(error, CommitInDoubt) or not self._destination.holds():
            return
        try:
            lines = self._ledger.lines(self._run)
        except Superseded:
            return  # the first transaction did not get so far
        except Error as second:
            logger.warning("what is committed could not be looked up: %s", second)
            return
        self._lines = {line.number: line for line in lines}
        self._entered = True


def result_of(run: Run, plan: Plan, started: float) -> Result:
    """Return the result of a run that is done, from its lines."""
    table = _counted(run, plan.tables[0], plan.config.batch_size, started)
    return _result(plan, (table,), started)


def _result(plan: Plan, tables: tuple[TableResult, ...], started: float) -> Result:
    seconds = time.monotonic() - started
    return Result(
        name=plan.config.name, source=plan.source, destination=plan.destination, tables=tables, seconds=seconds
    )


def _counted(
    run: Run, task: TableTask, batch_size: int | None, started: float, *, retries: int = 0, rows_before: int = 0
) -> TableResult:
    lines = run.chunks
    return TableResult(
        source=task.source.name,
        destination=task.destination.name,
        route=task.route,
        rows_read=sum(line.rows for line in lines),
        rows_inserted=sum(line.inserted for line in lines),
        rows_updated=sum(line.updated for line in lines),
        rows_skipped=sum(line.skipped for line in lines),
        rows_unchanged=sum(line.unchanged for line in lines),
        rows_rejected=sum(line.rejected for line in lines),
        rejected_to=task.rejected_to,
        bytes=sum(line.bytes for line in lines),
        batches=sum(line.batches for line in lines),
        seconds=time.monotonic() - started,
        chunks=len(lines),
        attempt=run.attempt,
        retries=retries,
        rows_before=rows_before,
        older_chunks=tuple(sorted(line.number for line in lines if _older(run, line))),
        source_kind=task.source.kind,
        destination_kind="new" if task.intent.create else task.destination.kind,
        conflict=task.conflict,
        batch_rows=batch_size or DEFAULT_BATCH_ROWS,
        chunks_by=None if task.delivery is Delivery.WHOLE else task.split.by,
        ledger=task.ledger,
        run=run.id,
    )


def _older(run: Run, line: ChunkLine) -> bool:
    """Tell whether a chunk was read from another state of the source than the last attempt's."""
    if line.attempt in (0, run.attempt):
        return False
    return run.snapshots.get(line.attempt) != run.snapshots.get(run.attempt)


def _words(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt) and not isinstance(error, Error):
        error = Interrupted.of(error)
    return error.message if isinstance(error, Error) else f"{type(error).__name__}: {error}"
