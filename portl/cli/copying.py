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
@click.option("--table", required=True, metavar="NAME", help="The table to read: users, sales.orders.")
@click.option("--to-table", metavar="NAME", help="The table to write to; by default the same name.")
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
    table: str,
    to_table: str | None,
    conflict: str | None,
    verify: str | None,
    **options: Any,
) -> int:
    """Copy a table from one URL to another.

    A job without a file: keys that --set does not set have their defaults. The same command again resumes an
    interrupted run. The exit codes are those of `portl run`.

    Other users of the machine can see a password in a command line. Leave it out of the URL: for PostgreSQL it is then
    taken from PGPASSWORD or ~/.pgpass.

    \b
    portl copy postgresql://reader@db1/shop postgresql://writer@db2/warehouse --table sales.orders
    """

    def job() -> dict[str, Any]:
        found = portl.job_from_urls(source, destination, table=table, to_table=to_table)
        found.update({key: value for key, value in (("conflict", conflict), ("verify", verify)) if value is not None})
        return found

    return carry_out(job, **options)
