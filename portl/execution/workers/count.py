"""Decide how many workers move a table's chunks."""

from __future__ import annotations

import os
from collections.abc import Iterable

from portl.config.models import Auto, MigrationConfig
from portl.planning.delivery import Delivery
from portl.planning.request import Sides
from portl.planning.table import CHUNK_BYTES
from portl.planning.tasks import TableTask
from portl.values.events import Warned
from portl.values.runs import ChunkLine

#: The most workers unless the job sets a number: more did not help in measurements (docs/performance.md).
MOST_WORKERS = 4
#: Rows of at least this many bytes count as wide: PostgreSQL compresses them and stores them out of line (TOAST).
WIDE_BYTES = 2000


def worker_count(
    chunks: int, task: TableTask, config: MigrationConfig, sides: Sides, lines: Iterable[ChunkLine], *, remote: bool
) -> tuple[int, Warned | None]:
    """Return how many chunks move concurrently, and a warning if these are fewer than requested.

    Args:
        chunks: the number of chunks left to move.
        task: that of the table.
        config: the job.
        sides: both sides, open.
        lines: the table's chunk lines.
        remote: True if an executor moves them in other processes, each with its own pools.
    """
    if task.ordered is not None or task.delivery is not Delivery.CHUNKS:
        return 1, None
    asked = None if isinstance(config.parallel, Auto) else config.parallel
    if remote:
        return min(chunks, asked or MOST_WORKERS), None
    wanted = min(chunks, asked or _helpful(sides, _row_bytes(task, config, lines)))
    if wanted < 2 or sides.source.for_worker() is None or sides.destination.for_worker() is None:
        return 1, None
    room = [found + 1 for found in (sides.source.room(), sides.destination.room()) if found is not None]
    count = min([wanted, *room])
    if count == wanted or asked is None:
        return count, None
    said = f"{wanted} workers were asked for, but the connection pool has room for only {count}"
    return count, Warned(where="parallel", message=said, remedy="raise `pool.max_size` on both sides")


def _helpful(sides: Sides, row_bytes: float) -> int:
    """Return how many workers are likely to help.

    Each worker keeps a session busy on either side. If a server runs on this machine, more workers than processors slow
    everything down, and rows arrive less in index order, which makes indexes larger. With wide rows, the destination
    does most of the work, compressing them, so that each processor may have a worker.
    """
    near = sides.source.near + sides.destination.near
    if not near:
        return MOST_WORKERS
    busy = 1 if row_bytes >= WIDE_BYTES else near
    return min(MOST_WORKERS, max(1, (os.cpu_count() or 1) // busy))


def _row_bytes(task: TableTask, config: MigrationConfig, lines: Iterable[ChunkLine]) -> float:
    """Return the average size of a row, from the rows moved so far or from an estimate; 0 if unknown."""
    moved = list(lines)
    rows = sum(line.rows for line in moved)
    if rows:
        return sum(line.bytes for line in moved) / rows
    chunks = [chunk.rows for chunk in task.split.chunks if chunk.rows]
    return CHUNK_BYTES / max(chunks) if len(chunks) > 1 and config.chunk_rows is None else 0.0
