"""The state of tables in a run, and the queue of the remaining work."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import attrs

from portl.connectors.objects import SchemaObject
from portl.execution.chunks.work import Work
from portl.execution.tracking import Tracking
from portl.planning.request import TableSides
from portl.planning.tasks import TableTask
from portl.values.cancel import CancelToken
from portl.values.errors import Error
from portl.values.runs import ChunkLine, ChunkState, RunTable

#: From this many rows on, each index of a table is a separate piece of work.
LARGE_ROWS = 100_000
#: New tables of up to this many rows are moved together in one transaction; the most tables in one; and the fewest such
#: transactions, so that all workers have some.
SMALL_ROWS, BUNDLE_TABLES, BUNDLES = 2000, 50, 8


@attrs.define(kw_only=True, eq=False)
class TableWork:
    """The state of one table."""

    task: TableTask
    part: RunTable
    sides: TableSides
    work: Work
    tracking: Tracking
    #: The objects created as soon as its rows are there.
    after: tuple[SchemaObject, ...]
    #: Pieces of its rows that are still to be moved.
    left: int = 0
    #: Why it failed, if the other tables continue.
    failure: Error | None = None

    @property
    def rows(self) -> int:
        """Its approximate number of rows."""
        return self.task.count.rows if self.task.count is not None else 0

    @property
    def small(self) -> bool:
        """True if it is moved with others in one transaction: a new table of few rows, unlikely to be refused."""
        task = self.task
        one = len(task.split.chunks) == 1 and task.ordered is None and task.intent.quarantine is None
        return task.made and one and task.count is not None and task.count.rows <= SMALL_ROWS


@attrs.frozen(kw_only=True)
class Piece:
    """A worker's next task: move one chunk, several chunks in order, or several small tables; or finish tables whose
    rows are there.
    """

    tables: tuple[TableWork, ...]
    lines: tuple[ChunkLine, ...] = ()
    #: Objects to create, once all rows are there.
    objects: tuple[SchemaObject, ...] = ()
    #: True for what the destination does after the rows of a table that existed before.
    finish: bool = False
    #: The approximate amount of work.
    weight: float = 0.0


class Queue:
    """Pieces of work for several workers, the largest first; a table's last pieces follow when its rows are there.

    Args:
        tables: all tables.
        todo: the lines of unfinished chunks, by number.
        done: called when all rows of a table are there.
    """

    def __init__(
        self, tables: Iterable[TableWork], todo: dict[int, ChunkLine], done: Callable[[TableWork], None]
    ) -> None:
        self._told = done
        self._ready: list[tuple[float, int, Piece]] = []
        self._count = 0
        self._running = 0
        self._changed = threading.Condition()
        small: list[tuple[TableWork, ChunkLine]] = []
        #: The tables that others wait for, and the waiting pieces by the names of what they wait for.
        tables = list(tables)
        self._missing = {t.task.destination.name for t in tables if any(n in todo for n in t.part.numbers)}
        self._waiting: list[tuple[frozenset[str], Piece]] = []
        for table in tables:
            lines = [todo[n] for n in table.part.numbers if n in todo]
            if len(lines) == 1 and table.small and lines[0].state is ChunkState.PENDING:
                table.left = 1
                small.append((table, lines[0]))
                continue
            pieces = [tuple(lines)] if table.task.ordered is not None and lines else [(line,) for line in lines]
            table.left = len(pieces)
            share = max(1, table.rows) / max(1, len(table.task.split.chunks))
            for piece in pieces:
                self._put(Piece(tables=(table,), lines=piece, weight=share * len(piece)))
            if not pieces:
                self._finish((table,))
        self._bundle(small)

    def _bundle(self, small: list[tuple[TableWork, ChunkLine]]) -> None:
        """Bundle small tables, as many as fit well into one transaction."""
        most = max(1, min(BUNDLE_TABLES, -(-len(small) // BUNDLES)))
        small.sort(key=lambda found: -found[0].rows)
        for start in range(0, len(small), most):
            tables, lines = zip(*small[start : start + most], strict=True)
            self._put(Piece(tables=tables, lines=lines, weight=float(sum(table.rows for table in tables))))

    @contextmanager
    def taken(self, token: CancelToken) -> Iterator[Piece | None]:
        """Yield the next piece, waiting for one that may still come; None if none is left or the run is ending."""
        piece = self._take(token)
        try:
            yield piece
        finally:
            if piece is not None:
                self._done(piece)

    def _take(self, token: CancelToken) -> Piece | None:
        with self._changed:
            while not self._ready and self._running and not token.cancelled:
                self._changed.wait(0.2)
            if not self._ready or token.cancelled:
                return None
            self._running += 1
            return heapq.heappop(self._ready)[-1]

    def _done(self, piece: Piece) -> None:
        with self._changed:
            self._running -= 1
            if piece.lines:
                for table in piece.tables:
                    table.left -= 1
                self._finish(tuple(table for table in piece.tables if not table.left))
            self._changed.notify_all()

    def _put(self, piece: Piece) -> None:
        waits = frozenset[str]() if len(piece.tables) > 1 else piece.tables[0].task.waits_for & self._missing
        if piece.lines and waits:
            self._waiting.append((waits, piece))
            return
        self._count += 1
        heapq.heappush(self._ready, (-piece.weight, self._count, piece))

    def _finish(self, tables: tuple[TableWork, ...]) -> None:
        """Queue what follows the rows of some tables, ahead of further rows, so that indexes are not left for last."""
        if any(table.task.destination.name in self._missing for table in tables):
            self._missing -= {table.task.destination.name for table in tables}
            waiting, self._waiting = self._waiting, []
            for _, piece in waiting:
                self._put(piece)
        tables = tuple(table for table in tables if table.failure is None)
        for table in tables:
            self._told(table)
        if len(tables) > 1:
            objects = tuple(found for table in tables for found in table.after)
            if objects:
                self._put(Piece(tables=tables, objects=objects, weight=float("inf")))
            return
        for table in tables:
            pieces = _pieces(table.after) if table.rows >= LARGE_ROWS else [table.after]
            for made in filter(None, pieces):
                self._put(Piece(tables=(table,), objects=tuple(made), weight=float(table.rows)))
            if not table.task.made:
                self._put(Piece(tables=(table,), finish=True, weight=float(table.rows)))


def _pieces(objects: Sequence[SchemaObject]) -> list[Sequence[SchemaObject]]:
    """Return groups of objects that can be created concurrently, each object with its properties."""
    pieces: dict[str, list[SchemaObject]] = {}
    for found in objects:
        owner = next((name for name in pieces if found.property and name == found.name), None)
        pieces.setdefault(owner or found.name, []).append(found)
    return list(pieces.values())
