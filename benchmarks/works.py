"""The pieces of work, one function each. Each says what portl is to reach beside what."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import portl
from benchmarks import peers
from benchmarks.alone import run_alone
from benchmarks.databases import whole
from benchmarks.files import sqlite_files
from benchmarks.increments import increments, nightly
from benchmarks.link import LINK_DELAY, LINK_RATE, link
from benchmarks.measuring import Missing, Reach, Way, Work
from benchmarks.mirrors import mirror_far_away, mirrors
from benchmarks.servers import MIXED, NARROW, WIDE, Bench, Table, execute, pipe, psql, value

PORTL, PIPE = "portl", "psql pipe"

#: What a connection may have on its way: plenty, and what TCP has without window scaling (half of it each way).
WINDOW_WIDE, WINDOW_SMALL = 1024 * 1024, 32 * 1024


def job(bench: Bench, table: str, **keys: object) -> dict[str, object]:
    """Return a job with default settings but for ``keys``."""
    return {
        "source": {"type": "postgres", "table": table, **bench.source.parameters()},
        "destination": {"type": "postgres", "table": table, **bench.target.parameters()},
        **keys,
    }


def migrate(bench: Bench, table: str, **keys: object) -> None:
    """Run portl here, with an observer, as a progress bar would be one."""
    _migrate(job(bench, table, **keys))


def _migrate(config: dict[str, object]) -> None:
    seen = 0

    def observe(_event: object) -> None:
        nonlocal seen
        seen += 1

    portl.migrate(config, observers=[observe])


def warm_up(bench: Bench) -> None:
    """Let portl import what it needs: what a fresh process costs is a work of its own."""
    name = bench.make(MIXED, name="mixed_ten", rows=10)
    bench.clear(name)
    migrate(bench, name)


def new_tables(bench: Bench) -> Iterator[Work]:
    """Fill a table that portl creates, its key included."""
    for table in (MIXED, NARROW, WIDE):
        yield _new_table(bench, table)


def _new_table(bench: Bench, table: Table) -> Work:
    name = bench.make(table)

    def by_pipe() -> None:
        execute(bench.target, f"CREATE TABLE {name} ({table.bare})")
        pipe(bench, name, f"COPY {name} FROM STDIN (FORMAT binary)")
        execute(bench.target, f"ALTER TABLE {name} ADD PRIMARY KEY ({table.key})")

    def by_pipe_and_analyze() -> None:
        by_pipe()
        execute(bench.target, f"ANALYZE {name}")

    return Work(
        name=f"new-{name}",
        title=f"a new table with its key: {name}, {bench.rows(table):,} rows",
        ways=[
            Way(name=PORTL, prepare=partial(bench.clear, name), run=lambda: migrate(bench, name)),
            Way(name=PIPE, prepare=partial(bench.clear, name), run=by_pipe),
            Way(name=f"{PIPE}, and ANALYZE", prepare=partial(bench.clear, name), run=by_pipe_and_analyze),
        ],
        reaches=[Reach(way=PORTL, against=(PIPE,), bound=1.0)],
        note="the pipe is COPY binary | COPY, then ADD PRIMARY KEY; ANALYZE is what portl does besides",
    )


def existing(bench: Bench) -> Iterator[Work]:
    """Fill a table that is there, is empty and has its key."""
    for table in (MIXED, NARROW):
        name = bench.make(table)

        def prepare(table: Table = table, name: str = name) -> None:
            bench.clear(name)
            execute(bench.target, f"CREATE TABLE {name} ({table.columns})")

        yield Work(
            name=f"existing-{name}",
            title=f"an existing, empty table with its key: {name}, {bench.rows(table):,} rows",
            ways=[
                Way(
                    name=PORTL,
                    prepare=prepare,
                    run=partial(migrate, bench, name, conflict="overwrite", batch_size=1000),
                ),
                Way(
                    name=PIPE,
                    prepare=prepare,
                    run=partial(pipe, bench, name, f"COPY {name} FROM STDIN (FORMAT binary)"),
                ),
            ],
            reaches=[Reach(way=PORTL, against=(PIPE,), bound=1.1)],
        )


def verifying(bench: Bench) -> Iterator[Work]:
    """Compare both sides of a copy that is equal, beside making it."""
    name = bench.make(MIXED)
    copied, compared = "portl.migrate", "portl.verify"

    def verify() -> None:
        found = portl.verify(job(bench, name))
        assert found.equal, found.summary()

    yield Work(
        name="verify",
        title=f"comparing equal tables: {name}, {bench.rows(MIXED):,} rows",
        ways=[
            Way(name=copied, prepare=partial(bench.clear, name), run=lambda: migrate(bench, name)),
            Way(name=compared, prepare=lambda: None, run=verify),
        ],
        reaches=[Reach(way=compared, against=(copied,), bound=0.6)],
        note="by checksums that the servers compute; the copy makes the table and its key",
    )


def overwrite(bench: Bench) -> Iterator[Work]:
    """Overwrite a table with itself, more or less of it changed; then skip."""
    name = bench.make(MIXED)
    columns = [part.split()[0] for part in MIXED.columns.replace("numeric(12,2)", "numeric").split(",")]
    stage = f"CREATE TEMPORARY TABLE stage AS TABLE {name} WITH NO DATA"
    copy = "COPY stage FROM STDIN (FORMAT binary)"
    assignments = ", ".join(f"{c} = excluded.{c}" for c in columns if c != MIXED.key)
    upsert = f"ON CONFLICT ({MIXED.key}) DO UPDATE SET {assignments} WHERE ({name}.*) IS DISTINCT FROM (excluded.*)"
    filtered = (
        f"INSERT INTO {name} SELECT * FROM stage AS s WHERE NOT EXISTS (SELECT FROM {name} AS t"
        f" WHERE t.{MIXED.key} = s.{MIXED.key} AND t IS NOT DISTINCT FROM s)"
    )
    by_hand = {
        "by hand": (stage, copy, f"INSERT INTO {name} SELECT * FROM stage {upsert}"),
        "by hand, same rows left out first": (stage, copy, "ANALYZE stage", f"{filtered} {upsert}"),
    }
    skip = {"by hand": (stage, copy, f"INSERT INTO {name} SELECT * FROM stage ON CONFLICT ({MIXED.key}) DO NOTHING")}
    cases = [("skip", "skip", 0, skip)] + [(f"overwrite-{p}", "overwrite", p, by_hand) for p in (0, 10, 100)]
    for case, strategy, percent, hand in cases:
        prepare = partial(restore, bench, name, percent)
        ways = [Way(name=PORTL, prepare=prepare, run=partial(migrate, bench, name, conflict=strategy))]
        ways += [Way(name=w, prepare=prepare, run=partial(pipe, bench, name, *sql)) for w, sql in hand.items()]
        become = "all skipped" if strategy == "skip" else f"overwritten, {percent} % changed"
        title = f"{bench.rows(MIXED):,} rows onto themselves, {become}"
        yield Work(name=case, title=title, ways=ways, reaches=[Reach(way=PORTL, against=tuple(hand), bound=1.15)])


def restore(bench: Bench, name: str, percent: int) -> None:
    """Let the destination hold the rows as they were before so many percent of them changed at the source."""
    before = f"{name}_before"
    if percent == 0 and bench.made.get("restored") == percent:
        return  # the run before has changed nothing
    bench.made["restored"] = percent
    if not value(bench.target, f"SELECT to_regclass('{before}') IS NOT NULL"):
        execute(bench.target, f"CREATE TABLE {before} ({MIXED.bare})")
        pipe(bench, name, f"COPY {before} FROM STDIN (FORMAT binary)")
        execute(bench.target, f"VACUUM {before}")
    changed = f"CASE WHEN id % 100 < {percent} THEN n + 1 ELSE n END"
    columns = [part.split()[0] for part in MIXED.columns.replace("numeric(12,2)", "numeric").split(",")]
    chosen = ", ".join(changed if column == "n" else column for column in columns)
    bench.clear(name)
    execute(
        bench.target,
        f"CREATE TABLE {name} ({MIXED.bare})",
        f"INSERT INTO {name} SELECT {chosen} FROM {before}",
        f"ALTER TABLE {name} ADD PRIMARY KEY ({MIXED.key})",
        f"VACUUM ANALYZE {name}",
    )


def one_database(bench: Bench) -> Iterator[Work]:
    """Copy between two tables of one database: inside the server, and through portl."""
    name, copy = bench.make(MIXED), "mixed_copy"

    def prepare() -> None:
        execute(bench.source, f"DROP TABLE IF EXISTS {copy}", f"CREATE TABLE {copy} ({MIXED.columns})")

    def by(route: str) -> Callable[[], None]:
        def run() -> None:
            if route not in {known.value for known in portl.Route}:
                raise Missing(f"portl has no route {route!r} yet")
            end = {"type": "postgres", "table": copy, **bench.source.parameters()}
            _migrate({**job(bench, name), "destination": end, "route": route})

        return run

    statement = f"INSERT INTO {copy} SELECT * FROM {name}"
    yield Work(
        name="one-database",
        title=f"both sides in one database: {bench.rows(MIXED):,} rows into an existing table with its key",
        ways=[
            Way(name="portl, route server", prepare=prepare, run=by("server")),
            Way(name="portl, route relay", prepare=prepare, run=by("relay")),
            Way(name="INSERT ... SELECT", prepare=prepare, run=lambda: execute(bench.source, statement)),
        ],
        reaches=[
            Reach(way="portl, route server", against=("INSERT ... SELECT",), bound=1.05),
            Reach(way="portl, route server", against=("portl, route relay",), bound=0.5),
        ],
    )


def other_tools(bench: Bench) -> Iterator[Work]:
    """Copy a table into a new one with every tool that is installed."""
    for table in (MIXED, NARROW):
        name = bench.make(table)
        prepare = partial(peers.forget, bench, name)
        ways = [Way(name=PORTL, prepare=prepare, run=partial(migrate, bench, name))]
        ways += [Way(name=p.name, prepare=prepare, run=partial(p.run, bench, name)) for p in peers.PEERS]
        reaches = [Reach(way=PORTL, against=(p.name,), bound=1.0, kind="under") for p in peers.PEERS]
        note = "; ".join(f"{p.name}: {p.note}" for p in peers.PEERS)
        yield Work(
            name=f"tools-{name}",
            title=f"default settings of other tools: {name}, {bench.rows(table):,} rows",
            ways=ways,
            reaches=reaches,
            note=note,
            rounds=3,
        )


def pgbench(bench: Bench) -> Iterator[Work]:
    """Copy pgbench's own tables, each into a new one."""
    tables = {"pgbench_branches": "bid", "pgbench_tellers": "tid", "pgbench_accounts": "aid", "pgbench_history": None}
    scale = max(1, round(20 * bench.scale))
    if "pgbench" not in bench.made:
        arguments = ["-h", bench.source.host, "-p", str(bench.source.port), "-U", bench.source.user, "postgres"]
        bench.source.run("pgbench", "-i", "-q", "-s", str(scale), *arguments)
        bench.made["pgbench"] = scale

    def by_pipe() -> None:
        for table, key in tables.items():
            columns = value(
                bench.source,
                "SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)"
                f" FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0",
            )
            execute(bench.target, f"CREATE TABLE {table} ({columns})")
            pipe(bench, table, f"COPY {table} FROM STDIN (FORMAT binary)")
            if key:
                execute(bench.target, f"ALTER TABLE {table} ADD PRIMARY KEY ({key})")

    def by_portl() -> None:
        for table in tables:
            migrate(bench, table)

    prepare = partial(bench.clear, *tables)
    yield Work(
        name="pgbench",
        title=f"pgbench's four tables, scale {scale}, {scale * 100_000:,} accounts",
        ways=[Way(name=PORTL, prepare=prepare, run=by_portl), Way(name=PIPE, prepare=prepare, run=by_pipe)],
        reaches=[Reach(way=PORTL, against=(PIPE,), bound=1.0)],
    )


