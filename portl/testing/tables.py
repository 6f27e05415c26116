"""The tables of the in-memory connector, and the writer that changes them in transactions."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Collection, Sequence
from typing import Any

import attrs

from portl.config.models import Strategy
from portl.connectors.comparer import Texts, canonical
from portl.connectors.context import Context
from portl.connectors.exchange import Batch, Counts, Intent, Rejection, RowBatch
from portl.connectors.writer import Writer
from portl.schema.tables import Column, Key, Table
from portl.testing.bookkeeping import MemoryLedger
from portl.values.errors import ConflictError, DataError, OperationError

#: Seconds between checks of the cancel token while another transaction holds the table.
POLL_SECONDS = 0.02

#: Numbers tables and quarantined rows.
numbers = itertools.count(1)


@attrs.define(kw_only=True)
class MemoryTable:
    """A table: its columns, its rows in insertion order, and its quarantine."""

    name: str
    columns: tuple[Column, ...]
    #: The columns of its primary key; empty if it has none.
    key: tuple[str, ...] = ()
    rows: list[tuple[Any, ...]] = attrs.field(factory=list)
    #: The version that wrote a row, by the ``id`` of its tuple.
    written: dict[int, int] = attrs.field(factory=dict, repr=False)
    #: ``id``, ``run``, ``chunk``, ``reason`` and ``row`` (column to value) of each quarantined row.
    rejected: list[dict[str, Any]] = attrs.field(factory=list)
    #: Incremented by each transaction that changes it.
    version: int = 0
    number: int = attrs.field(factory=lambda: next(numbers))
    #: Held by the transaction that writes to it.
    lock: threading.Lock = attrs.field(factory=threading.Lock, repr=False, eq=False)

    def put(self, rows: list[tuple[Any, ...]]) -> None:
        """Replace the rows. Rows that were already there keep the version that wrote them."""
        self.version += 1
        self.written = {id(row): self.written.get(id(row), self.version) for row in rows}
        self.rows = rows

    def described(self) -> Table:
        """Return the table as the core describes it."""
        keys = (Key(name=f"{self.name}_key", columns=self.key, primary=True),) if self.key else ()
        return Table(name=self.name, columns=self.columns, keys=keys, dialect="memory")


@attrs.define
class Work:
    """The state of a table in a transaction."""

    columns: tuple[Column, ...]
    key: tuple[str, ...]
    number: int
    rows: list[tuple[Any, ...]]
    #: The index of each key's row.
    places: dict[tuple[Any, ...], int]
    rejected: list[dict[str, Any]]
    counts: Counts = attrs.field(factory=Counts)

    def find(self) -> dict[tuple[Any, ...], int]:
        """Return the index of each key's row."""
        names = [column.name for column in self.columns]
        places = [names.index(name) for name in self.key]
        return {tuple([row[p] for p in places]): n for n, row in enumerate(self.rows)} if places else {}

    def copy(self) -> Work:
        """Return a copy for a savepoint."""
        return attrs.evolve(self, rows=list(self.rows), places=dict(self.places), rejected=list(self.rejected))


