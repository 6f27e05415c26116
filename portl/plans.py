"""What a run will do, as plain values: a plan, its tasks, one for each table, and how two plans are compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from portl.config import MigrationConfig, Strategy
from portl.connectors import Examination, Field, Finding, Intent, RowCount, Split, problem
from portl.delivery import Delivery
from portl.errors import Error, PlanError
from portl.events import Severity
from portl.ledger import Run
from portl.schema import Table

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from portl.api import Session
    from portl.result import Result


@attrs.frozen(kw_only=True)
class TableTask:
    """The part of a plan for one source table or query and its destination table."""

    intent: Intent
    #: What was found, problems first.
    findings: tuple[Finding, ...]
    examination: Examination
    #: None where the source cannot tell.
    count: RowCount | None
    preview: tuple[tuple[str | None, ...], ...]
    #: How the source is read, for people.
    read: str | None
    #: How it is cut into chunks.
    split: Split = attrs.field(factory=Split)
    #: How rows and transactions go together.
    delivery: Delivery = Delivery.REPEAT
    #: What the lock and the ledger know the job by.
    job: str = ""
    #: What a resume insists on, as plain data without secrets.
    identity: Mapping[str, Any] = attrs.field(factory=dict)
    #: Where the ledger stands; None: there is none.
    ledger: str | None = None
    #: The run that was interrupted and is taken up; None: a new one begins.
    run: Run | None = None
    #: The latest run that the ledger knows, whatever became of it.
    found: Run | None = None
    #: True: chunks that earlier attempts have copied are copied again.
    recopy: bool = False
    #: Columns of the source that are not read, and why.
    ignored: tuple[tuple[str, str], ...] = ()

    @property
    def source(self) -> Table:
        """The source table or query."""
        return self.intent.source

    @property
    def destination(self) -> Table:
        """The destination table, as it is or will be."""
        return self.intent.target

    @property
    def fields(self) -> tuple[Field, ...]:
        """The columns on their way."""
        return self.intent.fields

    @property
    def route(self) -> str:
        """``server``, ``relay`` or ``rows``."""
        return self.intent.format.route

    @property
    def repeatable(self) -> bool:
        """True if a row that arrives a second time does no harm."""
        return self.intent.key is not None and self.intent.conflict.strategy in (Strategy.OVERWRITE, Strategy.SKIP)

    @property
    def ordered(self) -> str | None:
        """Why chunks have to come one after the other; None: they need not."""
        return self.examination.ordered

    @property
    def rejected_to(self) -> str | None:
        """Where rejected rows go, for people."""
        return self.examination.rejected_to

    @property
    def statements(self) -> tuple[str, ...]:
        """The DDL, in the order of its execution."""
        return self.examination.before + self.examination.after

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        intent = self.intent
        return {
            "source": intent.source.name,
            "destination": intent.target.name,
            "create": intent.create,
            "route": intent.format.route,
            "format": intent.format.name,
            "reason": intent.format.reason,
            "conflict": intent.conflict.strategy.value,
            "key": list(intent.key.columns) if intent.key else None,
            "rows": self.count.rows if self.count else None,
            "rows_exact": self.count.exact if self.count else None,
            "columns": [
                {
                    "source": field.source.name,
                    "source_type": field.sent.native,
                    "destination": field.target.name,
                    "destination_type": field.target.native,
                    "verdict": field.conversion.verdict.value,
                    "risks": [risk.value for risk in field.conversion.risks],
                }
                for field in intent.fields
            ],
            "ignored": dict(self.ignored),
            "read": self.read,
            "before": list(self.examination.before),
            "write": list(self.examination.write),
            "after": list(self.examination.after),
            "chunks": len(self.split.chunks),
            "chunks_by": self.split.by,
            "delivery": self.delivery.value,
            "ledger": self.ledger,
            "resumes": self.run is not None,
            "preview": [list(row) for row in self.preview],
            "findings": [
                {"severity": f.severity.value, "where": f.where, "message": f.message, "remedy": f.remedy}
                for f in self.findings
            ],
        }


@attrs.frozen(kw_only=True)
class Plan:
    """What a run will do. ``print(plan)`` shows it as ``--dry-run`` does, ``plan.text(sql=True)`` with its SQL."""

    config: MigrationConfig
    source: str
    destination: str
    tables: tuple[TableTask, ...]
    _session: Session | None = attrs.field(repr=False, eq=False)

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What keeps the plan from running."""
        return tuple(f for task in self.tables for f in task.findings if f.severity is Severity.PROBLEM)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What the user should know before he runs it."""
        return tuple(f for task in self.tables for f in task.findings if f.severity is Severity.WARNING)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the caller's observers, token and connections behind: a copy can be shown, but not executed."""
        kept = ("config", "source", "destination", "tables")
        return {**{name: getattr(self, name) for name in kept}, "_session": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    def execute(self, *, executor: Executor | None = None) -> Result:
        """Do it. Raises ``PlanError`` if there are problems, and whatever ``portl.migrate`` raises.

        Args:
            executor: what moves the chunks, as ``portl.migrate`` takes it.
        """
        if self._session is None:
            raise Error("this plan is a copy without the means to execute it", hint="make a new one with portl.plan")
        if self.problems:
            raise PlanError(self)
        return self._session.migrate(planned=self, executor=executor)

    def departs(self, now: Plan) -> list[str]:
        """Return in what this plan, made earlier, is another than one made now, in words for people."""
        found = []
        for mine, its in zip(self.tables, now.tables, strict=True):
            same = {
                "what is made before or after the rows": (mine.examination.before, mine.examination.after)
                == (its.examination.before, its.examination.after),
                "the columns": mine.fields == its.fields,
                "how conflicts are met": (mine.intent.conflict, mine.intent.key)
                == (its.intent.conflict, its.intent.key),
                "how the run is taken up": (mine.run is None) == (its.run is None) and mine.delivery is its.delivery,
                "what the ledger says of the job": standing(mine.found) == standing(its.found),
            }
            found += [what for what, holds in same.items() if not holds]
        return found

    def stale(self, now: Plan) -> Plan:
        """Return ``now`` with the problem that it is not what was planned; or as it is."""
        departs = self.departs(now)
        if not departs:
            return now
        said = f"what would be done now is not what was planned: {', '.join(departs)} changed meanwhile"
        first, *others = now.tables
        told = (problem("plan", said, "make a new plan"), *first.findings)
        return attrs.evolve(now, tables=(attrs.evolve(first, findings=told), *others))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "name": self.config.name,
            "source": self.source,
            "destination": self.destination,
            "problems": len(self.problems),
            "tables": [task.to_dict() for task in self.tables],
        }

    def text(self, *, sql: bool = False, width: int = 80) -> str:
        """Return the plan as people read it.

        Args:
            sql: with the statements that will be executed.
            width: in characters; statements may be longer.
        """
        from portl.rendering import render_plan

        return "\n".join(line.text for line in render_plan(self, width, sql=sql))

    def told(self) -> Plan:
        """Return a copy to show: it cannot be executed, and holds no connection of the caller's."""
        return attrs.evolve(self, session=None)

    def __str__(self) -> str:
        return self.text()


def standing(run: Run | None) -> tuple[object, ...] | None:
    """Return what tells how far a run has come from how far it came at another time."""
    return (run.id, run.attempt, run.state) if run is not None else None
