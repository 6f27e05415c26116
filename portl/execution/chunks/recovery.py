"""Write batches that the destination has refused together again, and find what is bad in them.

With savepoints, they are written in halves, down to the batch, or the row, that is refused:

* ``on_error: fail``: the batches before the bad one stay, and the user sees what they would have seen with one
  transaction a batch;
* ``on_error: quarantine``: halving goes on down to the rows; k bad ones among n cost about k log2(n) statements.

Without savepoints, each batch gets a transaction of its own, where the job may be committed piece by piece; elsewhere
nothing of the chunk is kept, and the bad row is named.
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
    """Leads back to a transaction without bad rows.

    Args:
        assignment: the chunk.
        transaction: its transaction.
        retried_whole: True if the whole chunk is read again, in another format, after a refusal: nothing is halved.
    """

    def __init__(self, assignment: Assignment, transaction: ChunkTransaction, *, retried_whole: bool) -> None:
        self._assignment = assignment
        self._transaction = transaction
        self._writer = assignment.sessions.writer
        self._retried_whole = retried_whole

    def with_savepoints(self, batches: Sequence[Batch], error: DataError) -> None:
        """Write batches that were refused together again; raise for the first that cannot go, or reject rows."""
        self._transaction.undo()
        self._again(batches, error)

    def _put(self, batches: Sequence[Batch]) -> None:
        """Write batches; those that are refused again, in another way or in halves."""
        self._assignment.context.token.check()
        try:
            self._transaction.put(batches)
        except DataError as error:
            self._again(batches, error)

    def _again(self, batches: Sequence[Batch], error: DataError) -> None:
        """Write batches that were refused together again: as long as the writer has another way, then in halves."""
        while self._writer.reconsider(error):
            try:
                self._transaction.put(batches)
                return
            except DataError as second:
                error = second
        self._halve(batches, error)

    def _halve(self, batches: Sequence[Batch], error: DataError) -> None:
        """Write batches that were refused together in two halves; end at what cannot be halved."""
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
        """Keep a row for the quarantine; its reason names where it stands."""
        work, transaction = self._assignment.work, self._transaction
        where = placed(error, row, 0, work.task, self._assignment.line)
        if work.task.intent.mask:
            masked(error, row.values(0, work.task.fields), work.task.intent.mask)
        # The frames in which it was raised hold the batches that were written then.
        error.with_traceback(None).__context__ = None
        rejection = Rejection(row=row, error=error, chunk=transaction.line.number, position=where)
        transaction.rejections.append(rejection)
        transaction.tally.batches.add(row.number)
        transaction.tally.rows += row.rows
        # The limit is that of the run; the caller adds up what the chunks report.
        if transaction.line.rejected + len(transaction.rejections) > work.config.quarantine.limit:
            place = work.task.rejected_to or "the quarantine"
            raise too_many(work.config.quarantine.limit, place, error.message)

    def batch_by_batch(self, batches: Sequence[Batch], error: DataError) -> None:
        """Commit batches that were refused together each by itself, without savepoints; raise for the bad one."""
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
        """Write a chunk's batches once more in a new transaction, without savepoints; raise for the bad row."""
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
        """Return the batch with which a transaction is refused."""
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
        """Return the error that names the bad row of a refused batch."""
        return located(batch, error, self._refusal, self._assignment.work.task, self._assignment.line)

    def _refusal(self, batch: Batch) -> DataError | None:
        """Write a batch, undo it, and return why it was refused; None if it was not."""
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
