"""Write batches again that the destination refused together, and find what is bad in them.

With savepoints, they are bisected down to the refused batch or row:

* ``on_error: fail``: the batches before the bad one stay, just as if each batch were a transaction;
* ``on_error: quarantine``: bisection continues down to rows; k bad ones among n cost about k log2(n) statements.

Without savepoints, each batch gets its own transaction, if the job may be committed in pieces; otherwise nothing of the
chunk is kept, and the bad row is named.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from portl.config.models import OnError
from portl.connectors.exchange import Batch, Rejection
from portl.execution.chunks.bad_rows import located, placed
from portl.execution.chunks.progress import too_many
from portl.execution.chunks.transaction import ChunkTransaction
from portl.execution.chunks.work import Assignment
from portl.values.errors import DataError
from portl.values.masking import masked

logger = logging.getLogger("portl.execution")


class Recovery:
    """Restores a transaction without bad rows.

    Args:
        assignment: the chunk.
        transaction: its transaction.
        retried_whole: True if the whole chunk is read again in another format after a refusal, so that bisecting is
            pointless.
    """

    def __init__(self, assignment: Assignment, transaction: ChunkTransaction, *, retried_whole: bool) -> None:
        self._assignment = assignment
        self._transaction = transaction
        self._writer = assignment.sessions.writer
        self._retried_whole = retried_whole

    def with_savepoints(self, batches: Sequence[Batch], error: DataError) -> None:
        """Write batches again that were refused together; raise for the first bad one, or reject its bad rows."""
        self._transaction.undo()
        self._again(batches, error)

    def _put(self, batches: Sequence[Batch]) -> None:
        """Write batches; if they are refused, try again in another way or in halves."""
        self._assignment.context.token.check()
        try:
            self._transaction.put(batches)
        except DataError as error:
            self._again(batches, error)

    def _again(self, batches: Sequence[Batch], error: DataError) -> None:
        """Write refused batches again, first in any other way that the writer has, then in halves."""
        while self._writer.reconsider(error):
            try:
                self._transaction.put(batches)
                return
            except DataError as second:
                error = second
        self._halve(batches, error)

    def _halve(self, batches: Sequence[Batch], error: DataError) -> None:
        """Write refused batches in two halves, down to what cannot be halved."""
        if self._retried_whole:
            raise error
        if len(batches) > 1:
            middle = len(batches) // 2
            self._put(batches[:middle])
            self._put(batches[middle:])
        elif self._assignment.work.config.on_error is not OnError.QUARANTINE:
            raise self._named(batches[0], error)
        elif batches[0].rows > 1:
            batch = batches[0]
            middle = batch.rows // 2
            self._put([batch.take(0, middle)])
            self._put([batch.take(middle, batch.rows)])
        else:
            self._reject(batches[0], error)

    def _reject(self, row: Batch, error: DataError) -> None:
        """Keep a row for the quarantine, with its position in the reason."""
        work, transaction = self._assignment.work, self._transaction
        where = placed(error, row, 0, work.task, self._assignment.line)
        if work.task.intent.mask:
            masked(error, row.values(0, work.task.fields), work.task.intent.mask)
        # The frames of its traceback would keep the batches alive.
        error.with_traceback(None).__context__ = None
        rejection = Rejection(row=row, error=error, chunk=transaction.line.number, position=where)
        transaction.rejections.append(rejection)
        transaction.tally.batches.add(row.number)
        transaction.tally.rows += row.rows
        # The limit is for the whole run; the caller adds up the chunks' reports.
        if transaction.line.rejected + len(transaction.rejections) > work.config.quarantine.limit:
            place = work.task.rejected_to or "the quarantine"
            raise too_many(work.config.quarantine.limit, place, error.message)

    def batch_by_batch(self, batches: Sequence[Batch], error: DataError) -> None:
        """Commit refused batches one by one, without savepoints; raise for the bad one."""
        self._transaction.rollback()
        if self._writer.reconsider(error):
            try:
                self._transaction.commit_alone(batches)
                return
            except DataError:
                logger.debug("a transaction of %d batches failed; committing them one by one", len(batches))
        for batch in batches:
            self._assignment.context.token.check()
            try:
                self._transaction.commit_alone([batch])
            except DataError as refused:
                raise self._named(batch, refused)

    def from_the_start(self, batches: Sequence[Batch], error: DataError) -> None:
        """Write a chunk's batches again in a new transaction, without savepoints; raise for the bad row."""
        while True:
            self._transaction.rollback()
            if not self._writer.reconsider(error):
                raise self._named(self._refused(batches), error)
            self._transaction.begin()
            try:
                self._transaction.write(batches)
                return
            except DataError as second:
                error = second

    def _refused(self, batches: Sequence[Batch]) -> Batch:
        """Return the first batch that is refused."""
        self._transaction.begin()
        try:
            for batch in batches:
                self._assignment.context.token.check()
                self._transaction.write([batch])
                self._writer.check()
        except DataError:
            return batch
        finally:
            self._transaction.rollback()
        return batches[-1]

    def _named(self, batch: Batch, error: DataError) -> DataError:
        """Return an error that names the bad row of a refused batch."""
        return located(batch, error, self._refusal, self._assignment.work.task, self._assignment.line)

    def _refusal(self, batch: Batch) -> DataError | None:
        """Write a batch, undo it, and return why it was refused, or None if it was not."""
        behind = self._transaction.open and self._assignment.sessions.savepoints
        if not behind:
            self._transaction.begin()
        try:
            self._writer.write(batch)
            self._writer.check()
        except DataError as error:
            return error
        finally:
            if behind:
                self._writer.restore()
            else:
                self._transaction.rollback()
        return None
