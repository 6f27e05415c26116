"""Convert the ledger's rows to runs and chunk lines, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from portl import ChunkLine, ChunkState, DroppedKey, Run, RunState, RunTable
from portl_postgres.ledger.locks import Holders, lock_key

#: The count columns of a chunk line.
COUNTS = ("rows", "bytes", "batches", "inserted", "updated", "unchanged", "skipped", "deleted", "kept", "rejected")


def with_holders(runs: list[Run], holders: Holders) -> list[Run]:
    """Return runs with the processes working on them, if any; only a job's latest run can have one."""
    seen: set[str] = set()
    result = []
    for run in runs:
        holder = None if run.job in seen else holders.get(lock_key("job", run.job))
        seen.add(run.job)
        result.append(attrs.evolve(run, locked=holder is not None, holder=holder[1] if holder else None))
    return result


def snapshots(snapshots: Mapping[int, Mapping[str, Any]]) -> str:
    """Return the snapshots of a run, by attempt, as the ledger stores them."""
    return json.dumps({str(attempt): dict(snapshot) for attempt, snapshot in sorted(snapshots.items())})


def tables_text(run: Run) -> str | None:
    """Return the tables of a run as the ledger stores them."""
    return json.dumps([attrs.asdict(table) for table in run.tables]) if run.tables else None


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def run_of(stored: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> Run:
    """Return a run from its row and its chunk lines' rows, both as row_to_json() has them."""
    moments = [stored[name] for name in ("started", "taken", "ended")] + [line["written"] for line in lines]
    return Run(
        id=stored["id"],
        job=json.loads(f'"{stored["job"]}"'),
        identity=stored["identity"],
        attempt=stored["attempt"],
        state=RunState(stored["state"]),
        source=stored["source"],
        destination=stored["destination"],
        snapshots={int(attempt): snapshot for attempt, snapshot in stored["snapshots"].items()},
        started=_time(stored["started"]),
        touched=max((moment for moment in map(_time, moments) if moment), default=None),
        ended=_time(stored["ended"]),
        error=stored["error"],
        resumable=stored["resumable"],
        # In a ledger restored from a dump, the OIDs are not those of the tables restored with it.
        incarnation=stored["incarnation"] if stored["ledger"] == stored["table"] else None,
        idempotency_key=json.loads(f'"{stored["idempotency_key"]}"') if stored["idempotency_key"] else None,
        acknowledged=stored["acknowledged"] is not None,
        chunks=tuple(line_of(line) for line in lines),
        tables=tuple(map(_table, stored["tables"] or ())),
    )


def _table(stored: Mapping[str, Any]) -> RunTable:
    lists = ("drop", "make", "validate")
    keys = (DroppedKey(**{**key, **{name: tuple(key[name]) for name in lists}}) for key in stored["dropped"])
    return RunTable(**{**stored, "dropped": tuple(keys)})


def line_of(stored: Mapping[str, Any]) -> ChunkLine:
    """Return a chunk line from its row as row_to_json() has it."""
    return ChunkLine(
        number=stored["number"],
        bounds=stored["bounds"],
        state=ChunkState(stored["state"]),
        attempt=stored["attempt"],
        finished=_time(stored["finished"]),
        **{name: stored[name] for name in COUNTS},
    )
