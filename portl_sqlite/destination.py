"""Write to a table of a SQLite file: rows, ledger and quarantine are in one file, and so in one transaction."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs

import portl
from portl import (
    Column,
    DataError,
    Destination,
    Examination,
    Field,
    Finding,
    Intent,
    Key,
    Kind,
    Ledger,
    LedgerConfig,
    LedgerMode,
    Rejected,
    RowBatch,
    Strategy,
    Table,
    Writer,
)
from portl_sqlite import catalog
from portl_sqlite.catalog import quoted
from portl_sqlite.config import SqliteDestinationConfig
from portl_sqlite.connection import connected, failure
from portl_sqlite.ledger import SqliteLedger
from portl_sqlite.values import loader
from portl_sqlite.writer import SqliteWriter, prepared, quarantine_name

#: What a declared type keeps as a float, unless the table is STRICT.
_ROUNDED = {Kind.DECIMAL}


class SqliteDestination(Destination[SqliteDestinationConfig]):
    """See the module. The arguments are those of ``Destination``."""

    strategies: ClassVar[Collection[Strategy]] = (Strategy.FAIL, Strategy.OVERWRITE, Strategy.SKIP)
    savepoints: ClassVar[bool] = True
    digests: ClassVar[Collection[str]] = (portl.ROWS.name,)

    _connection_: sqlite3.Connection | None = None
    _ledger: SqliteLedger | None = None
    #: Whose connection this one uses.
    _base: SqliteDestination | None = None

    @classmethod
    def tables(cls, keys: Mapping[str, Any], context: portl.Context) -> Sequence[portl.TableEntry]:
        """See ``Destination.tables``."""
        path = Path(keys["path"])
        if not path.exists():
            return []
        connection = connected(path, "ro")
        try:
            return catalog.listed(connection)
        finally:
            connection.close()

    @property
    def _path(self) -> Path:
        return Path(self.config.path)

    def open(self, context: portl.Context) -> None:
        """See ``Destination.open``. A file that is missing is created with the first rows."""
        super().open(context)
        if not self._path.parent.is_dir():
            raise portl.SchemaError(f"there is no folder {str(self._path.parent)!r} for {self.config.path!r}")
        self._connected(create=False)

    def listing(self) -> Sequence[portl.TableEntry]:
        """See ``Destination.listing``."""
        connection = self._connected(create=False)
        return catalog.listed(connection) if connection is not None else []

    def over(self, base: SqliteDestination) -> SqliteDestination:
        """See ``Destination.over``."""
        made = SqliteDestination(self.config, base.handle)
        made.context, made._base = base.context, base
        return made

    def _connected(self, create: bool) -> sqlite3.Connection | None:
        if self._base is not None:
            return self._base._connected(create)
        if self._connection_ is None and (create or self._path.exists()):
            self._connection_ = connected(self._path, "rwc" if create else "rw")
        return self._connection_

    def _connection(self) -> sqlite3.Connection:
        found = self._connected(create=True)
        assert found is not None, "it was created"
        return found

    def close(self) -> None:
        """See ``Destination.close``."""
        if self._connection_ is not None:
            self._connection_.close()  # what is open is rolled back
            self._connection_ = None
        if self._ledger is not None:
            self._ledger.unlock()

    def label(self) -> str:
        """See ``Destination.label``."""
        return f"sqlite {self.config.path}"

    def identity(self) -> Mapping[str, Any]:
        """See ``Destination.identity``."""
        return {**super().identity(), "path": str(self._path.resolve())}

    def describe(self) -> Table | None:
        """See ``Destination.describe``."""
        connection = self._connected(create=False)
        return catalog.described(connection, self.config.table) if connection is not None else None

    def propose(self, source: Table, columns: Mapping[str, Column]) -> Table:
        """See ``Destination.propose``."""
        made = tuple(
            Column(
                name=column.name,
                type=column.type,
                native=catalog.STORAGE.get(column.type.kind, "TEXT"),
                nullable=column.nullable,
            )
            for column in columns.values()
        )
        names, key = self.config.primary_key, source.primary_key
        if names is None and key is not None and all(name in columns for name in key.columns):
            names = tuple(columns[name].name for name in key.columns)
        keys = (Key(name="primary key", columns=names, primary=True),) if names else ()
        made = tuple(attrs.evolve(c, nullable=c.nullable and c.name not in (names or ())) for c in made)
        details = catalog.Details(rowid="rowid", strict=True)
        return Table(name=self.config.table, columns=made, keys=keys, dialect="sqlite", details=details)

    def examine(self, intent: Intent) -> Examination:
        """See ``Destination.examine``."""
        strict = catalog.table_details(intent.target).strict
        findings = [
            portl.warning(
                f"column {field.target.name}",
                f"{intent.target.name} is not STRICT: as {field.target.native}, numbers become floats of 15 digits",
                "let portl create the table, or declare the column as TEXT",
            )
            for field in intent.fields
            if not strict and field.target.type.kind in _ROUNDED and field.sent.type.kind is Kind.DECIMAL
        ]
        if not os.access(self._path if self._path.exists() else self._path.parent, os.W_OK):
            said = f"{self.config.path} cannot be written by this user"
            findings.append(portl.problem("destination", said, "change the permissions of the file and its folder"))
        reals = [field.target.name for field in intent.fields if field.target.type.kind in (Kind.FLOAT, Kind.DOUBLE)]
        if reals:
            said = f"SQLite keeps -0.0 as 0.0 and refuses NaN: {', '.join(reals)}"
            findings.append(portl.note("types", said))
        names = ", ".join(quoted(field.target.name) for field in intent.fields)
        write = (f"INSERT INTO {quoted(intent.target.name)} ({names}) VALUES (…)",)
        rejected_to = quarantine_name(intent) if intent.quarantine is not None else None
        before = tuple(prepared(intent))
        return Examination(findings=tuple(findings), before=before, write=write, rejected_to=rejected_to)

    def make(self, objects: Sequence[portl.SchemaObject], first: Callable[[], None] | None = None) -> None:
        """See ``Destination.make``: the tables of a job of many."""
        connection = self._connection()
        with failure(self.label()):
            connection.execute("BEGIN IMMEDIATE")
            try:
                if first is not None:
                    first()
                for statement in (statement for made in objects for statement in made.statements):
                    connection.execute(statement)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def drop(self, tables: Sequence[str]) -> None:
        """See ``Destination.drop``."""
        for name in tables:
            self._connection().execute(f"DROP TABLE IF EXISTS {quoted(name)}")

    def writer(self, intent: Intent) -> Writer:
        """See ``Destination.writer``."""
        # In a job of many tables, ``make`` has created them.
        return SqliteWriter(self._connection, intent, self.label(), made=self._base is not None)

    def ledger(self, wanted: LedgerConfig) -> Ledger | Finding:
        """See ``Destination.ledger``."""
        if wanted.mode is LedgerMode.OFF:
            return portl.note("ledger", "`ledger.mode` is off: an interrupted run starts over")
        if self._ledger is None:
            self._ledger = SqliteLedger(self._path, self._connected)
        return self._ledger

    def stored(self, fields: Sequence[Field]) -> Iterator[tuple[Any, ...]]:
        """See ``Destination.stored``."""
        names = ", ".join(quoted(field.target.name) for field in fields) or "NULL"
        loads = [loader(field.target.type) for field in fields]
        with failure(self.label()):
            for row in self._connection().execute(f"SELECT {names} FROM {quoted(self.config.table)}"):
                yield tuple([v if load is None else load(v) for v, load in zip(row, loads, strict=False)])

    def remove(self, intent: Intent, keys: Sequence[portl.Texts]) -> int:
        """See ``Destination.remove``."""
        assert intent.key is not None, "rows are told apart by it"
        types = [intent.target.by_name[name].type for name in intent.key.columns]
        loads = [loader(type) or (lambda value: value) for type in types]
        names, wanted = list(map(quoted, intent.key.columns)), set(keys)
        connection, table = self._connection(), quoted(self.config.table)
        found = connection.execute(f"SELECT {', '.join(names)} FROM {table}").fetchall()
        gone = [
            row
            for row in found
            if tuple([portl.canonical(load(v), type) for load, v, type in zip(loads, row, types, strict=True)])
            in wanted
        ]
        same = " AND ".join(f"{name} IS ?" for name in names)
        return connection.executemany(f"DELETE FROM {table} WHERE {same}", gone).rowcount if gone else 0

    def empty(self) -> bool:
        """See ``Destination.empty``."""
        if self.describe() is None:
            return False
        found = self._connection().execute(f"SELECT 1 FROM {quoted(self.config.table)} LIMIT 1").fetchone()
        return found is None

    def incarnation(self) -> str | None:
        """See ``Destination.incarnation``: where the table begins in the file."""
        connection = self._connected(create=False)
        if connection is None:
            return None
        found = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name = ? COLLATE NOCASE", (self.config.table,)
        ).fetchone()
        return str(found[0]) if found is not None else None

    def rejected(self, intent: Intent, *, after: int = 0, limit: int = 1000) -> Sequence[Rejected]:
        """See ``Destination.rejected``."""
        connection, name = self._connection(), quarantine_name(intent)
        if catalog.described(connection, name) is None:
            return ()
        rows = connection.execute(
            f"SELECT id, row, position FROM {quoted(name)} WHERE id > ? ORDER BY id LIMIT ?", (after, limit)
        ).fetchall()
        names = [field.target.name for field in intent.fields]
        loads = [loader(field.target.type) for field in intent.fields]
        found = []
        for id, text, position in rows:
            known = json.loads(text)
            if set(names) - set(known):
                lacking = ", ".join(sorted(set(names) - set(known)))
                found.append(Rejected(id=id, row=None, trouble=f"it lacks {lacking}", position=position))
                continue
            values = [v if load is None else load(v) for v, load in zip(map(known.get, names), loads, strict=True)]
            batch = RowBatch(number=1, first_row=1, rows=1, size=len(text), data=[tuple(values)])
            found.append(Rejected(id=id, row=batch, position=position))
        return found

    def settle(self, intent: Intent, gone: Sequence[Rejected], still: Sequence[tuple[Rejected, DataError]]) -> None:
        """See ``Destination.settle``."""
        connection, name = self._connection(), quoted(quarantine_name(intent))
        connection.executemany(f"DELETE FROM {name} WHERE id = ?", [(rejected.id,) for rejected in gone])
        connection.executemany(
            f"UPDATE {name} SET reason = ? WHERE id = ?", [(error.message, rejected.id) for rejected, error in still]
        )
