"""PostgreSQL passes the suite that every connector should pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from psycopg import sql

from portl.schema.types import Kind, Type
from portl.testing.conformance import Change, DestinationConformance, Fill, SourceConformance, Target
from tests.servers import Db

_NATIVE = {Kind.DECIMAL: "numeric", Kind.FLOAT: "real", Kind.DOUBLE: "double precision", Kind.BINARY: "bytea"}


def native(type: Type) -> str:
    if type.kind is Kind.ARRAY:
        assert type.element is not None
        return f"{native(type.element)}[]"
    parameters = ",".join(str(p) for p in (type.length, type.precision, type.scale) if p is not None)
    return _NATIVE.get(type.kind, type.kind.value) + (f"({parameters})" if parameters else "")


def create(db: Db, table: str, columns: Any, rows: Any, key: Any) -> None:
    parts = [
        sql.SQL("{} {}{}").format(
            sql.Identifier(c.name), sql.SQL(native(c.type)), sql.SQL("" if c.nullable else " NOT NULL")
        )
        for c in columns
    ]
    if key:
        parts.append(sql.SQL("PRIMARY KEY ({})").format(sql.SQL(", ").join(map(sql.Identifier, key))))
    name = sql.Identifier(table)
    db.connection.execute(sql.SQL("CREATE TABLE {} ({})").format(name, sql.SQL(", ").join(parts)))
    values = sql.SQL(", ").join(sql.SQL(f"%s::{native(c.type)}") for c in columns)
    with db.connection.cursor() as cursor:
        cursor.executemany(sql.SQL("INSERT INTO {} VALUES ({})").format(name, values), [tuple(row) for row in rows])


def stored(db: Db, table: str) -> list[tuple[Any, ...]]:
    """Return rows as portl has them: JSON as text."""
    found = db.execute(
        "SELECT attname, atttypid IN ('json'::regtype, 'jsonb'::regtype) FROM pg_attribute"
        " WHERE attrelid = to_regclass(quote_ident(%s)) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        table,
    )
    if not found:
        return []
    items = [sql.SQL("{}::text" if text else "{}").format(sql.Identifier(name)) for name, text in found]
    query = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(items), sql.Identifier(table))
    return db.connection.execute(query).fetchall()


class TestSource(SourceConformance):
    kill_step = 2

    @pytest.fixture
    def fill(self, source: Db) -> Fill:
        numbers = itertools.count()

        def fill(columns: Any, rows: Any, key: Any = ()) -> dict[str, Any]:
            name = f"t{next(numbers)}"
            create(source, name, columns, rows, key)
            return source.end(table=name)

        return fill

    @pytest.fixture
    def change(self, source: Db) -> Change:
        def change(keys: Any, gone: Any, rows: Any) -> None:
            name = keys["table"]
            for id in gone:
                source.execute(f"DELETE FROM {name} WHERE id = %s", id)
            for row in rows:
                source.execute(f"INSERT INTO {name} VALUES (%s, %s)", *row)

        return change


class TestDestination(DestinationConformance):
    kill_step = 2

    @pytest.fixture
    def place(self, destination: Db) -> Callable[..., Target]:
        numbers = itertools.count()

        def place(columns: Any = None, rows: Any = (), key: Any = ()) -> Target:
            name = f"t{next(numbers)}"
            if columns is not None:
                create(destination, name, columns, rows, key)
            return Target(
                destination=destination.end(table=name),
                rows=lambda columns: stored(destination, name),
                rejected=lambda: [row for (row,) in destination.execute(f"SELECT row FROM {name}__rejected")],
            )

        return place
