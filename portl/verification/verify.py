"""``portl.verify``: compare what a job should have written with its destination, and repair differences."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TextIO

import attrs

from portl.config.models import MigrationConfig, Verify
from portl.planning.delivery import begun, job_name
from portl.planning.request import Job, Request, Sides
from portl.values.cancel import CancelToken
from portl.values.differences import TableVerification, Verification
from portl.values.errors import ConfigError, LedgerError
from portl.values.events import Observer
from portl.values.runs import ChunkState, RunState
from portl.verification.compare import NAMED, TableComparison, compare
from portl.verification.repair import repair as copy_again
from portl.verification.tables import compare_tables, tables_of


def verify(
    job: Job,
    *,
    mode: Verify | str | None = None,
    repair: bool = False,
    named: int = NAMED,
    source: object | None = None,
    destination: object | None = None,
    observers: Sequence[Observer] = (),
    cancel: CancelToken | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Verification:
    """Compare what a job should have written with what its destination holds.

    Args:
        job: as for ``portl.migrate``.
        mode: ``count`` compares row counts; ``checksum`` compares digests computed by the servers, then the rows where
            these differ; ``full`` fetches every column of every row. By default the job's ``verify``, else
            ``checksum``.
        repair: True to copy missing and different rows again. Extra rows stay.
        named: how many differing rows the result names.
        source: as for ``portl.migrate``.
        destination: as for ``portl.migrate``.
        observers: as for ``portl.migrate``.
        cancel: as for ``portl.migrate``.
        overrides: as for ``portl.migrate``.

    Returns:
        The differences; after a repair, those that are left.

    Raises:
        ConfigError: the job or ``mode`` is wrong.
        PlanError: rows of the source cannot become rows of the destination.
        SchemaError: the destination's table does not exist.
        PermissionDenied: a role may not read its side.
        LedgerError: with ``repair``: the job was interrupted and has to be finished first.
        AlreadyRunning: with ``repair``: another process is running the job.
        OperationError: with ``repair``: some of the missing rows are in the quarantine, and there is no key.
    """
    request = Request.of(
        job, source=source, destination=destination, observers=observers, cancel=cancel, overrides=overrides
    )
    config = request.config
    chosen = _mode(mode, config, repair=repair)
    started = time.monotonic()
    if config.tables is not None:
        return _many(request, chosen, named, repair=repair, started=started)
    unfinished, table, repaired = _repair(request, chosen, named) if repair else ([], None, 0)
    if table is None or repaired:
        # Reopen both sides after a repair: the source's snapshot is as old as the comparison.
        unfinished, table = request.looking(
            lambda sides: (_unfinished(config, sides), compare(config, sides, chosen, named))
        )
    table = attrs.evolve(table, notes=(*unfinished, *table.notes))
    seconds = time.monotonic() - started
    return Verification(name=config.name, tables=(table,), repaired=repaired, seconds=seconds)


def _many(request: Request, mode: Verify, named: int, *, repair: bool, started: float) -> Verification:
    """Compare the tables of a job of many; copy rows again, table by table, if ``repair``."""
    config = request.config
    repaired = 0
    if repair:
        with request.reported(), request.opened() as sides, _locked(config, sides):
            for table in tables_of(config, sides):
                with _spool() as spool:
                    comparison = TableComparison(table.config, table, mode, named, spool)
                    found = comparison.run()
                    if found.missing or found.different:
                        repaired += copy_again(table.config, table, comparison, spool)
    unfinished, tables = request.looking(
        lambda sides: (_unfinished(config, sides), compare_tables(config, sides, mode, named))
    )
    first, *others = tables
    tables = (attrs.evolve(first, notes=(*unfinished, *first.notes)), *others)
    seconds = time.monotonic() - started
    return Verification(name=config.name, tables=tables, repaired=repaired, seconds=seconds)


def _repair(request: Request, mode: Verify, named: int) -> tuple[list[str], TableVerification, int]:
    """Compare and copy rows again; return notes on an unfinished run, the result, and the number of rows copied."""
    config = request.config
    with _spool() as spool, request.reported(), request.opened() as sides, _locked(config, sides):
        comparison = TableComparison(config, sides, mode, named, spool)
        unfinished, table = _unfinished(config, sides), comparison.run()
        worth = table.missing or table.different
        return unfinished, table, copy_again(config, sides, comparison, spool) if worth else 0


def _spool() -> AbstractContextManager[TextIO]:
    """Return a file for the keys of the rows to repair."""
    return tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogatepass")


def _unfinished(config: MigrationConfig, sides: Sides) -> list[str]:
    """Return a note if the ledger has an unfinished run of the job."""
    ledger = sides.ledger
    run = ledger.find(job_name(config, sides.destination)) if ledger is not None else None
    if run is None or run.state is RunState.DONE or not begun(run.chunks):
        return []
    done = sum(line.state is ChunkState.DONE for line in run.chunks)
    stands = "is running" if run.locked else "was interrupted"
    return [
        f"the run of {run.began} {stands} with {done:,} of {len(run.chunks):,} chunks done: rows that it has not copied"
        " yet count as missing"
    ]


@contextmanager
def _locked(config: MigrationConfig, sides: Sides) -> Iterator[None]:
    """Prevent others from running the job while a repair writes.

    Raises:
        LedgerError: a run of the job was interrupted, so that the rows it has not copied yet would arrive twice.
        AlreadyRunning: another process is running it.
    """
    ledger = sides.ledger
    if ledger is None:
        yield
        return
    job = job_name(config, sides.destination)
    ledger.lock(job)
    try:
        run = ledger.find(job)
        if run is not None and run.state is not RunState.DONE and begun(run.chunks):
            raise LedgerError(
                f"the job {config.name!r} was interrupted: rows that it has yet to copy are not missing",
                hint="run the job until it is done, then compare and repair",
            )
        yield
    finally:
        ledger.unlock()


def _mode(mode: Verify | str | None, config: MigrationConfig, *, repair: bool) -> Verify:
    wanted = [word.value for word in Verify if word is not Verify.NONE]
    if mode is None:
        mode = config.verify if config.verify is not Verify.NONE else Verify.CHECKSUM
        if repair and mode is Verify.COUNT:
            mode = Verify.CHECKSUM
    if mode not in wanted:
        raise ConfigError([f"mode: expected one of {', '.join(wanted)}, found {str(mode)!r}"], origin="verify")
    if repair and mode == Verify.COUNT:
        raise ConfigError(["repair: needs checksum or full: a count does not say which rows"], origin="verify")
    return Verify(mode)
