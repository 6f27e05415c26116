"""What tables there are, and what their columns hold.

A table that portl creates is STRICT and says beside each column which generic type it has, in a comment that SQLite
keeps with the statement::

    CREATE TABLE "orders" (
        "id" INTEGER NOT NULL /* int */,
        "price" TEXT /* decimal(12, 2) */,
        PRIMARY KEY ("id")
    ) STRICT

In any other table the declared type decides, as SQLite's rules of affinity read it (its manual, *Datatypes*, 3.1).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence

import attrs

import portl
from portl import Column, Key, Kind, Table, Type

#: STRICT tables and PRAGMA table_list came with it.
OLDEST = (3, 37, 0)

#: How a STRICT table stores each generic type; everything else is TEXT.
STORAGE: Mapping[Kind, str] = {
    Kind.SMALLINT: "INTEGER",
    Kind.INT: "INTEGER",
    Kind.BIGINT: "INTEGER",
    Kind.BOOLEAN: "INTEGER",
    Kind.FLOAT: "REAL",
    Kind.DOUBLE: "REAL",
    Kind.BINARY: "BLOB",
}
_DECLARED = re.compile(r"\s*([A-Za-z_ ]+?)\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?\s*")
#: Words of declared types that mean more than their affinity.
_WORDS: Mapping[str, Kind] = {
    "BOOLEAN": Kind.BOOLEAN,
    "BOOL": Kind.BOOLEAN,
    "DATE": Kind.DATE,
    "TIME": Kind.TIME,
    "DATETIME": Kind.TIMESTAMP,
    "TIMESTAMP": Kind.TIMESTAMP,
    "TIMESTAMPTZ": Kind.TIMESTAMPTZ,
    "TIMESTAMP WITH TIME ZONE": Kind.TIMESTAMPTZ,
    "UUID": Kind.UUID,
    "JSON": Kind.JSON,
    "DECIMAL": Kind.DECIMAL,
    "NUMERIC": Kind.DECIMAL,
}


@attrs.frozen(kw_only=True)
class Details:
    """What the connector keeps of a table."""

    #: The name by which rows are numbered; None: they are not.
    rowid: str | None
    strict: bool


def quoted(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def table_details(table: Table) -> Details:
    """Return what was kept of a table."""
    assert isinstance(table.details, Details), "a table of this connector"
    return table.details


def described(connection: sqlite3.Connection, name: str, schema: str = "main") -> Table | None:
    """Return a table or view; None if there is none of this name."""
    found = connection.execute(
        "SELECT type, wr, strict FROM pragma_table_list WHERE schema = ? AND name = ? COLLATE NOCASE", (schema, name)
    ).fetchone()
    if found is None:
        return None
    kind, without_rowid, strict = found
    ((real, sql),) = connection.execute(
        f"SELECT name, sql FROM {schema}.sqlite_{'temp_' if schema == 'temp' else ''}schema"
        " WHERE name = ? COLLATE NOCASE AND type IN ('table', 'view')",
        (name,),
    ).fetchall() or [(name, "")]
    rows = connection.execute(
        'SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?, ?)', (real, schema)
    ).fetchall()
    columns = tuple(
        Column(
            name=column,
            type=_type(column, declared, sql or "", strict=bool(strict)),
            native=declared or "ANY",
            nullable=not notnull and not (pk and (strict or without_rowid or _is_alias(declared, rows))),
            default=default,
            identity="by default" if pk and not without_rowid and _is_alias(declared, rows) else None,
            generated="an expression" if hidden in (2, 3) else None,
        )
        for column, declared, notnull, default, pk, hidden in rows
        if hidden != 1
    )
    names = {column.name.lower() for column in columns}
    free = next((name for name in ("rowid", "oid", "_rowid_") if name not in names), None)
    keys = tuple(_keys(connection, real, schema, rows))
    return Table(
        name=real,
        columns=columns,
        keys=tuple(key for key in keys if key.unfit is None),
        unfit_keys=tuple(key for key in keys if key.unfit is not None),
        dialect="sqlite",
        kind="view" if kind == "view" else "table",
        details=Details(rowid=free if kind == "table" and not without_rowid else None, strict=bool(strict)),
    )


def _is_alias(declared: str, rows: Sequence[tuple[object, ...]]) -> bool:
    """Return whether a key's column is another name of the rowid: SQLite numbers its rows."""
    return declared.upper() == "INTEGER" and sum(bool(row[4]) for row in rows) == 1


