"""The commands. A connector's package can add more through entry points in the group ``portl.commands``."""

from __future__ import annotations

import importlib
import io
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

import portl
from portl.cli.options import JobFile, run_options

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

    from portl.cli.output import Output

#: Exit codes: done; failed; wrong job file or command line; done, with rejected rows; ended by Ctrl-C; by SIGTERM.
DONE, FAILED, WRONG, REJECTED, RUNNING, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 4, 130, 143

COMMANDS = "portl.commands"

#: The top-level keys by which a file is recognised as a job.
_SIDES = {"source", "destination"}
_TOP_LEVEL = re.compile(r"^(\w+):", re.MULTILINE)

#: A possible password, up to the end of the line, as its own end is unknown.
_ADDRESS = re.compile(r"(?<=://).+|(?<=password=).+", re.IGNORECASE)

#: portl's commands that are imported only when they are called.
OWN = {
    "connectors": ("portl.cli.about", "connectors"),
    "copy": ("portl.cli.copying", "copy"),
    "explain": ("portl.cli.about", "explain"),
    "init": ("portl.cli.init", "init"),
    "new-connector": ("portl.cli.about", "new_connector"),
    "retry-rejected": ("portl.cli.rejected", "retry_rejected"),
    "schema": ("portl.cli.about", "schema"),
    "verify": ("portl.cli.verify", "verify"),
}


class _Commands(click.Group):
    """A group of commands that are imported only when called, or when their help is shown."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *OWN, *_entries().names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by name."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        if cmd_name in OWN:
            module, name = OWN[cmd_name]
            found = getattr(importlib.import_module(module), name)
            return found if isinstance(found, click.Command) else None
        for entry in _entries().select(name=cmd_name):
            found = entry.load()
            return found if isinstance(found, click.Command) else None
        return None


def _entries() -> EntryPoints:
    """Return the commands of other packages."""
    from importlib.metadata import entry_points  # most commands need none; importing it takes 10 ms

    return entry_points(group=COMMANDS)


def _output(*, as_json: bool = False, verbose: bool = False) -> Output:
    from portl.cli.output import Output

    return Output(as_json=as_json, verbose=verbose)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(portl.__version__, prog_name="portl", message="%(prog)s %(version)s")
def cli() -> None:
    """Move table data between databases."""


@cli.command()
@click.argument("job", type=JobFile())
@click.option("--table", metavar="NAME", help="With --dry-run, for a job of many tables: show this one in full.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Rows that succeed or fail together.")
@run_options
def run(job: Path, table: str | None, batch_size: int | None, overrides: dict[str, str], **options: Any) -> int:
    """Run a job, or resume it if it was interrupted.

    \b
    Exit codes:
      0    done
      1    it failed, or the plan has problems
      2    the job file or the command line is wrong
      3    done, but some rows were quarantined (on_error: quarantine)
      4    nothing was done: another process is running the same job
      130  ended by Ctrl-C
      143  ended by SIGTERM
    """
    if batch_size is not None:
        overrides["batch_size"] = str(batch_size)
    if table is not None and not options["dry_run"]:
        raise click.UsageError("--table needs --dry-run")
    return carry_out(lambda: job, overrides=overrides, table=table, **options)


def carry_out(
    job: Callable[[], Path | Mapping[str, Any]],
    *,
    dry_run: bool,
    sql: bool,
    verbose: bool,
    as_json: bool,
    table: str | None = None,
    report: str | None = None,
    **how: Any,
) -> int:
    """Plan or run a job, and return the exit code.

    Args:
        job: returns the job.
        dry_run: see ``run_options``, as for the following.
        sql: with ``dry_run``.
        verbose: True to log as well.
        as_json: True to print events as JSON.
        table: with ``dry_run``, the one table of many to show.
        report: without ``dry_run``, the path of an HTML report on the run.
        how: arguments of ``portl.plan`` and ``portl.migrate``.
    """
    if sql and not dry_run:
        raise click.UsageError("--sql needs --dry-run; a run shows its SQL with --verbose")
    if report is not None and dry_run:
        raise click.UsageError("--report is about a run; --dry-run makes none")
    output = _output(as_json=as_json, verbose=verbose)
    if verbose:
        _log_to_stderr()

    def work() -> int:
        if dry_run:
            plan = portl.plan(job(), observers=[output.observe], **how)
            output.plan(plan, sql=sql, table=table)
            return FAILED if plan.problems else DONE
        with output.progress():
            # ``observe`` prints the result when it is done.
            result = portl.migrate(job(), observers=[output.observe], report=report, **how)
        if any(table.error is not None for table in result.tables):
            return FAILED
        return REJECTED if result.rows_rejected else DONE

    return guarded(output, work, verbose=verbose)


def guarded(output: Output, work: Callable[[], int], *, verbose: bool = False) -> int:
    """Run the body of a command, print portl's errors, and return the exit code. Handles SIGTERM like Ctrl-C."""
    try:
        with _terminable():
            return work()
    except portl.Error as error:
        output.error(error, traceback.format_exc() if verbose else None)
        return _code(error)


@contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM end a run as Ctrl-C does, because a signal handler must not talk to servers itself."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt("SIGTERM")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@cli.command()
@click.argument("job", type=JobFile(), required=False)
@click.option("--all", "every", is_flag=True, help="Show the runs of all jobs in that ledger.")
@click.option("--json", "as_json", is_flag=True, help="Print the runs as JSON on standard output, one object per job.")
def status(job: Path | None, every: bool, as_json: bool) -> int:
    """Show the runs of a job and their progress.

    Without JOB, those of all job files in the current folder.
    """
    output = _output(as_json=as_json)
    jobs = [job] if job is not None else _job_files()
    if not jobs:
        raise click.UsageError("there is no job file in this folder; name one")
    return max(guarded(output, partial(_show_status, output, path, every)) for path in jobs)


def _show_status(output: Output, job: Path, every: bool) -> int:
    output.status(portl.status(job, every=every))
    return DONE


def _job_files() -> list[Path]:
    """Return the files of the current folder that look like jobs: YAML with both sides at the top level."""
    found = sorted(path for pattern in ("*.yaml", "*.yml") for path in Path().glob(pattern))
    return [path for path in found if set(_TOP_LEVEL.findall(path.read_text("utf-8", "replace"))) >= _SIDES]


@cli.command()
@click.argument("job", type=JobFile())
@click.option("--table", is_flag=True, help="Also drop tables that an interrupted run has created and not finished.")
def clean(job: Path, table: bool) -> int:
    """Remove the runs of a job from the ledger.

    Rows already copied stay, and the next run starts over. Foreign keys that an interrupted run dropped are re-created.
    """
    output = _output()

    def work() -> int:
        done = portl.clean(job, table=table)
        output.say(f"{done.runs} run{'s' if done.runs != 1 else ''} removed from the ledger", "plain")
        if done.leftover:
            output.say(f"{'dropped' if done.removed else 'left (`--table` drops it)'}: {done.leftover}", "plain")
        if done.foreign_keys:
            output.say(f"foreign keys created again: {', '.join(done.foreign_keys)}", "plain")
        if done.not_valid:
            said = "rows reference others that are missing"
            output.say(f"NOT VALID, since {said}: {', '.join(done.not_valid)}", "warning")
        return DONE

    return guarded(output, work)


def _code(error: portl.Error) -> int:
    if isinstance(error, portl.Interrupted):
        return TERMINATED if "SIGTERM" in error.message else INTERRUPTED
    if isinstance(error, portl.AlreadyRunning):
        return RUNNING
    return WRONG if isinstance(error, portl.ConfigError) else FAILED


def _log_to_stderr() -> None:
    """Print portl's log."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(relativeCreated)8.0f ms  %(name)s  %(message)s"))
    logger = logging.getLogger("portl")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)


def app(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    # psycopg's pool logs lost connections, which portl reports itself; without a handler Python prints the log.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    try:
        code: Any = cli.main(
            args=list(arguments) if arguments is not None else None, prog_name="portl", standalone_mode=False
        )
    except click.ClickException as error:
        text = io.StringIO()
        error.show(text)
        click.echo(_ADDRESS.sub("********", text.getvalue()), err=True, nl=False)
        return WRONG
    except click.Abort:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output is gone (portl … | head); Python would complain again on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code if isinstance(code, int) else DONE
