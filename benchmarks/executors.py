"""What an executor costs, and when it pays off: ``python -m benchmarks.executors``, in turns on two private servers.

The baseline is one process with one worker, compared with several workers and with processes started beforehand. Bytes
passed through undecoded hardly need Python, so there processes can only cost; rows decoded and encoded in Python share
one interpreter lock per process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from statistics import median

import portl
from benchmarks.servers import MIXED, Bench, servers
from benchmarks.works import job


def _ready(number: int) -> int:
    """Import what a worker needs, once for each."""
    import portl.execution.workers.executor  # noqa: F401
    import portl_postgres.plugin  # noqa: F401

    time.sleep(0.5)
    return number


def seconds(config: dict[str, object], executor: Executor | None) -> float:
    """Return how long a job takes."""
    started = time.monotonic()
    portl.migrate(config, executor=executor)
    return time.monotonic() - started


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.executors", description=__doc__)
    parser.add_argument("--scale", type=float, default=0.2, help="1 is two million rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with (
        servers(None) as (source, target),
        ProcessPoolExecutor(args.workers, mp_context=multiprocessing.get_context("spawn")) as processes,
    ):
        list(processes.map(_ready, range(args.workers)))
        bench = Bench(source=source, target=target, scale=args.scale, python="")
        for route, share in (("relay", 1.0), ("rows", 0.5)):
            rows = bench.rows(MIXED, share)
            name = bench.make(MIXED, name=f"mixed_{route}", rows=rows)
            config = job(bench, name, route=route, chunk_rows=max(1000, rows // 8))
            several = {**config, "parallel": args.workers}
            ways: dict[str, tuple[dict[str, object], Executor | None]] = {
                "one worker": ({**config, "parallel": 1}, None),
                f"{args.workers} workers": (several, None),
                f"{args.workers} processes": (several, processes),
            }
            found: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(args.rounds):
                for way, (asked, executor) in ways.items():
                    bench.clear(name)
                    bench.settle()
                    found[way].append(seconds(asked, executor))
            base = median(found["one worker"])
            print(f"{route}, {rows:,} rows", flush=True)
            for way, times in found.items():
                print(f"  {way:<14} {median(times) / base:5.2f}  ({min(times):.2f} to {max(times):.2f} s)", flush=True)


if __name__ == "__main__":
    main()
