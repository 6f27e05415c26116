"""The runs in a ledger: ``status`` returns those of a job, ``clean`` removes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from portl.config.models import DestinationConfig
from portl.connectors.destination import Destination
from portl.connectors.ledger import Ledger
from portl.connectors.objects import SchemaObject, Stage
from portl.planning.delivery import job_name
from portl.planning.modes.incremental import is_incremental, last_watermark
from portl.planning.request import Job, Request
from portl.values.errors import DataError, Error, LedgerError
from portl.values.findings import Finding
from portl.values.runs import Behind, Run, RunState
from portl.values.text import counted_tables


@attrs.frozen(kw_only=True)
class Status:
    """The runs of a job, latest first."""

    #: The job's name in the ledger; None for all jobs of a destination.
    job: str | None
    #: Where the ledger is; None if there is none.
    ledger: str | None
    runs: tuple[Run, ...]
    #: Why there is no ledger.
    reason: str | None = None
    #: How much of the source is beyond the watermark, in ``mode: incremental``; None if that cannot be told.
    behind: Behind | None = None
    #: Why not; None if it was not asked for.
    unknown: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "job": self.job,
            "ledger": self.ledger,
            "reason": self.reason,
            "behind": attrs.asdict(self.behind) if self.behind is not None else None,
            "unknown": self.unknown,
            "runs": [run.to_dict() for run in self.runs],
        }


def status(job: Job, *, source: object | None = None, destination: object | None = None, every: bool = False) -> Status:
    """Return the runs in the ledger of the job's destination. Writes nothing.

    In ``mode: incremental``, the source is asked how far it is beyond the watermark, if it can be reached.

    Args:
        job: as for ``portl.migrate``.
        source: as for ``portl.migrate``.
        destination: as for ``portl.migrate``.
        every: True to return the runs of all jobs in that ledger.
    """
    request = Request.of(job, source=source, destination=destination)

    def ask(writing: Destination[DestinationConfig]) -> Status:
        name = None if every else job_name(request.config, writing)
        found = writing.ledger(request.config.ledger)
        if isinstance(found, Finding):
            return Status(job=name, ledger=None, runs=(), reason=found.message)
        return Status(job=name, ledger=found.place, runs=tuple(found.runs(name)))

    found = request.asking(ask)
    mark = last_watermark(found.runs[0]) if found.runs and not every else None
    if mark is None or not is_incremental(request.config):
        return found
    try:
        behind = _behind(request, mark)
    except Error as error:
        return attrs.evolve(found, unknown=error.message)
    return attrs.evolve(found, behind=behind, unknown=None if behind is not None else "the source cannot tell")


def _behind(request: Request, mark: Mapping[str, Any]) -> Behind | None:
    wanted = request.config.incremental
    with request.opened_source() as source:
        return source.behind(wanted, mark) if wanted is not None and source.increments else None


@attrs.frozen(kw_only=True)
class Cleaned:
    """What ``clean`` removed."""

    #: How many runs were removed from the ledger.
    runs: int
    #: What else an interrupted run left behind, for display; None if nothing.
    leftover: str | None
    #: True if ``leftover`` was removed too.
    removed: bool
    #: The foreign keys that an interrupted run had dropped, now re-created.
    foreign_keys: tuple[str, ...] = ()
    #: Those of them that are NOT VALID, because existing rows violate them. They are enforced for new rows.
    not_valid: tuple[str, ...] = ()


def clean(job: Job, *, destination: object | None = None, table: bool = False) -> Cleaned:
    """Remove the runs of a job from the ledger, so that the next run starts over.

    Rows already copied stay. Foreign keys that an interrupted run dropped are re-created.

    Args:
        job: as for ``portl.migrate``.
        destination: as for ``portl.migrate``.
        table: True to drop the tables, with their rows, that an interrupted run created and did not finish.

    Raises:
        AlreadyRunning: the job is running.
        LedgerError: there is no ledger.
    """
    request = Request.of(job, destination=destination)
    with request.opened_destination() as writing:
        name = job_name(request.config, writing)
        ledger = writing.ledger(request.config.ledger)
        if not isinstance(ledger, Ledger):
            raise LedgerError(f"there is nothing to clean: {ledger.message}")
        ledger.lock(name)
        try:
            leftover = _leftover(writing, ledger.find(name), remove=table)
            made, not_valid = made_again(writing, ledger.find(name))
            return Cleaned(
                runs=ledger.forget(name),
                leftover=leftover,
                removed=table and leftover is not None,
                foreign_keys=made,
                not_valid=not_valid,
            )
        finally:
            ledger.unlock()


def _leftover(writing: Destination[DestinationConfig], run: Run | None, *, remove: bool) -> str | None:
    """Return what an interrupted run left behind outside the ledger; remove it if ``remove`` is set."""
    if run is None or not run.tables:
        return writing.leftover(remove=remove)
    if run.state is RunState.DONE:
        return None
    there = {label.removeprefix("table ") for label in writing.objects() or ()}
    names = [table.name for table in run.tables if (table.made or table.created) and table.name in there]
    if not names:
        return None
    if remove:
        writing.drop(names)
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return f"{counted_tables(len(names))} that the run has created: {', '.join(names[:5])}{more}"


def made_again(writing: Destination[DestinationConfig], run: Run | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Re-create the foreign keys that an abandoned run dropped; return their names, and those of the ones NOT VALID."""
    if run is None or run.state is RunState.DONE or not run.dropped:
        return (), ()
    there = {found.key.name for found in writing.foreign_keys()}
    tables = {label.removeprefix("table ") for label in writing.objects() or ()}
    kept = [key for key in run.dropped if {key.table, key.refers} <= tables]
    lacking = [key for key in kept if key.name not in there]
    not_valid = []
    for key in lacking:
        writing.make([SchemaObject.of_key(key, Stage.CONSTRAINTS, key.make)])
    for key in kept:
        try:
            if key.validate:
                writing.make([SchemaObject.of_key(key, Stage.VALIDATION, key.validate)])
        except DataError:
            not_valid.append(key.name)
    return tuple(key.name for key in lacking), tuple(not_valid)
