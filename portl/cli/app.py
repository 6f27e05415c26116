"""The commands. A connector's package may add some: entry points of the group ``portl.commands``."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

import portl
from portl.cli.output import Output

#: Exit codes: done, failed, the job file or the call is wrong, done with rejected rows, ended by Ctrl-C.
DONE, FAILED, WRONG, REJECTED, INTERRUPTED = 0, 1, 2, 3, 130

COMMANDS = "portl.commands"


class _Commands(click.Group):
    """A group whose further commands are entry points, imported only when they are called or helped with."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *(entry.name for entry in entry_points(group=COMMANDS))})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by name."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        for entry in entry_points(group=COMMANDS, name=cmd_name):
            found = entry.load()
            return found if isinstance(found, click.Command) else None
        return None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(portl.__version__, prog_name="portl", message="%(prog)s %(version)s")
def cli() -> None:
    """Move table data between databases."""


def _settings(values: Sequence[str]) -> dict[str, str]:
    """Return what ``--set`` was given as dotted key to text."""
    found = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"expected KEY=VALUE, found {value!r}", param_hint="--set")
        found[key.strip()] = text
    return found


@cli.command()
@click.argument("job", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
@click.option(
    "--verbose", "-v", is_flag=True, help="Show the SQL, batches and connections, and stack traces of errors."
)
@click.option("--json", "as_json", is_flag=True, help="Print one event a line as JSON on standard output.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Rows that succeed or fail together.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key: --set source.limit=10.")
def run(
    job: Path, dry_run: bool, verbose: bool, as_json: bool, batch_size: int | None, settings: tuple[str, ...]
) -> int:
    """Run the job in the file JOB."""
    overrides = _settings(settings)
    if batch_size is not None:
        overrides["batch_size"] = str(batch_size)
    output = Output(as_json=as_json, verbose=verbose)
    if verbose:
        _log_to_stderr()
    return carry_out(output, job, dry_run=dry_run, overrides=overrides, verbose=verbose)


def carry_out(output: Output, job: Path, *, dry_run: bool, overrides: Mapping[str, str], verbose: bool) -> int:
    """Plan or run a job and return the exit code."""
    try:
        if dry_run:
            plan = portl.plan(job, observers=[output.observe], overrides=overrides)
            output.plan(plan)
            return FAILED if plan.problems else DONE
        with output.progress():
            result = portl.migrate(job, observers=[output.observe], overrides=overrides)
        output.result(result)
        return REJECTED if result.rows_rejected else DONE
    except portl.Error as error:
        output.error(error, traceback.format_exc() if verbose else None)
        return _code(error)


def _code(error: portl.Error) -> int:
    if isinstance(error, portl.Interrupted):
        return INTERRUPTED
    return WRONG if isinstance(error, portl.ConfigError) else FAILED


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(relativeCreated)8.0f ms  %(name)s  %(message)s"))
    logger = logging.getLogger("portl")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)


def app(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    # The pool logs lost connections, which portl reports itself; without a handler Python prints them.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    try:
        code: Any = cli.main(
            args=list(arguments) if arguments is not None else None, prog_name="portl", standalone_mode=False
        )
    except click.ClickException as error:
        error.show()
        return WRONG
    except click.Abort:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (portl … | head); Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code if isinstance(code, int) else DONE
