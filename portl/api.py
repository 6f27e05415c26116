"""The two main calls: ``migrate`` and ``plan``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from portl.execution.attempts import Attempts
from portl.planning.request import Job, Request
from portl.values.cancel import CancelToken
from portl.values.errors import ConfigError
from portl.values.events import Observer

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from portl.planning.plan import Plan
    from portl.values.results import Result


def migrate(
    job: Job,
    *,
    source: object | None = None,
    destination: object | None = None,
    observers: Sequence[Observer] = (),
    cancel: CancelToken | None = None,
    overrides: Mapping[str, str] | None = None,
    restart: bool = False,
    full_refresh: bool = False,
    run_id: str | None = None,
    executor: Executor | None = None,
    report: str | os.PathLike[str] | None = None,
) -> Result:
    """Plan a job and execute it, or resume it if it was interrupted.

    Args:
        job: the path of a job file, a dict with the same keys, or a ``MigrationConfig``.
        source: a connection or pool of the connector's driver to read with; by default portl opens its own. portl
            neither closes it nor commits a transaction that is already open on it.
        destination: likewise, to write with.
        observers: functions called with each event, in the thread that called ``migrate``.
        cancel: a token with which another thread can end the run.
        overrides: maps the dotted path of a key to its new value as YAML text, as ``portl run --set`` does.
        restart: True to start over instead of resuming an interrupted run.
        full_refresh: True to start over in ``mode: incremental`` and read all rows again.
        run_id: an idempotency key, such as a scheduler's id of this run; it takes precedence over the job's
            ``run_id``. A finished run with the same id is reported, not repeated.
        executor: copies the chunks, ``parallel`` of them at a time; by default portl uses threads. Any
            ``concurrent.futures.Executor`` (docs/scaling.md); portl does not shut it down.
        report: the path of an HTML report on the run, written also if it fails; ``result.report(path)`` writes the
            same page. Needs the extra ``report``.

    Returns:
        The result: counts in total and for each table.

    Raises:
        ConfigError: the job is wrong, or ``report`` cannot be written.
        PlanError: the plan has problems; nothing was written.
        AlreadyRunning: another process is running the same job.
        Error: anything else; ``committed`` says what had been committed by then.
    """
    page = _report_path(report) if report is not None else None
    request = Request.of(
        job,
        source=source,
        destination=destination,
        observers=observers,
        cancel=cancel,
        overrides=overrides,
        restart=restart,
        full_refresh=full_refresh,
        run_id=run_id,
    )
    return Attempts(request=request, executor=executor, report=page).migrate()


def _report_path(report: str | os.PathLike[str]) -> Path:
    """Return the path of the report, after checking up front that it can be written there.

    Raises:
        ConfigError: it cannot.
    """
    from portl.values.report import page  # most runs have none

    path = Path(report)
    try:
        page.insist()
    except ImportError as error:
        raise ConfigError([str(error)], origin="report") from None
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        said = f"{path} is a folder" if path.is_dir() else f"there is no folder {path.parent} to write to"
        raise ConfigError([f"{said}; name a file, such as report.html"], origin="report")
    return path


def plan(
    job: Job,
    *,
    source: object | None = None,
    destination: object | None = None,
    observers: Sequence[Observer] = (),
    cancel: CancelToken | None = None,
    overrides: Mapping[str, str] | None = None,
    restart: bool = False,
    full_refresh: bool = False,
    run_id: str | None = None,
) -> Plan:
    """Examine both sides and return what would be done, writing nothing. Takes the arguments of ``migrate``."""
    from portl.planning import planner

    request = Request.of(
        job,
        source=source,
        destination=destination,
        observers=observers,
        cancel=cancel,
        overrides=overrides,
        restart=restart,
        full_refresh=full_refresh,
        run_id=run_id,
    )

    def execute(seen: Plan, executor: Executor | None) -> Result:
        return Attempts(request=request, planned=seen, executor=executor).migrate()

    found = request.looking(lambda sides: planner.plan(request, sides, exact=True, restart=request.restart))
    return attrs.evolve(found, execute=execute)
