"""Render the runs in a ledger as lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

from portl.runs import Status
from portl.values.runs import ChunkState, Run, RunState, shown_watermark, table_state
from portl.values.text import WIDTH, Line, counted_rows, printable, wrapped

#: How many runs are shown.
MOST_RUNS = 10
#: How many unfinished tables of a run are shown, and how many foreign keys.
MOST_TABLES, MOST_KEYS = 10, 5

_PHASES = {
    "before": "tables are created, no rows are there yet",
    "rows": "rows, and keys and indexes of the tables that have all theirs",
    "after": "all rows are there; keys, indexes, foreign keys and other objects",
}
_STATES = {
    ChunkState.DONE: "with all their rows",
    ChunkState.PARTIAL: "with some of them",
    ChunkState.PENDING: "with none yet",
}


def render_status(status: Status, width: int = WIDTH) -> list[Line]:
    """Return the runs in a ledger as lines."""
    lines = [Line(printable(status.job or "all jobs"), "title")]
    lines += wrapped("  ", f"ledger: {status.ledger or f'none: {status.reason}'}", width, "dim")
    if not status.runs:
        return [*lines, Line("  no runs")]
    if (told := _behind(status)) is not None:
        lines += wrapped("  ", told, width)
    latest: dict[str, Run] = {}
    for run in status.runs[:MOST_RUNS]:
        lines += _run(run, width, named=status.job is None, latest=run is latest.setdefault(run.job, run))
    if len(status.runs) > MOST_RUNS:
        lines.append(Line(f"  … and {len(status.runs) - MOST_RUNS:,} earlier ones (--json shows all)", "dim"))
    return lines


def _behind(status: Status) -> str | None:
    """Return how far the source is beyond the watermark; None: that was not asked for."""
    found = status.behind
    if found is None:
        return f"how far the source is beyond the watermark is unknown: {status.unknown}" if status.unknown else None
    rows = f"more than {found.rows:,} rows" if found.more else counted_rows(found.rows)
    value = f", up to {printable(found.value)}" if found.value is not None else ""
    time = f" ({timedelta(seconds=round(found.seconds))} later)" if found.seconds is not None else ""
    return f"beyond the watermark, the source has {rows}{value}{time}"


def _run(run: Run, width: int, *, named: bool, latest: bool) -> Iterator[Line]:
    state = run.standing
    done = sum(line.state is ChunkState.DONE for line in run.chunks)
    rows = sum(line.rows for line in run.chunks)
    rejected = sum(line.rejected for line in run.chunks)
    facts = f"{done:,} of {len(run.chunks):,} chunks, {rows:,} rows"
    if run.watermark is not None:
        facts += f", up to {shown_watermark(run.watermark)}"
    if rejected:
        facts += f", {rejected:,} rejected"
    if run.attempt > 1:
        facts += f", attempt {run.attempt}"
    style = {"done": "good", "failed": "problem", "interrupted": "warning", "cancelled": "warning"}.get(state, "plain")
    yield from wrapped("  ", f"{run.began}  {state:<11}  {facts}", width, style)
    if named:
        yield from wrapped("    ", printable(run.job), width, "dim")
    if latest and run.tables:
        yield from _tables(run, width)
    if run.holder and run.locked:
        yield from wrapped("    ", f"held by {printable(run.holder)}", width)
    if run.error and state != "done":
        yield from wrapped("    ", printable(run.error), width)
    if latest and state in ("failed", "interrupted", "cancelled"):
        again = "running the job again resumes it" if run.resumable else "running the job again starts over"
        yield from wrapped("    -> ", again, width)


def _phase(run: Run, width: int) -> Iterator[Line]:
    """Yield the phase of a run of many tables."""
    words = _PHASES.get(run.phase or "")
    if words is not None:
        yield from wrapped("    ", f"phase: {words}", width)
    if run.dropped and run.state is not RunState.DONE:
        names = [key.name for key in run.dropped]
        more = f" and {len(names) - MOST_KEYS:,} more" if len(names) > MOST_KEYS else ""
        said = f"foreign keys that are dropped until the run ends: {', '.join(names[:MOST_KEYS])}{more}"
        yield from wrapped("    ", printable(said), width, "warning")


def _tables(run: Run, width: int) -> Iterator[Line]:
    """Yield the phase of a run and the progress of its unfinished tables, the furthest first."""
    yield from _phase(run, width)
    found = [(table.name, run.chunks[table.first - 1 : table.last]) for table in run.tables]
    states = Counter(table_state(lines) for _, lines in found)
    said = [f"{states[state]:,} {words}" for state, words in _STATES.items() if states[state]]
    yield from wrapped("    ", f"tables: {', '.join(said)}", width)
    left = [(name, lines) for name, lines in found if table_state(lines) is ChunkState.PARTIAL]
    left.sort(key=lambda found: -sum(line.rows for line in found[1]))
    for name, lines in left[:MOST_TABLES]:
        done = sum(line.state is ChunkState.DONE for line in lines)
        text = f"{name}: {done:,} of {len(lines):,} chunks, {sum(line.rows for line in lines):,} rows"
        yield from wrapped("      ", printable(text), width)
    if len(left) > MOST_TABLES:
        yield Line(f"      … and {len(left) - MOST_TABLES:,} more (--json shows all)", "dim")
