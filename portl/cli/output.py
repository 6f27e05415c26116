"""What the command line prints: progress on standard error, results on standard output.

With ``--json``, standard output has one event per line and nothing else. Colours and the progress bar appear only on a
terminal, and ``NO_COLOR`` works (rich does both).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.text import Text

import portl
from portl.cli.progress import ProgressDisplay
from portl.cli.text import render_status
from portl.values.text import Line, printable

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
    """Return a console that wraps lines on a terminal, and leaves them whole in a pipe or file."""
    console = Console(stderr=stderr, highlight=False)
    console.soft_wrap = not console.is_terminal
    return console


class Output:
    """Prints events, plans, results and errors.

    Args:
        as_json: True to print one event per line on standard output.
        verbose: True for plain lines instead of a bar, because the log is printed between them.
    """

    def __init__(self, *, as_json: bool = False, verbose: bool = False) -> None:
        self._as_json = as_json
        self._out = _console(stderr=False)
        self._err = _console(stderr=True)
        #: The error of the attempt that failed last.
        self._last_error: str | None = None
        bars = self._err.is_terminal and not as_json and not verbose
        self._progress = ProgressDisplay(self._err, self.say, bars=bars)

    def observe(self, event: portl.Event) -> None:
        """Show an event."""
        if self._as_json:
            self.json(event.to_dict())
            return
        if isinstance(event, portl.Warned):
            remedy = f" -> {event.remedy}" if event.remedy else ""
            self.say(f"warning: {event.where}: {event.message}{remedy}", "warning")
        elif isinstance(event, portl.Retrying):
            attempt = f"attempt {event.attempt} of {event.attempts} failed, retrying in {event.pause:.1f} s"
            same, self._last_error = event.error == self._last_error, event.error
            self.say(f"{event.what}: {attempt}: {'the same' if same else event.error}", "warning")
        elif isinstance(event, portl.Resumed):
            began = f"{event.started.replace('T', ' ').replace('+00:00', ' UTC')}" if event.started else "earlier"
            self.say(
                f"resuming the run of {began}: {event.chunks_done:,} of {event.chunks:,} chunks"
                f" ({event.rows:,} rows) done (attempt {event.attempt})",
                "plain",
            )
        elif isinstance(event, portl.RowsRejected):
            rows = f"{event.rows:,} row{'s' if event.rows != 1 else ''} of chunk {event.chunk:,} rejected"
            first = f": {event.example}" if event.rows == 1 else f"; the first: {event.example}"
            self.say(f"{rows}{first if event.example else ''} (see {event.place})", "warning")
        elif isinstance(event, portl.Started):
            self._progress.started(event)
        elif isinstance(event, portl.TableStarted):
            self._progress.begin(event)
        elif isinstance(event, portl.BatchCommitted):
            self._progress.advance(event)
        elif isinstance(event, (portl.ObjectsStarted, portl.ObjectProgress)):
            self._progress.making(event)
        elif isinstance(event, portl.ObjectsMade):
            self._progress.made(event)
        elif isinstance(event, portl.TableDone):
            self._progress.done(event.result.destination)
        elif isinstance(event, portl.Done):
            # Printed here, not after the call, so that the ledger records the delivery only afterwards.
            self._progress.stop()
            self.result(event.result)

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Show progress bars if there is a terminal."""
        with self._progress.shown():
            yield

    def plan(self, plan: portl.Plan, *, sql: bool = False, table: str | None = None) -> None:
        """Print a plan, with its statements if ``sql``; of many tables, only ``table`` in full if given."""
        if self._as_json:
            self.json({"event": "plan", **plan.to_dict()})
            return
        width = min(100, max(60, self._out.width if self._out.is_terminal else 80))
        self.lines(plan.lines(width=width, sql=sql, table=table))

    def result(self, result: portl.Result) -> None:
        """Print the result of a run."""
        if not self._as_json:
            self.lines(result.lines(min(120, max(80, self._out.width))))

    def status(self, status: portl.Status) -> None:
        """Print the runs in a ledger."""
        if self._as_json:
            self.json(status.to_dict())
            return
        self.lines(render_status(status, min(100, max(60, self._out.width if self._out.is_terminal else 80))))

    def error(self, error: portl.Error, trace: str | None) -> None:
        """Print an error, and its stack trace if there is one."""
        if trace is not None:
            self.say(trace.rstrip(), "dim")
        if self._as_json and isinstance(error, portl.ConfigError):
            self.json({"event": "failed", "kind": type(error).__name__, "error": str(error)})
        if isinstance(error, portl.PlanError):
            self.say("the plan has problems; nothing was written", "problem")
            for problem in error.plan.told_problems:
                self.say(f"  {problem.where}: {problem.message}", "problem")
                if problem.remedy:
                    self.say(f"    -> {problem.remedy}", "plain")
            return
        head, *rest = str(error).split("\n")
        self.say(f"error: {head}", "problem")
        for line in rest:
            self.say(line, "plain")

    def say(self, text: str, style: str = "plain") -> None:
        """Print lines on standard error."""
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
