"""The SQLite connector passes the suite that every connector should pass."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

import portl
from portl.testing.conformance import Change, DestinationConformance, Fill, SourceConformance, Target
from portl.testing.values import VALUES
from portl_sqlite.catalog import Details, create_sql, quoted
from portl_sqlite.values import dumped, loader


@contextmanager
def file(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    try:
        yield connection
        connection.commit()
    finally:
        connection.close()


def created(path: Path, name: str, columns: Any, rows: Any, key: Any) -> None:
    keys = (portl.Key(name="primary key", columns=tuple(key), primary=True),) if key else ()
    table = portl.Table(name=name, columns=tuple(columns), keys=keys, details=Details(rowid="rowid", strict=True))
    with file(path) as connection:
        connection.execute(create_sql(table))
        connection.executemany(
            f"INSERT INTO {quoted(name)} VALUES ({', '.join('?' * len(columns))})",
            [tuple([dumped(value, "") for value in row]) for row in rows],
        )


class TestSource(SourceConformance):
    @pytest.fixture
    def fill(self, tmp_path: Path) -> Fill:
        numbers, path = itertools.count(), tmp_path / "source.db"

        def fill(columns: Any, rows: Any, key: Any = ()) -> dict[str, Any]:
            name = f"t{next(numbers)}"
            created(path, name, columns, rows, key)
            return {"type": "sqlite", "path": str(path), "table": name}

        return fill

    @pytest.fixture
    def change(self) -> Change:
        def change(keys: Mapping[str, Any], gone: Any, rows: Any) -> None:
            with file(Path(keys["path"])) as connection:
                connection.executemany(f"DELETE FROM {keys['table']} WHERE id = ?", [(id,) for id in gone])
                connection.executemany(f"INSERT INTO {keys['table']} VALUES (?, ?)", rows)

        return change


class TestDestination(DestinationConformance):
    #: SQLite would store NULL for NaN, which is refused.
    types: ClassVar = VALUES

    @pytest.fixture
    def place(self, tmp_path: Path) -> Callable[..., Target]:
        numbers, path = itertools.count(), tmp_path / "target.db"

        def place(columns: Any = None, rows: Any = (), key: Any = ()) -> Target:
            name = f"t{next(numbers)}"
            if columns is not None:
                created(path, name, columns, rows, key)

            def there(columns: Any) -> list[tuple[Any, ...]]:
                names = ", ".join(quoted(column.name) for column in columns)
                loads = [loader(column.type) or (lambda value: value) for column in columns]
                if not path.exists():
                    return []
                with file(path) as connection:
                    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (name,)).fetchone():
                        return []
                    found = connection.execute(f"SELECT {names} FROM {name}").fetchall()
                return [tuple([load(value) for load, value in zip(loads, row, strict=True)]) for row in found]

            def rejected() -> list[dict[str, Any]]:
                with file(path) as connection:
                    return [json.loads(row) for (row,) in connection.execute(f"SELECT row FROM {name}__rejected")]

            destination = {"type": "sqlite", "path": str(path), "table": name}
            return Target(destination=destination, rows=there, rejected=rejected)

        return place
