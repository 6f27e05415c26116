"""Mirrors of equal tables, and of tables with few changes, beside a full copy into an empty table."""

from __future__ import annotations

from collections.abc import Iterator

import portl
from benchmarks.link import LINK_DELAY, LINK_RATE, link
from benchmarks.measuring import Reach, Way, Work
from benchmarks.servers import MIXED, Bench, execute, pipe

COPY, MIRROR, PIPE = "a full copy into an empty table", "mode: mirror", "psql pipe"

#: At the source, one row in a hundred has changed, and one in a thousand has been deleted.
_CHANGED = (
    "UPDATE {table} SET n = n + 1, remark = remark || '.' WHERE id % 100 = 50",
    "DELETE FROM {table} WHERE id % 1000 = 7",
)


def mirrors(bench: Bench) -> Iterator[Work]:
    """Mirror a table that is equal, and one that is not quite."""
    name, rows = bench.make(MIXED), f"{bench.rows(MIXED):,} rows"
    changed = f"{name}_changed"
    copy = Way(name=COPY, prepare=lambda: _empty(bench, f"{name}_new"), run=lambda: _run(bench, name, f"{name}_new"))

    def by_mirror(source: str) -> Way:
        return Way(
            name=MIRROR,
            prepare=lambda: _as_before(bench, name, changed),
            run=lambda: _run(bench, source, f"{name}_there", mode="mirror"),
        )

    yield Work(
        name="mirror-equal",
        title=f"a mirror of equal tables: {name}, {rows}",
        ways=[copy, by_mirror(name)],
        reaches=[Reach(way=MIRROR, against=(COPY,), bound=0.6)],
    )
    yield Work(
        name="mirror-changed",
        title=f"a mirror with 1 % of the rows changed and 0.1 % deleted: {name}, {rows}",
        ways=[copy, by_mirror(changed)],
        reaches=[Reach(way=MIRROR, against=(COPY,), bound=0.9)],
    )

    def sent(source: str, destination: str, mode: str = "full") -> float:
        return float(_migrate(bench, source, destination, mode=mode).bytes)

    yield Work(
        name="mirror-bytes",
        title=f"bytes on the wire, with 1 % changed and 0.1 % deleted: {name}, {rows}",
        unit="bytes",
        ways=[
            Way(name=COPY, once=True, prepare=copy.prepare, run=lambda: sent(name, f"{name}_new")),
            Way(
                name=MIRROR,
                once=True,
                prepare=lambda: _as_before(bench, name, changed),
                run=lambda: sent(changed, f"{name}_there", mode="mirror"),
            ),
        ],
        reaches=[Reach(way=MIRROR, against=(COPY,), bound=0.15)],
        note="the sums of buckets, which both servers send to portl, are not counted",
    )


def mirror_far_away(bench: Bench) -> Iterator[Work]:
    """Mirror over a link of 20 ms and 100 Mbit/s, beside sending all rows."""
    name = bench.make(MIXED, name="mixed_mirrored", rows=bench.rows(MIXED, 0.5))
    changed = f"{name}_changed"
    with link(bench.target.host, bench.target.port, delay=LINK_DELAY, rate=LINK_RATE, window=1024 * 1024) as port:

        def by_pipe() -> None:
            execute(bench.target, f"CREATE TABLE {name}_new ({MIXED.bare})")
            pipe(bench, name, f"COPY {name}_new FROM STDIN (FORMAT binary)", port=port)

        yield Work(
            name="mirror-link",
            title=f"the same over a link of 20 ms and 100 Mbit/s before the destination: {bench.made[name]:,} rows",
            ways=[
                Way(name=PIPE, prepare=lambda: bench.clear(f"{name}_new"), run=by_pipe),
                Way(
                    name=MIRROR,
                    prepare=lambda: _as_before(bench, name, changed),
                    run=lambda: _run(bench, changed, f"{name}_there", port, mode="mirror"),
                ),
            ],
            reaches=[Reach(way=MIRROR, against=(PIPE,), bound=0.25)],
            note="the pipe fills a table without a key",
            rounds=3,
        )


def _migrate(bench: Bench, source: str, destination: str, port: int | None = None, **keys: object) -> portl.Result:
    there = bench.target.parameters()
    return portl.migrate(
        {
            "source": {"type": "postgres", "table": source, **bench.source.parameters()},
            "destination": {"type": "postgres", "table": destination, **there, "port": port or there["port"]},
            **keys,
        }
    )


def _run(bench: Bench, source: str, destination: str, port: int | None = None, **keys: object) -> None:
    _migrate(bench, source, destination, port, **keys)


def _empty(bench: Bench, table: str) -> None:
    bench.clear(table)
    execute(bench.target, f"CREATE TABLE {table} ({MIXED.columns})")


def _as_before(bench: Bench, name: str, changed: str) -> None:
    """Reset the destination to the source's state before the change, and keep both states at the source."""
    if changed not in bench.made:
        execute(
            bench.source,
            f"CREATE TABLE {changed} (LIKE {name} INCLUDING ALL)",
            f"INSERT INTO {changed} TABLE {name}",
            *(text.format(table=changed) for text in _CHANGED),
            f"VACUUM (ANALYZE, FREEZE) {changed}",
        )
        _empty(bench, f"{name}_kept")
        _migrate(bench, name, f"{name}_kept")
        bench.made[changed] = bench.rows(MIXED)
    there = f"{name}_there"
    bench.clear(there)
    execute(
        bench.target,
        f"CREATE TABLE {there} (LIKE {name}_kept INCLUDING ALL)",
        f"INSERT INTO {there} TABLE {name}_kept",
        f"VACUUM (ANALYZE, FREEZE) {there}",
    )
