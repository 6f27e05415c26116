"""Runs and their chunk lines, as a ledger records them: plain values."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs


class RunState(enum.StrEnum):
    """The state of a run."""

    #: Running if a process holds the job's lock, otherwise interrupted.
    RUNNING = "running"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DONE = "done"


class ChunkState(enum.StrEnum):
    """The state of a chunk."""

    PENDING = "pending"
    #: Some rows from its beginning are committed; ``bounds`` says what is left.
    PARTIAL = "partial"
    DONE = "done"


@attrs.frozen(kw_only=True)
class ChunkLine:
    """The state of a chunk. The counts are of rows committed so far."""

    number: int
    #: What the source needs to read it, or the rest of it, again: JSON-like data. None is the whole source.
    bounds: Mapping[str, Any] | None = None
    state: ChunkState = ChunkState.PENDING
    #: The attempt that last wrote this line; 0 if none has.
    attempt: int = 0
    rows: int = 0
    #: Bytes sent to the destination.
    bytes: int = 0
    batches: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    #: Rows of the destination that the source no longer has: deleted, or marked as deleted.
    deleted: int = 0
    #: Of all these, rows that keep their own value in a column that cannot be set.
    kept: int = 0
    rejected: int = 0
    finished: datetime | None = None


@attrs.frozen(kw_only=True)
class DroppedKey:
    """A foreign key of the destination that a run drops before loading rows and re-creates afterwards."""

    #: As messages name it.
    name: str
    #: The referencing and the referenced table, by their names at the destination.
    table: str
    refers: str
    #: Statements that drop it if it exists, re-create it (without checking rows where possible), and validate it.
    drop: tuple[str, ...]
    make: tuple[str, ...]
    validate: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class RunTable:
    """One table of a run of many tables."""

    #: Its names at the destination and at the source.
    name: str
    source: str
    #: The numbers of its first and last chunk.
    first: int
    last: int
    #: True if the run creates it with the objects of the source.
    made: bool = False
    #: True if the run creates it from its columns alone.
    created: bool = False
    #: See ``Run.incarnation``.
    incarnation: str | None = None
    #: Foreign keys that the run drops; those of tables outside the run are listed with its first table.
    dropped: tuple[DroppedKey, ...] = ()

    @property
    def numbers(self) -> range:
        """The numbers of its chunks."""
        return range(self.first, self.last + 1)


@attrs.frozen(kw_only=True)
class Behind:
    """How much of a source is beyond a watermark."""

    #: The number of rows with a greater cursor; rows that commit late are not among them.
    rows: int
    #: True if only so many were counted, and there are more.
    more: bool = False
    #: The greatest cursor value at the source; None if there is none.
    value: str | None = None
    #: From the watermark to that value; None if the cursor is not a time.
    seconds: float | None = None


@attrs.frozen(kw_only=True)
class Run:
    """One execution of a job, with all its attempts."""

    #: A UUID, made when the run starts.
    id: str
    #: The job's name and its destination, which it is locked and resumed by.
    job: str
    #: What decides which rows go where, as plain data without secrets; a run is resumed only if this is unchanged.
    identity: Mapping[str, Any]
    #: Counted from 1.
    attempt: int = 1
    state: RunState = RunState.RUNNING
    #: Where rows come from and go to, for display.
    source: str = ""
    destination: str = ""
    #: The snapshot that each attempt read, by attempt, as plain data (``Source.snapshot``).
    snapshots: Mapping[int, Mapping[str, Any]] = attrs.field(factory=dict)
    started: datetime | None = None
    #: When its last line was written.
    touched: datetime | None = None
    ended: datetime | None = None
    error: str | None = None
    #: True while a process holds the job's lock.
    locked: bool = False
    #: Which process that is, for display.
    holder: str | None = None
    #: False if the job is not split into chunks, so that an interrupted run starts over.
    resumable: bool = True
    #: What tells its table from another of the same name (``Destination.incarnation``); None if unknown.
    incarnation: str | None = None
    #: The caller's id for the run (``run_id``): a finished run with the same id is not repeated.
    idempotency_key: str | None = None
    #: True once the result of a finished run was delivered: returned to the caller, or printed.
    acknowledged: bool = False
    #: By number; empty if they were not requested.
    chunks: tuple[ChunkLine, ...] = ()
    #: The tables of a job of many; empty for a job of one.
    tables: tuple[RunTable, ...] = ()

    def of(self, table: RunTable) -> Run:
        """Return the part of the run that concerns one table."""
        lines = self.chunks[table.first - 1 : table.last]
        snapshots = {
            attempt: {**snapshot, **snapshot.get("tables", {}).get(table.name, {})}
            for attempt, snapshot in self.snapshots.items()
        }
        return attrs.evolve(self, chunks=lines, tables=(), incarnation=table.incarnation, snapshots=snapshots)

    @property
    def dropped(self) -> tuple[DroppedKey, ...]:
        """The foreign keys that it drops before loading rows and re-creates afterwards."""
        return tuple(key for table in self.tables for key in table.dropped)

    @property
    def watermark(self) -> Mapping[str, Any] | None:
        """How far it reads (``Source.since``); None if it reads everything, or has not begun.

        Taken from its first attempt: later ones see more, which the next run reads again.
        """
        found = self.snapshots[min(self.snapshots)].get("watermark") if self.snapshots else None
        return found if found is None else dict(found)

    @property
    def phase(self) -> str | None:
        """The phase of a run of many tables: ``before``, ``rows``, ``after`` or ``done``; None for a single table.

        Tables are created before the rows. Keys and indexes follow a table's rows, while those of other tables are
        still being copied; foreign keys and all other objects come last.
        """
        if not self.tables:
            return None
        if self.state is RunState.DONE:
            return "done"
        states = {line.state for line in self.chunks}
        if states <= {ChunkState.DONE}:
            return "after"
        return "before" if states == {ChunkState.PENDING} else "rows"

    @property
    def began(self) -> str:
        """When it was started, in UTC, for display."""
        return f"{self.started.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if self.started else "an unknown time"

    @property
    def standing(self) -> str:
        """Its state in one word: a run whose lock is free is not running, even if the ledger says so."""
        if self.state is RunState.RUNNING and not self.locked:
            return "interrupted"
        return self.state.value

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON, with its chunks as counts."""
        lines = self.chunks
        times = {name: getattr(self, name) for name in ("started", "touched", "ended")}
        return {
            "id": self.id,
            "job": self.job,
            "state": self.standing,
            "attempt": self.attempt,
            "run_id": self.idempotency_key,
            "acknowledged": self.acknowledged,
            "source": self.source,
            "destination": self.destination,
            **{name: time.isoformat() if time else None for name, time in times.items()},
            "holder": self.holder,
            "resumable": self.resumable,
            "error": self.error,
            "chunks": len(lines),
            "chunks_done": sum(line.state is ChunkState.DONE for line in lines),
            **{
                f"rows_{name}": sum(getattr(line, field) for line in lines)
                for name, field in (
                    ("read", "rows"),
                    ("inserted", "inserted"),
                    ("updated", "updated"),
                    ("unchanged", "unchanged"),
                    ("skipped", "skipped"),
                    ("deleted", "deleted"),
                    ("kept", "kept"),
                    ("rejected", "rejected"),
                )
            },
            "bytes": sum(line.bytes for line in lines),
            "watermark": shown_watermark(self.watermark),
            "phase": self.phase,
            "dropped_keys": [key.name for key in self.dropped] if self.state is not RunState.DONE else [],
            "tables": [table_progress(self, table) for table in self.tables],
        }


def shown_watermark(watermark: Mapping[str, Any] | None) -> str | None:
    """Return a watermark for display: the cursor's value, or the time of the state that was read."""
    return None if watermark is None else watermark["value"] or watermark["taken"]


def table_state(lines: Sequence[ChunkLine]) -> ChunkState:
    """Return the state of a table's rows, from the lines of its chunks."""
    states = {line.state for line in lines}
    if states <= {ChunkState.DONE}:
        return ChunkState.DONE
    return ChunkState.PENDING if states == {ChunkState.PENDING} else ChunkState.PARTIAL


def table_progress(run: Run, table: RunTable) -> dict[str, Any]:
    """Return how far a table of a run is, as plain data."""
    lines = run.chunks[table.first - 1 : table.last]
    return {
        "table": table.name,
        "source": table.source,
        "state": table_state(lines).value,
        "created": table.made or table.created,
        "chunks": len(lines),
        "chunks_done": sum(line.state is ChunkState.DONE for line in lines),
        "rows_read": sum(line.rows for line in lines),
        "rows_rejected": sum(line.rejected for line in lines),
        "watermark": shown_watermark(run.of(table).watermark),
    }
