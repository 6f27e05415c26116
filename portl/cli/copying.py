"""``portl copy``: a job without a file."""

from __future__ import annotations

import click

import portl
from portl.cli.app import carry_out, guarded, log_to_stderr, settings_of
from portl.cli.output import Output


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
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
@click.option("--sql", is_flag=True, help="With --dry-run: also show the SQL.")
@click.option("--json", "as_json", is_flag=True, help="Print one event per line as JSON on standard output.")
@click.option("--restart", is_flag=True, help="Start over instead of resuming an interrupted run.")
@click.option("--run-id", metavar="ID", help="An idempotency key: a run with this id that is done is not done again.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set a key: --set source.limit=10.")
@click.option(
    "--verbose", "-v", is_flag=True, help="Show the SQL, batches and connections, and stack traces of errors."
)
def copy(
    source: str,
    destination: str,
    table: str,
    to_table: str | None,
    conflict: str | None,
    verify: str | None,
    dry_run: bool,
    sql: bool,
    as_json: bool,
    restart: bool,
    run_id: str | None,
    settings: tuple[str, ...],
    verbose: bool,
) -> int:
    """Copy a table from one URL to another.

    A job without a file: keys that --set does not set have their defaults. The same command again resumes an
    interrupted run. The exit codes are those of `portl run`.

    Other users of the machine can see a password in a command line. Leave it out of the URL: for PostgreSQL it is then
    taken from PGPASSWORD or ~/.pgpass.

    \b
    portl copy postgresql://reader@db1/shop postgresql://writer@db2/warehouse --table sales.orders
    """
    output = Output(as_json=as_json, verbose=verbose)
    if verbose:
        log_to_stderr()
    overrides = settings_of(settings)

    def work() -> int:
        job = portl.job_from_urls(source, destination, table=table, to_table=to_table)
        job.update({key: value for key, value in (("conflict", conflict), ("verify", verify)) if value is not None})
        how = {"overrides": overrides, "restart": restart, "run_id": run_id}
        return carry_out(output, job, dry_run=dry_run, sql=sql, verbose=verbose, **how)

    return guarded(output, work, verbose=verbose)
