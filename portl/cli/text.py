"""Render the runs in a ledger as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from portl.runs import Status
from portl.values.runs import ChunkState, Run
from portl.values.text import WIDTH, Line, printable, wrapped

#: How many runs are shown.
MOST_RUNS = 10


def render_status(status: Status, width: int = WIDTH) -> list[Line]:
    """Return the runs in a ledger as lines."""
    lines = [Line(printable(status.job or "all jobs"), "title")]
    lines += wrapped("  ", f"ledger: {status.ledger or f'none: {status.reason}'}", width, "dim")
    if not status.runs:
        return [*lines, Line("  no runs")]
    latest: dict[str, Run] = {}
    for run in status.runs[:MOST_RUNS]:
        lines += _run(run, width, named=status.job is None, latest=run is latest.setdefault(run.job, run))
    if len(status.runs) > MOST_RUNS:
        lines.append(Line(f"  … and {len(status.runs) - MOST_RUNS:,} earlier ones (--json shows all)", "dim"))
    return lines


def _run(run: Run, width: int, *, named: bool, latest: bool) -> Iterator[Line]:
    state = run.standing
    done = sum(line.state is ChunkState.DONE for line in run.chunks)
    rows = sum(line.rows for line in run.chunks)
    rejected = sum(line.rejected for line in run.chunks)
    facts = f"{done:,} of {len(run.chunks):,} chunks, {rows:,} rows"
    if rejected:
        facts += f", {rejected:,} rejected"
    if run.attempt > 1:
        facts += f", attempt {run.attempt}"
    style = {"done": "good", "failed": "problem", "interrupted": "warning", "cancelled": "warning"}.get(state, "plain")
    yield from wrapped("  ", f"{run.began}  {state:<11}  {facts}", width, style)
    if named:
        yield from wrapped("    ", printable(run.job), width, "dim")
    if run.holder and run.locked:
        yield from wrapped("    ", f"held by {printable(run.holder)}", width)
    if run.error and state != "done":
        yield from wrapped("    ", printable(run.error), width)
    if latest and state in ("failed", "interrupted", "cancelled"):
        again = "running the job again resumes it" if run.resumable else "running the job again starts over"
        yield from wrapped("    -> ", again, width)
