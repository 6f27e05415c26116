"""Read a table, view or query of a SQLite file, in chunks by ranges of rowids.

The file is opened read-only, and one transaction lasts as long as the source is open: every row is of one state, also
while others write (in WAL mode they need not wait). A table WITHOUT ROWID, a view or a query is read as a whole.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

import portl
from portl import (
    Batch,
    Chunk,
    ChunkLine,
    Column,
    Field,
    Finding,
    Reading,
    RowBatch,
    RowCount,
    Run,
    SchemaError,
    Source,
    Split,
    Splitting,
    Table,
    Type,
)
from portl_sqlite import catalog
from portl_sqlite.catalog import quoted
from portl_sqlite.config import SqliteSourceConfig
from portl_sqlite.connection import connected, failure
from portl_sqlite.values import loaded

#: What a row takes, about; how many are looked at to find out.
_SAMPLE_ROWS = 100
_FETCHED_ROWS = 1000
#: Of so many rows of a batch, one is measured.
_SAMPLED = 16
#: The storage classes that the values of a generic type may have (``typeof``).
_CLASSES: Mapping[portl.Kind, tuple[str, ...]] = {
    portl.Kind.SMALLINT: ("integer",),
    portl.Kind.INT: ("integer",),
    portl.Kind.BIGINT: ("integer",),
    portl.Kind.BOOLEAN: ("integer",),
    portl.Kind.FLOAT: ("real", "integer"),
    portl.Kind.DOUBLE: ("real", "integer"),
    portl.Kind.DECIMAL: ("integer", "real", "text"),
    portl.Kind.BINARY: ("blob",),
}
_numbers = itertools.count(1)
_CLOCKS = {portl.Kind.DATE: "%Y-%m-%d", portl.Kind.TIME: "%H:%M:%f"}
_INSTANTS = {portl.Kind.TIMESTAMP, portl.Kind.TIMESTAMPTZ}


class SqliteSource(Source[SqliteSourceConfig]):
    """See the module. The arguments are those of ``Source``."""

    _connection_: sqlite3.Connection | None = None
    _table: Table | None = None
    #: Stands for the query.
    _view: str | None = None

    @classmethod
    def tables(cls, keys: Mapping[str, Any], context: portl.Context) -> Sequence[portl.TableEntry]:
        """See ``Source.tables``."""
        connection = connected(Path(keys["path"]), "ro")
        try:
            return catalog.listed(connection)
        finally:
            connection.close()

    def open(self, context: portl.Context) -> None:
        """See ``Source.open``."""
        super().open(context)
        connection = self._connection_ = connected(Path(self.config.path), "ro")
        with failure(self.label()):
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # the transaction's state begins here
        if self.config.lacks is None:
            self._look()

    def _look(self) -> None:
        """Find the table, or what the query returns."""
        connection, query = self._connection, self.config.query
        with failure(self.label()):
            if query is not None:
                # A view says which columns a query has; made of anything else than a SELECT, it is refused.
                self._view = f"portl_query_{next(_numbers)}"
                connection.execute(f"CREATE TEMPORARY VIEW {self._view} AS {query}")
                found = catalog.described(connection, self._view, "temp")
            else:
                found = catalog.described(connection, self.config.table or "")
        if found is None:
            raise SchemaError(f"source {self.label()}: there is no table {self.config.table}")
        self._table = found if query is None else attrs.evolve(found, name="query", kind="query")

    def listing(self) -> Sequence[portl.TableEntry]:
        """See ``Source.listing``."""
        return catalog.listed(self._connection)

    def over(self, base: SqliteSource) -> SqliteSource:
        """See ``Source.over``."""
        made = SqliteSource(self.config, base.handle)
        made.context, made._connection_ = base.context, base._connection
        made._look()
        return made

    def close(self) -> None:
        """See ``Source.close``."""
        if self._connection_ is not None:
            self._connection_.close()
            self._connection_ = None

    @property
    def _connection(self) -> sqlite3.Connection:
        assert self._connection_ is not None, "open comes first"
        return self._connection_

    def label(self) -> str:
        """See ``Source.label``."""
        return f"sqlite {self.config.path}"

    def identity(self) -> Mapping[str, Any]:
        """See ``Source.identity``."""
        return {**super().identity(), "path": str(Path(self.config.path).resolve())}

    def describe(self) -> Table:
        """See ``Source.describe``."""
        assert self._table is not None, "open comes first"
        return self._table

    @property
    def _rowid(self) -> str | None:
        return catalog.table_details(self.describe()).rowid

    def _from(self, *conditions: str) -> str:
        name = self._view or quoted(self.describe().name)
        every = [f"({text})" for text in (self.config.where, *conditions) if text]
        return name + (f" WHERE {' AND '.join(every)}" if every else "")

    def _query(self, statement: str, *values: object) -> sqlite3.Cursor:
        with failure(self.label()):
            return self._connection.execute(statement, values)

    def cast(self, column: Column, to: str, using: str | None) -> Column:
        """See ``Source.cast``. Numbers become dates as ``auto`` has it in SQLite: Julian days, or else Unix seconds."""
        try:
            type = Type.parse(to)
        except ValueError:
            type = Type(kind=portl.Kind.TEXT)
        expression = f"({using})" if using is not None else quoted(column.name)
        form = _CLOCKS.get(type.kind) or ("%Y-%m-%d %H:%M:%f" if type.kind in _INSTANTS else None)
        if using is None and form is not None:
            expression = (
                f"CASE WHEN typeof({expression}) IN ('integer', 'real')"
                f" THEN strftime('{form}', {expression}, 'auto') ELSE {expression} END"
            )
        try:
            self._query(f"SELECT {expression} FROM {self._from()} LIMIT 0")
        except portl.Error as error:
            raise SchemaError(f"{column.name!r} cannot be converted to {to!r}: {error.message}") from None
        return attrs.evolve(column, type=type, native=to, details=expression)

    def examine(self, fields: Sequence[Field]) -> list[Finding]:
        """See ``Source.examine``. Says which columns hold something else than their type says."""
        known = {f.sent.name: _CLASSES[f.sent.type.kind] for f in fields if f.sent.type.kind in _CLASSES}
        if catalog.table_details(self.describe()).strict or not known:
            return []
        counts = ", ".join(
            f"sum(typeof({self._expression(field)}) NOT IN ({', '.join(map(repr, known[field.sent.name]))}, 'null'))"
            for field in fields
            if field.sent.name in known
        )
        found = self._query(f"SELECT {counts} FROM {self._from()}").fetchone()
        columns = [field for field in fields if field.sent.name in known]
        findings = []
        for field, count in zip(columns, found, strict=True):
            if count:
                said = f"declared as {field.source.native}, it holds values ({count:,}) that are not"
                remedy = "they cross as text; convert them with `types`, or leave them out with `where`"
                words = " or ".join(known[field.sent.name])
                findings.append(portl.warning(f"column {field.source.name}", f"{said} {words}", remedy))
        return findings

    @staticmethod
    def _expression(field: Field) -> str:
        return str(field.sent.details) if field.sent.details is not None else quoted(field.source.name)

    def count(self, *, exact: bool) -> RowCount:
        """See ``Source.count``."""
        ((count,),) = self._query(f"SELECT count(*) FROM {self._from()}")
        limit = self.config.limit
        return RowCount(rows=count if limit is None else min(count, limit), exact=True)

    def statement(self, fields: Sequence[Field], format: portl.Format) -> str:
        """See ``Source.statement``."""
        columns = ", ".join(map(self._expression, fields)) or "NULL"
        limit = f" LIMIT {self.config.limit}" if self.config.limit is not None else ""
        return f"SELECT {columns} FROM {self._from()}{limit}"

    def preview(self, fields: Sequence[Field], rows: int) -> list[tuple[str | None, ...]]:
        """See ``Source.preview``."""
        most = rows if self.config.limit is None else min(rows, self.config.limit)
        columns = ", ".join(map(self._expression, fields)) or "NULL"
        found = self._query(f"SELECT {columns} FROM {self._from()} LIMIT {most}")
        return [tuple(None if v is None else v.hex() if isinstance(v, bytes) else str(v) for v in row) for row in found]

    def split(self, splitting: Splitting) -> Split:
        """See ``Source.split``."""
        rowid = self._rowid
        if rowid is None or self.config.limit is not None:
            return Split(reason="there are no rowids" if rowid is None else "`limit` counts rows from the first on")
        size = splitting.chunk_rows or self._chunk_rows(splitting)
        starts = list(self._starts(rowid, size))
        if not starts:
            return Split(chunks=(Chunk(bounds={"from": None, "to": None}, rows=0),), by="rowids", reason="")
        ends = [*starts[1:], None]
        chunks = tuple(
            Chunk(number=number, bounds={"from": start, "to": end}, rows=size)
            for number, (start, end) in enumerate(zip(starts, ends, strict=True), 1)
        )
        return Split(chunks=chunks, by="ranges of rowids", reason="", resumable=True, divisible=True)

    def _starts(self, rowid: str, size: int) -> Iterator[int]:
        """Yield the first rowid of each chunk. To count entries of the tree is cheaper than to number rows."""
        found = self._query(f"SELECT min({rowid}) FROM {self._from()}").fetchone()
        while found is not None and found[0] is not None:
            yield found[0]
            beyond = self._from(f"{rowid} >= {found[0]}")
            found = self._query(f"SELECT {rowid} FROM {beyond} ORDER BY {rowid} LIMIT 1 OFFSET {size}").fetchone()

    def _chunk_rows(self, splitting: Splitting) -> int:
        """Return how many rows make a chunk of the wanted size, by a few rows."""
        names = [quoted(column.name) for column in self.describe().columns]
        length = " + ".join(f"coalesce(length({name}), 0) + 1" for name in names)
        sampled = self._query(f"SELECT avg(b) FROM (SELECT {length} AS b FROM {self._from()} LIMIT {_SAMPLE_ROWS})")
        ((size,),) = sampled
        return max(1, int(splitting.chunk_bytes / max(1.0, size or 1.0)))

    def snapshot(self) -> Mapping[str, Any]:
        """See ``Source.snapshot``: the file's counter of changes (*Database File Format*, 1.3.7), and its log."""
        path = Path(self.config.path)
        with path.open("rb") as file:
            header = file.read(28)
        log = path.with_name(path.name + "-wal")
        return {"changes": int.from_bytes(header[24:28]), "log": log.stat().st_mtime_ns if log.exists() else None}

    def resumable(self, lines: Sequence[ChunkLine], run: Run, *, repeatable: bool) -> list[Finding]:
        """See ``Source.resumable``."""
        if all(found == self.snapshot() for found in run.snapshots.values()):
            return []
        said = f"{self.config.path} has changed since: rows that were copied before are as they were then"
        return [portl.warning("resume", said, "`--restart` reads all rows in one state")]

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """See ``Source.rows``."""
        types = [column.type for column in self.describe().columns]
        limit = f" LIMIT {self.config.limit}" if self.config.limit is not None else ""
        cursor = self._query(f"SELECT * FROM {self._from()}{limit}")
        while found := cursor.fetchmany(_FETCHED_ROWS):
            yield from loaded(found, types)

    def _selected(self, reading: Reading, columns: str) -> str:
        bounds, rowid = reading.chunk.bounds, self._rowid
        limit = f" LIMIT {self.config.limit}" if self.config.limit is not None else ""
        if bounds is None or rowid is None:
            return f"SELECT {columns} FROM {self._from()}{limit}"
        conditions = [f"{rowid} >= {int(bounds['from'])}"] if bounds["from"] is not None else []
        conditions += [f"{rowid} < {int(bounds['to'])}"] if bounds["to"] is not None else []
        return f"SELECT {columns} FROM {self._from(*conditions)} ORDER BY {rowid}{limit}"

    def read(self, reading: Reading) -> Iterator[Batch]:
        """See ``Source.read``."""
        columns = ", ".join(map(self._expression, reading.fields)) or "NULL"
        cursor = self._query(self._selected(reading, columns))
        types = [field.sent.type for field in reading.fields]
        number, first = 1, 1
        while True:
            self.context.token.check()
            with failure(self.label()):
                found = cursor.fetchmany(reading.batch_rows)
            if not found:
                return
            data = loaded(found, types) if types else [()] * len(found)
            size = _SAMPLED * sum(map(len, map(str, found[::_SAMPLED])))
            yield RowBatch(number=number, first_row=first, rows=len(data), size=size, data=data)
            number, first = number + 1, first + len(data)

    def rest(self, reading: Reading, rows: int) -> Chunk | None:
        """See ``Source.rest``."""
        found = self._query(f"{self._selected(reading, str(self._rowid))} LIMIT 1 OFFSET {rows}").fetchone()
        if found is None:
            return None
        return attrs.evolve(reading.chunk, bounds={**(reading.chunk.bounds or {"to": None}), "from": found[0]})

    def condition(self) -> str | None:
        """See ``Source.condition``."""
        return self.config.where

    def holds(self) -> bool:
        """See ``Source.holds``."""
        return self._connection_ is not None and self._connection_.in_transaction
