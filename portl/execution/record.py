"""A run as the ledger records it: its chunk lines, whether it has been recorded, and how its attempt ends.

If the destination has no ledger, the lines are only kept here, in memory.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from portl.connectors.ledger import Ledger
from portl.connectors.writer import Writer
from portl.planning import delivery
from portl.planning.delivery import Delivery
from portl.planning.request import Sides
from portl.planning.tasks import TableTask
from portl.values import events
from portl.values.errors import CommitInDoubt, Error, Superseded
from portl.values.runs import ChunkLine, ChunkState, Run, RunState, RunTable

logger = logging.getLogger("portl.execution")


class RunRecord:
    """One table's run and its chunk lines.

    Args:
        task: that of the table.
        sides: both sides, open, with the job's lock held.
        run_id: the caller's idempotency key.
        tables: those of a job of many; ``task`` is then any of them, with the chunks of all.
    """

    def __init__(self, task: TableTask, sides: Sides, run_id: str | None, tables: tuple[RunTable, ...] = ()) -> None:
        self._task = task
        self._sides = sides
        self.ledger = sides.ledger
        #: The new run, until ``enter`` has resumed another.
        self.run = Run(
            id=str(uuid.uuid4()), job=task.job, identity=task.identity, idempotency_key=run_id, tables=tables
        )
        self.lines: dict[int, ChunkLine] = {}
        #: True once the ledger has the run, with this attempt as its last.
        self.entered = False
        #: Chunks that are copied again, with their quarantined rows.
        self.repeated: set[int] = set()
        #: Rows that earlier attempts moved.
        self.earlier_rows = 0

    @property
    def id(self) -> str:
        """The id of the run that the rows will belong to."""
        return self._task.run.id if self._task.run is not None else self.run.id

    @property
    def complete(self) -> Run:
        """The run with its lines."""
        return attrs.evolve(self.run, chunks=tuple(self.lines.values()))

    @property
    def todo(self) -> list[ChunkLine]:
        """The lines of unfinished chunks, in order."""
        return [line for _, line in sorted(self.lines.items()) if line.state is not ChunkState.DONE]

    def enter(self, tables: Mapping[str, Mapping[str, Any]] | None = None) -> events.Resumed | None:
        """Resume the interrupted run, or prepare a new one, which ``start`` records.

        Args:
            tables: what tells apart the state of each of many tables (``Run.of``).

        Returns:
            The event, if a run is resumed.
        """
        snapshot = {**self._sides.source.snapshot(), **({"tables": tables} if tables is not None else {})}
        if self.ledger is not None:
            self.ledger.prepare()
        if self._task.run is None or self.ledger is None:
            self._begin({1: snapshot})
            return None
        return self._resume(self.ledger, self._task.run, snapshot)

    def _begin(self, snapshots: Mapping[int, Mapping[str, Any]]) -> None:
        self.run = attrs.evolve(
            self.run,
            snapshots=snapshots,
            source=self._sides.source.label(),
            destination=self._sides.destination.label(),
            resumable=self._task.delivery is Delivery.CHUNKS,
            chunks=tuple(ChunkLine(number=c.number, bounds=c.bounds) for c in self._task.split.chunks),
        )
        self.keep(self.run.chunks)

    def _resume(self, ledger: Ledger, earlier: Run, snapshot: Mapping[str, Any]) -> events.Resumed:
        attempt = earlier.attempt + 1
        run = attrs.evolve(
            earlier,
            attempt=attempt,
            snapshots={**earlier.snapshots, attempt: snapshot},
            idempotency_key=self.run.idempotency_key or earlier.idempotency_key,
        )
        ledger.resume(run)
        self.run, self.entered = run, True
        lines = ledger.lines(run)
        if self._task.recopy:
            self.repeated = {line.number for line in lines if line.rejected}
            lines = [delivery.again(line) if line.attempt < attempt else line for line in lines]
        self.keep(lines)
        self.earlier_rows = sum(line.rows for line in lines)
        return events.Resumed(
            job=run.job,
            attempt=attempt,
            started=run.started.isoformat(timespec="seconds") if run.started else None,
            chunks_done=sum(line.state is ChunkState.DONE for line in lines),
            chunks=len(lines),
            rows=self.earlier_rows,
        )

    def keep(self, lines: Iterable[ChunkLine]) -> None:
        """Note the current lines of chunks."""
        self.lines.update((line.number, line) for line in lines)

    def committed(self, line: ChunkLine) -> None:
        """Note a chunk's line after a COMMIT, the first of which also recorded the run."""
        self.lines[line.number] = line
        self.entered = self.ledger is not None

    def begun(self, number: int) -> None:
        """Note that a chunk is being moved, perhaps again; one delivered in pieces starts over."""
        line = self.lines[number]
        if self._task.delivery is Delivery.REPEAT:
            if line.rejected:
                self.repeated.add(number)
            self.lines[number] = delivery.again(line)

    def start(self, writer: Writer | None = None) -> None:
        """Record a new run, in the first transaction of its rows."""
        if self.ledger is None or self.entered:
            return
        if not self.run.tables:
            self.run = attrs.evolve(self.run, incarnation=self._sides.destination.incarnation())
        self.ledger.start(self.run)
        earlier = self._task.found
        # This run starts over for an interrupted one, or is a mirror, which compares all rows again.
        replaces = earlier is not None and (self._task.intent.mirror or earlier.state is not RunState.DONE)
        if writer is not None and earlier is not None and replaces and any(line.rejected for line in earlier.chunks):
            writer.unreject(earlier.id)

    def refresh(self) -> None:
        """Read the lines again: a server that lost its last commits in a crash has lost their lines too."""
        assert self.ledger is not None, "without one there is nothing to read"
        self.lines = {line.number: line for line in self.ledger.lines(self.run)}

    def see_what_stands(self, error: BaseException) -> None:
        """Read the ledger after a failure: a COMMIT may have succeeded although it got no answer."""
        if self.ledger is None or isinstance(error, CommitInDoubt) or not self._sides.destination.holds():
            return
        try:
            self.refresh()
        except Superseded:
            return  # the first transaction did not get that far
        except Error as second:
            logger.warning("what is committed could not be looked up: %s", second)
            return
        self.entered = True

    def close(self, state: RunState, error: str) -> None:
        """Record how the attempt ended, if there is a ledger and it can be reached."""
        if self.ledger is not None and self._sides.destination.holds():
            self.ledger.close(self.run, state, error)
