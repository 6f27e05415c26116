"""The first chunks of a table that portl creates, in the transaction that creates it.

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
from typing import TYPE_CHECKING

import attrs

from portl.execution.progress import Progress, in_doubt
from portl.values.errors import Error

if TYPE_CHECKING:
    from portl.connectors.context import Context
    from portl.execution.progress import Lane
    from portl.execution.workers import Work
    from portl.values.runs import ChunkLine

logger = logging.getLogger("portl.execution")

#: Seconds for which the transaction that makes a table goes on taking chunks.
OPENING_SECONDS = 5.0


class Opening:
    """One transaction with several chunks in it.

    Args:
        work: what is done.
        lane: with what.
        context: of the run.
        report: is told how far it came.
    """

    def __init__(self, work: Work, lane: Lane, context: Context, report: Callable[[Progress], None]) -> None:
        self._work = work
        self._lane = lane
        self._context = context
        self._report = report
        self._lines: dict[int, ChunkLine] = {}
        self._told: list[Progress] = []

    @property
    def lines(self) -> dict[int, ChunkLine]:
        """The lines of the chunks in it, by number."""
        return self._lines

    def load(self, todo: Sequence[ChunkLine], start: Callable[[], None]) -> None:
        """Move the first of some chunks, and commit; after an error nothing of it is there.

        Args:
            todo: lines of the chunks, in their order.
            start: writes the run down, at the beginning of the transaction.

        Raises:
            DataError: a row was refused; it may not be the first that would be.
            CommitInDoubt: the COMMIT got lost.
        """
        began = time.monotonic()
        try:
            self._lane.writer.begin()
            start()
            for line in todo:
                self._tell_written()
                load = self._work.load(self._lane, line, self._context, self._progress, transaction=False, undoes=False)
                self._lines[line.number] = load.load()
                if time.monotonic() - began >= OPENING_SECONDS:
                    break
        except BaseException:
            self._lane.writer.rollback()
            raise
        try:
            self._lane.writer.commit()
        except Error as error:
            if error.transient:
                raise in_doubt(error, self._work.task, self._lane.ledger, self._work.run, max(self._lines)) from None
            raise
        logger.debug("chunks 1 to %d are committed with the table", max(self._lines))

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