def rows_route(bench: Bench) -> Iterator[Work]:
    """Decode every row, as connectors without COPY need it."""
    name = bench.make(MIXED, name="mixed_quarter", rows=bench.rows(MIXED, 0.25))

    def prepare() -> None:
        bench.clear(name)
        execute(bench.target, f"CREATE TABLE {name} ({MIXED.columns})")

    yield Work(
        name="rows-route",
        title=f"route rows: {bench.made[name]:,} rows into an existing table with its key",
        ways=[
            Way(name="portl, route rows", prepare=prepare, run=partial(migrate, bench, name, route="rows")),
            Way(name="portl, route relay", prepare=prepare, run=partial(migrate, bench, name, route="relay")),
            Way(name="executemany", prepare=prepare, run=partial(peers.executemany, bench, name)),
        ],
        reaches=[
            Reach(way="portl, route rows", against=("executemany",), bound=4.0, kind="at least", label="times as fast"),
            Reach(
                way="portl, route rows",
                against=("portl, route relay",),
                bound=round(60 / 350, 3),
                kind="at least",
                label="of the relay's speed (60 k of 350 k rows/s)",
            ),
        ],
    )


def far_away(bench: Bench) -> Iterator[Work]:
    """Write over a link of 20 ms and 100 Mbit/s."""
    name = bench.make(MIXED, name="mixed_far", rows=bench.rows(MIXED, 0.15))
    rows = bench.made[name]
    for case, window, said in (
        ("link-wide", WINDOW_WIDE, "1 MiB"),
        ("link-delay", WINDOW_SMALL, "32 KiB (the delay is the limit)"),
    ):
        with ExitStack() as stack:
            port = stack.enter_context(
                link(bench.target.host, bench.target.port, delay=LINK_DELAY, rate=LINK_RATE, window=window)
            )

            def by_pipe(port: int = port) -> None:
                execute(bench.target, f"CREATE TABLE {name} ({MIXED.bare})")
                pipe(bench, name, f"COPY {name} FROM STDIN (FORMAT binary)", port=port)
                key = psql(bench.target, f"ALTER TABLE {name} ADD PRIMARY KEY ({MIXED.key})", port=port)
                key.wait()

            def by_portl(port: int, **keys: object) -> None:
                config = job(bench, name, **keys)
                _migrate({**config, "destination": {**config["destination"], "port": port}})  # type: ignore[dict-item]

            prepare = partial(bench.clear, name)
            one, four = "portl, parallel 1", "portl, parallel 4"
            ways = [
                Way(name=one, prepare=prepare, run=partial(by_portl, port, parallel=1)),
                Way(name=four, prepare=prepare, run=partial(by_portl, port, parallel=4, chunk_rows=max(1, rows // 16))),
                Way(name=PIPE, prepare=prepare, run=by_pipe),
            ]
            reaches = [Reach(way=one, against=(PIPE,), bound=1.1)]
            if window == WINDOW_SMALL:
                reaches.append(Reach(way=four, against=(PIPE,), bound=0.6))
            yield Work(
                name=case,
                title=f"a link of 20 ms and 100 Mbit/s, {said} a connection on its way: {rows:,} rows into a new table",
                ways=ways,
                reaches=reaches,
                note="the link is before the destination; parallel 4 with chunk_rows of a sixteenth of the table",
                rounds=3,
            )


def processor(bench: Bench) -> Iterator[Work]:
    """Take portl's own processor time of a relay on one stream."""
    name = bench.make(MIXED)

    def run() -> float:
        found = run_alone(job(bench, name, parallel=1))
        return found["processor"] / found["seconds"]

    yield Work(
        name="processor",
        title=f"portl's own processor time over wall time, one stream: {bench.rows(MIXED):,} rows into a new table",
        ways=[Way(name=PORTL, prepare=partial(bench.clear, name), run=run)],
        reaches=[Reach(way=PORTL, bound=0.35)],
        unit="of the wall time",
    )


def memory(bench: Bench) -> Iterator[Work]:
    """Take the peak memory of a process that runs one job."""
    ten_million = round(10_000_000 * bench.scale)
    few = min(100_000, ten_million)
    cases: list[tuple[str, str, dict[str, object]]] = [
        (f"{few:,} narrow rows", bench.make(NARROW, name="narrow_few", rows=few), {}),
        (f"{ten_million:,} narrow rows", bench.make(NARROW, name="narrow_many", rows=ten_million), {}),
        ("mixed", bench.make(MIXED), {}),
        ("wide", bench.make(WIDE), {}),
        ("mixed, parallel 4", bench.make(MIXED), {"parallel": 4}),
        ("wide, parallel 4", bench.make(WIDE), {"parallel": 4}),
    ]
    ways, reaches = [], []
    for said, table, keys in cases:

        def run(table: str = table, keys: dict[str, object] = keys) -> float:
            return run_alone(job(bench, table, **keys))["peak_kib"] / 1024

        ways.append(Way(name=said, prepare=partial(bench.clear, table), run=run, once=True))
        reaches.append(Reach(way=said, bound=300 if keys else 150, kind="under"))
    yield Work(name="memory", title="peak memory of the whole process", ways=ways, reaches=reaches, unit="MiB")


def start(bench: Bench) -> Iterator[Work]:
    """Start an interpreter, import portl, move ten rows."""
    name = bench.make(MIXED, name="mixed_ten", rows=10)
    execute(bench.target, f"DROP TABLE IF EXISTS {name}", f"CREATE TABLE {name} ({MIXED.columns})")
    moving = f"import portl; portl.migrate({job(bench, name)!r})"

    # Whoever installs portl has its bytecode; a checkout under PYTHONDONTWRITEBYTECODE would be compiled each time.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def python(code: str) -> Callable[[], float]:
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)

        def run() -> float:
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], env=environment, check=True)
            return (time.perf_counter() - began) * 1000

        return run

    yield Work(
        name="start",
        title="from the start of the interpreter",
        ways=[
            Way(name="python alone", run=python("pass")),
            Way(name="import portl", run=python("import portl")),
            Way(name="import portl, 10 rows", run=python(moving)),
        ],
        reaches=[
            Reach(way="import portl", bound=60, kind="under"),
            Reach(way="import portl, 10 rows", bound=250, kind="under"),
        ],
        unit="ms",
    )


#: Name to what yields its works; ``--only`` takes these names, and those of the works.
WORKS: dict[str, Callable[[Bench], Iterator[Work]]] = {
    "new": new_tables,
    "existing": existing,
    "verify": verifying,
    "overwrite": overwrite,
    "mirror": mirrors,
    "mirror-link": mirror_far_away,
    "increment": increments,
    "nightly": nightly,
    "sqlite": sqlite_files,
    "one-database": one_database,
    "tools": other_tools,
    "pgbench": pgbench,
    "database": whole,
    "rows-route": rows_route,
    "link": far_away,
    "processor": processor,
    "memory": memory,
    "start": start,
}
