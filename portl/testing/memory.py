"""A connector whose tables are lists in this process, for testing programs that use portl.

::

    from portl.testing import memory

    shop = memory.database("shop")
    shop.create("users", [memory.column("id", "int"), memory.column("name", "text")], key=["id"])
    shop.insert("users", [(1, "Ann"), (2, None)])
    portl.migrate({"source": {"type": "memory", "database": "shop", "table": "users"}, "destination": …})

``portl.job_from_urls("memory://shop", …, table="users")`` returns the same job.

It has transactions with savepoints, a ledger, all modes, all conflict strategies except ``merge``, a quarantine and
several workers, and it resumes interrupted runs. An incremental run reads the rows added since the version of the table
that the previous run read, whatever their cursor. Values are stored as they arrive. Importing this module registers the
connector under the name ``memory``; nothing outlives the process.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import attrs

from portl.config.incremental import By, IncrementalConfig, Nulls
from portl.config.models import DestinationConfig, LedgerConfig, LedgerMode, SourceConfig, Strategy
from portl.config.validators import FieldError
from portl.connectors.comparer import Texts, canonical
from portl.connectors.connector import Connector
from portl.connectors.context import Context
from portl.connectors.destination import Destination
from portl.connectors.exchange import (
    ROWS,
    Batch,
    Chunk,
    Examination,
    Field,
    Intent,
    Reading,
    Rejected,
    RowBatch,
    RowCount,
    Split,
    Splitting,
)
from portl.connectors.ledger import Ledger
from portl.connectors.registry import register
from portl.connectors.side import TableEntry
from portl.connectors.source import Source
from portl.connectors.writer import Writer
from portl.planning.modes.incremental import REFRESH
from portl.schema.tables import Column, Table
from portl.schema.types import Kind, Type
from portl.testing.bookkeeping import MemoryLedger, Runs
from portl.testing.tables import MemoryTable, MemoryWriter, Work
from portl.values.errors import DataError, SchemaError
from portl.values.findings import Finding, note, problem, warning
from portl.values.runs import Behind, ChunkLine, ChunkState, Run
from portl.values.secrets import Secret

#: The assumed size of a row, for splitting a table into chunks.
ROW_BYTES = 100

_databases: dict[str, Database] = {}


def database(name: str) -> Database:
    """Return the database with this name, creating it on the first call."""
    return _databases.setdefault(name, Database(name))


def forget(*names: str) -> None:
    """Drop databases; without names, all of them."""
    for name in names or tuple(_databases):
        _databases.pop(name, None)


def column(name: str, type: Type | Kind | str, *, nullable: bool = True) -> Column:
    """Return a column of a generic type, which may be given by name if it has no parameters."""
    found = type if isinstance(type, Type) else Type(kind=Kind(type))
    return Column(name=name, type=found, native=str(found), nullable=nullable)


class Database:
    """Tables by name, and a ledger."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tables: dict[str, MemoryTable] = {}
        self.runs = Runs()

    def create(self, table: str, columns: Iterable[Column], *, key: Iterable[str] = ()) -> MemoryTable:
        """Create a table, replacing any with the same name."""
        self.tables[table] = MemoryTable(name=table, columns=tuple(columns), key=tuple(key))
        return self.tables[table]

    def insert(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows as they are."""
        found = self.tables[table]
        found.put([*found.rows, *map(tuple, rows)])

    def delete(self, table: str, where: Callable[[tuple[Any, ...]], bool] = lambda row: True) -> None:
        """Remove the rows that match a condition, by default all rows."""
        found = self.tables[table]
        found.put([row for row in found.rows if not where(row)])

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """Return the rows of a table, or an empty list if it does not exist."""
        return list(self.tables[table].rows) if table in self.tables else []


_HERE = "an in-memory database exists in one process only"


def _database_of(config: MemorySourceConfig | MemoryDestinationConfig, handle: object | None) -> Database:
    return handle if isinstance(handle, Database) else database(config.database)


@attrs.frozen(kw_only=True)
class MemorySourceConfig(SourceConfig):
    """The keys of the source."""

    #: The database's name.
    database: str
    #: The table's name.
    table: str


class MemorySource(Source[MemorySourceConfig]):
    """Reads the rows present when it is opened, in chunks by position."""

    increments: ClassVar[Collection[By]] = (By.CURSOR, By.XMIN)

    _snapshot: tuple[MemoryTable, list[tuple[Any, ...]]] | None = None
    #: All rows, if ``since`` left some out; and the watermark.
    _all: list[tuple[Any, ...]] | None = None
    _watermark: Mapping[str, Any] | None = None

    @classmethod
    def tables(cls, keys: Mapping[str, Any], context: Context) -> Sequence[TableEntry]:
        """See ``Source.tables``."""
        return _tables(keys)

    def open(self, context: Context) -> None:
        """See ``Source.open``."""
        super().open(context)
        if self._snapshot is None:
            found = _database_of(self.config, self.handle).tables.get(self.config.table)
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

    def since(self, wanted: IncrementalConfig, watermark: Mapping[str, Any] | None) -> list[Finding]:
        """See ``Source.since``."""
        table, rows = self._table, self._rows if self._all is None else self._all
        if wanted.from_ is not None or wanted.lag_microseconds:
            return [problem("incremental", "in-memory tables know neither `from` nor `lag`", "remove them")]
        names = [column.name for column in table.columns]
        if wanted.cursor is not None and wanted.cursor not in names:
            return [problem("incremental.cursor", f"{table.name} has no column {wanted.cursor!r}")]
        kept = {"table": table.number, "cursor": wanted.cursor}
        if watermark is not None and any(watermark[key] != value for key, value in kept.items()):
            return [problem("incremental", f"{table.name} or the cursor is another than before", REFRESH)]
        place = names.index(wanted.cursor) if wanted.cursor is not None else None
        empty = [row for row in rows if place is not None and row[place] is None]
        if empty and wanted.nulls is Nulls.FAIL:
            said = f"{wanted.cursor!r} is NULL in {len(empty)} rows"
            return [problem("incremental.nulls", said, "set `incremental.nulls`")]
        version = watermark["version"] if watermark is not None else 0
        values = [row[place] for row in rows if place is not None and row[place] is not None]
        value = canonical(max(values)) if values else str(table.version)
        now = dt.datetime.now(dt.UTC).isoformat()
        since = {k: v for k, v in watermark.items() if k != "since"} if watermark is not None else None
        self._watermark = {**kept, "value": value, "taken": now, "version": table.version, "since": since}
        new = [row for row in rows if table.written.get(id(row), table.version) > version]
        if empty:
            left = {id(row) for row in empty}
            new = [row for row in new if id(row) not in left] + (empty if wanted.nulls is Nulls.INCLUDE else [])
        self._all, self._snapshot = rows, (table, new)
        said = "all rows are read" if watermark is None else "rows that the version before did not have are read"
        return [note("incremental", said)]

    def behind(self, wanted: IncrementalConfig, watermark: Mapping[str, Any]) -> Behind | None:
        """See ``Source.behind``."""
        table = self._table
        if table.number != watermark["table"]:
            return None
        return Behind(rows=sum(table.written.get(id(row), 0) > watermark["version"] for row in self._rows))

    def all_rows(self) -> None:
        """See ``Source.all_rows``."""
        if self._all is not None:
            self._snapshot, self._all = (self._table, self._all), None

    def snapshot(self) -> Mapping[str, Any]:
        """See ``Source.snapshot``."""
        state = {"table": self._table.number, "version": self._table.version}
        return state if self._watermark is None else {**state, "watermark": self._watermark}

    def resumable(self, lines: Sequence[ChunkLine], run: Run, *, repeatable: bool) -> list[Finding]:
        """See ``Source.resumable``. Positions denote the same rows as long as the table is not written to."""
        now = self._table.number, self._table.version
        changed = any((found["table"], found["version"]) != now for found in run.snapshots.values())
        if not changed or not any(line.state is not ChunkState.PENDING for line in lines):
            return []
        message = f"{self.config.table} has changed since"
        return [warning("resume", message) if repeatable else problem("resume", message, "`--restart` starts over")]

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

    def for_worker(self) -> MemorySource:
        """See ``Source.for_worker``."""
        found = MemorySource(self.config, self.handle)
        found._snapshot = self._snapshot
        return found

    def __reduce__(self) -> NoReturn:
        """Refuse: an in-memory database exists in one process only."""
        raise TypeError(_HERE)


@attrs.frozen(kw_only=True)
class MemoryDestinationConfig(DestinationConfig):
    """The keys of the destination."""

    #: The database's name.
    database: str
    #: The table's name.
    table: str


class MemoryDestination(Destination[MemoryDestinationConfig]):
    """Writes to a table. Each writer has its own transaction."""

    strategies: ClassVar[Collection[Strategy]] = (Strategy.FAIL, Strategy.OVERWRITE, Strategy.SKIP)
    savepoints: ClassVar[bool] = True
    digests: ClassVar[Collection[str]] = (ROWS.name,)

    @classmethod
    def tables(cls, keys: Mapping[str, Any], context: Context) -> Sequence[TableEntry]:
        """See ``Destination.tables``."""
        return _tables(keys)

    def __init__(self, config: MemoryDestinationConfig, handle: object | None = None) -> None:
        super().__init__(config, handle)
        self._database = _database_of(config, handle)
        self._ledger = MemoryLedger(self._database.runs)
        self._writer: MemoryWriter | None = None

    def close(self) -> None:
        """See ``Destination.close``. Rolls back an open transaction and releases the job's lock."""
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
        rejected_to = f"{self.config.table}, rejected" if intent.quarantine is not None else None
        return Examination(before=tuple(before), write=(f"append to {intent.target.name}",), rejected_to=rejected_to)

    def writer(self, intent: Intent) -> Writer:
        """See ``Destination.writer``."""
        self._writer = MemoryWriter(self._database.tables, intent, self._ledger, self.context)
        return self._writer

    def ledger(self, wanted: LedgerConfig) -> Ledger | Finding:
        """See ``Destination.ledger``."""
        if wanted.mode is LedgerMode.OFF:
            return note("ledger", "`ledger.mode` is off: an interrupted run starts over")
        return self._ledger

    def stored(self, fields: Sequence[Field]) -> Iterator[tuple[Any, ...]]:
        """See ``Destination.stored``."""
        found = self._database.tables[self.config.table]
        names = [column.name for column in found.columns]
        places = [names.index(field.target.name) for field in fields]
        return (tuple([row[place] for place in places]) for row in list(found.rows))

    def remove(self, intent: Intent, keys: Sequence[Texts]) -> int:
        """See ``Destination.remove``."""
        assert self._writer is not None, "called in the writer's transaction"
        return self._writer.remove(set(keys))

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

    def _work(self) -> Work:
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

    def for_worker(self) -> MemoryDestination:
        """See ``Destination.for_worker``."""
        return MemoryDestination(self.config, self.handle)

    def __reduce__(self) -> NoReturn:
        """Refuse: an in-memory database exists in one process only."""
        raise TypeError(_HERE)


def _tables(keys: Mapping[str, Any]) -> list[TableEntry]:
    return [TableEntry(name=name, rows=len(found.rows)) for name, found in database(keys["database"]).tables.items()]


def _from_url(url: Secret) -> Mapping[str, Any]:
    """Return the keys for ``memory://DATABASE``."""
    name = url.reveal().strip().removeprefix("memory://")
    if not name or "/" in name or "@" in name:
        raise FieldError("database", "is not of the form memory://DATABASE")
    return {"database": name}


connector = Connector(
    name="memory",
    summary="tables in this process, for tests",
    source=MemorySource,
    source_config=MemorySourceConfig,
    destination=MemoryDestination,
    destination_config=MemoryDestinationConfig,
    schemes=("memory",),
    url_example="memory://shop",
    from_url=_from_url,
)
register(connector)
