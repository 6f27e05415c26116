"""Move one chunk: read its batches, write them in a transaction with their ledger line, find the rows to blame.

One transaction for each batch would cost half the speed. So a chunk goes into one transaction, and its rows stay in
memory until they are safe. When the destination refuses something, what is in memory is taken through again in halves,
between savepoints, down to the batch, or the row, that is to blame:

* ``on_error: fail``: the batches before the bad one are kept, the bad one is undone, and the user sees what he would
  have seen with one transaction a batch. What is left of the chunk is written into its ledger line.
* ``on_error: quarantine``: halving goes on down to the rows; k bad ones among n cost about k log2(n) statements.

A chunk that holds more than ``GROUP_BYTES`` is secured with a savepoint each time that much has gathered, so memory is
bounded whatever the size of a chunk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence

import attrs

from portl.config.models import DEFAULT_BATCH_ROWS, MigrationConfig, OnError
from portl.connectors.context import Context
from portl.connectors.exchange import Batch, Chunk, Reading, Rejection
from portl.execution.bad_rows import located, position
from portl.execution.progress import Lane, Progress, Tally, in_doubt, plus, too_many
from portl.planning.delivery import Delivery, whole_bounds
from portl.planning.tasks import TableTask
from portl.values.errors import DataError, Error
from portl.values.masking import masked
from portl.values.runs import ChunkLine, ChunkState, Run

logger = logging.getLogger("portl.execution")

#: What is kept in memory to be taken through again holds at most this much (and one batch).
GROUP_BYTES = 24 * 1024 * 1024
#: Where a chunk may be committed piece by piece, a piece takes about so long, so that progress is seen.
PIECE_SECONDS = 2.0
#: How large the first piece is; the others are as large as PIECE_SECONDS allow, up to GROUP_BYTES.
FIRST_PIECE_BYTES = 2 * 1024 * 1024
LEAST_PIECE_BYTES = 64 * 1024
#: Where the job leaves the batch size open, a batch ends early at this size, so that wide rows do not fill memory.
BATCH_BYTES = 8 * 1024 * 1024


class ChunkLoad:
    """One chunk on its way.

    Args:
        task: the plan for its table.
        config: the job.
        lane: what it is moved with.
        run: which run it belongs to.
        line: the chunk's line as it stands.
        context: the token.
        report: called after each COMMIT.
        first: called in the first transaction, before its rows; again if that is rolled back.
        transaction: False if the caller has opened the transaction and commits it.
        alone: False if another process may be at work on the same chunk, in the same attempt.
        undoes: False if nothing in the transaction is to be undone by itself: a refusal is the caller's to deal with.
    """

    def __init__(
        self,
        task: TableTask,
        config: MigrationConfig,
        lane: Lane,
        run: Run,
        line: ChunkLine,
        context: Context,
        report: Callable[[Progress], None],
        first: Callable[[], None] | None = None,
        *,
        transaction: bool = True,
        alone: bool = True,
        undoes: bool = True,
    ) -> None:
        self._task = task
        self._config = config
        self._lane = lane
        self._writer = lane.writer
        self._run = run
        self._line = line
        self._base = line
        self._context = context
        self._report = report
        self._first = first
        self._own = transaction
        self._alone = alone
        self._undoes = undoes
        self._piecewise = task.delivery is Delivery.REPEAT
        self._quarantines = config.on_error is OnError.QUARANTINE
        self._piece = min(FIRST_PIECE_BYTES, GROUP_BYTES)
        self._open = False
        self._saved = False
        self._since = 0.0
        # Written, not yet checked; in memory.
        self._group: list[Batch] = []
        self._size = 0
        # Checked in the open transaction, not yet committed.
        self._done = Tally()
        self._rejections: list[Rejection] = []
        chunk = Chunk(number=line.number, bounds=whole_bounds(line).rest)
        size = config.batch_size
        self._reading = Reading(
            fields=task.fields,
            format=task.intent.format,
            chunk=chunk,
            batch_rows=size or DEFAULT_BATCH_ROWS,
            batch_bytes=None if size else BATCH_BYTES,
        )

    @property
    def line(self) -> ChunkLine:
        """The chunk's line as it is committed."""
        return self._line

    @property
    def route(self) -> str:
        """The way that the rows took in the end."""
        return self._reading.format.route

    def load(self) -> ChunkLine:
        """Move the chunk; return its line.

        Raises:
            DataError: a row was refused; the line says what is kept.
            CommitInDoubt: the COMMIT got lost.
        """
        then = self._reading.format.then
        if then is not None:
            try:
                return self._load()
            except DataError as error:
                logger.info("chunk %d is taken through by %s: %s", self._line.number, then.route, error.message)
                self._reading = attrs.evolve(self._reading, format=then)
        return self._load()

    def _load(self) -> ChunkLine:
        batches = self._lane.source.read(self._reading)
        try:
            self._begin()
            for batch in batches:
                self._context.token.check()
                self._add(batch)
            self._end()
        except DataError as error:
            _close(batches)
            try:
                self._keep_what_is_good(error)
            finally:
                if self._open:
                    self._rollback()
            raise
        except BaseException:
            # The token ends the reading in another way than an error does: by cancelling it.
            _close(batches)
            if self._open:
                self._rollback()
            raise
        return self._line

    def _begin(self) -> None:
        if self._own:
            self._writer.begin()
        self._open = True
        self._saved = False
        self._since = time.monotonic()
        if self._first is not None:
            self._first()
        if not self._own and self._undoes:
            self._save()  # the caller's transaction has more in it than this chunk

    def _save(self) -> None:
        self._writer.save()
        self._saved = True

    def _add(self, batch: Batch) -> None:
        if not self._open:
            self._begin()
        self._group.append(batch)
        self._size += batch.size
        try:
            self._done.bytes += self._write(batch)
        except DataError as error:
            self._recover(error)
        if self._piecewise:
            if self._size >= self._piece or time.monotonic() - self._since >= PIECE_SECONDS:
                self._commit(ChunkState.PARTIAL)
                self._adapt(time.monotonic() - self._since)
        elif self._size >= GROUP_BYTES and self._lane.savepoints:
            self._secure()
            if self._undoes:
                self._save()
            self._tell(self._line, self._done, provisional=True)

    def _adapt(self, seconds: float) -> None:
        """Let the next piece take about as long as one should: what a destination makes of rows takes its time, too."""
        if seconds > PIECE_SECONDS:
            self._piece = max(self._piece // 2, LEAST_PIECE_BYTES)
        elif seconds < PIECE_SECONDS / 2:
            self._piece = min(self._piece * 2, GROUP_BYTES)

    def _secure(self) -> None:
        """Have what was written checked, so that it need not be kept in memory."""
        while self._group:
            try:
                counts = self._writer.check()
            except DataError as error:
                self._recover(error)  # leaves nothing to check, or the same batches written in another way
            else:
                self._done.add(self._group, counts)
                self._forget()

    def _forget(self) -> None:
        self._group = []
        self._size = 0

    def _end(self) -> None:
        """Finish the chunk: everything checked, the rejected rows quarantined, the line written, COMMIT."""
        self._commit(ChunkState.DONE)

    def _commit(self, state: ChunkState, bounds: object = None) -> None:
        if not self._open:
            if state is ChunkState.DONE and self._lane.ledger is not None:
                self._begin()
            else:
                return
        held = self._group
        self._secure()
        if not self._open:
            # Taken through batch by batch, each in a transaction of its own.
            if state is not ChunkState.DONE or self._lane.ledger is None:
                return
            self._begin()
        if self._rejections:
            self._put_aside()
        line = self._counted(state, bounds)
        if self._lane.ledger is not None:
            self._lane.ledger.record(self._run, line, None if self._alone else self._line)
        if self._own:
            try:
                late = self._writer.commit()
            except DataError as error:
                if self._lane.savepoints:
                    self._rollback()  # nothing in it may be written down as done
                    raise  # only what ``check`` cannot see: a trigger of COMMIT
                self._group = held
                self._recover(error)
                self._commit(state, bounds)
                return
            except Error as error:
                if error.transient:
                    self._open = False
                    raise self._doubt(error) from None
                raise
            line = plus(line, late)
        elif self._lane.savepoints:
            self._writer.release()
        self._settle(line)

    def _counted(self, state: ChunkState, bounds: object = None) -> ChunkLine:
        """Return the line with what is in the open transaction added."""
        done = self._done
        whole = whole_bounds(self._base)
        line = attrs.evolve(
            plus(self._line, done.counts),
            state=state,
            attempt=self._run.attempt,
            rows=self._line.rows + done.rows,
            bytes=self._line.bytes + done.bytes,
            batches=self._line.batches + len(done.batches),
            rejected=self._line.rejected + len(self._rejections),
        )
        if state is ChunkState.PARTIAL and isinstance(bounds, Chunk):
            return attrs.evolve(line, bounds=whole.left(bounds.bounds))
        return attrs.evolve(line, bounds=whole.whole)

    def _settle(self, line: ChunkLine) -> None:
        """Take note of a COMMIT."""
        done, rejected = self._done, self._rejections
        self._line, self._done, self._rejections = line, Tally(), []
        self._open = False
        self._first = None
        self._tell(line, done, rejected)

    def _tell(
        self, line: ChunkLine, done: Tally, rejected: Sequence[Rejection] = (), *, provisional: bool = False
    ) -> None:
        """Report what was not reported yet."""
        first, last = min(done.batches, default=0), max(done.batches, default=0)
        progress = Progress(
            line=line,
            first_batch=first,
            last_batch=last,
            rows=done.rows - done.rows_told,
            bytes=done.bytes - done.bytes_told,
            rejected=len(rejected),
            example=f"{rejected[0].position}: {rejected[0].error.message}" if rejected else None,
            provisional=provisional,
        )
        done.rows_told, done.bytes_told = done.rows, done.bytes
        if done.batches:
            done_so = "written" if provisional or not self._own else "committed"
            logger.debug("chunk %d: %s batches %d to %d: %d rows", line.number, done_so, first, last, progress.rows)
            self._report(progress)
        elif not provisional:
            self._report(progress)

    def _doubt(self, error: Error) -> Error:
        """Return what a COMMIT without an answer means."""
        return in_doubt(error, self._task, self._lane.ledger, self._run, self._line.number)

    def _recover(self, error: DataError) -> None:
        """Take what is in memory through again; raise for the first batch that cannot go, or quarantine rows."""
        group = self._group
        self._forget()
        if not group or not self._undoes:
            raise error
        again = self._writer.reconsider
        if not self._lane.savepoints:
            self._rollback()
            if self._piecewise:
                self._one_by_one(group, again(error))
            else:
                self._in_one(group, error, again(error))
            return
        self._undo()
        if again(error):
            try:
                self._attempt(group)
                return
            except DataError as second:
                logger.debug("a transaction of %d batches failed; taking them in halves", len(group))
                error = second
                self._writer.restore()
        self._halve(group, error)

    def _undo(self) -> None:
        """Get rid of what is written and not checked."""
        if self._saved:
            self._writer.restore()
            return
        # Nothing was checked in this transaction: start it again, and with a savepoint.
        self._rollback()
        self._begin()
        self._save()

    def _write(self, *batches: Batch) -> int:
        """Write batches, which stay in memory in the form that takes least of it; return what was sent, in bytes."""
        sent = 0
        for batch in batches:
            sent += self._writer.write(batch)
            batch.release()
        return sent

    def _attempt(self, batches: Sequence[Batch]) -> None:
        """Write some batches behind the savepoint and have them checked; on success the savepoint moves behind them."""
        sent = self._write(*batches)
        counts = self._writer.check()
        self._done.add(batches, counts)
        self._done.bytes += sent
        self._writer.save()

    def _put(self, batches: Sequence[Batch]) -> None:
        """Write some batches; those that are refused in halves."""
        self._context.token.check()
        while True:
            try:
                self._attempt(batches)
                return
            except DataError as error:
                self._writer.restore()
                if not self._writer.reconsider(error):
                    self._halve(batches, error)
                    return

    def _halve(self, batches: Sequence[Batch], error: DataError) -> None:
        """Take batches that were refused together through in two halves; end at what cannot be halved."""
        if self._reading.format.then is not None:
            raise error
        if len(batches) > 1:
            middle = len(batches) // 2
            self._put(batches[:middle])
            self._put(batches[middle:])
        elif not self._quarantines:
            raise self._blamed(batches[0], error)
        elif batches[0].rows > 1:
            batch = batches[0]
            middle = batch.rows // 2
            self._put([batch.take(0, middle)])
            self._put([batch.take(middle, batch.rows)])
        else:
            self._reject(batches[0], error)

    def _reject(self, row: Batch, error: DataError) -> None:
        error.row = self._base.rows + row.first_row
        error.batch, error.chunk = row.number, self._line.number
        masked(error, row.values(0, self._task.fields), self._task.intent.mask)
        where = position(self._task, self._line.number, error.row, row.number)
        self._rejections.append(Rejection(row=row, error=error, chunk=self._line.number, position=where))
        self._done.batches.add(row.number)
        self._done.rows += row.rows
        # The limit is that of the run; the caller adds up what the chunks report.
        if self._line.rejected + len(self._rejections) > self._config.quarantine.limit:
            raise too_many(self._config.quarantine.limit, self._task.rejected_to or "the quarantine", error.message)

    def _put_aside(self) -> None:
        """Try the rejected rows once more, now that all others are there, and put aside those that still do not go."""
        left = []
        self._writer.save()
        for rejection in self._rejections:
            try:
                sent = self._writer.write(rejection.row)
                counts = self._writer.check()
            except DataError:
                self._writer.restore()
                left.append(rejection)
            else:
                self._done.counts += counts
                self._done.bytes += sent
                self._writer.save()
        self._rejections = left
        if left:
            self._writer.reject(left)

    def _one_by_one(self, group: Sequence[Batch], again: bool) -> None:
        """Take batches through, each in a transaction of its own, where a writer has no savepoints."""
        if again:
            try:
                self._transaction(group)
                return
            except DataError:
                logger.debug("a transaction of %d batches failed; taking them one by one", len(group))
        for batch in group:
            self._context.token.check()
            try:
                self._transaction([batch])
            except DataError as refused:
                raise self._blamed(batch, refused)

    def _in_one(self, group: Sequence[Batch], error: DataError, again: bool) -> None:
        """Write batches once more in a new transaction, or find the one that is refused: nothing of a chunk is kept."""
        if again:
            self._begin()
            try:
                self._done.bytes += self._write(*group)
            except DataError as second:
                self._rollback()
                self._in_one(group, second, self._writer.reconsider(second))
                return
            self._group, self._size = list(group), sum(batch.size for batch in group)
            return
        raise self._blamed(self._refused(group), error)

    def _refused(self, group: Sequence[Batch]) -> Batch:
        """Return the batch with which a transaction is refused."""
        self._begin()
        try:
            for batch in group:
                self._context.token.check()
                self._write(batch)
                self._writer.check()
        except DataError:
            return batch
        finally:
            self._rollback()
        return group[-1]

    def _transaction(self, batches: Sequence[Batch]) -> None:
        while True:
            self._begin()
            try:
                sent = self._write(*batches)
                counts = self._writer.check() + self._writer.commit()
            except DataError as error:
                self._rollback()
                if not self._writer.reconsider(error):
                    raise
                continue
            self._done.add(batches, counts)
            self._done.bytes += sent
            self._settle(self._counted(ChunkState.PARTIAL))
            return

    def _rollback(self) -> None:
        self._open = False
        self._done = Tally()
        if self._own:
            self._writer.rollback()

    def _keep_what_is_good(self, error: DataError) -> None:
        """Commit the batches before the one that was refused, and write down what is left of the chunk."""
        if not self._open:
            return
        done = self._done.rows
        rest: Chunk | None = None
        keep = self._own and self._piecewise
        chunked = self._own and self._task.delivery is Delivery.CHUNKS
        if chunked and done and self._lane.ledger is not None and self._task.split.divisible:
            rest = self._lane.source.rest(self._reading, done)
            keep = rest is not None
        if not keep or not done:
            self._rollback()
            return
        if self._rejections:
            self._put_aside()
        line = self._counted(ChunkState.PARTIAL, rest)
        if self._lane.ledger is not None:
            self._lane.ledger.record(self._run, line, None if self._alone else self._line)
        try:
            line = plus(line, self._writer.commit())
        except Error as lost:
            self._open = False
            if lost.transient:
                raise self._doubt(lost) from None
            raise
        self._settle(line)

    def _blamed(self, batch: Batch, error: DataError) -> DataError:
        return located(batch, error, self._refusal, self._task, self._base)

    def _refusal(self, batch: Batch) -> DataError | None:
        """Write a batch, undo it, and return what was said against it."""
        behind = self._open and self._lane.savepoints
        if not behind:
            self._begin()
        try:
            self._writer.write(batch)
            self._writer.check()
        except DataError as error:
            return error
        finally:
            if behind:
                self._writer.restore()
            else:
                self._rollback()
        return None


def _close(batches: Iterator[Batch]) -> None:
    if isinstance(batches, Generator):
        batches.close()
