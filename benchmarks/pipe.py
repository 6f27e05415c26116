"""Compare ``portl.migrate`` with ``psql COPY binary | psql``, side by side: ``python benchmarks/pipe.py``.

Two servers of its own on loopback; a table of 13 columns of mixed types; portl with its default settings. Runs
alternate, and the figure is the ratio of the medians: a time means nothing on another machine, nor here an hour later.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

import portl
from portl_postgres.demo.server import Server

COLUMNS = """id bigint PRIMARY KEY, n int, u uuid, name varchar(80), price numeric(12,2), ratio float8, good bool,
    remark text, data jsonb, tags text[], day date, at timestamptz, local timestamp"""
FILL = """INSERT INTO t SELECT g, g % 1000, md5(g::text)::uuid, 'name of number ' || g, g * 1.5, g / 3.0, g % 2 = 0,
    CASE WHEN g % 3 > 0 THEN repeat('text ', 8) || g END, jsonb_build_object('a', g, 'b', 'hello', 'c', g % 7),
    ARRAY['a', 'b', g::text], date '2020-01-01' + g % 1000, now(), localtimestamp FROM generate_series(1, {}) AS g"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="portl-bench-"))
    folder.chmod(0o755)
    settings = {"max_wal_size": "'8GB'", "shared_buffers": "'256MB'", "autovacuum": "off"}
    try:
        with Server(folder / "a", settings=settings) as source, Server(folder / "b", settings=settings) as target:
            measure(source, target, arguments.rows, arguments.rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(source: Server, target: Server, rows: int, rounds: int) -> None:
    """Run the pipe and portl in turns, for two kinds of destination."""
    execute(source, f"CREATE TABLE t ({COLUMNS}); {FILL.format(rows)}; VACUUM ANALYZE t".split(";"))
    plain = COLUMNS.replace(" PRIMARY KEY", " NOT NULL")
    cases: dict[str, tuple[str, Callable[[], None]]] = {
        "into a new table, key included": ("DROP TABLE IF EXISTS t", lambda: pipe(source, target, plain)),
        "into an empty table with its key": (
            f"DROP TABLE IF EXISTS t; CREATE TABLE t ({COLUMNS})",
            lambda: pipe(source, target),
        ),
    }
    print(f"{rows:,} rows, {rounds} rounds, medians")
    for name, (prepare, by_pipe) in cases.items():
        seconds: dict[str, list[float]] = {"pipe": [], "portl": []}
        for _ in range(rounds):
            for tool, run in (("pipe", by_pipe), ("portl", lambda: migrate(source, target))):
                execute(target, [*prepare.split(";"), "CHECKPOINT"])
                began = time.perf_counter()
                run()
                seconds[tool].append(time.perf_counter() - began)
        medians = {tool: statistics.median(times) for tool, times in seconds.items()}
        ratio = medians["portl"] / medians["pipe"]
        print(f"{name}: pipe {medians['pipe']:.2f} s, portl {medians['portl']:.2f} s, ratio {ratio:.2f}")


def pipe(source: Server, target: Server, create: str | None = None) -> None:
    """Copy with psql at both ends; with ``create``, into a table made for it that gets its key afterwards."""
    if create:
        execute(target, [f"CREATE TABLE t ({create})"])
    out = psql(source, "COPY t TO STDOUT (FORMAT binary)", stdout=subprocess.PIPE)
    into = psql(target, "COPY t FROM STDIN (FORMAT binary)", stdin=out.stdout)
    if into.wait() or out.wait():
        raise SystemExit("psql failed")
    if create:
        execute(target, ["ALTER TABLE t ADD PRIMARY KEY (id)", "ANALYZE t"])


def migrate(source: Server, target: Server) -> None:
    """Copy with portl."""
    ends = ({"type": "postgres", "table": "t", **server.parameters()} for server in (source, target))
    portl.migrate(dict(zip(("source", "destination"), ends, strict=True)))


def psql(server: Server, statement: str, **streams: object) -> subprocess.Popen[bytes]:
    """Start psql with one statement."""
    call = [
        str(server.binaries / "psql"),
        "-h",
        server.host,
        "-p",
        str(server.port),
        "-U",
        server.user,
        "-qXc",
        statement,
    ]
    environment = {**os.environ, "PGPASSWORD": server.password}
    return subprocess.Popen(call, env=environment, **streams)  # type: ignore[call-overload,no-any-return]


def execute(server: Server, statements: list[str]) -> None:
    """Execute statements, each by itself."""
    with psycopg.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        dbname="postgres",
        autocommit=True,
    ) as connection:
        for statement in statements:
            connection.execute(statement.encode())


if __name__ == "__main__":
    main()
