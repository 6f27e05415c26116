"""The commands. A connector's package may add some: entry points of the group ``portl.commands``."""

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

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

    from click.shell_completion import CompletionItem

    from portl.cli.output import Output

#: Exit codes: done, failed, the job file or the call is wrong, done with rejected rows, ended by Ctrl-C, by SIGTERM.
DONE, FAILED, WRONG, REJECTED, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143

COMMANDS = "portl.commands"

#: What a file must have at its top level to be taken for a job.
_ENDS = {"source", "destination"}
_TOP_LEVEL = re.compile(r"^(\w+):", re.MULTILINE)

#: What may hold a password, up to the end of a line: where it ends cannot be told.
_ADDRESS = re.compile(r"(?<=://).+|(?<=password=).+", re.IGNORECASE)

#: What files are called that a shell offers as jobs.
_SUFFIXES = (".yaml", ".yml")

#: Commands of portl's own that are imported only when they are called.
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


class JobFile(click.Path):
    """The path of a job file; a shell completes folders and YAML files."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return what the text may become. A hidden file is shown to who has typed its dot."""
        from click.shell_completion import CompletionItem

        folder, slash, begun = incomplete.rpartition("/")
        try:
            found = sorted(Path(f"{folder}{slash}" or ".").expanduser().iterdir())
        except OSError:
            return []  # no such folder
        fitting = [path for path in found if path.name.startswith(begun) and (begun or not path.name.startswith("."))]
        if not any(path.suffix in _SUFFIXES for path in fitting):
            return [CompletionItem(incomplete, type="dir")]  # the shell itself goes into folders best
        return [
            CompletionItem(f"{folder}{slash}{path.name}{'/' if path.is_dir() else ''}")
            for path in fitting
            if path.is_dir() or path.suffix in _SUFFIXES
        ]


class _Commands(click.Group):
    """A group whose further commands are entry points, imported only when they are called or helped with."""

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
    """Return the commands that packages bring. What is imported here is for those, and not for every start."""
    from importlib.metadata import entry_points

    return entry_points(group=COMMANDS)


def _output(*, as_json: bool = False, verbose: bool = False) -> Output:
    from portl.cli.output import Output

    return Output(as_json=as_json, verbose=verbose)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(portl.__version__, prog_name="portl", message="%(prog)s %(version)s")
def cli() -> None:
    """Move table data between databases."""


def settings_of(values: Sequence[str]) -> dict[str, str]:
    """Return what ``--set`` was given as dotted key to text."""
    found = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"expected KEY=VALUE, found {value!r}", param_hint="--set")
        found[key.strip()] = text
    return found


@cli.command()
@click.argument("job", type=JobFile())
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
@click.option("--sql", is_flag=True, help="With --dry-run: show the SQL, too.")
@click.option(
    "--verbose", "-v", is_flag=True, help="Show the SQL, batches and connections, and stack traces of errors."
)
@click.option("--json", "as_json", is_flag=True, help="Print one event a line as JSON on standard output.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Rows that succeed or fail together.")
@click.option("--restart", is_flag=True, help="Begin again where an earlier run was interrupted.")
@click.option("--run-id", metavar="ID", help="An idempotency key: a run with this id that is done is not done again.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key: --set source.limit=10.")
def run(
    job: Path,
    dry_run: bool,
    sql: bool,
    verbose: bool,
    as_json: bool,
    batch_size: int | None,
    restart: bool,
    run_id: str | None,
    settings: tuple[str, ...],
) -> int:
    """Run a job; go on where it was interrupted.

    \b
    Exit codes:
      0    done
      1    it failed, or the plan has problems
      2    the job file or the call is wrong
      3    done, and some rows were quarantined (on_error: quarantine)
      130  ended by Ctrl-C
      143  ended by SIGTERM
    """
    overrides = settings_of(settings)
    if batch_size is not None:
        overrides["batch_size"] = str(batch_size)
    output = _output(as_json=as_json, verbose=verbose)
    if verbose:
        log_to_stderr()
    how = {"overrides": overrides, "restart": restart, "run_id": run_id}
    return carry_out(output, job, dry_run=dry_run, sql=sql, verbose=verbose, **how)


def carry_out(
    output: Output,
    job: Path | Mapping[str, Any],
    *,
    dry_run: bool,
    sql: bool,
    verbose: bool,
    **how: Any,
) -> int:
    """Plan or run a job and return the exit code; ``how`` goes to ``portl.plan`` and ``portl.migrate``."""
    if sql and not dry_run:
        raise click.UsageError("--sql goes with --dry-run; a run shows its SQL with --verbose")

    def work() -> int:
        if dry_run:
            plan = portl.plan(job, observers=[output.observe], **how)
            output.plan(plan, sql=sql)
            return FAILED if plan.problems else DONE
        with output.progress():
            result = portl.migrate(job, observers=[output.observe], **how)  # printed when it is done
        return REJECTED if result.rows_rejected else DONE

    return guarded(output, work, verbose=verbose)


def guarded(output: Output, work: Callable[[], int], *, verbose: bool = False) -> int:
    """Do the work of a command; print portl's errors, end in order on SIGTERM too, and return the exit code."""
    try:
        with _terminable():
            return work()
    except portl.Error as error:
        output.error(error, traceback.format_exc() if verbose else None)
        return _code(error)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does: a handler must not talk to servers itself."""

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
@click.option("--json", "as_json", is_flag=True, help="Print the runs as JSON on standard output, an object a job.")
def status(job: Path | None, every: bool, as_json: bool) -> int:
    """Show a job's runs and how far they came.

    Without JOB, those of all job files in the current folder.
    """
    output = _output(as_json=as_json)
    jobs = [job] if job is not None else _job_files()
    if not jobs:
        raise click.UsageError("there is no job file in this folder: name one")
    return max(guarded(output, partial(_show_status, output, path, every)) for path in jobs)


def _show_status(output: Output, job: Path, every: bool) -> int:
    output.status(portl.status(job, every=every))
    return DONE


def _job_files() -> list[Path]:
    """Return the files of the current folder that look like jobs: YAML with both sides at its top level."""
    found = sorted(path for pattern in ("*.yaml", "*.yml") for path in Path().glob(pattern))
    return [path for path in found if set(_TOP_LEVEL.findall(path.read_text("utf-8", "replace"))) >= _ENDS]


@cli.command()
@click.argument("job", type=JobFile())
@click.option("--table", is_flag=True, help="Drop a table too that an interrupted run has made and not finished.")
def clean(job: Path, table: bool) -> int:
    """Make the ledger forget the runs of a job.

    The rows that they have brought stay, and the next run begins anew.
    """
    output = _output()

    def work() -> int:
        done = portl.clean(job, table=table)
        output.say(f"{done.runs} run{'s' if done.runs != 1 else ''} removed from the ledger", "plain")
        if done.leftover:
            output.say(f"{'dropped' if done.removed else 'left (`--table` drops it)'}: {done.leftover}", "plain")
        return DONE

    return guarded(output, work)


def _code(error: portl.Error) -> int:
    if isinstance(error, portl.Interrupted):
        return TERMINATED if "SIGTERM" in error.message else INTERRUPTED
    return WRONG if isinstance(error, portl.ConfigError) else FAILED


def log_to_stderr() -> None:
    """Show what portl logs, as ``--verbose`` does."""
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
        said = io.StringIO()
        error.show(said)
        click.echo(_ADDRESS.sub("********", said.getvalue()), err=True, nl=False)
        return WRONG
    except click.Abort:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (portl … | head); Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code if isinstance(code, int) else DONE
