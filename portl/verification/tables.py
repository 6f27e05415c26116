"""Compare the tables of a job of many, one at a time."""

from __future__ import annotations

from portl.config.models import MigrationConfig, Verify
from portl.planning.database.selection import choose
from portl.planning.plan import Plan, PlanError
from portl.planning.request import Sides, TableSides
from portl.values.differences import TableVerification
from portl.values.findings import Severity
from portl.verification.compare import NAMED, compare


def compare_tables(
    config: MigrationConfig, sides: Sides, mode: Verify, named: int = NAMED
) -> tuple[TableVerification, ...]:
    """Compare two open sides, table by table; after a run, the source in the state that the run read.

    Args:
        config: the job.
        sides: both sides, open.
        mode: any mode but ``none``.
        named: how many differing rows of each table to name.

    Raises:
        PlanError: a table does not exist.
    """
    return tuple(compare(table.config, table, mode, named) for table in tables_of(config, sides))


def tables_of(config: MigrationConfig, sides: Sides) -> list[TableSides]:
    """Return the sides of each table, on the sessions of the job's sides."""
    chosen, findings = choose(config, sides.source.listing())
    problems = tuple(finding for finding in findings if finding.severity is Severity.PROBLEM)
    if problems:
        labels = sides.source.label(), sides.destination.label()
        raise PlanError(Plan(config=config, source=labels[0], destination=labels[1], tables=(), findings=problems))
    reading = [type(sides.source)(t.config.source, sides.source.handle).over(sides.source) for t in chosen]
    sides.source.look_ahead(reading)
    found = []
    for table, source in zip(chosen, reading, strict=True):
        destination = type(sides.destination)(table.config.destination, sides.destination.handle)
        over = destination.over(sides.destination)
        found.append(TableSides(config=table.config, source=source, destination=over))
    return found
