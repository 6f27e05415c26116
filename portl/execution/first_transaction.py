"""The first chunks of a table that portl creates: in the transaction that creates it.

Rows that a transaction writes into a table of its own making can be cheaper: a server may know then that nobody has to
be asked whether they are there (``Writer.fresh``). With a COMMIT after each chunk that would hold for the first chunk
alone, so the first seconds of a load are one transaction. No row of it can be undone by itself: one that is refused
undoes all of it, and its chunks come again one by one, each with what makes ``batch_size`` rows go or stay together. A
process that dies loses a few seconds' work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import attrs

from portl.connectors.context import Context
from portl.execution.chunks.load import ChunkLoad
from portl.execution.chunks.progress import Progress, in_doubt
from portl.execution.chunks.work import Assignment, Work, Worker
from portl.values.errors import Error
from portl.values.runs import ChunkLine

logger = logging.getLogger("portl.execution")

#: Seconds for which the transaction that makes a table goes on taking chunks.
FIRST_SECONDS = 5.0


class FirstTransaction:
    """One transaction with several chunks in it.

    Args:
        work: what is done.
        worker: with what.
        context: of the run.
        report: is told how far it came.
    """

    def __init__(self, work: Work, worker: Worker, context: Context, report: Callable[[Progress], None]) -> None:
        self._work = work
        self._worker = worker
        self._context = context
        self._report = report
        #: The lines of the chunks in it, by number.
        self.lines: dict[int, ChunkLine] = {}
        self._told: list[Progress] = []

    def load(self, todo: Sequence[ChunkLine], start: Callable[[], None]) -> None:
        """Move the first of some chunks, and commit; after an error nothing of it is there.

        Args:
            todo: lines of the chunks, in their order.
            start: writes the run down, at the beginning of the transaction.

        Raises:
            DataError: a row was refused; it may not be the first that would be.
            CommitInDoubt: the COMMIT got no answer.
        """
        began = time.monotonic()
        writer = self._worker.writer
        try:
            writer.begin()
            start()
            for line in todo:
                self._tell_written()
                self.lines[line.number] = self._load(line)
                if time.monotonic() - began >= FIRST_SECONDS:
                    break
        except BaseException:
            writer.rollback()
            raise
        try:
            writer.commit()
        except Error as error:
            if error.transient:
                work = self._work
                raise in_doubt(error, work.task, self._worker.ledger, work.run, max(self.lines)) from None
            raise
        logger.debug("chunks 1 to %d are committed with the table", max(self.lines))

    def _load(self, line: ChunkLine) -> ChunkLine:
        return ChunkLoad(
            Assignment(
                work=self._work,
                worker=self._worker,
                line=line,
                context=self._context,
                report=self._progress,
                transaction=False,
                undoes=False,
            )
        ).load()

    def tell(self) -> None:
        """Tell what is committed, chunk by chunk."""
        for progress in self._told:
            self._report(progress)

    def _progress(self, progress: Progress) -> None:
        if progress.provisional:
            self._report(progress)
        else:
            self._told.append(progress)  # of a chunk's end

    def _tell_written(self) -> None:
        """Tell of the chunk before that it is written: what is told with its rows now is told without them later."""
        if self._told:
            last = self._told.pop()
            self._report(attrs.evolve(last, provisional=True))
            self._told.append(attrs.evolve(last, rows=0, bytes=0))
