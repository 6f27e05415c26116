"""``portl verify JOB``: compare both sides of a job and print what differs."""

from __future__ import annotations

import json
import sys
import textwrap
import traceback
from collections.abc import Iterator
from pathlib import Path

import click

import portl
from portl.cli.app import JobFile
from portl.cli.output import Output
from portl.values.text import Line, printable

WIDTH = 80
#: A value is cut at this many characters.
VALUE_WIDTH = 30

EQUAL, DIFFERENT, WRONG, INTERRUPTED = 0, 1, 2, 130


@click.command()
@click.argument("job", type=JobFile())
@click.option("--count", "mode", flag_value="count", help="Compare the numbers of rows alone.")
@click.option("--checksum", "mode", flag_value="checksum", help="Compare checksums that the servers compute (default).")
@click.option("--full", "mode", flag_value="full", help="Fetch and compare every value: slow, and trusts no checksum.")
@click.option("--repair", is_flag=True, help="Copy rows that are missing or different once more. Extra rows stay.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
@click.option("--verbose", "-v", is_flag=True, help="Show stack traces of errors.")
def verify(job: Path, mode: str | None, repair: bool, as_json: bool, verbose: bool) -> int:
    """Compare what a job should have copied with what is there.

    The exit code is 0 if it is equal, 1 if rows differ or the comparison fails, 2 if the job file is wrong.
    """
    output = Output(as_json=False, verbose=verbose)
    try:
        found = portl.verify(job, mode=mode, repair=repair)
    except portl.Error as error:
        output.error(error, traceback.format_exc() if verbose else None)
        if isinstance(error, portl.Interrupted):
            return INTERRUPTED
        return WRONG if isinstance(error, portl.ConfigError) else DIFFERENT
    if as_json:
        sys.stdout.write(json.dumps(found.to_dict(), ensure_ascii=False) + "\n")
    else:
        for line in render(found):
            click.secho(line.text, fg={"good": "green", "problem": "red"}.get(line.style))
    return EQUAL if found.equal else DIFFERENT


def render(found: portl.Verification) -> Iterator[Line]:
    """Yield what was found as lines of at most ``WIDTH`` characters."""
    for table in found.tables:
        yield from _wrapped(f"{table.source} -> {table.destination} ({table.mode})")
        yield Line(f"  {'rows':<10} {table.rows_source:,} at the source, {table.rows_destination:,} at the destination")
        for name in ("missing", "different", "extra", "repeated"):
            count = getattr(table, name)
            if count:
                yield Line(f"  {name:<10} {count:,}", "plain" if name == "repeated" else "problem")
        for note in table.notes:
            yield from _wrapped(note, "  note       ")
        for row in table.rows:
            yield from _row(row)
        named, differing = len(table.rows), table.missing + table.different + table.extra
        if 0 < named < differing:
            yield Line(f"  … and {differing - named:,} more")
    yield from _wrapped(
        f"{found.name}: {found.summary()} in {found.seconds:.2f} s", style="good" if found.equal else "problem"
    )


def _row(row: portl.RowDifference) -> Iterator[Line]:
    key = ", ".join(f"{name} = {_value(value)}" for name, value in row.key.items())
    yield from _wrapped(key, f"  {row.kind:<10} ")
    for name, (ours, theirs) in row.columns.items():
        yield from _wrapped(f"{name}: {_value(ours)} at the source, {_value(theirs)} there", " " * 15)


def _value(value: str | None) -> str:
    if value is None:
        return "NULL"
    cut = value if len(value) <= VALUE_WIDTH else value[: VALUE_WIDTH - 1] + "…"
    return repr(printable(cut))


def _wrapped(text: str, prefix: str = "", style: str = "plain") -> Iterator[Line]:
    """Yield text behind a prefix, further lines indented as far."""
    lines = textwrap.wrap(printable(text), WIDTH - len(prefix), break_on_hyphens=False) or [""]
    for number, line in enumerate(lines):
        yield Line(f"{prefix if number == 0 else ' ' * len(prefix)}{line}", style)