class MemoryWriter(Writer):
    """Writes in transactions, each on a copy that replaces the table's rows on COMMIT.

    Args:
        tables: the tables of the database.
        intent: the job.
        ledger: that of the same session; what it writes while a transaction is open is part of it.
        context: with the cancel token.
    """

    def __init__(self, tables: dict[str, MemoryTable], intent: Intent, ledger: MemoryLedger, context: Context) -> None:
        self._tables = tables
        self._intent = intent
        self._ledger = ledger
        self._context = context
        self._held: MemoryTable | None = None
        self._saved: Work | None = None
        self._work: Work | None = None

    @property
    def open(self) -> bool:
        """True while a transaction is open."""
        return self._work is not None

    @property
    def work(self) -> Work:
        """The state of the table in the open transaction."""
        if self._work is None:
            raise OperationError("no transaction is open")
        return self._work

    def begin(self) -> None:
        """See ``Writer.begin``. Waits while another transaction holds the table."""
        found = self._tables.get(self._intent.target.name)
        if found is None:
            key = self._intent.target.primary_key
            found = MemoryTable(
                name=self._intent.target.name, columns=self._intent.target.columns, key=key.columns if key else ()
            )
        while not found.lock.acquire(timeout=POLL_SECONDS):
            self._context.token.check()
        self._held = found
        names = [column.name for column in found.columns]
        extra = tuple(added for added in self._intent.add if added.name not in names)
        rows = [(*row, *([None] * len(extra))) for row in found.rows]
        work = self._work = Work(
            columns=(*found.columns, *extra),
            key=found.key,
            number=found.number,
            rows=rows,
            places={},
            rejected=list(found.rejected),
        )
        work.places = work.find()
        self._ledger.begin()

    def write(self, batch: Batch) -> int:
        """See ``Writer.write``."""
        assert isinstance(batch, RowBatch), "of the format ROWS"
        work = self.work
        names = [field.target.name for field in self._intent.fields]
        sources = [names.index(c.name) if c.name in names else None for c in work.columns]
        keys = [n for n, c in enumerate(work.columns) if c.name in work.key]
        keys.sort(key=lambda n: work.key.index(work.columns[n].name))
        for data in batch.data:
            row = tuple([None if place is None else data[place] for place in sources])
            self._check(row)
            self._put(row, tuple([row[n] for n in keys]))
        return batch.size

    def _check(self, row: tuple[Any, ...]) -> None:
        for found, value in zip(self.work.columns, row, strict=True):
            if value is None and not found.nullable:
                raise DataError(
                    f"column {found.name} must not be NULL", column=found.name, table=self._intent.target.name
                )
            if isinstance(value, str) and found.type.length is not None and len(value) > found.type.length:
                raise DataError(f"column {found.name} holds {found.type.length} characters", column=found.name)

    def _put(self, row: tuple[Any, ...], key: tuple[Any, ...]) -> None:
        work, strategy = self.work, self._intent.conflict.strategy
        place = work.places.get(key) if key and None not in key else None
        if place is None:
            if key:
                work.places[key] = len(work.rows)
            work.rows.append(row)
            work.counts += Counts(inserted=1)
        elif strategy is Strategy.FAIL or self._intent.key is None:
            raise ConflictError(f"the key {key!r} exists already", constraint=f"{self._intent.target.name}_key")
        elif strategy is Strategy.SKIP:
            work.counts += Counts(skipped=1)
        elif work.rows[place] == row:
            work.counts += Counts(unchanged=1)
        else:
            work.rows[place] = row
            work.counts += Counts(updated=1)

    def remove(self, keys: Collection[Texts]) -> int:
        """Remove the rows with these keys; return their number."""
        work = self.work
        types = [next(c.type for c in work.columns if c.name == name) for name in work.key]
        gone = {
            place
            for key, place in work.places.items()
            if tuple([canonical(value, type) for value, type in zip(key, types, strict=True)]) in keys
        }
        work.rows = [row for place, row in enumerate(work.rows) if place not in gone]
        work.places = work.find()
        return len(gone)

    def check(self) -> Counts:
        """See ``Writer.check``. Rows are checked as they are written."""
        counts, self.work.counts = self.work.counts, Counts()
        return counts

    def save(self) -> None:
        """See ``Writer.save``."""
        self._saved = self.work.copy()

    def restore(self) -> None:
        """See ``Writer.restore``."""
        assert self._saved is not None, "save comes first"
        self._work = self._saved.copy()

    def release(self) -> None:
        """See ``Writer.release``."""
        self._saved = None

    def reject(self, rejections: Sequence[Rejection]) -> None:
        """See ``Writer.reject``."""
        names = [field.target.name for field in self._intent.fields]
        for rejection in rejections:
            assert isinstance(rejection.row, RowBatch), "of the format ROWS"
            self.work.rejected.append(
                {
                    "run": self._intent.run,
                    "chunk": rejection.chunk,
                    "reason": rejection.error.message,
                    "row": dict(zip(names, rejection.row.data[0], strict=True)),
                    "id": next(numbers),
                }
            )

    def unreject(self, run: str, chunk: int | None = None) -> None:
        """See ``Writer.unreject``."""
        self.work.rejected = [
            entry for entry in self.work.rejected if entry["run"] != run or chunk not in (None, entry["chunk"])
        ]

    def commit(self) -> Counts:
        """See ``Writer.commit``."""
        work, held = self.work, self._held
        assert held is not None, "begin comes first"
        counts = self.check()
        self._ledger.commit()  # raises if the attempt was superseded
        held.columns, held.rejected = work.columns, work.rejected
        held.put(work.rows)
        self._tables[held.name] = held
        self._release()
        return counts

    def rollback(self) -> None:
        """See ``Writer.rollback``."""
        self._ledger.rollback()
        self._release()

    def _release(self) -> None:
        held, self._held, self._work, self._saved = self._held, None, None, None
        if held is not None:
            held.lock.release()

    def finish(self, record: Any = None) -> None:
        """See ``Writer.finish``."""
        if record is None:
            return
        opened = not self.open
        if opened:
            self.begin()
        record()
        if opened:
            self.commit()
