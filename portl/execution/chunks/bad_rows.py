"""Find the bad row among refused rows, and name its position and key in the error."""

from __future__ import annotations

from collections.abc import Callable

from portl.connectors.exchange import Batch
from portl.planning.tasks import TableTask
from portl.values.errors import DataError
from portl.values.masking import masked
from portl.values.runs import ChunkLine

#: A value in a message is cut at this many characters.
_WIDTH = 60


def located(
    batch: Batch,
    error: DataError,
    refusal: Callable[[Batch], DataError | None],
    task: TableTask,
    base: ChunkLine,
) -> DataError:
    """Return the error that names the first bad row of a refused batch.

    The shortest refused prefix of the batch ends with that row; bisection finds it in about log2(rows) trials, each
    rolled back. The server's own line number is not used: foreign keys report none, and for oversized rows it is wrong.

    Args:
        batch: the refused batch.
        error: the error that it was refused with.
        refusal: writes a batch, undoes it, and returns why it was refused, or None if it was not.
        task: the task of its table.
        base: the chunk's line before its first batch.
    """
    good, bad = 0, batch.rows
    while bad - good > 1:
        middle = (good + bad) // 2
        found = refusal(batch.take(0, middle))
        if found is None:
            good = middle
        else:
            bad, error = middle, found
    if bad == batch.rows or good == 0:
        error = refusal(batch.take(0, bad)) or error
    where = placed(error, batch, bad - 1, task, base)
    error.values = batch.values(bad - 1, task.fields)
    masked(error, error.values, task.intent.mask)
    error.message = f"{where}{_named(error.values, task)}: {error.message}"
    return error


def named(error: DataError, task: TableTask, base: ChunkLine) -> None:
    """Name the row that the source could not send.

    Args:
        error: the source's error; its ``row`` is relative to where reading began.
        task: the task of its table.
        base: the chunk's line before this reading.
    """
    masked(error, error.values, task.intent.mask)
    row = base.rows + (error.row or 0)
    error.message = f"{_position(task, base.number, row)}{_named(error.values or {}, task)}: {error.message}"


def placed(error: DataError, batch: Batch, row: int, task: TableTask, base: ChunkLine) -> str:
    """Set a row's position in the error, and return it for display; all numbers count from 1.

    Args:
        error: the error that the row was refused with.
        batch: the row's batch.
        row: its index in the batch.
        task: see ``located``.
        base: see ``located``.
    """
    error.chunk, error.batch = base.number, base.batches + batch.number
    error.row = base.rows + batch.first_row + row
    return f"{_position(task, base.number, error.row)} (batch {error.batch:,})"


def _position(task: TableTask, chunk: int, row: int) -> str:
    """Return a row's position in the source, for display; the numbers count from 1."""
    where = "the source" if len(task.split.chunks) == 1 else f"chunk {chunk:,}"
    return f"row {row:,} of {where}"


def _named(values: dict[str, str | None], task: TableTask) -> str:
    """Name a row by its key, or by its first column."""
    key = task.intent.key or task.destination.primary_key
    names = [name for name in key.columns if name in values] if key else []
    shown = ", ".join(f"{name} = {_cut(values[name])}" for name in names or list(values)[:1])
    return f" with {shown}" if shown else ""


def _cut(value: str | None) -> str:
    if value is None:
        return "NULL"
    return value if len(value) <= _WIDTH else value[: _WIDTH - 3] + "..."
