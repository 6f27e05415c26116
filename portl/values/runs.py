"""Runs and their chunk lines, as a ledger remembers them: plain values."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import attrs


class RunState(enum.StrEnum):
    """How a run stands."""

    #: Under way, or interrupted without a word: whoever holds the lock of the job is at work on it.
    RUNNING = "running"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DONE = "done"


class ChunkState(enum.StrEnum):
    """How a chunk stands."""

    PENDING = "pending"
    #: Some rows from its beginning are committed; ``bounds`` say what is left.
    PARTIAL = "partial"
    DONE = "done"


@attrs.frozen(kw_only=True)
class ChunkLine:
    """What became of one chunk. Counts are of rows committed so far."""

    number: int
    #: What the source needs to read it, or what is left of it, again: plain data as JSON has it. None is the whole.
    bounds: Mapping[str, Any] | None = None
    state: ChunkState = ChunkState.PENDING
    #: The attempt that has written this line last; 0 before any has.
    attempt: int = 0
    rows: int = 0
    #: Bytes sent to the destination.
    bytes: int = 0
    batches: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    rejected: int = 0
    finished: datetime | None = None


@attrs.frozen(kw_only=True)
class Run:
    """One job on its way."""

    #: A UUID, made by whoever starts the run.
    id: str
    #: The job's name and its destination: what a lock and a resume go by.
    job: str
    #: What decides which rows go where, as plain data without secrets: the same at both sides of a resume.
    identity: Mapping[str, Any]
    #: Counted from 1.
    attempt: int = 1
    state: RunState = RunState.RUNNING
    #: Where rows come from and go to, for people.
    source: str = ""
    destination: str = ""
    #: What the source says of the state that each attempt has read, by attempt; plain data.
    snapshots: Mapping[int, Mapping[str, Any]] = attrs.field(factory=dict)
    started: datetime | None = None
    #: When its last line was written.
    touched: datetime | None = None
    ended: datetime | None = None
    error: str | None = None
    #: True while a process holds the lock of the job.
    locked: bool = False
    #: Who holds it, for people.
    holder: str | None = None
    #: False if the job is not cut into chunks that can be resumed: it starts over.
    resumable: bool = True
    #: What tells the table that rows went to from another of its name (``Destination.incarnation``); None: unknown.
    incarnation: str | None = None
    #: The caller's name for the run (``run_id``): a run that is done is not done again under the same one.
    idempotency_key: str | None = None
    #: True once the outcome of a finished run was handed over: returned to the caller, or printed.
    acknowledged: bool = False
    #: In the order of their numbers; empty where they were not asked for.
    chunks: tuple[ChunkLine, ...] = ()

    @property
    def began(self) -> str:
        """When it was started, for people, in UTC."""
        return f"{self.started.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if self.started else "an unknown time"

    @property
    def standing(self) -> str:
        """How it stands in one word: a run that nobody holds is not running, whatever it has written down."""
        if self.state is RunState.RUNNING and not self.locked:
            return "interrupted"
        return self.state.value

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON: its chunks as counts."""
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
                    ("rejected", "rejected"),
                )
            },
            "bytes": sum(line.bytes for line in lines),
        }
