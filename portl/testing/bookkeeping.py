"""The ledger of the in-memory connector: runs in a dict, written when the rows' transaction commits."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Sequence

import attrs

from portl.connectors.ledger import Ledger
from portl.values.errors import AlreadyRunning, Superseded
from portl.values.runs import ChunkLine, ChunkState, Run, RunState


class Runs:
    """The runs of a database, and the session that holds each job's lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        #: By id, in starting order.
        self.runs: dict[str, Run] = {}
        self.holders: dict[str, MemoryLedger] = {}


class MemoryLedger(Ledger):
    """See ``Ledger``."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._job: str | None = None
        #: What the open transaction's COMMIT will write; None outside a transaction.
        self._pending: list[Callable[[], None]] | None = None
        self._starting: dict[str, Run] = {}

    @property
    def place(self) -> str:
        """See ``Ledger.place``."""
        return "memory"

    def begin(self) -> None:
        """Defer writes until ``commit``."""
        self._pending, self._starting = [], {}

    def commit(self) -> None:
        """Write the deferred lines, all or nothing.

        Raises:
            Superseded: a later attempt has resumed the run.
        """
        pending = self._pending or []
        with self._runs.lock:
            before = dict(self._runs.runs)
            try:
                for write in pending:
                    write()
            except Superseded:
                self._runs.runs = before
                raise
        self._pending, self._starting = None, {}

    def rollback(self) -> None:
        """Discard the deferred lines."""
        self._pending, self._starting = None, {}

    def _write(self, change: Callable[[], None]) -> None:
        if self._pending is None:
            with self._runs.lock:
                change()
        else:
            self._pending.append(change)

    def lock(self, job: str) -> None:
        """See ``Ledger.lock``."""
        with self._runs.lock:
            if self._runs.holders.setdefault(job, self) is not self:
                raise AlreadyRunning(f"another migration is running the job {job!r}", hint="wait until it is done")
        self._job = job

    def unlock(self) -> None:
        """See ``Ledger.unlock``."""
        with self._runs.lock:
            if self._job is not None and self._runs.holders.get(self._job) is self:
                del self._runs.holders[self._job]
        self._job = None

    def find(self, job: str, *, idempotency_key: str | None = None) -> Run | None:
        """See ``Ledger.find``."""
        runs = self.runs(job)
        return next((run for run in runs if idempotency_key in (None, run.idempotency_key)), None)

    def runs(self, job: str | None = None) -> Sequence[Run]:
        """See ``Ledger.runs``."""
        with self._runs.lock:
            found = [run for run in self._runs.runs.values() if job in (None, run.job)]
            return [attrs.evolve(run, locked=run.job in self._runs.holders) for run in reversed(found)]

    def prepare(self) -> None:
        """See ``Ledger.prepare``. Nothing has to be created."""

    def start(self, run: Run) -> None:
        """See ``Ledger.start``."""
        now = dt.datetime.now(dt.UTC)
        started = attrs.evolve(run, started=now, touched=now)
        self._starting[run.id] = started
        self._write(lambda: self._runs.runs.__setitem__(run.id, started))

    def resume(self, run: Run) -> None:
        """See ``Ledger.resume``."""
        with self._runs.lock:
            stored = self._stored(run)
            if stored.attempt != run.attempt - 1:
                raise self._superseded(run)
            self._runs.runs[run.id] = attrs.evolve(
                stored,
                attempt=run.attempt,
                snapshots=run.snapshots,
                idempotency_key=run.idempotency_key,
                state=RunState.RUNNING,
                ended=None,
                error=None,
            )

    def lines(self, run: Run) -> Sequence[ChunkLine]:
        """See ``Ledger.lines``."""
        return self._stored(run).chunks

    def record(self, run: Run, line: ChunkLine, before: ChunkLine | None = None) -> None:
        """See ``Ledger.record``."""
        if self._stored(run).attempt != run.attempt:
            raise self._superseded(run)
        now = dt.datetime.now(dt.UTC)
        written = attrs.evolve(line, attempt=run.attempt, finished=now if line.state is ChunkState.DONE else None)

        def change() -> None:
            stored = self._runs.runs.get(run.id)
            if stored is None or stored.attempt != run.attempt:
                raise self._superseded(run)
            found = next(old for old in stored.chunks if old.number == line.number)
            if before is not None and (stored.state is not RunState.RUNNING or _written_since(run, found, before)):
                raise self._superseded(run)
            chunks = tuple(written if old.number == line.number else old for old in stored.chunks)
            self._runs.runs[run.id] = attrs.evolve(stored, chunks=chunks, touched=now)

        self._write(change)

    def settled(self, run: Run, number: int) -> ChunkLine | None:
        """See ``Ledger.settled``."""
        stored = self._runs.runs.get(run.id)
        return next((line for line in stored.chunks if line.number == number), None) if stored else None

    def close(self, run: Run, state: RunState, error: str | None = None) -> None:
        """See ``Ledger.close``."""

        def change() -> None:
            stored = self._runs.runs.get(run.id)
            if stored is not None and stored.attempt == run.attempt:
                now = dt.datetime.now(dt.UTC)
                self._runs.runs[run.id] = attrs.evolve(stored, state=state, ended=now, error=error)
            elif state is RunState.DONE:
                raise self._superseded(run)

        self._write(change)

    def acknowledge(self, run: str) -> None:
        """See ``Ledger.acknowledge``."""
        with self._runs.lock:
            stored = self._runs.runs.get(run)
            if stored is not None and stored.state is RunState.DONE:
                self._runs.runs[run] = attrs.evolve(stored, acknowledged=True)

    def forget(self, job: str) -> int:
        """See ``Ledger.forget``."""
        with self._runs.lock:
            gone = [run.id for run in self._runs.runs.values() if run.job == job]
            for id in gone:
                del self._runs.runs[id]
        return len(gone)

    def _stored(self, run: Run) -> Run:
        found = self._runs.runs.get(run.id) or self._starting.get(run.id)
        if found is None:
            raise Superseded(f"the run of {run.job!r} is no longer in the ledger", hint="run it again")
        return found

    @staticmethod
    def _superseded(run: Run) -> Superseded:
        return Superseded(f"another attempt at {run.job!r} has resumed the run")


def _written_since(run: Run, found: ChunkLine, before: ChunkLine) -> bool:
    """Return whether this attempt has written the line since ``before`` was read."""
    return found.attempt == run.attempt and (found.attempt, found.state, found.rows) != (
        before.attempt,
        before.state,
        before.rows,
    )
