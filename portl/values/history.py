"""What happened during a run, and when, as plain values for a report."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs

from portl.values.text import Line


@attrs.frozen(kw_only=True)
class Span:
    """Work of one worker. Seconds are counted from the beginning of the run."""

    #: ``plan``, ``compare``, ``rows``, ``objects`` or ``verify``.
    kind: str
    #: What was worked on: a table, or objects such as ``index orders_pkey``.
    name: str
    #: 0: the session of the run. Workers are counted from 1.
    worker: int
    begin: float
    end: float
    #: Rows that were moved.
    rows: int = 0
    #: How many pieces of work it stands for: in a long run, consecutive short ones are merged.
    pieces: int = 1


@attrs.frozen(kw_only=True)
class Incident:
    """A warning, or a failure that was retried. Contains no values from rows."""

    #: Seconds from the beginning of the run.
    at: float
    #: ``warning`` or ``retry``.
    kind: str
    #: What it concerns: a table, a column, a key of the job.
    where: str
    message: str
    remedy: str | None = None


@attrs.frozen(kw_only=True)
class Reason:
    """A reason that rows of a table were rejected for, without their values."""

    table: str
    reason: str
    rows: int


@attrs.frozen(kw_only=True)
class History:
    """What happened during a run. Its size is bounded, however long the run and however many tables it has."""

    started: datetime
    #: From the beginning to the end, verification included.
    seconds: float = 0.0
    spans: tuple[Span, ...] = ()
    incidents: tuple[Incident, ...] = ()
    #: Later incidents, which are only counted.
    further_incidents: int = 0
    reasons: tuple[Reason, ...] = ()
    #: The plan, without a preview of rows.
    plan: tuple[Line, ...] = ()
    #: Why the run failed, without values from rows; None if it did not.
    failed: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {**attrs.asdict(self), "started": self.started.isoformat(), "plan": [line.text for line in self.plan]}
