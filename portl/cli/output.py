"""What the command line prints: people read standard error for progress and standard output for results.

With ``--json`` standard output holds one event a line and nothing else. Colour and the progress bar appear on a
terminal only; ``NO_COLOR`` is heeded (rich does both).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

import portl
from portl.cli.text import render_status
from portl.values.text import Line, human_bytes, printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Seconds between two lines of progress where there is no bar: logs are kept.
PROGRESS_SECONDS = 2.0

_STYLES = {
    "title": "bold",
    "head": "bold cyan",
    "problem": "bold red",
    "warning": "yellow",
    "note": "default",
    "good": "green",
    "dim": "dim",
    "plain": "default",
}


def _console(*, stderr: bool) -> Console:
    """Return a console that breaks lines between words on a terminal, and leaves them whole in a pipe or file."""
    console = Console(stderr=stderr, highlight=False)
    console.soft_wrap = not console.is_terminal
    return console


class Output:
    """Prints events, plans, results and errors.

    Args:
        as_json: one event a line on standard output.
        verbose: keep plain lines instead of a bar, for the log stands between them.
    """

    def __init__(self, *, as_json: bool = False, verbose: bool = False) -> None:
        self._as_json = as_json
        self._out = _console(stderr=False)
        self._err = _console(stderr=True)
        self._bar: Progress | None = None
        #: What a failed attempt was told with last.
        self._last_error: str | None = None
        #: How many rows are expected, for people, and when progress was last told, where there is no bar.
        self._expected = ""
        self._told = float("-inf")
        self._task: TaskID | None = None
        self._with_bar = self._err.is_terminal and not as_json and not verbose

    def observe(self, event: portl.Event) -> None:
        """Show an event."""
        if self._as_json:
            self.json(event.to_dict())
            return
        if isinstance(event, portl.Warned):
            remedy = f" -> {event.remedy}" if event.remedy else ""
            self._say(f"warning: {event.where}: {event.message}{remedy}", "warning")
        elif isinstance(event, portl.Retrying):
            attempt = f"attempt {event.attempt} of {event.attempts} failed, retrying in {event.pause:.1f} s"
            same, self._last_error = event.error == self._last_error, event.error
            self._say(f"{event.what}: {attempt}: {'the same' if same else event.error}", "warning")
        elif isinstance(event, portl.Resumed):
            began = f"{event.started.replace('T', ' ').replace('+00:00', ' UTC')}" if event.started else "earlier"
            self._say(
                f"resuming the run of {began}: {event.chunks_done:,} of {event.chunks:,} chunks"
                f" ({event.rows:,} rows) are there (attempt {event.attempt})",
                "plain",
            )
        elif isinstance(event, portl.RowsRejected):
            rows = f"{event.rows:,} row{'s' if event.rows != 1 else ''} of chunk {event.chunk:,} rejected"
            first = f": {event.example}" if event.rows == 1 else f"; the first: {event.example}"
            self._say(f"{rows}{first if event.example else ''} (see {event.place})", "warning")
        elif isinstance(event, portl.TableStarted):
            self._begin(event)
        elif isinstance(event, portl.BatchCommitted):
            self._advance(event)
        elif isinstance(event, portl.Done):
            # Here, and not after the call: the ledger is told last that the outcome is known.
            if self._bar is not None:
                self._bar.stop()
            self.result(event.result)

    def _begin(self, event: portl.TableStarted) -> None:
        self._say(f"{event.source} -> {event.destination} ({event.route})", "plain")
        self._expected = (
            f" of {'' if event.rows_exact else 'about '}{event.rows_expected:,}" if event.rows_expected else ""
        )
        if self._bar is not None:
            total = event.rows_expected if event.rows_exact or event.rows_expected else None
            self._task = self._bar.add_task("", total=total, rate="", size="")

    def _advance(self, event: portl.BatchCommitted) -> None:
        rate = f"{event.rows_per_second:,.0f} rows/s"
        if self._bar is not None and self._task is not None:
            task = next(task for task in self._bar.tasks if task.id == self._task)
            # An estimate that proves too low must not show 100 % before the end.
            total = max(task.total, event.total_rows) if task.total is not None else None
            size = human_bytes(event.total_bytes)
            self._bar.update(self._task, completed=event.total_rows, total=total, rate=rate, size=size)
        elif not self._err.is_terminal and time.monotonic() - self._told >= PROGRESS_SECONDS:
            self._told = time.monotonic()
            rows = f"{event.total_rows:,}{self._expected} rows"
            self._say(f"{rows}, {human_bytes(event.total_bytes)}, {rate}", "plain")

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Show a bar while rows move, where there is a terminal."""
        if not self._with_bar:
            yield
            return
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.completed:,.0f} rows"),
            TextColumn("{task.fields[size]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=self._err, transient=True) as bar:
            self._bar = bar
            try:
                yield
            finally:
                self._bar = None

    def plan(self, plan: portl.Plan, *, sql: bool = False) -> None:
        """Print a plan, with its statements where they are asked for."""
        if self._as_json:
            self.json({"event": "plan", **plan.to_dict()})
            return
        self.lines(plan.lines(width=min(100, max(60, self._out.width if self._out.is_terminal else 80)), sql=sql))

    def result(self, result: portl.Result) -> None:
        """Print what a run has done."""
        if not self._as_json:
            self.lines(result.lines(min(120, max(80, self._out.width))))

    def status(self, status: portl.Status) -> None:
        """Print what a ledger remembers."""
        if self._as_json:
            self.json(status.to_dict())
            return
        self.lines(render_status(status, min(100, max(60, self._out.width if self._out.is_terminal else 80))))

    def error(self, error: portl.Error, trace: str | None) -> None:
        """Print an error; with its stack trace if there is one."""
        if trace is not None:
            self._say(trace.rstrip(), "dim")
        if self._as_json and isinstance(error, portl.ConfigError):
            self.json({"event": "failed", "kind": type(error).__name__, "error": str(error)})
        if isinstance(error, portl.PlanError):
            self._say("the plan has problems; nothing was written", "problem")
            for problem in error.plan.problems:
                self._say(f"  {problem.where}: {problem.message}", "problem")
                if problem.remedy:
                    self._say(f"    -> {problem.remedy}", "plain")
            return
        head, *rest = str(error).split("\n")
        self._say(f"error: {head}", "problem")
        for line in rest:
            self._say(line, "plain")

    def say(self, text: str, style: str = "plain") -> None:
        """Print a line for people on standard error."""
        self._say(text, style)

    def _say(self, text: str, style: str) -> None:
        for line in text.split("\n"):
            self._err.print(Text(printable(line), style=_STYLES[style]))

    def lines(self, lines: Sequence[Line]) -> None:
        """Print lines on standard output."""
        for line in lines:
            self._out.print(Text(line.text, style=_STYLES[line.style]))

    def json(self, data: dict[str, Any]) -> None:
        """Print one JSON object on a line of standard output."""
        sys.stdout.write(json.dumps(data, ensure_ascii=False, default=str) + "\n")
        sys.stdout.flush()
