"""What the ledger remembers: ``status`` shows the runs of a job, ``clean`` removes what they have left."""

from __future__ import annotations

from typing import Any

import attrs

from portl.config.models import DestinationConfig
from portl.connectors.destination import Destination
from portl.connectors.ledger import Ledger
from portl.planning.delivery import job_name
from portl.planning.request import Job, Request
from portl.values.errors import LedgerError
from portl.values.findings import Finding
from portl.values.runs import Run


@attrs.frozen(kw_only=True)
class Status:
    """The runs of a job, the latest first."""

    #: What the ledger knows the job by; None where all jobs of a destination were asked for.
    job: str | None
    #: Where the ledger stands; None: there is none.
    ledger: str | None
    runs: tuple[Run, ...]
    #: Why there is no ledger.
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "job": self.job,
            "ledger": self.ledger,
            "reason": self.reason,
            "runs": [run.to_dict() for run in self.runs],
        }


def status(job: Job, *, destination: object | None = None, every: bool = False) -> Status:
    """Return the runs that the job's destination remembers. Writes nothing.

    Args:
        job: as for ``portl.migrate``.
        destination: a connection or pool of your own.
        every: True for the runs of all jobs in that ledger.
    """
    request = Request.of(job, destination=destination)

    def ask(writing: Destination[DestinationConfig]) -> Status:
        name = None if every else job_name(request.config, writing)
        found = writing.ledger(request.config.ledger)
        if isinstance(found, Finding):
            return Status(job=name, ledger=None, runs=(), reason=found.message)
        return Status(job=name, ledger=found.place, runs=tuple(found.runs(name)))

    return request.asking(ask)


@attrs.frozen(kw_only=True)
class Cleaned:
    """What ``clean`` has removed."""

    #: Runs that the ledger has forgotten.
    runs: int
    #: What an interrupted run has left besides, for people; None: nothing.
    leftover: str | None
    #: True if that was removed too.
    removed: bool


def clean(job: Job, *, destination: object | None = None, table: bool = False) -> Cleaned:
    """Remove the runs of a job from the ledger, so that the next one begins anew.

    The rows that they have brought stay.

    Args:
        job: as for ``portl.migrate``.
        destination: a connection or pool of your own.
        table: True to remove, with its rows, a table too that an interrupted run has made and not finished.

    Raises:
        AlreadyRunning: if the job is under way.
        LedgerError: if there is no ledger.
    """
    request = Request.of(job, destination=destination)
    with request.opened_destination() as writing:
        name = job_name(request.config, writing)
        ledger = writing.ledger(request.config.ledger)
        if not isinstance(ledger, Ledger):
            raise LedgerError(f"there is nothing to clean: {ledger.message}")
        ledger.lock(name)
        try:
            leftover = writing.leftover(remove=table)
            return Cleaned(runs=ledger.forget(name), leftover=leftover, removed=table and leftover is not None)
        finally:
            ledger.unlock()
