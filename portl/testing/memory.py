"""A connector whose tables are lists in this process: a double for tests of programs that use portl.

::

    from portl.testing import memory

    shop = memory.database("shop")
    shop.create("users", [memory.column("id", "int"), memory.column("name", "text")], key=["id"])
    shop.insert("users", [(1, "Ann"), (2, None)])
    portl.migrate({"source": {"type": "memory", "database": "shop", "table": "users"}, "destination": …})

It does what a destination can do: transactions with savepoints, a ledger, conflict strategies but ``merge``, a
quarantine, several lanes, taking runs up. Values are kept as they come. Importing this module registers it under the
name ``memory``; nothing of it outlives the process.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import attrs

from portl.config import DestinationConfig, LedgerConfig, LedgerMode, SourceConfig, Strategy
from portl.connectors import (
    Batch,
    Chunk,
    Connector,
    Context,
    Counts,
    Destination,
    Examination,
    Field,
    Finding,
    Intent,
    Reading,
    Rejected,
    Rejection,
    RowBatch,
    RowCount,
    Source,
    Split,
    Splitting,
    Writer,
    note,
    problem,
    warning,
)
from portl.errors import ConflictError, DataError, OperationError, SchemaError
from portl.ledger import ChunkLine, ChunkState, Ledger, Run
from portl.plugins import register
from portl.schema import Column, Key, Kind, Table, Type
from portl.testing.bookkeeping import MemoryLedger, Runs

#: Bytes that a row is taken to have when a table is cut into chunks.
ROW_BYTES = 100
#: Seconds between two looks at the token while another transaction holds the table.
POLL_SECONDS = 0.02

_numbers = itertools.count(1)
_databases: dict[str, Database] = {}


def database(name: str) -> Database:
    """Return the database of a name, which is there from the first call on."""
    return _databases.setdefault(name, Database(name))


def forget(*names: str) -> None:
    """Drop databases; all of them if none is named."""
    for name in names or tuple(_databases):
        _databases.pop(name, None)


def column(name: str, type: Type | Kind | str, *, nullable: bool = True) -> Column:
    """Return a column of a generic type; its name will do where the type has no parameters."""
    found = type if isinstance(type, Type) else Type(kind=Kind(type))
    return Column(name=name, type=found, native=str(found), nullable=nullable)


@attrs.define(kw_only=True)
class MemoryTable:
    """A table: its columns, its rows in the order in which they came, and rows that were put aside."""

    name: str
    columns: tuple[Column, ...]
    #: The columns of its primary key; empty if it has none.
    key: tuple[str, ...] = ()
    rows: list[tuple[Any, ...]] = attrs.field(factory=list)
    #: ``id``, ``run``, ``chunk``, ``reason`` and ``row`` (column to value) of each row that was put aside.
    rejected: list[dict[str, Any]] = attrs.field(factory=list)
    #: Grows with each transaction that changes it.
    version: int = 0
    number: int = attrs.field(factory=lambda: next(_numbers))
    #: Held by the transaction that writes to it.
    lock: threading.Lock = attrs.field(factory=threading.Lock, repr=False, eq=False)

    def described(self) -> Table:
        """Return it as the core sees it."""
        keys = (Key(name=f"{self.name}_key", columns=self.key, primary=True),) if self.key else ()
        return Table(name=self.name, columns=self.columns, keys=keys, dialect="memory")


class Database:
    """Tables by name, and a ledger."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tables: dict[str, MemoryTable] = {}
        self.runs = Runs()

    def create(self, table: str, columns: Iterable[Column], *, key: Iterable[str] = ()) -> MemoryTable:
        """Make a table, in place of one that has the name already."""
        self.tables[table] = MemoryTable(name=table, columns=tuple(columns), key=tuple(key))
        return self.tables[table]

    def insert(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows as they are."""
        found = self.tables[table]
        found.rows = [*found.rows, *map(tuple, rows)]
        found.version += 1

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """Return the rows of a table; none if there is no such table."""
        return list(self.tables[table].rows) if table in self.tables else []


_HERE = "a database in memory cannot be reached from another process"


def _reached(config: MemorySourceConfig | MemoryDestinationConfig, handle: object | None) -> Database:
    return handle if isinstance(handle, Database) else database(config.database)


@attrs.frozen(kw_only=True)
class MemorySourceConfig(SourceConfig):
    """What the source understands."""

    #: The database's name.
    database: str
    #: The table's name.
    table: str


class MemorySource(Source[MemorySourceConfig]):
    """Reads the rows that are there when it is opened. Chunks are ranges of positions."""

    _snapshot: tuple[MemoryTable, list[tuple[Any, ...]]] | None = None

    def open(self, context: Context) -> None:
        """See ``Source.open``."""
        super().open(context)
        if self._snapshot is None:
            found = _reached(self.config, self.handle).tables.get(self.config.table)
            if found is None:
                raise SchemaError(f"source {self.label()}: there is no table {self.config.table}")
            self._snapshot = found, found.rows[: self.config.limit]

    @property
    def _table(self) -> MemoryTable:
        assert self._snapshot is not None, "open comes first"
        return self._snapshot[0]

    @property
    def _rows(self) -> list[tuple[Any, ...]]:
        assert self._snapshot is not None, "open comes first"
        return self._snapshot[1]

    def label(self) -> str:
        """See ``Source.label``."""
        return f"memory {self.config.database}"

    def describe(self) -> Table:
        """See ``Source.describe``."""
        return self._table.described()

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """See ``Source.rows``."""
        return iter(self._rows)

    def count(self, *, exact: bool) -> RowCount:
        """See ``Source.count``."""
        return RowCount(rows=len(self._rows), exact=True)

    def split(self, splitting: Splitting) -> Split:
        """See ``Source.split``."""
        size = splitting.chunk_rows or max(1, splitting.chunk_bytes // ROW_BYTES)
        ends = [*range(0, len(self._rows), size), len(self._rows)] if self._rows else [0, 0]
        chunks = [
            Chunk(number=number, bounds={"from": start, "to": end}, rows=end - start)
            for number, (start, end) in enumerate(itertools.pairwise(ends), 1)
        ]
        return Split(chunks=tuple(chunks), by="positions", reason="", resumable=True, divisible=True)

    def snapshot(self) -> Mapping[str, Any]:
        """See ``Source.snapshot``."""
        return {"table": self._table.number, "version": self._table.version}

    def resumable(self, lines: Sequence[ChunkLine], run: Run, *, repeatable: bool) -> list[Finding]:
        """See ``Source.resumable``: positions mean the same rows as long as nobody writes to the table."""
        changed = any(snapshot != self.snapshot() for snapshot in run.snapshots.values())
        if not changed or not any(line.state is not ChunkState.PENDING for line in lines):
            return []
        said = f"{self.config.table} has changed since"
        return [warning("resume", said) if repeatable else problem("resume", said, "`--restart` begins again")]

    def read(self, reading: Reading) -> Iterator[Batch]:
        """See ``Source.read``."""
        bounds = reading.chunk.bounds or {"from": 0, "to": len(self._rows)}
        names = [column.name for column in self._table.columns]
        places = [names.index(field.source.name) for field in reading.fields]
        first = 1
        for number, start in enumerate(range(bounds["from"], bounds["to"], reading.batch_rows), 1):
            rows = self._rows[start : min(start + reading.batch_rows, bounds["to"])]
            data = [tuple([row[place] for place in places]) for row in rows]
            size = ROW_BYTES * len(data)
            yield RowBatch(number=number, first_row=first, rows=len(data), size=size, data=data)
            first += len(data)

    def rest(self, reading: Reading, rows: int) -> Chunk | None:
        """See ``Source.rest``."""
        bounds = reading.chunk.bounds or {"from": 0, "to": len(self._rows)}
        start = bounds["from"] + rows
        if start >= bounds["to"]:
            return None
        return attrs.evolve(reading.chunk, bounds={"from": start, "to": bounds["to"]})

    def sibling(self) -> MemorySource:
        """See ``Source.sibling``."""
        found = MemorySource(self.config, self.handle)
        found._snapshot = self._snapshot
        return found

    def __reduce__(self) -> NoReturn:
        """Refuse: what is in the memory of one process cannot be reached from another."""
        raise TypeError(_HERE)


@attrs.frozen(kw_only=True)
class MemoryDestinationConfig(DestinationConfig):
    """What the destination understands."""

    #: The database's name.
    database: str
    #: The table's name.
    table: str


class MemoryDestination(Destination[MemoryDestinationConfig]):
    """Writes to a table. Each of its writers has its transaction."""

    strategies: ClassVar[Collection[Strategy]] = (Strategy.FAIL, Strategy.OVERWRITE, Strategy.SKIP)
    savepoints: ClassVar[bool] = True

    def __init__(self, config: MemoryDestinationConfig, handle: object | None = None) -> None:
        super().__init__(config, handle)
        self._database = _reached(config, handle)
        self._ledger = MemoryLedger(self._database.runs)
        self._writer: MemoryWriter | None = None

    def close(self) -> None:
        """See ``Destination.close``: what is open is undone, and the job's lock let go of."""
        if self._writer is not None:
            self._writer.rollback()
        self._ledger.unlock()

    def label(self) -> str:
        """See ``Destination.label``."""
        return f"memory {self.config.database}"

    def describe(self) -> Table | None:
        """See ``Destination.describe``."""
        found = self._database.tables.get(self.config.table)
        return found.described() if found is not None else None

    def propose(self, source: Table, columns: Mapping[str, Column]) -> Table:
        """See ``Destination.propose``."""
        known = tuple(column(c.name, c.type, nullable=c.nullable) for c in columns.values())
        key = source.primary_key
        names = tuple(columns[name].name for name in key.columns if name in columns) if key else ()
        whole = names if key and len(names) == len(key.columns) else ()
        return MemoryTable(name=self.config.table, columns=known, key=whole).described()

    def examine(self, intent: Intent) -> Examination:
        """See ``Destination.examine``."""
        before = [f"create {intent.target.name}"] if intent.create else []
        before += [f"add {added.name} to {intent.target.name}" for added in intent.add]
        aside = f"{self.config.table}, rejected" if intent.quarantine is not None else None
        return Examination(before=tuple(before), write=(f"append to {intent.target.name}",), rejected_to=aside)

    def writer(self, intent: Intent) -> Writer:
        """See ``Destination.writer``."""
        self._writer = MemoryWriter(self._database, intent, self._ledger, self.context)
        return self._writer

    def ledger(self, wanted: LedgerConfig) -> Ledger | Finding:
        """See ``Destination.ledger``."""
        if wanted.mode is LedgerMode.OFF:
            return note("ledger", "`ledger.mode` is off: a run that is interrupted starts over")
        return self._ledger

    def stored(self, fields: Sequence[Field]) -> Iterator[tuple[Any, ...]]:
        """See ``Destination.stored``."""
        found = self._database.tables[self.config.table]
        names = [column.name for column in found.columns]
        places = [names.index(field.target.name) for field in fields]
        return (tuple([row[place] for place in places]) for row in list(found.rows))

    def rejected(self, intent: Intent, *, after: int = 0, limit: int = 1000) -> Sequence[Rejected]:
        """See ``Destination.rejected``."""
        names = [field.target.name for field in intent.fields]
        found: list[Rejected] = []
        for entry in self._work().rejected:
            if entry["id"] > after and len(found) < limit:
                data = [tuple([entry["row"][name] for name in names])]
                row = RowBatch(number=1, first_row=1, rows=1, size=ROW_BYTES, data=data)
                found.append(Rejected(id=entry["id"], row=row))
        return found

    def settle(self, intent: Intent, gone: Sequence[Rejected], still: Sequence[tuple[Rejected, DataError]]) -> None:
        """See ``Destination.settle``."""
        work = self._work()
        left = {rejected.id for rejected in gone}
        reasons = {rejected.id: error.message for rejected, error in still}
        work.rejected = [
            {**entry, "reason": reasons.get(entry["id"], entry["reason"])}
            for entry in work.rejected
            if entry["id"] not in left
        ]

    def _work(self) -> _Work:
        assert self._writer is not None, "called in the writer's transaction"
        return self._writer.work

    def empty(self) -> bool:
        """See ``Destination.empty``."""
        found = self._database.tables.get(self.config.table)
        return found is not None and not found.rows

    def incarnation(self) -> str | None:
        """See ``Destination.incarnation``."""
        if self._writer is not None and self._writer.open:
            return str(self._writer.work.number)
        found = self._database.tables.get(self.config.table)
        return str(found.number) if found is not None else None

    def sibling(self) -> MemoryDestination:
        """See ``Destination.sibling``."""
        return MemoryDestination(self.config, self.handle)

    def __reduce__(self) -> NoReturn:
        """Refuse: what is in the memory of one process cannot be reached from another."""
        raise TypeError(_HERE)


@attrs.define
class _Work:
    """A table as a transaction sees it."""

    columns: tuple[Column, ...]
    key: tuple[str, ...]
    number: int
    rows: list[tuple[Any, ...]]
    #: Where the row of each key stands.
    places: dict[tuple[Any, ...], int]
    rejected: list[dict[str, Any]]
    counts: Counts = attrs.field(factory=Counts)

    def copy(self) -> _Work:
        """Return what a savepoint keeps."""
        return attrs.evolve(self, rows=list(self.rows), places=dict(self.places), rejected=list(self.rejected))


class MemoryWriter(Writer):
    """One transaction after the other, on a copy that COMMIT puts in place of the table's rows.

    Args:
        database: where the table is, or will be.
        intent: the job.
        ledger: of the same session: what it writes while a transaction is open belongs to it.
        context: the token.
    """

    def __init__(self, database: Database, intent: Intent, ledger: MemoryLedger, context: Context) -> None:
        self._database = database
        self._intent = intent
        self._ledger = ledger
        self._context = context
        self._held: MemoryTable | None = None
        self._saved: _Work | None = None
        self._work: _Work | None = None

    @property
    def open(self) -> bool:
        """True while a transaction is open."""
        return self._work is not None

    @property
    def work(self) -> _Work:
        """The table as the open transaction sees it."""
        if self._work is None:
            raise OperationError("no transaction is open")
        return self._work

    def begin(self) -> None:
        """See ``Writer.begin``: waits for the transaction that holds the table."""
        found = self._database.tables.get(self._intent.target.name)
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
        places = [names.index(name) for name in found.key]
        self._work = _Work(
            columns=(*found.columns, *extra),
            key=found.key,
            number=found.number,
            rows=rows,
            places={tuple([row[p] for p in places]): n for n, row in enumerate(rows)} if places else {},
            rejected=list(found.rejected),
        )
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
            raise ConflictError(f"the key {key!r} is there already", constraint=f"{self._intent.target.name}_key")
        elif strategy is Strategy.SKIP:
            work.counts += Counts(skipped=1)
        elif work.rows[place] == row:
            work.counts += Counts(unchanged=1)
        else:
            work.rows[place] = row
            work.counts += Counts(updated=1)

    def check(self) -> Counts:
        """See ``Writer.check``: rows are checked as they are written."""
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
                    "id": next(_numbers),
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
        self._ledger.commit()  # refuses an attempt that was superseded
        held.columns, held.rows, held.rejected = work.columns, work.rows, work.rejected
        held.version += 1
        self._database.tables[held.name] = held
        self._let_go()
        return counts

    def rollback(self) -> None:
        """See ``Writer.rollback``."""
        self._ledger.rollback()
        self._let_go()

    def _let_go(self) -> None:
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


connector = Connector(
    name="memory",
    summary="tables in this process, for tests",
    source=MemorySource,
    source_config=MemorySourceConfig,
    destination=MemoryDestination,
    destination_config=MemoryDestinationConfig,
)
register(connector)
