"""Where the time of a job goes: ``python -m benchmarks.profiling``, with py-spy on the PATH for the functions.

Processor time is split between portl and the backends of both servers; whichever is close to the wall time is the
bottleneck. py-spy samples the functions of portl's process, except while waiting.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.servers import MIXED, NARROW, Bench, connect, execute, servers
from benchmarks.works import job, restore
from portl_postgres.catalog.types import PgType, generic
from portl_postgres.demo.server import Server
from portl_postgres.wire.column_codecs import rows_dumper, rows_loader

#: Samples a second.
RATE = 250


def backends(server: Server) -> float:
    """Return the processor seconds of the server's finished backends."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def profile(bench: Bench, title: str, config: dict[str, object]) -> None:
    """Run one job and print where its time went."""
    bench.settle()
    before = [backends(server) for server in (bench.source, bench.target)]
    call = [sys.executable, "-m", "benchmarks.alone"]
    done = subprocess.run(call, input=json.dumps(config), capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    time.sleep(0.5)  # until the postmasters have seen their backends end
    source, target = (backends(s) - b for s, b in zip((bench.source, bench.target), before, strict=True))
    wall = found["seconds"]
    print(f"{title}: {found['rows']:,} rows in {wall:.2f} s")
    for name, seconds in (("portl", found["processor"]), ("source's backends", source), ("destination's", target)):
        print(f"  {name:<20} {seconds:6.2f} s of processor time, {seconds / wall:4.0%} of the wall time")


def _sample(sampler: str | None, config: dict[str, object]) -> None:
    """Run the job again under py-spy and print the functions that take the time."""
    if sampler is None:
        return
    with tempfile.TemporaryDirectory(prefix="portl-bench-") as folder:
        stacks = Path(folder) / "stacks"
        call = [sampler, "record", "--rate", str(RATE), "--format", "raw", "--output", str(stacks), "--nonblocking"]
        call += ["--", sys.executable, "-m", "benchmarks.alone"]
        done = subprocess.run(call, input=json.dumps(config), capture_output=True, text=True, check=False)
        if not stacks.exists():
            print(f"  {sampler} failed: {done.stderr.strip()[-200:]}")
            return
        lines = [line.rpartition(" ") for line in stacks.read_text().splitlines()]
    leaves: Counter[str] = Counter()
    for stack, _, samples in lines:
        if "migrate" in stack:
            leaves[stack.rpartition(";")[2]] += int(samples)
    for leaf, found in leaves.most_common(12):
        print(f"    {found / leaves.total():4.0%}  {leaf}")


def halves(bench: Bench, name: str, rows: int = 100_000, times: int = 5) -> None:
    """Print the processor time of decoding and encoding alone, without servers: the best of several runs."""
    with connect(bench.source) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {name} LIMIT 0".encode())
        assert cursor.description is not None
        names = [connection.adapters.types[column.type_code] for column in cursor.description]
        types = [
            generic(PgType(oid=0, schema="pg_catalog", name=known.name if known else "", spelled="", kind="b"), -1)
            for known in names
        ]
        with cursor.copy(f"COPY (SELECT * FROM {name} LIMIT {rows}) TO STDOUT".encode()) as copy:
            lines = [bytes(line) for line in copy]
    at_once = 140  # about 32 KiB of mixed rows, as they come from the server
    pieces = [b"".join(lines[start : start + at_once]) for start in range(0, len(lines), at_once)]
    load, dump = rows_loader(types), rows_dumper(types)
    decoding, encoding = [], []
    for _ in range(times):
        spent = [0.0, 0.0]
        for piece in pieces:
            began = time.process_time()
            decoded = load([piece])
            between = time.process_time()
            assert sum(map(len, dump(decoded)))
            spent = [spent[0] + between - began, spent[1] + time.process_time() - between]
        decoding.append(spent[0])
        encoding.append(spent[1])
    for step, found in (("decoding", decoding), ("encoding", encoding)):
        print(f"  {step} alone {min(found) / len(lines) * 1e6:12.2f} us a row")


def main() -> None:
    """Profile the relay, narrow and mixed, the staged path, and the rows route."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiling")
    parser.add_argument("--scale", type=float, default=0.5)
    parser.add_argument("--py-spy", help="the program py-spy")
    arguments = parser.parse_args()
    with servers(None) as (source, target):
        bench = Bench(source, target, arguments.scale, sys.executable)
        for table in (MIXED, NARROW):
            name = bench.make(table)
            bench.clear(name)
            title = f"relay, {name}, into a new table, one worker"
            profile(bench, title, job(bench, name, parallel=1))
            bench.clear(name)
            _sample(arguments.py_spy, job(bench, name, parallel=1))
        for percent in (0, 100):
            restore(bench, "mixed", percent)
            profile(bench, f"staged, mixed, {percent} % changed", job(bench, "mixed", parallel=1))
            restore(bench, "mixed", percent)
            _sample(arguments.py_spy, job(bench, "mixed", parallel=1))
        for route in ("relay", "rows"):
            bench.clear("mixed")
            execute(bench.target, f"CREATE TABLE mixed ({MIXED.columns})")
            profile(bench, f"{route}, mixed, into an existing table", job(bench, "mixed", parallel=1, route=route))
        halves(bench, "mixed")


if __name__ == "__main__":
    main()
