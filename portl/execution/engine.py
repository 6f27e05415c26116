"""Execute a plan over two open sides.

The first chunk of a table is moved alone, in the transaction that creates what is missing and starts the run in the
ledger, so that nothing is left behind if it fails. The others follow over as many workers as the job has; each has a
source, a writer and a ledger on its own sessions, all reading one snapshot. Several workers run in threads, or in the
caller's executor, and events are reported in the calling thread.

There are two kinds of transient failure. One that leaves the source's snapshot and the main connections intact (a
deadlock, a worker's lost connection) is retried here, chunk by chunk. Any other ends the attempt with a transient
error; the caller reopens both sides and resumes the run from the ledger, as after a crash.
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
    from concurrent.futures import Executor  # only for a type, and takes 5 ms

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
    """Execute the plan.

    Args:
        plan: without problems.
        sides: both sides, open, with the job's lock held.
        context: with the observers and the cancel token.
        started: the ``time.monotonic()`` at which the run began.
        executor: what moves the chunks; None for threads.

    Raises:
        Error: with ``committed``; the caller reports it to the observers.
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
    """Return the run for one table."""
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
