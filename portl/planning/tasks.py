"""The part of a plan for one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from portl.config.models import Strategy
from portl.connectors.exchange import Examination, Field, Intent, RowCount, Split
from portl.planning.delivery import Delivery
from portl.schema.tables import Table
from portl.values.findings import Finding
from portl.values.runs import Run

if TYPE_CHECKING:
    pass


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
    #: The run that was interrupted and is resumed; None: a new one begins.
    run: Run | None = None
    #: The latest run that the ledger knows, whatever became of it.
    found: Run | None = None
    #: A run that is done and is reported, so that nothing is moved; None: rows are moved.
    reported: Run | None = None
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
    def conflict(self) -> str:
        """How conflicts are met, for people."""
        key = f" on ({', '.join(self.intent.key.columns)})" if self.intent.key else ""
        return f"{self.intent.conflict.strategy.value}{key}"

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
            "reports": self.reported.id if self.reported is not None else None,
            "preview": [list(row) for row in self.preview],
            "findings": [
                {"severity": f.severity.value, "where": f.where, "message": f.message, "remedy": f.remedy}
                for f in self.findings
            ],
        }


def standing(run: Run | None) -> tuple[object, ...] | None:
    """Return what tells how far a run has come from how far it came at another time."""
    return (run.id, run.attempt, run.state) if run is not None else None
