"""What a destination remembers of its migrations: the contract of the ledger. No I/O happens in this module.

The ledger stands at the destination and is written in the transactions of the rows, so it can never disagree with
them. A **run** is one job on its way, from its first chunk to its last, however often it is interrupted; each time that
it is resumed is an **attempt**. Its **chunk lines** say what became of each slice of the source. A chunk line is
written between the rows of its chunk and their COMMIT. Three things follow:

* A process that is killed leaves chunks that are done, and chunks of which nothing is there. The next attempt does the
  latter.
* When a connection dies during COMMIT, the line tells whether the rows are there (``Ledger.settled``).
* An attempt that was given up for dead but lives on cannot write any more: its next line is refused (``Superseded``),
  and with it its rows.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

from portl.values.runs import ChunkLine, Run, RunState


class Ledger(abc.ABC):
    """What a destination remembers. Bound to one session: an open destination's, or a worker session's.

    Each method runs inside the transaction that the destination's writer has open, or, where none is open, in one of
    its own. ``lock``, ``find`` and ``runs`` are called outside.
    """

    @property
    @abc.abstractmethod
    def place(self) -> str:
        """Where it stands, for people."""

    def hidden(self) -> tuple[str, str] | None:
        """Return where runs may stand that cannot be read, and what would help, for people; None: nowhere.

        A run that stands there and was interrupted is not found: what it has written, the next one writes again.
        """
        return None

    @abc.abstractmethod
    def lock(self, job: str) -> None:
        """Keep other processes from working on ``job`` until ``unlock``, or until this process or connection dies.

        Waits a few seconds, for a server notices the death of a client with a delay.

        Raises:
            AlreadyRunning: if another process is at work; says which, and since when.
        """

    @abc.abstractmethod
    def unlock(self) -> None:
        """Let go of the lock. Called also without one, and on a broken connection."""

    @abc.abstractmethod
    def find(self, job: str, *, idempotency_key: str | None = None) -> Run | None:
        """Return the latest run of a job with its chunk lines; None if there is none. Creates nothing.

        Args:
            job: the run's ``job``.
            idempotency_key: only runs with this one; None: any run.
        """

    @abc.abstractmethod
    def runs(self, job: str | None = None) -> Sequence[Run]:
        """Return the runs of a job, or of all jobs, the latest first, with their chunk lines. Creates nothing."""

    @abc.abstractmethod
    def prepare(self) -> None:
        """Make, or upgrade, what the ledger needs, in a short transaction of its own: others may wait for it."""

    @abc.abstractmethod
    def start(self, run: Run) -> None:
        """Write down a new run with its chunks, all pending; ``prepare`` has come before."""

    @abc.abstractmethod
    def resume(self, run: Run) -> None:
        """Take a run over: ``run.attempt`` is the new one, ``run.snapshots`` has its snapshot, ``run.chunks`` stand.

        ``run.idempotency_key`` replaces the one that the run had.

        Waits for what an earlier attempt has under way to end; from then on its lines are refused. The chunk lines are
        those that were found before: a caller reads them again with ``lines`` afterwards.
        """

    @abc.abstractmethod
    def lines(self, run: Run) -> Sequence[ChunkLine]:
        """Return the chunk lines as they are now, in the order of their numbers."""

    @abc.abstractmethod
    def record(self, run: Run, line: ChunkLine, before: ChunkLine | None = None) -> None:
        """Write a chunk line in the transaction of its rows.

        Args:
            run: has the attempt that writes.
            line: what becomes of the chunk with this transaction.
            before: given where several processes may be at work on the chunk in one attempt: what it was when this one
                began. A line that this attempt has written since is not written over.

        Raises:
            Superseded: if a later attempt has taken the run over, this one has ended, or another process has written
                the line; the transaction must be rolled back.
        """

    @abc.abstractmethod
    def settled(self, run: Run, number: int) -> ChunkLine | None:
        """Return a chunk's line after its COMMIT got lost, waiting for that transaction to end; None: no such run."""

    @abc.abstractmethod
    def close(self, run: Run, state: RunState, error: str | None = None) -> None:
        """Write down how this attempt has ended."""

    @abc.abstractmethod
    def acknowledge(self, run: str) -> None:
        """Write down that the outcome of a finished run was handed over; durable when it returns.

        Called last of all, in no transaction. A run that has been removed meanwhile is no error.

        Args:
            run: its id.
        """

    @abc.abstractmethod
    def forget(self, job: str) -> int:
        """Remove all runs of a job; return how many there were."""
