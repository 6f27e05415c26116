"""``portl copy``: a job without a file."""

from __future__ import annotations

from typing import Any

import click

import portl
from portl.cli.app import carry_out
from portl.cli.options import run_options


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("destination", metavar="TO")
@click.option(
    "--table",
    "tables",
    multiple=True,
    metavar="NAME",
    help="The table to read: users, sales.orders. Several times, or with * and ?, for many tables.",
)
@click.option("--to-table", metavar="NAME", help="The table to write to; by default the same name.")
@click.option("--all", "every", is_flag=True, help="All tables, with their indexes, constraints and sequences.")
@click.option("--schema", "schemas", multiple=True, metavar="NAME", help="All tables of a schema; several times.")
@click.option("--exclude", multiple=True, metavar="NAME", help="Tables to leave out: names, or patterns with * and ?.")
@click.option("--objects", metavar="WHAT", help="all, none, or a list: what comes with tables that are created.")
@click.option(
    "--conflict",
    type=click.Choice([strategy.value for strategy in portl.Strategy]),
    metavar="STRATEGY",
    help="overwrite (default), skip, fail or merge: what happens to a row whose key exists already.",
)
@click.option(
    "--verify",
    type=click.Choice([mode.value for mode in portl.Verify]),
    metavar="MODE",
    help="count, checksum or full: compare both sides after the last row.",
)
@run_options
def copy(
    source: str,
    destination: str,
    tables: tuple[str, ...],
    to_table: str | None,
    every: bool,
    schemas: tuple[str, ...],
    exclude: tuple[str, ...],
    objects: str | None,
    conflict: str | None,
    verify: str | None,
    **options: Any,
) -> int:
    """Copy a table, or many, from one URL to another.

    A job without a file: keys that --set does not set have their defaults. The same command again resumes an
    interrupted run. The exit codes are those of `portl run`.

    Other users of the machine can see a password in a command line. Leave it out of the URL: for PostgreSQL it is then
    taken from PGPASSWORD or ~/.pgpass.

    \b
    portl copy postgresql://reader@db1/shop postgresql://writer@db2/warehouse --table sales.orders
    portl copy postgresql://reader@db1/shop postgresql://writer@db2/warehouse --all --exclude "*_tmp"
    """
    patterns = [*tables, *(f"{schema}.*" for schema in schemas)]
    if not patterns and not every:
        raise click.UsageError("name a table with --table, a schema with --schema, or ask for --all")
    many = every or len(patterns) > 1 or any(letter in patterns[0] for letter in "*?")
    if many and to_table is not None:
        raise click.UsageError("--to-table goes with one table")
    if not many and exclude:
        raise click.UsageError("--exclude goes with many tables")

    def job() -> dict[str, Any]:
        if many:
            found = portl.job_from_urls(source, destination, tables="all" if every else patterns)
            found.update({"exclude": list(exclude)} if exclude else {})
        else:
            found = portl.job_from_urls(source, destination, table=patterns[0], to_table=to_table)
        if objects is not None:
            words = [word.strip() for word in objects.split(",")]
            found["objects"] = words if len(words) > 1 or objects not in ("all", "none") else objects
        found.update({key: value for key, value in (("conflict", conflict), ("verify", verify)) if value is not None})
        return found

    return carry_out(job, **options)
