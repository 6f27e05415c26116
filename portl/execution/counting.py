"""Count a table's rows for the result, from its chunk lines."""

from __future__ import annotations

import time

from portl.config.models import DEFAULT_BATCH_ROWS
from portl.planning.delivery import Delivery
from portl.planning.plan import Plan
from portl.planning.tasks import TableTask
from portl.values.results import Result, TableResult
from portl.values.runs import ChunkLine, Run, shown_watermark


def result_of(plan: Plan, tables: tuple[TableResult, ...], started: float) -> Result:
    """Return the result of a plan's tables; ``started`` is the ``time.monotonic()`` at which the run began."""
    return Result(
        name=plan.config.name,
        source=plan.source,
        destination=plan.destination,
        tables=tables,
        seconds=time.monotonic() - started,
    )


def counted(
    run: Run,
    task: TableTask,
    batch_size: int | None,
    seconds: float,
    *,
    route: str | None = None,
    retries: int = 0,
    rows_before: int = 0,
) -> TableResult:
    """Return the result of one table.

    Args:
        run: with its chunk lines.
        task: that of the table.
        batch_size: that of the job.
        seconds: how long the table took.
        route: the route that rows took last; None for the planned one.
        retries: chunks that were retried.
        rows_before: rows that earlier attempts moved.
    """
    lines = run.chunks
    return TableResult(
        source=task.source.name,
        destination=task.destination.name,
        route=route or task.route,
        rows_read=sum(line.rows for line in lines),
        rows_inserted=sum(line.inserted for line in lines),
        rows_updated=sum(line.updated for line in lines),
        rows_skipped=sum(line.skipped for line in lines),
        rows_deleted=sum(line.deleted for line in lines),
        rows_kept=sum(line.kept for line in lines),
        rows_unchanged=sum(line.unchanged for line in lines),
        rows_rejected=sum(line.rejected for line in lines),
        rejected_to=task.rejected_to,
        bytes=sum(line.bytes for line in lines),
        batches=sum(line.batches for line in lines),
        seconds=seconds,
        chunks=len(lines),
        attempt=run.attempt,
        retries=retries,
        rows_before=rows_before,
        older_chunks=tuple(sorted(line.number for line in lines if _older(run, line))),
        source_kind=task.source.kind,
        destination_kind="new" if task.intent.create or task.made else task.destination.kind,
        conflict=task.conflict,
        batch_rows=batch_size or DEFAULT_BATCH_ROWS,
        chunks_by=None if task.delivery is Delivery.WHOLE else task.split.by,
        ledger=task.ledger,
        run=run.id,
        watermark=shown_watermark(run.watermark),
        watermark_before=shown_watermark((run.watermark or {}).get("since")),
    )


def _older(run: Run, line: ChunkLine) -> bool:
    """Return whether a chunk was read from a different state of the source than the last attempt's."""
    if line.attempt in (0, run.attempt):
        return False
    return run.snapshots.get(line.attempt) != run.snapshots.get(run.attempt)
