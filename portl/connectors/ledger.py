"""What a destination records about its migrations: the contract of the ledger.

The ledger is stored at the destination and written in the transactions of the rows, so it can never disagree with them.
A **run** is one execution of a job, from its first chunk to its last, however often it is interrupted; each start or
resumption is an **attempt**. A **chunk line** records the state of a chunk and is written after the chunk's rows,
before their COMMIT. Three things follow:

* A process that is killed leaves each chunk either done or absent. The next attempt copies the absent ones.
* When a connection is lost during COMMIT, the line tells whether the rows are there (``Ledger.settled``).
* An attempt that was presumed dead but is still running can no longer write: its next line is refused
  (``Superseded``), and its rows with it.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

from portl.values.runs import ChunkLine, Run, RunState


class Ledger(abc.ABC):
    """The ledger of a destination, over one session: that of an open destination or of a worker.

    Each method runs in the transaction that the destination's writer has open or, if there is none, in its own.
    ``lock``, ``find`` and ``runs`` are called outside a transaction.
    """

    @property
    @abc.abstractmethod
    def place(self) -> str:
        """Where it is, for display."""

    def hidden(self) -> tuple[str, str] | None:
        """Return where there may be runs that cannot be read, and a remedy, for display; None if nowhere.

        An interrupted run there is not found, and the next one writes its rows again.
        """
        return None

    @abc.abstractmethod
    def lock(self, job: str) -> None:
        """Prevent other processes from running ``job`` until ``unlock``, or until this process or connection dies.

        Waits a few seconds for the lock, because servers notice the death of a client with a delay.

        Raises:
            AlreadyRunning: another process is running it; the message says which, and since when.
        """

    @abc.abstractmethod
    def unlock(self) -> None:
        """Release the lock. Also called without one, and on a broken connection."""

    @abc.abstractmethod
    def find(self, job: str, *, idempotency_key: str | None = None) -> Run | None:
        """Return the latest run of a job with its chunk lines; None if there is none. Creates nothing.

        Args:
            job: the run's ``job``.
            idempotency_key: consider only runs with this key; None for any run.
        """

    @abc.abstractmethod
    def runs(self, job: str | None = None) -> Sequence[Run]:
        """Return the runs of a job, or of all jobs, latest first, with their chunk lines. Creates nothing."""

    @abc.abstractmethod
    def prepare(self) -> None:
        """Create or upgrade the ledger's tables in a short, separate transaction, as others may wait for it."""

    @abc.abstractmethod
    def start(self, run: Run) -> None:
        """Record a new run with its chunks, all pending. Called after ``prepare``."""

    @abc.abstractmethod
    def resume(self, run: Run) -> None:
        """Record a new attempt, numbered ``run.attempt``, with its snapshot in ``run.snapshots``; ``run.chunks`` stay.

        ``run.idempotency_key`` replaces the one that the run had.

        Waits for any open transaction of an earlier attempt to end; from then on that attempt's lines are refused.
        ``run.chunks`` may be out of date by then: the caller reads them again with ``lines``.
        """

    @abc.abstractmethod
    def lines(self, run: Run) -> Sequence[ChunkLine]:
        """Return the current chunk lines, in order of their numbers."""

    @abc.abstractmethod
    def record(self, run: Run, line: ChunkLine, before: ChunkLine | None = None) -> None:
        """Write a chunk line in the transaction of its rows.

        Args:
            run: with the attempt that writes.
            line: the state of the chunk after this transaction.
            before: the line as this process found it, if several processes of one attempt may work on the chunk. A
                line that the attempt has written since is not overwritten.

        Raises:
            Superseded: a later attempt has resumed the run, this one has ended, or another process has written the
                line; the transaction must be rolled back.
        """

    def record_all(self, run: Run, lines: Sequence[ChunkLine]) -> None:
        """Write the lines of several finished chunks in the transaction of their rows; see ``record``."""
        for line in lines:
            self.record(run, line)

    @abc.abstractmethod
    def settled(self, run: Run, number: int) -> ChunkLine | None:
        """Return a chunk's line after a COMMIT in doubt, once that transaction has ended; None without such a run."""

    @abc.abstractmethod
    def close(self, run: Run, state: RunState, error: str | None = None) -> None:
        """Record how this attempt ended."""

    @abc.abstractmethod
    def acknowledge(self, run: str) -> None:
        """Record that the result of a finished run was delivered; durable on return.

        Called last, outside a transaction. Ignores a run that has been removed in the meantime.

        Args:
            run: its id.
        """

    @abc.abstractmethod
    def forget(self, job: str) -> int:
        """Remove all runs of a job; return their number."""
