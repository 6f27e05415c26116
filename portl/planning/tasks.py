"""The part of a plan for one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from portl.config.models import Strategy
from portl.connectors.exchange import Examination, Field, Intent, RowCount, Split
from portl.planning.delivery import Delivery
from portl.schema.tables import Table
from portl.values.findings import Finding
from portl.values.runs import Run


@attrs.frozen(kw_only=True)
class TableTask:
    """The part of a plan for one source table or query and its destination table."""

    intent: Intent
    #: Findings, problems first.
    findings: tuple[Finding, ...]
    examination: Examination
    #: None if unknown.
    count: RowCount | None
    preview: tuple[tuple[str | None, ...], ...]
    #: How the source is read, for display.
    read: str | None
    #: How it is split into chunks.
    split: Split = attrs.field(factory=Split)
    #: How rows are divided into transactions.
    delivery: Delivery = Delivery.REPEAT
    #: The job's name in the lock and in the ledger.
    job: str = ""
    #: What must be unchanged for a run to be resumed, as plain data without secrets.
    identity: Mapping[str, Any] = attrs.field(factory=dict)
    #: Where the ledger is; None if there is none.
    ledger: str | None = None
    #: The interrupted run that is resumed; None if a new one begins.
    run: Run | None = None
    #: The latest run of the job in the ledger, in whatever state.
    found: Run | None = None
    #: A finished run that is reported instead of copying rows; None if rows are copied.
    reported: Run | None = None
    #: True if chunks of earlier attempts are copied again.
    recopy: bool = False
    #: True if the table is created with the objects of the source, before all rows.
    made: bool = False
    #: The job's tables, by their names at the destination, that must have their rows before this one, because its
    #: foreign keys reference them.
    waits_for: frozenset[str] = frozenset()
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
        """The columns that are copied."""
        return self.intent.fields

    @property
    def route(self) -> str:
        """``server``, ``relay`` or ``rows``."""
        return self.intent.format.route

    @property
    def conflict(self) -> str:
        """How conflicts are resolved, for display."""
        key = f" on ({', '.join(self.intent.key.columns)})" if self.intent.key else ""
        return f"{self.intent.conflict.strategy.value}{key}"

    @property
    def repeatable(self) -> bool:
        """True if rows change nothing when they arrive a second time."""
        return self.intent.key is not None and self.intent.conflict.strategy in (Strategy.OVERWRITE, Strategy.SKIP)

    @property
    def compares(self) -> bool:
        """True if both sides are compared first, and only rows that differ are moved."""
        return self.intent.mirror and not self.intent.create

    @property
    def ordered(self) -> str | None:
        """Why chunks have to be copied one at a time; None if they need not."""
        return self.examination.ordered

    @property
    def rejected_to(self) -> str | None:
        """Where rejected rows go, for display."""
        return self.examination.rejected_to

    @property
    def statements(self) -> tuple[str, ...]:
        """The DDL, in execution order."""
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
            "mirror": self.intent.mirror,
            "ledger": self.ledger,
            "resumes": self.run is not None,
            "reports": self.reported.id if self.reported is not None else None,
            "preview": [list(row) for row in self.preview],
            "findings": [finding.to_dict() for finding in self.findings],
        }


def standing(run: Run | None) -> tuple[object, ...] | None:
    """Return a value that changes with the progress of a run."""
    return (run.id, run.attempt, run.state) if run is not None else None
