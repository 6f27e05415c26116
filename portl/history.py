"""What the ledger remembers: ``status`` shows the runs of a job, ``clean`` removes what they have left."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from portl import plugins
from portl.connectors import Context, Finding
from portl.delivery import job_name
from portl.errors import LedgerError, PluginError
from portl.ledger import ChunkState, Ledger, Run, RunState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from portl.api import Job
    from portl.config import DestinationConfig, MigrationConfig
    from portl.connectors import Destination


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
            "runs": [run_to_dict(run) for run in self.runs],
        }


def run_to_dict(run: Run) -> dict[str, Any]:
    """Return a run as plain data: its chunks as counts."""
    lines = run.chunks
    times = {name: getattr(run, name) for name in ("started", "touched", "ended")}
    return {
        "id": run.id,
        "job": run.job,
        "state": standing(run),
        "attempt": run.attempt,
        "source": run.source,
        "destination": run.destination,
        **{name: time.isoformat() if time else None for name, time in times.items()},
        "holder": run.holder,
        "resumable": run.resumable,
        "error": run.error,
        "chunks": len(lines),
        "chunks_done": sum(line.state is ChunkState.DONE for line in lines),
        **{
            f"rows_{name}": sum(getattr(line, field) for line in lines)
            for name, field in (
                ("read", "rows"),
                ("inserted", "inserted"),
                ("updated", "updated"),
                ("unchanged", "unchanged"),
                ("skipped", "skipped"),
                ("rejected", "rejected"),
            )
        },
        "bytes": sum(line.bytes for line in lines),
    }


def standing(run: Run) -> str:
    """Return how a run stands in one word: a run that nobody holds is not running, whatever it has written down."""
    if run.state is RunState.RUNNING and not run.locked:
        return "interrupted"
    return run.state.value


def status(job: Job, *, destination: object | None = None, every: bool = False) -> Status:
    """Return the runs that the job's destination remembers. Writes nothing.

    Args:
        job: as for ``portl.migrate``.
        destination: a connection or pool of your own.
        every: True for the runs of all jobs in that ledger.
    """
    with _opened(job, destination) as (config, writing):
        name = None if every else job_name(config, writing)
        found = writing.ledger(config.ledger)
        if isinstance(found, Finding):
            return Status(job=name, ledger=None, runs=(), reason=found.message)
        return Status(job=name, ledger=found.place, runs=tuple(found.runs(name)))


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
    with _opened(job, destination) as (config, writing):
        name = job_name(config, writing)
        ledger = writing.ledger(config.ledger)
        if not isinstance(ledger, Ledger):
            raise LedgerError(f"there is nothing to clean: {ledger.message}")
        ledger.lock(name)
        try:
            leftover = writing.leftover(remove=table)
            return Cleaned(runs=ledger.forget(name), leftover=leftover, removed=table and leftover is not None)
        finally:
            ledger.unlock()


@contextmanager
def _opened(job: Job, handle: object | None) -> Iterator[tuple[MigrationConfig, Destination[DestinationConfig]]]:
    from portl.loading import load

    config = load(job)
    connector = plugins.load(config.destination.type)
    if connector.destination is None:
        raise PluginError(f"the connector {connector.name!r} has no destination")
    writing = connector.destination(config.destination, handle)
    try:
        writing.open(Context(retry=config.retry))
        yield config, writing
    finally:
        writing.close()
