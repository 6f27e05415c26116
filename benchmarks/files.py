"""SQLite files into PostgreSQL, beside the loop that most people would write."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import portl
from benchmarks.measuring import Reach, Way, Work
from benchmarks.servers import Bench, connect, execute

PORTL, LOOP = "portl", "executemany"
ROWS = 1_000_000
_COLUMNS = "id bigint PRIMARY KEY, n bigint, name text, price double precision, note text"


def sqlite_files(bench: Bench) -> Iterator[Work]:
    """Copy a table of a SQLite file into a new table with its key."""
    rows = max(1000, round(ROWS * bench.scale))
    with tempfile.TemporaryDirectory(prefix="portl-bench-") as folder:
        path = Path(folder) / "source.db"
        with closing(sqlite3.connect(path)) as file:
            file.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, n INT, name TEXT, price REAL, note TEXT)")
            values = ((g, g % 1000, f"name of {g}", g * 1.5, "some text " * 3 if g % 3 else None) for g in range(rows))
            file.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?)", values)
            file.commit()

        def by_portl() -> None:
            end = {"type": "postgres", "table": "items", **bench.target.parameters()}
            portl.migrate({"source": {"type": "sqlite", "path": str(path), "table": "items"}, "destination": end})

        def by_loop() -> None:
            execute(bench.target, f"CREATE TABLE items ({_COLUMNS})")
            with closing(sqlite3.connect(path)) as file, connect(bench.target) as there:
                cursor = file.execute("SELECT * FROM items")
                with there.transaction(), there.cursor() as into:
                    while found := cursor.fetchmany(1000):
                        into.executemany("INSERT INTO items VALUES (%s, %s, %s, %s, %s)", found)

        def prepare() -> None:
            bench.clear("items")

        yield Work(
            name="sqlite",
            title=f"SQLite to PostgreSQL: {rows:,} rows into a new table with its key",
            ways=[Way(name=PORTL, prepare=prepare, run=by_portl), Way(name=LOOP, prepare=prepare, run=by_loop)],
            reaches=[Reach(way=PORTL, against=(LOOP,), bound=4.0, kind="at least", label="times as fast")],
            rounds=3,
        )
