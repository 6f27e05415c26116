"""What a run will do, as plain values: a plan with a task for each table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from portl.config.models import MigrationConfig
from portl.connectors.ledger import Ledger
from portl.connectors.objects import SchemaObject
from portl.planning.tasks import TableTask, standing
from portl.planning.text import render_plan
from portl.values.errors import ConfigError, Error
from portl.values.findings import Finding, Severity, problem
from portl.values.results import Result
from portl.values.runs import DroppedKey
from portl.values.text import Line, as_html, nearest

if TYPE_CHECKING:
    from concurrent.futures import Executor  # importing it takes 5 ms


@attrs.frozen(kw_only=True)
class Plan:
    """What a run will do. ``print(plan)`` shows it as ``--dry-run`` does, ``plan.text(sql=True)`` with the SQL."""

    config: MigrationConfig
    source: str
    destination: str
    tables: tuple[TableTask, ...]
    #: The objects to create, in dependency order; empty for a job of one table.
    objects: tuple[SchemaObject, ...] = ()
    #: Foreign keys of the destination that are dropped before the rows and re-created after them.
    dropped: tuple[DroppedKey, ...] = ()
    #: Findings that concern no single table.
    findings: tuple[Finding, ...] = ()
    #: Executes the plan; None in an unpickled copy, which lacks the caller's connections and observers.
    _execute: Callable[[Plan, Executor | None], Result] | None = attrs.field(default=None, repr=False, eq=False)

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What prevents the plan from running."""
        return self._found(Severity.PROBLEM)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What the user should know before running it."""
        return self._found(Severity.WARNING)

    @property
    def told_problems(self) -> tuple[Finding, ...]:
        """The problems as shown to the user: one for each that many tables share, with the names of some."""
        if self.config.tables is None:
            return self.problems
        from portl.planning.overview import gathered  # most jobs have one table

        return tuple(f for f in gathered(self.tables, self.findings) if f.severity is Severity.PROBLEM)

    def _found(self, severity: Severity) -> tuple[Finding, ...]:
        found = [*self.findings, *(finding for task in self.tables for finding in task.findings)]
        return tuple(finding for finding in found if finding.severity is severity)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the caller's observers, token and connections: a copy can be shown but not executed."""
        kept = ("config", "source", "destination", "tables", "objects", "dropped", "findings")
        return {**{name: getattr(self, name) for name in kept}, "_execute": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    def execute(self, *, executor: Executor | None = None) -> Result:
        """Execute the plan.

        Args:
            executor: as for ``portl.migrate``.

        Raises:
            PlanError: there are problems.
            Error: as for ``portl.migrate``.
        """
        if self._execute is None:
            raise Error("this plan is a copy, which cannot be executed", hint="make a new one with portl.plan")
        self.insist()
        return self._execute(self, executor)

    def insist(self) -> None:
        """Raise ``PlanError`` if there are problems."""
        if self.problems:
            raise PlanError(self)

    def overtaken(self, ledger: Ledger) -> bool:
        """Return whether another process has run the job since the plan was made."""
        task = self.tables[0]
        return standing(task.found) != standing(ledger.find(task.job))

    def departs(self, now: Plan) -> list[str]:
        """Return how this plan differs from one made now, for display."""
        found = []
        if [task.destination.name for task in self.tables] != [task.destination.name for task in now.tables]:
            return ["the tables"]
        if [made.label for made in self.objects] != [made.label for made in now.objects]:
            found.append("the objects to create")
        if self.dropped != now.dropped:
            found.append("the foreign keys to drop")
        for mine, its in zip(self.tables, now.tables, strict=True):
            same = {
                "the statements before or after the rows": (mine.examination.before, mine.examination.after)
                == (its.examination.before, its.examination.after),
                "the columns": mine.fields == its.fields,
                "how conflicts are resolved": (mine.intent.conflict, mine.intent.key)
                == (its.intent.conflict, its.intent.key),
                "how the run is resumed": (mine.run is None) == (its.run is None) and mine.delivery is its.delivery,
                "the job's run in the ledger": standing(mine.found) == standing(its.found),
            }
            found += [what for what, holds in same.items() if not holds]
        return found

    def stale(self, now: Plan) -> Plan:
        """Return ``now``, with a problem if it differs from this plan."""
        departs = self.departs(now)
        if not departs:
            return now
        message = f"the job would not run as planned: {', '.join(departs)} changed in the meantime"
        first, *others = now.tables
        findings = (problem("plan", message, "make a new plan"), *first.findings)
        return attrs.evolve(now, tables=(attrs.evolve(first, findings=findings), *others))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "name": self.config.name,
            "source": self.source,
            "destination": self.destination,
            "problems": len(self.problems),
            "findings": [finding.to_dict() for finding in self.findings],
            "objects": [made.to_dict() for made in self.objects],
            "recreated": [key.name for key in self.dropped],
            "tables": [task.to_dict() for task in self.tables],
        }

    def text(self, *, sql: bool = False, width: int = 80, table: str | None = None) -> str:
        """Return the plan as text.

        Args:
            sql: True to include the statements to be executed.
            width: in characters; statements may be longer.
            table: the name, at either side, of one table of many to show in full.

        Raises:
            ConfigError: the plan has no such table.
        """
        return "\n".join(line.text for line in self.lines(sql=sql, width=width, table=table))

    def lines(
        self, *, sql: bool = False, width: int = 80, table: str | None = None, preview: bool = True
    ) -> list[Line]:
        """Return the plan as lines, each with its style.

        Args:
            sql: as for ``text``, like ``width`` and ``table``.
            width: in characters.
            table: as for ``text``.
            preview: False to leave out the first rows.
        """
        shown = self.tables
        if table is not None:
            shown = tuple(task for task in self.tables if table in (task.destination.name, task.source.name))
            if not shown:
                near = nearest(table, [task.destination.name for task in self.tables])
                said = f"the plan has no table {table!r}" + (f"; did you mean {near!r}?" if near else "")
                raise ConfigError([said], origin="table")
        elif self.config.tables is not None:
            from portl.planning.overview import render_tables  # most jobs have one table

            sides = self.source, self.destination
            return render_tables(self.config.name, sides, self.tables, self.objects, self.findings, width, sql=sql)
        return render_plan(self.config, (self.source, self.destination), shown, width, sql=sql, preview=preview)

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        """Return the plan as a notebook shows it."""
        return as_html(self.lines())


class PlanError(Error):
    """The plan has problems, so nothing was run. ``plan`` holds it."""

    def __init__(self, plan: Plan) -> None:
        texts = [str(problem) for problem in plan.told_problems]
        count = len(plan.problems)
        head = f"the plan has {count} problem{'s' if count != 1 else ''}; nothing was written"
        super().__init__("\n".join([head, *(f"  {text}" for text in texts)]))
        self.plan = plan
