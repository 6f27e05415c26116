"""The events of a run. An observer is a function that takes one.

Observers are called in order, in the thread that called ``migrate``; one that raises ends the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from portl.values.results import Result, TableResult


@attrs.frozen(kw_only=True)
class Event:
    """The base class of all events."""

    def to_dict(self) -> dict[str, Any]:
        """Return the event as plain data; ``event`` is its name in snake case."""
        name = "".join(f"_{c.lower()}" if c.isupper() else c for c in type(self).__name__).lstrip("_")
        return {"event": name, **attrs.asdict(self, recurse=False)}


@attrs.frozen(kw_only=True)
class Started(Event):
    """The plan has no problems, and its execution begins."""

    name: str
    source: str
    destination: str
    tables: int


@attrs.frozen(kw_only=True)
class TableStarted(Event):
    """Copying the rows of one table begins."""

    source: str
    destination: str
    route: str
    #: None if unknown.
    rows_expected: int | None
    #: False if it is an estimate.
    rows_exact: bool


@attrs.frozen(kw_only=True)
class Resumed(Event):
    """An interrupted run is resumed; some of its chunks may already be copied."""

    job: str
    #: From 1; this one is at least the second.
    attempt: int
    #: When the run was started, in ISO 8601.
    started: str | None
    chunks_done: int
    chunks: int
    #: Rows that are already copied.
    rows: int


@attrs.frozen(kw_only=True)
class Compared(Event):
    """Both sides of a table were compared; the rows that differ are copied next (``mode: mirror``)."""

    table: str
    rows_source: int
    rows_destination: int
    rows_to_fetch: int
    rows_to_delete: int
    #: Bytes that the comparison moved over the wire, not counting sums of buckets.
    bytes: int
    #: How long it took.
    seconds: float = 0.0


@attrs.frozen(kw_only=True)
class BatchCommitted(Event):
    """One transaction is committed: the batches from ``first_batch`` to ``last_batch``."""

    table: str
    #: Counted from 1; batches are counted within it.
    chunk: int = 1
    first_batch: int
    last_batch: int
    rows: int
    #: Bytes sent to the destination.
    bytes: int
    total_rows: int
    total_bytes: int
    rows_per_second: float
    #: True in the middle of a large transaction: the rows are written, and its COMMIT is still to come.
    provisional: bool = False


@attrs.frozen(kw_only=True)
class ChunkMoved(Event):
    """A worker moved a chunk, or several small tables in one transaction."""

    #: By their names at the destination.
    tables: tuple[str, ...]
    #: Counted from 1; None: several tables.
    chunk: int | None
    rows: int
    #: 0 for the session of the run; workers are counted from 1.
    worker: int
    #: When it began, by this process's ``time.monotonic()``.
    began: float
    seconds: float


@attrs.frozen(kw_only=True)
class ObjectsStarted(Event):
    """A worker begins to create objects: a table's keys and indexes, or those created before or after all rows."""

    #: The table that they belong to, by its name at the destination; None if there are several, or none.
    table: str | None
    #: With their kinds: ``index sales.orders_total_idx``.
    objects: tuple[str, ...]
    #: 0 for the session of the run; workers are counted from 1.
    worker: int


@attrs.frozen(kw_only=True)
class ObjectProgress(Event):
    """Progress of an object under creation, once a second if it takes long. See ``ObjectsStarted``."""

    table: str | None
    objects: tuple[str, ...]
    worker: int
    #: What the server is doing, in its words: ``scanning table``.
    phase: str
    #: Of this phase, from 0 to 1; None: unknown.
    share: float | None


@attrs.frozen(kw_only=True)
class ObjectsMade(Event):
    """Objects have been created. The fields are those of ``ObjectsStarted`` and ``ChunkMoved``."""

    table: str | None
    objects: tuple[str, ...]
    worker: int
    began: float
    seconds: float


@attrs.frozen(kw_only=True)
class Warned(Event):
    """Something that the user should know."""

    where: str
    message: str
    remedy: str | None = None
    #: The message without values of rows, where it has some.
    without_values: str | None = None


@attrs.frozen(kw_only=True)
class Retrying(Event):
    """A transient failure, which is retried."""

    what: str
    #: The attempt that failed, counted from 1.
    attempt: int
    attempts: int
    #: Seconds until the next attempt.
    pause: float
    error: str


@attrs.frozen(kw_only=True)
class RowsRejected(Event):
    """Rows were quarantined, in a transaction that is committed."""

    table: str
    chunk: int
    rows: int
    total: int
    #: Where they went, for display.
    place: str
    #: The first of them and the reason, for display.
    example: str = ""
    #: Each reason, without values from rows, and how many rows were refused for it.
    reasons: Mapping[str, int] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class TableDone(Event):
    """All rows of one table are copied."""

    result: TableResult

    def to_dict(self) -> dict[str, Any]:
        """See ``Event.to_dict``."""
        return {"event": "table_done", **self.result.to_dict()}


@attrs.frozen(kw_only=True)
class Done(Event):
    """The run has succeeded."""

    result: Result

    def to_dict(self) -> dict[str, Any]:
        """See ``Event.to_dict``."""
        return {"event": "done", **self.result.to_dict()}


@attrs.frozen(kw_only=True)
class Failed(Event):
    """The run has failed; its error is raised after this event."""

    kind: str
    error: str


Observer = Callable[[Event], object]
