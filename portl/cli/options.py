"""Arguments and options shared by several commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])

#: The suffixes of files that shells complete as jobs.
_SUFFIXES = (".yaml", ".yml")


class JobFile(click.Path):
    """The path of a job file; a shell completes folders and YAML files."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the completions of a path; hidden files only after a typed dot."""
        from click.shell_completion import CompletionItem  # only completion needs it

        folder, slash, begun = incomplete.rpartition("/")
        try:
            found = sorted(Path(f"{folder}{slash}" or ".").expanduser().iterdir())
        except OSError:
            return []  # no such folder
        fitting = [path for path in found if path.name.startswith(begun) and (begun or not path.name.startswith("."))]
        if not any(path.suffix in _SUFFIXES for path in fitting):
            return [CompletionItem(incomplete, type="dir")]  # the shell itself completes folders best
        return [
            CompletionItem(f"{folder}{slash}{path.name}{'/' if path.is_dir() else ''}")
            for path in fitting
            if path.is_dir() or path.suffix in _SUFFIXES
        ]


def _settings(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """Return the values of ``--set`` as dotted key to YAML text."""
    found = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"expected KEY=VALUE, found {value!r}", param_hint="--set")
        found[key.strip()] = text
    return found


settings = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_settings,
    help="Set a key of the job: --set source.limit=10.",
)
events = click.option("--json", "as_json", is_flag=True, help="Print one event per line as JSON on standard output.")
traces = click.option("--verbose", "-v", is_flag=True, help="Show stack traces of errors.")

_RUN = (
    click.option("--dry-run", is_flag=True, help="Show the plan and write nothing."),
    click.option("--sql", is_flag=True, help="With --dry-run: also show the SQL."),
    click.option(
        "--verbose", "-v", is_flag=True, help="Show the SQL, batches and connections, and stack traces of errors."
    ),
    events,
    click.option(
        "--report",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        help="Write an HTML page about the run, also if it fails.",
    ),
    click.option("--restart", is_flag=True, help="Start over instead of resuming an interrupted run."),
    click.option("--full-refresh", is_flag=True, help="Read all rows once more in mode: incremental."),
    click.option("--run-id", metavar="ID", help="An idempotency key: a finished run with this id is not repeated."),
    settings,
)


def run_options(command: F) -> F:
    """Add the options of a command that runs a job."""
    for option in reversed(_RUN):
        command = option(command)
    return command
