"""Move one chunk: read its batches, and write them in a transaction with their ledger line.

One transaction per batch would halve the speed. So a chunk goes into one transaction, and its rows stay in memory until
they are checked. If the destination refuses any, the rows in memory are written again in smaller parts
(``portl.execution.chunks.recovery``), and the chunk's remainder is recorded in its ledger line.

Whenever ``GROUP_BYTES`` of a chunk have accumulated, they are checked and secured by a savepoint, so that memory is
bounded whatever the size of a chunk.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator

import attrs

from portl.config.models import DEFAULT_BATCH_ROWS
from portl.connectors.exchange import Batch, Chunk, Reading
from portl.connectors.mirroring import PLACES
from portl.connectors.source import Source
from portl.execution.chunks.bad_rows import named
from portl.execution.chunks.recovery import Recovery
from portl.execution.chunks.transaction import ChunkTransaction
from portl.execution.chunks.work import Assignment
from portl.planning.delivery import Delivery, whole_bounds
from portl.values.errors import DataError, OperationError
from portl.values.runs import ChunkLine, ChunkState

logger = logging.getLogger("portl.execution")

#: The most bytes (plus one batch) kept in memory for writing again.
GROUP_BYTES = 24 * 1024 * 1024
#: The duration of a piece, if a chunk may be committed in pieces: short enough to show progress.
PIECE_SECONDS = 2.0
#: The size of the first piece; later ones are sized to take PIECE_SECONDS, up to GROUP_BYTES.
FIRST_PIECE_BYTES = 2 * 1024 * 1024
LEAST_PIECE_BYTES = 64 * 1024
#: Unless the job sets the batch size, a batch ends early at this size, so that wide rows do not fill memory.
BATCH_BYTES = 8 * 1024 * 1024


class ChunkLoad:
    """Moves one chunk.

    Args:
        assignment: the chunk, and what moves it.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._sessions = assignment.sessions
        self._piecewise = assignment.work.task.delivery is Delivery.REPEAT
        self._piece = min(FIRST_PIECE_BYTES, GROUP_BYTES)
        self._transaction = ChunkTransaction(assignment)
        # The batches that are written but not yet checked, and their size.
        self._group: list[Batch] = []
        self._size = 0
        size = assignment.work.config.batch_size
        self._reading = Reading(
            fields=assignment.work.task.fields,
            format=assignment.work.task.intent.format,
            chunk=Chunk(number=assignment.line.number, bounds=whole_bounds(assignment.line).rest),
            batch_rows=size or DEFAULT_BATCH_ROWS,
            batch_bytes=None if size else BATCH_BYTES,
            check=assignment.check,
        )

    @property
    def line(self) -> ChunkLine:
        """The chunk's line, as committed."""
        return self._transaction.line

    @property
    def route(self) -> str:
        """The route that the rows finally took."""
        return self._reading.format.route

    def load(self) -> ChunkLine:
        """Move the chunk; return its line.

        Raises:
            DataError: a row was refused; the line says what was kept.
            CommitInDoubt: the COMMIT got no answer.
        """
        then = self._reading.format.then
        if then is not None:
            try:
                return self._load()
            except DataError as error:
                logger.info("chunk %d goes by the route %s: %s", self.line.number, then.route, error.message)
                self._reading = attrs.evolve(self._reading, format=then)
        return self._load()

    def _load(self) -> ChunkLine:
        batches = self._read()
        try:
            self._transaction.begin()
            for batch in batches:
                self._assignment.context.token.check()
                self._add(batch)
                del batch  # otherwise it stays in memory while the next one is read
            self._commit(ChunkState.DONE)
        except DataError:
            batches.close()
            try:
                self._keep_what_is_good()
            finally:
                self._transaction.rollback()
            raise
        except BaseException:
            # The token ends the reading in another way than an error does: by cancelling it.
            batches.close()
            self._transaction.rollback()
            raise
        return self.line

    def _read(self) -> Generator[Batch, None, None]:
        """Yield the chunk's batches; name the row that the source cannot send."""
        batches = self._batches()
        try:
            yield from batches
        except DataError as error:
            if error.row is None:
                raise
            named(error, self._assignment.work.task, self.line)
            # Not a DataError any more: the destination refused nothing, so there is nothing to recover.
            raise OperationError(error.message, hint=error.hint, sqlstate=error.sqlstate) from None

    def _batches(self) -> Iterator[Batch]:
        source, reading, work = self._sessions.source, self._reading, self._assignment.work
        bounds = reading.chunk.bounds
        if work.wanted is None or bounds is None or bounds.get("by") != PLACES:
            return source.read(reading)
        # The keys are in the core's canonical form, not in the source's.
        key = work.task.intent.key
        whole = attrs.evolve(reading, chunk=Chunk(number=reading.chunk.number))
        return Source.select(source, whole, key.columns if key is not None else (), work.wanted)

    def _add(self, batch: Batch) -> None:
        transaction = self._transaction
        if not transaction.open:
            transaction.begin()
        self._group.append(batch)
        self._size += batch.size
        try:
            transaction.write([batch])
        except DataError as error:
            self._recover(error)
        if self._piecewise:
            if self._size >= self._piece or transaction.seconds >= PIECE_SECONDS:
                self._commit(ChunkState.PARTIAL)
                self._adapt(transaction.seconds)
        elif self._size >= GROUP_BYTES and self._sessions.savepoints:
            self._secure()
            if self._assignment.undoes:
                transaction.save()
            transaction.report_written()

    def _adapt(self, seconds: float) -> None:
        """Choose the size of the next piece so that it takes about PIECE_SECONDS, COMMIT included."""
        if seconds > PIECE_SECONDS:
            self._piece = max(self._piece // 2, LEAST_PIECE_BYTES)
        elif seconds < PIECE_SECONDS / 2:
            self._piece = min(self._piece * 2, GROUP_BYTES)

    def _secure(self) -> None:
        """Have the written batches checked, so that they need not be kept in memory."""
        while self._group:
            try:
                self._transaction.check(self._group)
            except DataError as error:
                self._recover(error)  # leaves either nothing to check, or the same batches written in another way
            else:
                self._forget()

    def _forget(self) -> None:
        self._group, self._size = [], 0

    def _recover(self, error: DataError) -> None:
        """Write the batches in memory again; raise for the first bad one, or reject its bad rows."""
        group, size = self._group, self._size
        self._forget()
        if not group or not self._assignment.undoes:
            raise error
        whole = self._reading.format.then is not None
        recovery = Recovery(self._assignment, self._transaction, retried_whole=whole)
        if self._sessions.savepoints:
            recovery.with_savepoints(group, error)
        elif self._piecewise:
            recovery.batch_by_batch(group, error)
        else:
            recovery.from_the_start(group, error)
            self._group, self._size = group, size

    def _commit(self, state: ChunkState) -> None:
        """Have everything checked, and commit it with the chunk's line."""
        transaction = self._transaction
        held = self._group
        if transaction.open:
            self._secure()
        if not transaction.open:  # nothing was read, or each batch was committed separately
            if state is not ChunkState.DONE or self._sessions.ledger is None:
                return
            transaction.begin()
        try:
            line = transaction.commit(state)
        except DataError as error:
            if self._sessions.savepoints:
                raise  # ``check`` misses only what happens at COMMIT, such as a deferred trigger
            self._group, self._size = held, sum(batch.size for batch in held)
            self._recover(error)
            self._commit(state)
        else:
            transaction.settle(line)  # outside the try block: an error raised by an observer is not a refusal

    def _keep_what_is_good(self) -> None:
        """Commit the batches before the refused one, and record the chunk's remainder."""
        transaction, task = self._transaction, self._assignment.work.task
        done = transaction.tally.rows
        if not transaction.open or not done or not self._assignment.transaction:
            return
        rest: Chunk | None = None
        if task.delivery is Delivery.CHUNKS and self._sessions.ledger is not None and task.split.divisible:
            rest = self._sessions.source.rest(self._reading, done)
        if rest is not None or self._piecewise:
            transaction.settle(transaction.commit(ChunkState.PARTIAL, rest))
