"""The command ``portl demo``."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import click

import portl
from portl.cli.output import Output
from portl_postgres.demo import shop
from portl_postgres.demo.server import Server


@click.command()
@click.option("--rows", type=click.IntRange(min=1), default=100_000, show_default=True, help="Orders in the shop.")
@click.option("--keep", type=click.Path(path_type=Path), metavar="DIR", help="Keep job files and data in DIR.")
def demo(rows: int, keep: Path | None) -> int:
    """Copy a generated shop from one database to another.

    This uses a temporary server, which is removed afterwards.
    """
    output = Output()
    try:
        with _folder(keep) as folder:
            return _show(output, folder, rows, kept=keep is not None)
    except portl.Error as error:
        output.error(error, None)
        return 1


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Yield a folder that the server's account can enter; a temporary one is removed afterwards."""
    if keep is not None:
        if keep.exists() and any(keep.iterdir()):
            raise portl.Error(f"{keep} is not empty", hint="name a new folder, or an empty one")
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="portl-demo-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _show(output: Output, folder: Path, rows: int, *, kept: bool) -> int:
    began = time.monotonic()
    output.say("starting a PostgreSQL server ...", "dim")
    with Server(folder / "server") as server:
        output.say(f"filling a shop of {rows:,} orders ...", "dim")
        shop.fill(server, rows)
        # The password is written as ${...}, as in any good job file.
        before = os.environ.get(shop.PASSWORD_VARIABLE)
        os.environ[shop.PASSWORD_VARIABLE] = server.password
        try:
            failed = _run(output, server, folder / "jobs")
        finally:
            _restore(before)
        if kept:
            _leave(output, server, folder)
    if not kept:
        output.say("\nThe job files and the data have been removed; portl demo --keep DIR keeps them in DIR.", "dim")
    output.say(f"{time.monotonic() - began:.1f} s in total", "dim")
    return 1 if failed else 0


def _restore(before: str | None) -> None:
    if before is None:
        os.environ.pop(shop.PASSWORD_VARIABLE, None)
    else:
        os.environ[shop.PASSWORD_VARIABLE] = before


def _run(output: Output, server: Server, folder: Path) -> bool:
    """Run the jobs, then change some orders and run their job again; return True if a table differs."""
    jobs = list(shop.write_jobs(server, folder))
    results = [_migrate(output, path) for _, path in jobs]
    equal = {job.table: shop.same(server, job) for job, _ in jobs}
    shop.change(server)
    results.append(_migrate(output, jobs[1][1], name="orders, again"))
    equal["orders, again"] = shop.same(server, jobs[1][0])
    tables = tuple(table for result in results for table in result.tables)
    output.result(portl.Result(name="demo", tables=tables, seconds=sum(result.seconds for result in results)))
    for name, is_equal in equal.items():
        verdict = "both sides have the same rows" if is_equal else "the two sides DIFFER"
        output.say(f"  {name}: {verdict}", "good" if is_equal else "problem")
    output.say(f"\none of the job files in {folder}, {jobs[-1][1].name}:", "plain")
    output.say(jobs[-1][1].read_text(encoding="utf-8").rstrip(), "dim")
    return not all(equal.values())


def _migrate(output: Output, path: Path, name: str | None = None) -> portl.Result:
    with output.progress():
        result = portl.migrate(path, observers=[output.observe])
    if name is None:
        return result
    return attrs.evolve(result, tables=tuple(attrs.evolve(table, destination=name) for table in result.tables))


def _leave(output: Output, server: Server, folder: Path) -> None:
    """Tell the user how to continue with the files and the server that are kept."""
    environment = folder / "demo.env"
    environment.touch(mode=0o600)
    values = {shop.PORT_VARIABLE: server.port, shop.PASSWORD_VARIABLE: server.password}
    environment.write_text("".join(f"export {name}={value}\n" for name, value in values.items()), encoding="utf-8")
    commands = {"start-server": server.start_command(), "stop-server": server.stop_command()}
    for name, command in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
    output.say(f"\nkept in {folder}; to continue:", "plain")
    output.say(f"  sh {folder / 'start-server'}", "plain")
    output.say(f"  . {environment}", "plain")
    output.say(f"  portl run {folder / 'jobs'}/2-orders.yaml --dry-run", "plain")
    output.say(f"  sh {folder / 'stop-server'}", "plain")
