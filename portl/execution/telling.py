"""Report to the observers which worker did what, and for how long."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs

from portl.connectors.context import Context
from portl.values import events


@attrs.define
class Moved:
    """The rows moved inside the context."""

    rows: int = 0


@contextmanager
def moving(context: Context, tables: Sequence[str], *, chunk: int | None, worker: int) -> Iterator[Moved]:
    """Report a chunk, or several small tables, once moved inside this context.

    Args:
        context: with the observers.
        tables: their names at the destination.
        chunk: its number; None for several tables.
        worker: 0 for the run's session.
    """
    began, moved = time.monotonic(), Moved()
    yield moved
    context.emit(
        events.ChunkMoved(
            tables=tuple(tables),
            chunk=chunk,
            rows=moved.rows,
            worker=worker,
            began=began,
            seconds=time.monotonic() - began,
        )
    )


@contextmanager
def making(context: Context, objects: Sequence[str], *, table: str | None, worker: int) -> Iterator[None]:
    """Report that objects are being created inside this context, and when they are done.

    Args:
        context: with the observers.
        objects: their labels.
        table: the one that they belong to; None if several, or none.
        worker: 0 for the run's session.
    """
    began, names = time.monotonic(), tuple(objects)
    context.emit(events.ObjectsStarted(table=table, objects=names, worker=worker))
    yield
    seconds = time.monotonic() - began
    context.emit(events.ObjectsMade(table=table, objects=names, worker=worker, began=began, seconds=seconds))
