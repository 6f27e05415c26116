"""The transaction at the destination that a chunk's rows are written in: its contents, and how it ends.

===========  ==============================================================  =========================================
state        contents                                                        transitions
===========  ==============================================================  =========================================
closed       nothing; ``line`` says how much of the chunk is committed       ``begin``
open         checked rows (``tally``), and rows that are only written        ``save``; ``commit``, ``rollback``
open, saved  the same; rows since the savepoint can be undone separately     ``undo``; ``commit``, ``rollback``
===========  ==============================================================  =========================================

``commit`` quarantines the rejected rows and writes the chunk's line; ``settle`` makes that line the current one and
reports it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

import attrs

from portl.connectors.exchange import Batch, Chunk, Counts, Rejection
from portl.connectors.writer import Writer
from portl.execution.chunks.progress import Progress, Tally, plus
from portl.execution.chunks.work import Assignment
from portl.planning.delivery import whole_bounds
from portl.values.errors import DataError
from portl.values.runs import ChunkLine, ChunkState

logger = logging.getLogger("portl.execution")


class ChunkTransaction:
    """The successive transactions of one chunk.

    Args:
        assignment: the chunk.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._sessions = assignment.sessions
        self._writer = assignment.sessions.writer
        self._before: Callable[[], None] | None = assignment.begin
        #: The chunk's line, as committed.
        self.line = assignment.line
        self.open = False
        self._saved = False
        self._since = 0.0
        #: Counts of rows that are checked but not committed yet.
        self.tally = Tally()
        self.rejections: list[Rejection] = []

    @property
    def seconds(self) -> float:
        """The time since it was opened."""
        return time.monotonic() - self._since

    def begin(self) -> None:
        """Open it; or, inside the caller's transaction, which contains more than this chunk, set a savepoint."""
        if self._assignment.transaction:
            self._writer.begin()
        self.open, self._saved = True, False
        self._since = time.monotonic()
        if self._before is not None:
            self._before()
        if not self._assignment.transaction and self._assignment.undoes:
            self.save()

    def save(self) -> None:
        """Set a savepoint after the checked rows."""
        self._writer.save()
        self._saved = True

    def write(self, batches: Sequence[Batch]) -> None:
        """Write batches, which stay in memory in their smallest form."""
        self.tally.bytes += written(self._writer, batches)

    def check(self, batches: Sequence[Batch]) -> None:
        """Have everything written so far checked, and count it.

        Raises:
            DataError: a row is refused.
        """
        self.tally.add(batches, self._writer.check())

    def put(self, batches: Sequence[Batch]) -> None:
        """Write batches after the savepoint, check and count them.

        Raises:
            DataError: a row is refused; nothing of them is there.
        """
        sent, counts = put(self._writer, batches)
        self.tally.add(batches, counts, sent)

    def undo(self) -> None:
        """Undo what is written but not checked, back to a savepoint."""
        if self._saved:
            self._writer.restore()
            return
        self.rollback()  # nothing was checked in it
        self.begin()
        self.save()

    def rollback(self) -> None:
        """Undo everything in it, if it is open; a transaction that the caller opened is left to the caller."""
        if self.open and self._assignment.transaction:
            self._writer.rollback()
        self.open = False
        self.tally = Tally()

    def commit(self, state: ChunkState, rest: Chunk | None = None) -> ChunkLine:
        """Quarantine rejected rows, write the chunk's line, and commit; return the line, for ``settle``.

        Args:
            state: the chunk's state after the commit.
            rest: the chunk's remainder, if the source can tell it.

        Raises:
            DataError: a row is refused only now; nothing of it is there.
            CommitInDoubt: the COMMIT got no answer.
        """
        if self.rejections:
            self._quarantine()
        line = self._counted(state, rest)
        if self._sessions.ledger is not None:
            before = None if self._assignment.alone else self.line
            self._sessions.ledger.record(self._assignment.work.run, line, before)
        if self._assignment.transaction:
            self.open = False
            return plus(line, self._sessions.commit(self._assignment.work, line.number))
        if self._sessions.savepoints:
            self._writer.release()
        return line

    def commit_alone(self, batches: Sequence[Batch]) -> None:
        """Write batches and commit them separately, for a writer without savepoints.

        Raises:
            DataError: a row is refused; nothing of them is there.
        """
        while True:
            self.begin()
            try:
                sent = written(self._writer, batches)
                counts = self._writer.check() + self._writer.commit()
            except DataError as error:
                self.rollback()
                if not self._writer.reconsider(error):
                    raise
                continue
            self.tally.add(batches, counts, sent)
            self.settle(self._counted(ChunkState.PARTIAL))
            return

    def settle(self, line: ChunkLine) -> None:
        """Make a committed line current, and report it."""
        tally, rejected = self.tally, self.rejections
        self.line, self.tally, self.rejections = line, Tally(), []
        self.open = False
        self._before = None
        self._report(line, tally, rejected)

    def report_written(self) -> None:
        """Report rows that are checked in a transaction that stays open."""
        self._report(self.line, self.tally, provisional=True)

    def _report(
        self, line: ChunkLine, tally: Tally, rejected: Sequence[Rejection] = (), *, provisional: bool = False
    ) -> None:
        if provisional and not tally.batches:
            return
        first, last = min(tally.batches, default=0), max(tally.batches, default=0)
        progress = Progress(
            line=line,
            first_batch=first,
            last_batch=last,
            rows=tally.rows - tally.rows_told,
            bytes=tally.bytes - tally.bytes_told,
            rejected=len(rejected),
            example=f"{rejected[0].position}: {rejected[0].error.message}" if rejected else None,
            reasons=Counter(found.error.reason for found in rejected),
            provisional=provisional,
        )
        tally.rows_told, tally.bytes_told = tally.rows, tally.bytes
        if tally.batches:
            done = "written" if provisional or not self._assignment.transaction else "committed"
            logger.debug("chunk %d: %s batches %d to %d: %d rows", line.number, done, first, last, progress.rows)
        self._assignment.report(progress)

    def _counted(self, state: ChunkState, rest: Chunk | None = None) -> ChunkLine:
        """Return the line with the counts of the open transaction added."""
        tally = self.tally
        bounds = whole_bounds(self._assignment.line)
        line = attrs.evolve(
            plus(self.line, tally.counts),
            state=state,
            attempt=self._assignment.work.run.attempt,
            rows=self.line.rows + tally.rows,
            bytes=self.line.bytes + tally.bytes,
            batches=self.line.batches + len(tally.batches),
            rejected=self.line.rejected + len(self.rejections),
        )
        return attrs.evolve(line, bounds=bounds.left(rest.bounds) if rest is not None else bounds.whole)

    def _quarantine(self) -> None:
        """Try the rejected rows again, now that all others are there, and quarantine those still refused."""
        left = []
        self._writer.save()
        for rejection in self.rejections:
            try:
                sent, counts = put(self._writer, [rejection.row])
            except DataError:
                left.append(rejection)
            else:
                self.tally.add([], counts, sent)
        self.rejections = left
        if left:
            self._writer.reject(left)


def written(writer: Writer, batches: Sequence[Batch]) -> int:
    """Write batches, which stay in memory in their smallest form; return the bytes sent."""
    sent = 0
    for batch in batches:
        sent += writer.write(batch)
        batch.release()
    return sent


def put(writer: Writer, batches: Sequence[Batch]) -> tuple[int, Counts]:
    """Write batches after the savepoint and have them checked; then move the savepoint after them.

    Returns:
        The bytes sent, and the counts of the rows.

    Raises:
        DataError: a row is refused; nothing of them is there.
    """
    try:
        sent = written(writer, batches)
        counts = writer.check()
    except DataError:
        writer.restore()
        raise
    writer.save()
    return sent, counts
