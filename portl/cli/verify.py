"""``portl verify JOB``: compare both sides of a job and print the differences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

import portl
from portl.cli.app import DONE, FAILED, guarded
from portl.cli.options import JobFile, traces
from portl.cli.output import Output
from portl.values.text import Line, counted_tables, cut, printable, wrapped

#: Characters at which a value is cut.
VALUE_WIDTH = 30
#: With more tables than this, only those that differ are shown.
SHOWN = 10


@click.command()
@click.argument("job", type=JobFile())
@click.option("--count", "mode", flag_value="count", help="Compare only the numbers of rows.")
@click.option("--checksum", "mode", flag_value="checksum", help="Compare checksums that the servers compute (default).")
@click.option("--full", "mode", flag_value="full", help="Fetch and compare every value: slow, without checksums.")
@click.option("--repair", is_flag=True, help="Copy missing and different rows again. Extra rows stay.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
@traces
def verify(job: Path, mode: str | None, repair: bool, as_json: bool, verbose: bool) -> int:
    """Compare what a job should have copied with what the destination holds.

    The exit code is 0 if both are equal, 1 if rows differ or the comparison fails, 2 if the job file is wrong.
    """
    output = Output(verbose=verbose)

    def work() -> int:
        found = portl.verify(job, mode=mode, repair=repair)
        if as_json:
            output.json(found.to_dict())
        else:
            output.lines(list(render(found)))
        return DONE if found.equal else FAILED

    return guarded(output, work, verbose=verbose)


def render(found: portl.Verification) -> Iterator[Line]:
    """Yield the result as lines of text."""
    shown = [table for table in found.tables if not table.equal or table.notes or len(found.tables) <= SHOWN]
    for table in shown:
        yield from wrapped("", printable(f"{table.source} -> {table.destination} ({table.mode})"))
        yield Line(f"  {'rows':<10} {table.rows_source:,} at the source, {table.rows_destination:,} at the destination")
        for name in ("missing", "different", "extra", "repeated"):
            count = getattr(table, name)
            if count:
                yield Line(f"  {name:<10} {count:,}", "plain" if name == "repeated" else "problem")
        for note in table.notes:
            yield from wrapped("  note       ", printable(note))
        for row in table.rows:
            yield from _row(row)
        named, differing = len(table.rows), table.missing + table.different + table.extra
        if 0 < named < differing:
            yield Line(f"  … and {differing - named:,} more")
    if len(shown) < len(found.tables):
        yield Line(counted_tables(len(found.tables) - len(shown), "is equal", "are equal"), "good")
    summary = printable(f"{found.name}: {found.summary()} in {found.seconds:.2f} s")
    yield from wrapped("", summary, style="good" if found.equal else "problem")


def _row(row: portl.RowDifference) -> Iterator[Line]:
    key = ", ".join(f"{printable(name)} = {_value(value)}" for name, value in row.key.items())
    yield from wrapped(f"  {row.kind:<10} ", key)
    for name, (ours, theirs) in row.columns.items():
        values = f"{_value(ours)} at the source, {_value(theirs)} at the destination"
        yield from wrapped(" " * 15, f"{printable(name)}: {values}")


def _value(value: str | None) -> str:
    if value is None:
        return "NULL"
    return repr(printable(cut(value, VALUE_WIDTH)))
