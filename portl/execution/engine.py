"""Carry a plan out over two open sides.

The first chunk of a table goes alone, in the transaction that makes what is missing and starts the ledger's run: when
it fails, nothing is left. The others follow over as many workers as the job has; each has a source, a writer and a
ledger on sessions of its own, all reading one snapshot. With several workers the work is done in threads, or by an
executor of the caller's, and what happens is told in the thread that called.

Two kinds of failure pass. One that leaves the source's snapshot and the main connections whole (a deadlock, a worker
that is cut off) is tried again here, chunk by chunk. Any other ends the attempt with a transient error; the caller
opens both sides anew and resumes the run where the ledger says it stands, as after a crash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from portl.config.models import MigrationConfig, Mode
from portl.connectors.context import Context
from portl.execution.counting import result_of
from portl.execution.table_run import TableRun
from portl.planning.plan import Plan
from portl.planning.request import Sides
from portl.planning.tasks import TableTask
from portl.values import events
from portl.values.errors import Cancelled, Error, Interrupted
from portl.values.results import Result, TableResult

if TYPE_CHECKING:
    from concurrent.futures import Executor  # for a type alone, it would take 5 ms

    from portl.execution.database.run import DatabaseRun
    from portl.execution.mirror.run import MirrorRun
    from portl.execution.mirror.tables import MirrorTables


def execute(
    plan: Plan,
    sides: Sides,
    context: Context,
    started: float,
    executor: Executor | None = None,
) -> Result:
    """Carry the plan out.

    Args:
        plan: without problems.
        sides: both, open, with the lock of the job held.
        context: the observers and the token.
        started: the ``time.monotonic()`` at which the run began.
        executor: what moves the chunks; None: threads.

    Raises:
        Error: with ``committed``; the observers are told by the caller.
    """
    context.emit(
        events.Started(name=plan.config.name, source=plan.source, destination=plan.destination, tables=len(plan.tables))
    )
    if plan.config.tables is not None:
        return _tables(plan, sides, context, started, executor)
    done: list[TableResult] = []
    for task in plan.tables:
        run = table_run(task, plan.config, sides, context, executor)
        try:
            finished = run.carry_out()
            context.emit(events.TableDone(result=finished))
        except KeyboardInterrupt as error:
            interrupted = Interrupted.of(error)
            interrupted.committed = result_of(plan, (*done, run.result()), started)
            interrupted.hint = run.onward
            raise interrupted from None
        except Error as error:
            told = context.token.verdict(error)
            told.committed = result_of(plan, (*done, run.result()), started)
            if isinstance(told, Cancelled):
                told.hint = run.onward
            raise told
        done.append(finished)
    return result_of(plan, tuple(done), started)


def table_run(
    task: TableTask, config: MigrationConfig, sides: Sides, context: Context, executor: Executor | None
) -> TableRun | MirrorRun:
    """Return what moves the rows of one table."""
    if task.compares:
        from portl.execution.mirror.run import MirrorRun  # most jobs are none

        _unused(executor, context)
        return MirrorRun(task, config, sides, context)
    run = TableRun(task, config, sides, context)
    if executor is not None:
        run.use(executor)
    return run


def _unused(executor: Executor | None, context: Context) -> None:
    """Warn that a mirror does without the executor."""
    if executor is not None:
        said = "rows are moved by this process, not by the executor: the job is a mirror"
        context.emit(events.Warned(where="executor", message=said))


def _tables(plan: Plan, sides: Sides, context: Context, started: float, executor: Executor | None) -> Result:
    """Carry out a plan of many tables."""
    run: DatabaseRun | MirrorTables
    if plan.config.mode is Mode.MIRROR:
        from portl.execution.mirror.tables import MirrorTables  # most jobs are none

        _unused(executor, context)
        run = MirrorTables(plan, sides, context)
    else:
        from portl.execution.database.run import DatabaseRun  # most jobs have one table

        run = DatabaseRun(plan, sides, context)
        if executor is not None:
            run.use(executor)
    try:
        return result_of(plan, run.carry_out(), started)
    except KeyboardInterrupt as error:
        interrupted = Interrupted.of(error)
        interrupted.committed = result_of(plan, run.results(), started)
        interrupted.hint = run.onward
        raise interrupted from None
    except Error as error:
        told = context.token.verdict(error)
        told.committed = result_of(plan, run.results(), started)
        if isinstance(told, Cancelled):
            told.hint = run.onward
        raise told
