"""What becomes of batches that the destination has refused together: which go, which are bad, and which row is it.

With savepoints, batches are written again in halves, down to the batch, or the row, that is refused:

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
from portl.execution.chunks.bad_rows import located, position
from portl.execution.chunks.progress import too_many
from portl.execution.chunks.transaction import ChunkTransaction
from portl.execution.chunks.work import Assignment
from portl.values.errors import DataError
from portl.values.masking import masked

logger = logging.getLogger("portl.execution")


class Recovery:
    """The way back to a good transaction.

    Args:
        assignment: the chunk.
        transaction: its transaction.
        retried_whole: True if another format takes the whole chunk after a refusal: then nothing is halved.
    """

    def __init__(self, assignment: Assignment, transaction: ChunkTransaction, *, retried_whole: bool) -> None:
        self._assignment = assignment
        self._transaction = transaction
        self._writer = assignment.worker.writer
        self._retried_whole = retried_whole

    def with_savepoints(self, batches: Sequence[Batch], error: DataError) -> None:
        """Write batches that were refused together again; raise for the first that cannot go, or reject rows."""
        self._transaction.undo()
        if self._writer.reconsider(error):
            try:
                self._transaction.put(batches)
                return
            except DataError as second:
                logger.debug("a transaction of %d batches failed; writing them in halves", len(batches))
                error = second
                self._writer.restore()
        self._halve(batches, error)

    def _put(self, batches: Sequence[Batch]) -> None:
        """Write some batches; those that are refused in halves."""
        self._assignment.context.token.check()
        while True:
            try:
                self._transaction.put(batches)
                return
            except DataError as error:
                self._writer.restore()
                if not self._writer.reconsider(error):
                    self._halve(batches, error)
                    return

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
        number = transaction.line.number
        error.row = self._assignment.line.rows + row.first_row
        error.batch, error.chunk = row.number, number
        masked(error, row.values(0, work.task.fields), work.task.intent.mask)
        where = position(work.task, number, error.row, row.number)
        transaction.rejections.append(Rejection(row=row, error=error, chunk=number, position=where))
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
                self._transaction.tally.bytes += self._transaction.write(batches)
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
        """Return the error that names the first row of a refused batch that is refused."""
        return located(batch, error, self._refusal, self._assignment.work.task, self._assignment.line)

    def _refusal(self, batch: Batch) -> DataError | None:
        """Write a batch, undo it, and return what was said against it."""
        behind = self._transaction.open and self._assignment.worker.savepoints
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
