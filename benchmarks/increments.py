"""Incremental runs after a small change, beside a full copy into an empty table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import portl
from benchmarks.measuring import Reach, Way, Work
from benchmarks.servers import MIXED, Bench, execute

COPY = "a full copy into an empty table"
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
        """Let the last run have read everything but the change."""
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


def _nothing(_: portl.Result) -> None:
    """Let the way's figure be the seconds that it took."""
