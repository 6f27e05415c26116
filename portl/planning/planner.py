"""Examine both sides of a job and plan what a run will do. Writes nothing."""

from __future__ import annotations

from portl.planning.plan import Plan
from portl.planning.request import Request, Sides
from portl.planning.table import plan_table


def plan(request: Request, sides: Sides, *, exact: bool, restart: bool) -> Plan:
    """Return what a run would do.

    Args:
        request: the job.
        sides: both sides, open.
        exact: see ``plan_table``.
        restart: see ``plan_table``.
    """
    config, source, destination = request.config, sides.source, sides.destination
    if config.tables is not None:
        from portl.planning.database.planner import plan_tables  # most jobs have one table

        return plan_tables(config, sides, restart=restart, refresh=restart and request.full_refresh)
    refresh = restart and request.full_refresh
    task = plan_table(config, source, destination, sides.kept, exact=exact, restart=restart, refresh=refresh)
    return Plan(config=config, source=source.label(), destination=destination.label(), tables=(task,))
