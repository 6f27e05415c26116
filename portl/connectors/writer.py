"""What a destination's writer implements: batches of rows, in transactions."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence

from portl.connectors.exchange import Batch, Counts, Rejection
from portl.values.errors import DataError


class Writer(abc.ABC):
    """Writes batches in transactions."""

    @abc.abstractmethod
    def begin(self) -> None:
        """Open a transaction. Until one has been committed, it also creates what is missing."""

    @property
    def fresh(self) -> bool:
        """True if writing is cheaper in the next transaction, because it creates the table.

        Several chunks may then be written in it without a savepoint. By default False.
        """
        return False

    @abc.abstractmethod
    def write(self, batch: Batch) -> int:
        """Write a batch; return the bytes sent. Raise ``DataError`` if a row is refused."""

    def check(self) -> Counts:
        """Raise whatever ``commit`` would raise, without committing.

        Returns:
            The counts of the rows since ``begin`` or the last ``check``; ``commit`` does not count them again. A
            destination with a ledger must count here.

        Raises:
            DataError: a row is refused.
        """
        return Counts()

    def save(self) -> None:
        """Set a savepoint, replacing an earlier one. Called after ``check``."""
        raise NotImplementedError

    def restore(self) -> None:
        """Roll back to the savepoint, which stays. Also called after a ``DataError``."""
        raise NotImplementedError

    def release(self) -> None:
        """Release the savepoint and keep what was written."""
        raise NotImplementedError

    def reject(self, rejections: Sequence[Rejection]) -> None:
        """Quarantine rows, with the reasons, in the open transaction."""
        raise NotImplementedError

    def unreject(self, run: str, chunk: int | None = None) -> None:
        """Remove what a run quarantined, in the open transaction, because its rows are copied again.

        Args:
            run: the run's id, as in ``Intent.run``.
            chunk: the chunk whose rows are copied again; None for all chunks.
        """

    @abc.abstractmethod
    def commit(self) -> Counts:
        """Commit; return the counts of rows not yet counted by ``check``.

        Raises:
            DataError: a row is refused only now.
        """

    @abc.abstractmethod
    def rollback(self) -> None:
        """Roll back. Also called on a broken connection."""

    def reconsider(self, error: DataError) -> bool:
        """Return True, after a rollback, if the same batches should be written again, in a different way."""
        return False

    def finish(self, record: Callable[[], None] | None = None) -> None:
        """Do what has to follow the rows, and make everything durable.

        Args:
            record: a function to call in the same transaction, before its COMMIT; passed if there is a ledger.
        """

    def abandon(self, *, resumable: bool = False) -> None:
        """Clean up after a failure, so that committed rows are durable and the job can be run again.

        Args:
            resumable: True if the run can be resumed, so that what follows the rows can wait.
        """
