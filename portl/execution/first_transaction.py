"""The first chunks of a table that portl creates, in the transaction that creates it.

Rows can be cheaper to write in the transaction that creates their table, because the server knows that no other session
can see them (``Writer.fresh``). With a COMMIT after each chunk, that would benefit only the first chunk, so the first
seconds of a load are one transaction. Its rows cannot be undone separately: a refused row undoes everything, and the
chunks are moved again one by one, in the usual way that lets ``batch_size`` rows succeed or fail together. A process
that dies loses a few seconds' work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import attrs

from portl.connectors.context import Context
from portl.execution.chunks.load import ChunkLoad
from portl.execution.chunks.progress import Progress
from portl.execution.chunks.work import Assignment, Report, Sessions, Work
from portl.execution.telling import moving
from portl.values.runs import ChunkLine

logger = logging.getLogger("portl.execution")

#: Seconds for which the transaction that creates a table keeps taking chunks.
FIRST_SECONDS = 5.0


class FirstTransaction:
    """One transaction with several chunks.

    Args:
        work: that of the table.
        sessions: those of the run.
        context: that of the run.
        report: called as rows are written, and by ``tell`` for the COMMIT.
    """

    def __init__(self, work: Work, sessions: Sessions, context: Context, report: Report) -> None:
        self._work = work
        self._sessions = sessions
        self._context = context
        self._report = report
        #: The lines of the chunks in it, by number.
        self.lines: dict[int, ChunkLine] = {}
        #: What to report once it is committed, by chunk.
        self._told: list[Progress] = []

    def load(self, todo: Sequence[ChunkLine], start: Callable[[], None]) -> None:
        """Move the first of these chunks, and commit; after an error nothing is left behind.

        Args:
            todo: the lines of the chunks, in order.
            start: records the run, at the beginning of the transaction.

        Raises:
            DataError: a row was refused, not necessarily the first bad one.
            CommitInDoubt: the COMMIT got no answer.
        """
        began = time.monotonic()
        with self._sessions.transaction(self._work, todo[0].number):
            start()
            for line in todo:
                self._tell_written()
                with moving(self._context, [self._work.task.destination.name], chunk=line.number, worker=0) as moved:
                    self.lines[line.number] = self._load(line)
                    moved.rows = self.lines[line.number].rows
                if time.monotonic() - began >= FIRST_SECONDS:
                    break
        logger.debug("chunks 1 to %d are committed with the table", max(self.lines))

    def _load(self, line: ChunkLine) -> ChunkLine:
        assignment = Assignment(
            work=self._work,
            sessions=self._sessions,
            line=line,
            context=self._context,
            report=self._progress,
            transaction=False,
            undoes=False,
        )
        return ChunkLoad(assignment).load()

    def tell(self) -> None:
        """Report the committed chunks, one by one."""
        for progress in self._told:
            self._report(progress)

    def _progress(self, progress: Progress) -> None:
        if progress.provisional:
            self._report(progress)
        else:
            self._told.append(progress)  # the chunk is complete

    def _tell_written(self) -> None:
        """Report the last chunk as written; its rows are counted now, and not again when it is committed."""
        if self._told:
            last = self._told[-1]
            self._report(attrs.evolve(last, provisional=True))
            self._told[-1] = attrs.evolve(last, rows=0, bytes=0)
