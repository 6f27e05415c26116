"""Plan an incremental run: where the last one ended, and what it cannot be combined with.

The watermark is part of the source's description of the state that it reads (``Source.snapshot``), which the ledger
records with the run. It takes effect once the run is done: an interrupted run, resumed or started over, reads from
where the run before it ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from portl.config.incremental import By
from portl.config.models import DestinationConfig, MigrationConfig, Mode, SourceConfig
from portl.connectors.destination import Destination
from portl.connectors.exchange import Intent
from portl.connectors.ledger import Ledger
from portl.connectors.source import Source
from portl.values.findings import Finding, note, problem
from portl.values.runs import Run, RunState

REFRESH = "`--full-refresh` reads all rows again"


def is_incremental(config: MigrationConfig) -> bool:
    """Return whether a job reads only what has changed."""
    return config.mode is Mode.INCREMENTAL


def last_watermark(found: Run | None) -> Mapping[str, Any] | None:
    """Return the watermark that a run starts from, given the latest run of its job; None if all rows are read."""
    if found is None or found.watermark is None:
        return None
    return found.watermark if found.state is RunState.DONE else found.watermark.get("since")


def confine(
    config: MigrationConfig, source: Source[SourceConfig], ledger: Ledger | None, latest: Run | None
) -> list[Finding]:
    """Limit the source to what changed since the last run; return what the user should know about that.

    Args:
        config: the job.
        source: open.
        ledger: the destination's ledger; None if it has none.
        latest: the latest run of the table; None to read all rows.
    """
    assert config.incremental is not None, "the mode needs it"
    if ledger is None:
        said = "without a ledger, nothing remembers the watermark"
        return [problem("incremental", said, "see the finding on `ledger`")]
    if config.atomic:
        return [problem("atomic", "an incremental job records its watermark with its chunks", "remove `atomic`")]
    by = config.incremental.by
    if not source.increments:
        return [problem("mode", f"the source {source.label()} cannot tell what has changed", "use `mode: full`")]
    if by is not By.AUTO and by not in source.increments:
        known = ", ".join(sorted(source.increments))
        return [problem("incremental.by", f"the source {source.label()} does not know {by.value}", f"use {known}")]
    return source.since(config.incremental, last_watermark(latest))


def examine(config: MigrationConfig, intent: Intent, *, made: bool = False) -> list[Finding]:
    """Return what prevents an incremental run from writing its rows, and which changes it does not see.

    Args:
        config: the job.
        intent: what it asks of the destination.
        made: True if the run creates the table as it is at the source, and its key after the rows.
    """
    if not (intent.source.primary_key is not None if made else intent.idempotent):
        keyless = made or intent.key is None
        what = "needs a key" if keyless else f"does not go with `conflict: {intent.conflict.strategy.value}`"
        said = f"`mode: incremental` {what}: rows at the watermark are read again"
        return [problem("mode", said, "use a key, and `conflict: overwrite`, `skip` or an idempotent `merge`")]
    cursor = config.incremental.cursor if config.incremental is not None else None
    if any(field.source.name == cursor and field.target.name in intent.mask for field in intent.fields):
        said = f"{cursor!r} is masked, and the watermark, which is one of its values, is shown"
        return [problem("incremental.cursor", said, "use another cursor, `by: xmin`, or take it out of `mask`")]
    if config.source.limit is not None:
        return [problem("source.limit", "an incremental job reads all that has changed", "remove `limit`")]
    return [note("mode", "rows that are deleted at the source stay at the destination; `mode: mirror` removes them")]


def settings(config: MigrationConfig) -> Mapping[str, Any]:
    """Return what determines which rows an incremental run reads; ``lag`` may change."""
    wanted = config.incremental
    if wanted is None:
        return {}
    read = {"by": wanted.by.value, "cursor": wanted.cursor, "from": wanted.from_, "nulls": wanted.nulls.value}
    return {"mode": "incremental", "incremental": read}


def lost(destination: Destination[DestinationConfig], latest: Run, name: str) -> Finding | None:
    """Return a problem if the destination no longer holds what earlier runs wrote into a table.

    Args:
        destination: the table's.
        latest: the latest run of the table, which has a watermark.
        name: the table's.
    """
    if destination.describe() is None:
        what = "is gone"
    elif latest.incarnation not in (None, destination.incarnation()):
        what = "has been replaced by another table"
    elif any(line.rows for line in latest.chunks) and destination.empty():
        what = "has been emptied"
    else:
        return None
    return problem("incremental", f"{name} {what} since the run of {latest.began}", REFRESH)


def changed(found: Run, different: list[str]) -> Finding:
    """Return the problem that the job has changed since the watermark was set."""
    said = f"the job has changed since the run of {found.began}: {', '.join(different)}"
    return problem("incremental", said, f"change it back, or {REFRESH}")
