"""The ledger: two tables in the file that the rows go to, written in the transactions of the rows."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from portl import ChunkLine, ChunkState, Ledger, Run, RunState, Superseded
from portl_sqlite.locking import JobLock

TABLES = """
CREATE TABLE IF NOT EXISTS portl_runs (
    id TEXT PRIMARY KEY NOT NULL,
    job TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    state TEXT NOT NULL,
    idempotency_key TEXT,
    acknowledged INTEGER NOT NULL DEFAULT 0,
    started TEXT NOT NULL,
    touched TEXT NOT NULL,
    ended TEXT,
    error TEXT,
    facts TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS portl_chunks (
    run TEXT NOT NULL REFERENCES portl_runs,
    number INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    state TEXT NOT NULL,
    rows INTEGER NOT NULL,
    facts TEXT NOT NULL,
    PRIMARY KEY (run, number)
) STRICT, WITHOUT ROWID;
"""
#: What stands in the column ``facts``, as JSON.
_RUN_FACTS = ("identity", "source", "destination", "snapshots", "resumable", "incarnation")
_LINE_FACTS = tuple(
    field.name for field in attrs.fields(ChunkLine) if field.name not in ("number", "attempt", "state", "rows")
)


class SqliteLedger(Ledger):
    """See ``Ledger``.

    Args:
        path: the file.
        connection: returns the destination's connection; None if there is no file yet and none is asked for.
    """

    def __init__(self, path: Path, connection: Callable[[bool], sqlite3.Connection | None]) -> None:
        self._path = path
        self._connected = connection
        self._lock = JobLock(path)
        self._job: str | None = None

    @property
    def place(self) -> str:
        """See ``Ledger.place``."""
        return str(self._path)

    def lock(self, job: str) -> None:
        """See ``Ledger.lock``."""
        self._lock.acquire(job)
        self._job = job

    def unlock(self) -> None:
        """See ``Ledger.unlock``."""
        if self._job is not None:
            self._lock.release(self._job)
            self._job = None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connected(True)
        assert connection is not None, "it was asked for"
        if connection.in_transaction:
            yield connection
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _found(self, condition: str, *values: object) -> list[Run]:
        connection = self._connected(False)
        if connection is None:
            return []
        there = "SELECT count(*) FROM sqlite_schema WHERE name = 'portl_runs'"
        if not connection.execute(there).fetchone()[0]:
            return []
        rows = connection.execute(
            "SELECT id, job, attempt, state, idempotency_key, acknowledged, started, touched, ended, error, facts"
            f" FROM portl_runs WHERE {condition} ORDER BY rowid DESC",
            values,
        ).fetchall()
        return [self._run(connection, *row) for row in rows]

    def _run(
        self,
        connection: sqlite3.Connection,
        id: str,
        job: str,
        attempt: int,
        state: str,
        key: str | None,
        acknowledged: int,
        started: str,
        touched: str,
        ended: str | None,
        error: str | None,
        facts: str,
    ) -> Run:
        known: dict[str, Any] = json.loads(facts)
        known["snapshots"] = {int(number): found for number, found in known["snapshots"].items()}
        mine = self._job == job
        return Run(
            id=id,
            job=job,
            attempt=attempt,
            state=RunState(state),
            idempotency_key=key,
            acknowledged=bool(acknowledged),
            started=dt.datetime.fromisoformat(started),
            touched=dt.datetime.fromisoformat(touched),
            ended=dt.datetime.fromisoformat(ended) if ended else None,
            error=error,
            locked=mine or self._lock.held(job),
            chunks=tuple(_lines(connection, id)),
            **known,
        )

    def find(self, job: str, *, idempotency_key: str | None = None) -> Run | None:
        """See ``Ledger.find``."""
        if idempotency_key is None:
            return next(iter(self._found("job = ?", job)), None)
        return next(iter(self._found("job = ? AND idempotency_key = ?", job, idempotency_key)), None)

    def runs(self, job: str | None = None) -> Sequence[Run]:
        """See ``Ledger.runs``."""
        return self._found("true") if job is None else self._found("job = ?", job)

    def prepare(self) -> None:
        """See ``Ledger.prepare``."""
        with self._transaction() as connection:
            for statement in TABLES.split(";")[:-1]:
                connection.execute(statement)

    def start(self, run: Run) -> None:
        """See ``Ledger.start``."""
        facts = json.dumps({name: getattr(run, name) for name in _RUN_FACTS})
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO portl_runs (id, job, attempt, state, idempotency_key, started, touched, facts)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (run.id, run.job, run.attempt, RunState.RUNNING.value, run.idempotency_key, _now(), _now(), facts),
            )
            connection.executemany(
                "INSERT INTO portl_chunks (run, number, attempt, state, rows, facts) VALUES (?, ?, ?, ?, ?, ?)",
                [(run.id, line.number, line.attempt, line.state.value, line.rows, _facts(line)) for line in run.chunks],
            )

    def resume(self, run: Run) -> None:
        """See ``Ledger.resume``."""
        snapshots = json.dumps(run.snapshots)
        with self._transaction() as connection:
            changed = connection.execute(
                "UPDATE portl_runs SET attempt = ?, state = ?, idempotency_key = ?, ended = NULL, error = NULL,"
                " touched = ?, facts = json_set(facts, '$.snapshots', json(?)) WHERE id = ? AND attempt = ?",
                (
                    run.attempt,
                    RunState.RUNNING.value,
                    run.idempotency_key,
                    _now(),
                    snapshots,
                    run.id,
                    run.attempt - 1,
                ),
            ).rowcount
            if not changed:
                raise _superseded(run)

    def lines(self, run: Run) -> Sequence[ChunkLine]:
        """See ``Ledger.lines``."""
        with self._transaction() as connection:
            return list(_lines(connection, run.id))

    def record(self, run: Run, line: ChunkLine, before: ChunkLine | None = None) -> None:
        """See ``Ledger.record``. All workers are of one process, so that ``before`` adds nothing."""
        done = dt.datetime.now(dt.UTC) if line.state is ChunkState.DONE else None
        written = attrs.evolve(line, finished=done)
        with self._transaction() as connection:
            held = connection.execute(
                "UPDATE portl_runs SET touched = ? WHERE id = ? AND attempt = ?", (_now(), run.id, run.attempt)
            ).rowcount
            changed = connection.execute(
                "UPDATE portl_chunks SET attempt = ?, state = ?, rows = ?, facts = ? WHERE run = ? AND number = ?",
                (run.attempt, line.state.value, line.rows, _facts(written), run.id, line.number),
            ).rowcount
            if not held or not changed:
                raise _superseded(run)

    def settled(self, run: Run, number: int) -> ChunkLine | None:
        """See ``Ledger.settled``."""
        with self._transaction() as connection:
            return next((line for line in _lines(connection, run.id) if line.number == number), None)

    def close(self, run: Run, state: RunState, error: str | None = None) -> None:
        """See ``Ledger.close``."""
        with self._transaction() as connection:
            changed = connection.execute(
                "UPDATE portl_runs SET state = ?, ended = ?, error = ? WHERE id = ? AND attempt = ?",
                (state.value, _now(), error, run.id, run.attempt),
            ).rowcount
            if not changed and state is RunState.DONE:
                raise _superseded(run)

    def acknowledge(self, run: str) -> None:
        """See ``Ledger.acknowledge``."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE portl_runs SET acknowledged = 1 WHERE id = ? AND state = ?", (run, RunState.DONE.value)
            )

    def forget(self, job: str) -> int:
        """See ``Ledger.forget``."""
        if not self.runs(job):
            return 0
        with self._transaction() as connection:
            connection.execute(
                "DELETE FROM portl_chunks WHERE run IN (SELECT id FROM portl_runs WHERE job = ?)", (job,)
            )
            return connection.execute("DELETE FROM portl_runs WHERE job = ?", (job,)).rowcount


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()


def _facts(line: ChunkLine) -> str:
    found: Mapping[str, Any] = {name: getattr(line, name) for name in _LINE_FACTS}
    return json.dumps({**found, "finished": line.finished.isoformat() if line.finished else None})


def _lines(connection: sqlite3.Connection, run: str) -> Iterator[ChunkLine]:
    rows = connection.execute(
        "SELECT number, attempt, state, rows, facts FROM portl_chunks WHERE run = ? ORDER BY number", (run,)
    )
    for number, attempt, state, count, facts in rows.fetchall():
        known = json.loads(facts)
        known["finished"] = dt.datetime.fromisoformat(known["finished"]) if known["finished"] else None
        yield ChunkLine(number=number, attempt=attempt, state=ChunkState(state), rows=count, **known)


def _superseded(run: Run) -> Superseded:
    return Superseded(f"another attempt at {run.job!r} has resumed the run")
