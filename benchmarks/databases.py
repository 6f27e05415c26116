"""Whole databases: pgbench's tables among small ones, and many small tables, beside pg_dump and pg_restore."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import portl
from benchmarks import peers
from benchmarks.measuring import Reach, Way, Work
from benchmarks.servers import Bench, execute

PORTL, DUMP = "portl", "pg_dump -Fd -j2, pg_restore -j2"


def whole(bench: Bench) -> Iterator[Work]:
    """Copy a database as a whole into an empty one."""
    scale, tables = max(1, round(50 * bench.scale)), max(20, round(2000 * bench.scale))
    yield _work(
        bench,
        "database-pgbench",
        f"pgbench scale {scale} with foreign keys, and 150 small tables with an index",
        _small(150, rows=100),
        bound=0.8,
        scale=scale,
    )
    parent = "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent SELECT generate_series(1, 10)"
    yield _work(
        bench,
        "database-small",
        f"{tables:,} tables of 10 rows, each with an index and a foreign key",
        [parent, *_small(tables, rows=10, parent="parent")],
        bound=1.0,
    )
    yield _large(bench, scale)


def _large(bench: Bench, scale: int) -> Work:
    """One large table among small ones: as fast as it is alone, with the small ones spread over the workers."""
    base, workers = "database_large", 2
    ready = False

    def prepare() -> None:
        nonlocal ready
        if not ready:
            execute(bench.source, f"DROP DATABASE IF EXISTS {base}", f"CREATE DATABASE {base}")
            rows = f"generate_series(1, {scale * 100_000}) AS g"
            large = f"CREATE TABLE large AS SELECT g AS id, md5(g::text) AS v FROM {rows}"
            execute(bench.source, large, *_small(150, rows=100), "VACUUM ANALYZE", database=base)
            ready = True
        empty()

    def empty() -> None:
        execute(bench.target, f"DROP DATABASE IF EXISTS {base} WITH (FORCE)", f"CREATE DATABASE {base}")

    def seconds(**keys: object) -> float:
        job = {
            "source": {"type": "postgres", **bench.source.parameters(base)},
            "destination": {"type": "postgres", **bench.target.parameters(base)},
            "parallel": workers,
            **keys,
        }
        return portl.migrate(job).seconds

    def apart() -> float:
        large = seconds(tables=["large"])
        empty()
        return large + seconds(tables="all", exclude=["large"]) / workers

    together = "all in one job"
    ways = [
        Way(name=together, prepare=prepare, run=lambda: seconds(tables="all")),
        Way(name="the large table alone, and the small ones over the workers", prepare=prepare, run=apart),
    ]
    return Work(
        name="database-large",
        title=f"one table of {scale / 10:g} M rows among 150 small ones, {workers} workers",
        ways=ways,
        reaches=[Reach(way=together, against=(ways[1].name,), bound=1.05)],
        rounds=3,
    )


def _small(count: int, *, rows: int, parent: str | None = None) -> list[str]:
    """Return the statements that make small tables, many in each."""
    refers = f" REFERENCES {parent}" if parent else ""
    made = [
        f"CREATE TABLE small_{n} (id int PRIMARY KEY, p int{refers}, name text, at timestamptz DEFAULT now());"
        f"CREATE INDEX ON small_{n} (name);"
        f"INSERT INTO small_{n} SELECT g, (g - 1) % 10 + 1, 'name ' || g FROM generate_series(1, {rows}) AS g"
        for n in range(count)
    ]
    return [";".join(made[start : start + 200]) for start in range(0, count, 200)]


def _work(bench: Bench, name: str, title: str, statements: list[str], bound: float, scale: int = 0) -> Work:
    base = name.replace("-", "_")
    ready = False

    def prepare() -> None:
        nonlocal ready
        if not ready:
            execute(bench.source, f"DROP DATABASE IF EXISTS {base}", f"CREATE DATABASE {base}")
            if scale:
                made = ("-i", "-q", "--foreign-keys", "-s", str(scale), *_where(bench, "source"), base)
                bench.source.run("pgbench", *made)
            execute(bench.source, *statements, "VACUUM ANALYZE", database=base)
            ready = True
        execute(bench.target, f"DROP DATABASE IF EXISTS {base} WITH (FORCE)", f"CREATE DATABASE {base}")

    def by_portl() -> None:
        job = {
            "source": {"type": "postgres", **bench.source.parameters(base)},
            "destination": {"type": "postgres", **bench.target.parameters(base)},
            "tables": "all",
        }
        portl.migrate(job)

    def by_dump() -> None:
        folder = Path(tempfile.mkdtemp(prefix="portl-bench-dump-"))
        folder.chmod(0o777)  # the programs run under the server's account
        try:
            bench.source.run("pg_dump", "-Fd", "-j2", "-f", str(folder / "d"), *_where(bench, "source"), base)
            bench.target.run("pg_restore", "-j2", *_where(bench, "target"), "-d", base, str(folder / "d"))
        finally:
            shutil.rmtree(folder)

    ways = [
        Way(name=PORTL, prepare=prepare, run=by_portl),
        Way(name=DUMP, prepare=prepare, run=by_dump),
        Way(name="pgcopydb", prepare=prepare, run=lambda: peers.pgcopydb_whole(bench, base)),
    ]
    reaches = [Reach(way=PORTL, against=(DUMP,), bound=bound)]
    return Work(name=name, title=title, ways=ways, reaches=reaches, rounds=3)


def _where(bench: Bench, side: str) -> tuple[str, ...]:
    server = bench.source if side == "source" else bench.target
    return "-h", server.host, "-p", str(server.port), "-U", server.user
