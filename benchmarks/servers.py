"""The two servers of a run, their data, and psql."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import psycopg

from benchmarks.measuring import Missing
from portl_postgres.demo.server import Server

#: The same on both sides: a checkpoint or vacuum in the middle of a run would hit one tool and spare the next.
SETTINGS = {"max_wal_size": "'16GB'", "shared_buffers": "'512MB'", "autovacuum": "off", "checkpoint_timeout": "'1h'"}

COLUMNS = """id bigint PRIMARY KEY, n int, u uuid, name varchar(80), price numeric(12,2), ratio float8, good bool,
    remark text, data jsonb, tags text[], day date, at timestamptz, local timestamp"""
_MIXED = """SELECT g, g % 1000, md5(g::text)::uuid, 'name of number ' || g, g % 1000000 * 1.5, g / 3.0, g % 2 = 0,
    CASE WHEN g % 3 > 0 THEN repeat('text ', 8) || g END, jsonb_build_object('a', g, 'b', 'hello', 'c', g % 7),
    ARRAY['a', 'b', g::text], date '2020-01-01' + (g % 1000)::int,
    timestamptz '2024-05-06 07:08:09+00' + g * interval '1 s', timestamp '2024-05-06 07:08:09' + g * interval '1 s'
    FROM generate_series(1, {rows}) AS g"""
#: Kept out of line and out of reach of compression, as text that people wrote would not quite be.
_WIDE = """SELECT g, string_agg(md5((g * 1000 + i)::text), '') FROM generate_series(1, {rows}) AS g,
    generate_series(1, 313) AS i GROUP BY g"""


@attrs.frozen(kw_only=True)
class Table:
    """A table of the source."""

    name: str
    columns: str
    fill: str
    #: At scale 1.
    rows: int
    key: str = "id"

    @property
    def bare(self) -> str:
        """The columns without the key."""
        return self.columns.replace("PRIMARY KEY", "NOT NULL")


MIXED = Table(name="mixed", columns=COLUMNS, fill=_MIXED, rows=2_000_000)
NARROW = Table(
    name="narrow",
    columns="id int PRIMARY KEY, n int",
    fill="SELECT g, g % 1000 FROM generate_series(1, {rows}) AS g",
    rows=5_000_000,
)
WIDE = Table(name="wide", columns="id int PRIMARY KEY, body text", fill=_WIDE, rows=100_000)


@attrs.define
class Bench:
    """Two servers, and the scale of the data."""

    source: Server
    target: Server
    scale: float
    #: The Python that peers are installed in.
    python: str
    #: What is there: table to rows.
    made: dict[str, int] = attrs.field(factory=dict)

    def rows(self, table: Table, share: float = 1.0) -> int:
        """Return how many rows a table has, or a part of it."""
        return max(100, round(table.rows * self.scale * share))

    def make(self, table: Table, *, name: str | None = None, rows: int | None = None) -> str:
        """Make a table at the source unless it is there; return its name."""
        name, rows = name or table.name, rows or self.rows(table)
        if name not in self.made:
            execute(
                self.source,
                f"CREATE TABLE {name} ({table.bare})",
                f"INSERT INTO {name} {table.fill.format(rows=rows)}",
                f"ALTER TABLE {name} ADD PRIMARY KEY ({table.key})",
                f"VACUUM (ANALYZE, FREEZE) {name}",
            )
            self.made[name] = rows
        return name

    def clear(self, *names: str) -> None:
        """Drop tables at the destination."""
        execute(self.target, *(f"DROP TABLE IF EXISTS {name}" for name in names))

    def settle(self) -> None:
        """Write out dirty buffers, so that no run pays for the previous one."""
        for server in (self.source, self.target):
            execute(server, "CHECKPOINT")


def system_binaries() -> Path | None:
    """Return the binaries' folder of the system's PostgreSQL, the newest if there are several."""
    folders = ("/usr/lib/postgresql", "/usr/local/lib/postgresql", "/opt/homebrew/opt")
    found = [path.parent for root in folders for path in Path(root).glob("*/bin/initdb")]
    return max(found, key=lambda path: int("".join(filter(str.isdigit, path.parent.name)) or 0), default=None)


@contextmanager
def servers(binaries: Path | None) -> Iterator[tuple[Server, Server]]:
    """Start two servers; stop them and delete their data at the end."""
    folder = Path(tempfile.mkdtemp(prefix="portl-bench-"))
    folder.chmod(0o755)
    try:
        with (
            Server(folder / "source", binaries=binaries, settings=SETTINGS) as source,
            Server(folder / "target", binaries=binaries, settings=SETTINGS) as target,
        ):
            yield source, target
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def connect(server: Server, database: str = "postgres", **more: Any) -> psycopg.Connection[Any]:
    """Connect to a server, in autocommit mode."""
    return psycopg.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        dbname=database,
        autocommit=True,
        **more,
    )


def execute(server: Server, *statements: str, database: str = "postgres") -> None:
    """Execute statements, each in its own transaction."""
    with connect(server, database) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def value(server: Server, query: str) -> Any:
    """Return the one value of a query."""
    with connect(server) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def url(server: Server, database: str = "postgres") -> str:
    """Return the address of a server for tools that take one."""
    return f"postgresql://{server.user}:{server.password}@{server.host}:{server.port}/{database}"


def environment(server: Server, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for client programs."""
    path = f"{server.binaries}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "PGPASSWORD": server.password, **(more or {})}


def psql(
    server: Server, *statements: str, port: int | None = None, stdin: Any = None, stdout: Any = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start psql with statements, all in one session; ``port`` is that of a link in between."""
    call = [str(server.binaries / "psql"), "-h", server.host, "-p", str(port or server.port), "-U", server.user]
    for statement in statements:
        call += ["-c", statement]
    options = ["-qX", "-v", "ON_ERROR_STOP=1", "postgres"]
    try:
        return subprocess.Popen([*call, *options], env=environment(server), stdin=stdin, stdout=stdout)
    except FileNotFoundError:
        raise Missing(f"there is no psql in {server.binaries}") from None


def pipe(bench: Bench, query: str, *statements: str, port: int | None = None) -> None:
    """Send a table or query of the source through two psql, in binary; ``statements`` hold the COPY that takes it."""
    out = psql(bench.source, f"COPY {query} TO STDOUT (FORMAT binary)", stdout=subprocess.PIPE)
    into = psql(bench.target, *statements, stdin=out.stdout, port=port)
    assert out.stdout is not None
    out.stdout.close()
    if into.wait() or out.wait():
        raise RuntimeError("psql failed")
