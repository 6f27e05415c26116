"""Search for the bad row among rows that were refused, and name it in the error: where it stands, what it holds."""

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

    The smallest number of leading rows that is refused ends with that row; halving finds it in about log2(rows) trials,
    each rolled back. The server's own count of lines is not used: foreign keys have none, and for rows that are too big
    it is wrong.

    Args:
        batch: as it was refused.
        error: with which.
        refusal: writes a batch, undoes it, and returns why it was refused; None if it was not.
        task: the plan for its table.
        base: the chunk's line as it stood before its first batch.
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
        error: the source's; its ``row`` is counted from where it began to read.
        task: the plan for its table.
        base: the chunk's line as it stood before.
    """
    masked(error, error.values, task.intent.mask)
    row = base.rows + (error.row or 0)
    error.message = f"{_position(task, base.number, row)}{_named(error.values or {}, task)}: {error.message}"


def placed(error: DataError, batch: Batch, row: int, task: TableTask, base: ChunkLine) -> str:
    """Note in the error where a row stands in the source; return that for display, all numbers counted from 1.

    Args:
        error: the reason why it was refused.
        batch: the row's.
        row: its index in the batch.
        task: see ``located``.
        base: see ``located``.
    """
    error.chunk, error.batch = base.number, base.batches + batch.number
    error.row = base.rows + batch.first_row + row
    return f"{_position(task, base.number, error.row)} (batch {error.batch:,})"


def _position(task: TableTask, chunk: int, row: int) -> str:
    """Return where a row stands in the source, for display; the numbers are counted from 1."""
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
