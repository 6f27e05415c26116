"""What writes batches in transactions: the part of a destination that has one open."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from portl.connectors.exchange import Batch, Counts, Rejection
from portl.values.errors import DataError

if TYPE_CHECKING:
    pass


class Writer(abc.ABC):
    """Writes batches in transactions."""

    @abc.abstractmethod
    def begin(self) -> None:
        """Open a transaction. The first one makes what is missing, until it is committed."""

    @property
    def fresh(self) -> bool:
        """True if rows cost less in the transaction that ``begin`` opens next, as it makes the table they go into.

        Several chunks may be written in it then, without a savepoint. By default False.
        """
        return False

    @abc.abstractmethod
    def write(self, batch: Batch) -> int:
        """Write a batch; return the bytes sent. Raise ``DataError`` if a row is refused."""

    def check(self) -> Counts:
        """Bring to light what ``commit`` would refuse, without committing. Raise ``DataError``.

        Returns:
            What became of the rows since ``begin`` or the last ``check``; what is counted here, ``commit`` leaves out.
            A destination with a ledger must count here.
        """
        return Counts()

    def save(self) -> None:
        """Set a savepoint in place of an earlier one. Called after ``check``."""
        raise NotImplementedError

    def restore(self) -> None:
        """Undo what was written since ``save``; the savepoint stays. Called also after a ``DataError``."""
        raise NotImplementedError

    def release(self) -> None:
        """Drop the savepoint and keep what was written."""
        raise NotImplementedError

    def reject(self, rejections: Sequence[Rejection]) -> None:
        """Put rows aside, with the reason, in the transaction that is open."""
        raise NotImplementedError

    def unreject(self, run: str, chunk: int | None = None) -> None:
        """Remove what a run has quarantined, in the transaction that is open: its rows come once more.

        Args:
            run: the run's id, as ``Intent.run`` had it.
            chunk: the chunk whose rows come again; None: all of them.
        """

    @abc.abstractmethod
    def commit(self) -> Counts:
        """Make what was written since ``begin`` permanent; return what ``check`` has not counted.

        Raises:
            DataError: if a row is refused only now.
        """

    @abc.abstractmethod
    def rollback(self) -> None:
        """Undo what was written since ``begin``. Called also when the connection is broken."""

    def reconsider(self, error: DataError) -> bool:
        """Answer a refusal after its rollback: True if the same batches shall be tried again in another way."""
        return False

    def finish(self, record: Callable[[], None] | None = None) -> None:
        """Do what comes after the rows, and make everything durable.

        Args:
            record: to be called in the same transaction, before its end; given where there is a ledger.
        """

    def abandon(self, *, resumable: bool = False) -> None:
        """Tidy up after a failure so that what is committed is durable and the same job can be run again.

        Args:
            resumable: True if the run can be resumed: then what comes after the rows can wait.
        """
