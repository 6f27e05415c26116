"""Incremental runs after a small change, beside a full copy into an empty table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import portl
from benchmarks import peers
from benchmarks.measuring import Reach, Way, Work
from benchmarks.servers import MIXED, Bench, execute

COPY = "a full copy into an empty table"
PORTL, DLT, SLING = "portl, mode: incremental", "dlt (incremental, merge)", "sling (incremental)"
BY_CURSOR, BY_XMIN = "mode: incremental, by a cursor with an index", "mode: incremental, by xmin"


def increments(bench: Bench) -> Iterator[Work]:
    """Read what has changed: a thousand rows by a cursor, one in a hundred by xmin."""
    rows = bench.rows(MIXED)
    yield _work(
        bench, "increment-cursor", "1,000", {"cursor": "changed"}, rows // 1000, Reach(way=BY_CURSOR, bound=1.0)
    )
    yield _work(bench, "increment-xmin", "1 %", {"by": "xmin"}, 100, Reach(way=BY_XMIN, against=(COPY,), bound=0.4))


def _work(bench: Bench, name: str, share: str, incremental: Mapping[str, str], every: int, reach: Reach) -> Work:
    made, table = bench.make(MIXED), name.replace("-", "_")

    def migrate(destination: str, **keys: object) -> portl.Result:
        return portl.migrate(
            {
                "name": destination,
                "source": {"type": "postgres", "table": table, **bench.source.parameters()},
                "destination": {"type": "postgres", "table": destination, **bench.target.parameters()},
                **keys,
            }
        )

    def run_incremental() -> None:
        migrate(table, mode="incremental", incremental=incremental)

    def prepare() -> None:
        """Make the last run have read everything but the change."""
        if table not in bench.made:
            execute(
                bench.source,
                f"CREATE TABLE {table} (LIKE {made} INCLUDING ALL)",
                f"ALTER TABLE {table} ADD COLUMN changed timestamptz NOT NULL DEFAULT now()",
                f"INSERT INTO {table} SELECT *, now() - interval '1 day' + id * interval '1 ms' FROM {made}",
                f"CREATE INDEX ON {table} (changed)",
                f"VACUUM (ANALYZE) {table}",
            )
            bench.made[table] = bench.rows(MIXED)
        run_incremental()
        change = f"UPDATE {table} SET n = n + 1, changed = clock_timestamp() WHERE id % {max(1, every)} = 1"
        execute(bench.source, change)

    def empty() -> None:
        prepare()
        bench.clear(f"{table}_new")

    way = BY_CURSOR if "cursor" in incremental else BY_XMIN
    ways = [
        Way(name=COPY, prepare=empty, run=lambda: _nothing(migrate(f"{table}_new"))),
        Way(name=way, prepare=prepare, run=run_incremental),
    ]
    title = f"an incremental run after {share} of {bench.rows(MIXED):,} rows have changed"
    return Work(name=name, title=title, ways=ways, reaches=[reach])


def nightly(bench: Bench) -> Iterator[Work]:
    """Take over a night's change with portl and with other tools, each with a table of its own and a first run done."""
    made = bench.make(MIXED)
    rows = bench.made[made]

    def by_portl(table: str) -> None:
        ends = {"source": bench.source, "destination": bench.target}
        config = {side: {"type": "postgres", "table": table, **at.parameters()} for side, at in ends.items()}
        portl.migrate({**config, "name": table, "mode": "incremental", "incremental": {"cursor": "changed"}})

    def prepare(table: str, run: Callable[[str], object]) -> None:
        if table not in bench.made:
            execute(
                bench.source,
                f"CREATE TABLE {table} (LIKE {made} INCLUDING ALL)",
                f"ALTER TABLE {table} ADD COLUMN changed timestamptz NOT NULL DEFAULT clock_timestamp()",
                f"INSERT INTO {table} SELECT *, now() - interval '1 day' + id * interval '1 ms' FROM {made}",
                f"CREATE INDEX ON {table} (changed)",
                f"VACUUM (ANALYZE) {table}",
            )
            run(table)
            bench.made[table] = rows
        execute(
            bench.source,
            f"UPDATE {table} SET n = n + 1, changed = clock_timestamp() WHERE id % 100 = 1",
            f"INSERT INTO {table} SELECT (SELECT max(id) FROM {table}) + row_number() OVER (), n, u, name, price,"
            f" ratio, good, remark, data, tags, day, at, local FROM {made} WHERE id % 1000 = 2",
        )

    tools: dict[str, tuple[str, Callable[[str], float | None]]] = {
        PORTL: ("nightly_portl", by_portl),
        DLT: ("nightly_dlt", partial(peers.dlt_incremental, bench, cursor="changed")),
        SLING: ("nightly_sling", partial(peers.sling_incremental, bench, cursor="changed")),
    }
    yield Work(
        name="nightly",
        title=f"a night's change, 1 % of {rows:,} rows updated and 0.1 % inserted, by an indexed cursor",
        ways=[
            Way(name=name, prepare=partial(prepare, table, run), run=partial(run, table))
            for name, (table, run) in tools.items()
        ],
        reaches=[
            Reach(way=PORTL, against=(peer,), bound=5.0, kind="at least", label="times as fast")
            for peer in (DLT, SLING)
        ],
        rounds=3,
    )


def _nothing(_: portl.Result) -> None:
    """Return None, so that the elapsed time is the figure."""