def _keys(connection: sqlite3.Connection, table: str, schema: str, rows: Sequence[tuple[object, ...]]) -> Iterator[Key]:
    primary = [str(row[0]) for row in sorted((r for r in rows if r[4]), key=lambda row: int(str(row[4])))]
    if primary:
        yield Key(name="primary key", columns=tuple(primary), primary=True)
    listed = connection.execute(
        'SELECT name, origin, partial FROM pragma_index_list(?, ?) WHERE "unique"', (table, schema)
    ).fetchall()
    for name, origin, partial in listed:
        if origin == "pk":
            continue
        found = connection.execute(
            "SELECT cid, name FROM pragma_index_xinfo(?, ?) WHERE key ORDER BY seqno", (name, schema)
        ).fetchall()
        unfit = "is partial" if partial else "is over an expression" if any(cid < 0 for cid, _ in found) else None
        yield Key(name=name, columns=tuple(column or "an expression" for _, column in found), unfit=unfit)


def _type(column: str, declared: str, sql: str, *, strict: bool) -> Type:
    """Return the generic type of a column."""
    if strict:
        said = re.search(rf"[(,]\s*{re.escape(quoted(column))} [A-Z]+[^,/]*/\* ([^*]+) \*/", sql)
        if said is not None:
            try:
                return Type.parse(said[1])
            except ValueError:
                pass  # somebody's own comment
    match = _DECLARED.fullmatch(declared)
    word = " ".join(match[1].upper().split()) if match is not None else declared.upper()
    kind = _WORDS.get(word)
    if kind is Kind.DECIMAL and match is not None and match[2]:
        return Type(kind=kind, precision=int(match[2]), scale=int(match[3] or 0))
    return Type(kind=kind or _affinity(declared.upper()))


def _affinity(declared: str) -> Kind:
    """Apply SQLite's rules in their order."""
    if "INT" in declared:
        return Kind.BIGINT
    if any(part in declared for part in ("CHAR", "CLOB", "TEXT")):
        return Kind.TEXT
    if "BLOB" in declared:
        return Kind.BINARY
    if any(part in declared for part in ("REAL", "FLOA", "DOUB")):
        return Kind.DOUBLE
    return Kind.TEXT if not declared or declared == "ANY" else Kind.DECIMAL


def column_sql(column: Column) -> str:
    """Return the definition of a column in a table that portl creates."""
    stored = STORAGE.get(column.type.kind, "TEXT")
    return f"{quoted(column.name)} {stored}{'' if column.nullable else ' NOT NULL'} /* {column.type} */"


def create_sql(table: Table) -> str:
    """Return the statement that creates a table."""
    parts = [column_sql(column) for column in table.columns]
    if table.primary_key is not None:
        parts.append(f"PRIMARY KEY ({', '.join(map(quoted, table.primary_key.columns))})")
    body = ",\n    ".join(parts)
    return f"CREATE TABLE {quoted(table.name)} (\n    {body}\n) STRICT"


def listed(connection: sqlite3.Connection) -> list[portl.TableEntry]:
    """Return the tables and views of a file, without what SQLite and portl keep for themselves."""
    rows = connection.execute(
        "SELECT name, type FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'view')"
        " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE 'portl\\_%' ESCAPE '\\' ORDER BY name"
    )
    return [
        portl.TableEntry(name=shown(name), kind=kind, reading={"table": name}, writing={"table": name})
        for name, kind in rows
    ]


def shown(name: str) -> str:
    """Return a name as users write it: quoted where it would not be one word."""
    return name if re.fullmatch(r"\w+", name) else quoted(name)
