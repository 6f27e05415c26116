"""Progress on standard error: bars on a terminal, else a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

import portl
from portl.values.text import human_bytes, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

#: Seconds between two lines of progress if there is no bar; not fewer, as logs are stored.
PROGRESS_SECONDS = 2.0
#: Of many tables, those of at least so many rows have a bar of their own while they are under way.
LARGE_ROWS = 100_000


@attrs.define
class _Table:
    """A table under way."""

    expected: int | None
    rows: int = 0
    bytes: int = 0
    task: TaskID | None = None


class ProgressDisplay:
    """Shows how far a run is.

    Args:
        console: of standard error.
        say: prints a line.
        bars: True for bars.
    """

    def __init__(self, console: Console, say: Callable[[str], None], *, bars: bool) -> None:
        self._console = console
        self._say = say
        self._bars = bars
        self._bar: Progress | None = None
        #: Tables of the run; those that have begun, by name; how many have all their rows.
        self._count = 1
        self._tables: dict[str, _Table] = {}
        self._done = 0
        self._whole: TaskID | None = None
        self._exact = False
        self._began = time.monotonic()
        self._printed = float("-inf")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show bars if there is a terminal."""
        if not self._bars:
            yield
            return
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.completed:,.0f} rows"),
            TextColumn("{task.fields[size]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=self._console, transient=True) as bar:
            self._bar = bar
            try:
                yield
            finally:
                self._bar = None

    def stop(self) -> None:
        """Remove the bars, before a result is printed."""
        if self._bar is not None:
            self._bar.stop()

    def started(self, event: portl.Started) -> None:
        """Begin a run, or an attempt at it."""
        self._count, self._began = event.tables, time.monotonic()
        self._tables.clear()
        self._done = 0
        if self._bar is not None:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._whole = self._bar.add_task("", total=None, rate="", size="")

    def begin(self, event: portl.TableStarted) -> None:
        """Begin a table."""
        if self._count == 1:
            self._say(f"{event.source} -> {event.destination} ({event.route})")
        self._tables[event.destination] = _Table(event.rows_expected)
        self._exact = self._count == 1 and event.rows_exact
        self._show("")

    def done(self, table: str) -> None:
        """Count a table whose rows are all there."""
        self._done += 1
        found = self._tables.get(table)
        if found is not None and found.task is not None and self._bar is not None:
            self._bar.remove_task(found.task)
            found.task = None

    def advance(self, event: portl.BatchCommitted) -> None:
        """Show rows that are committed."""
        found = self._tables.setdefault(event.table, _Table(None))
        found.rows, found.bytes = event.total_rows, event.total_bytes
        rate = event.rows_per_second
        if self._count > 1:
            rows = sum(table.rows for table in self._tables.values())
            rate = rows / max(1e-6, time.monotonic() - self._began)
            self._show_table(event.table, found, event.rows_per_second)
        self._show(f"{rate:,.0f} rows/s")
        if not self._console.is_terminal and time.monotonic() - self._printed >= PROGRESS_SECONDS:
            self._printed = time.monotonic()
            self._say(self._line(f"{rate:,.0f} rows/s"))

    def _show(self, rate: str) -> None:
        """Show the bar of the whole."""
        if self._bar is None or self._whole is None:
            return
        rows, expected, size = self._sums()
        # With an estimate that is too low, the bar must not show 100 % before the end.
        total = max(expected, rows) if expected else None
        name = f"{self._done:,} of {self._count:,} tables" if self._count > 1 else ""
        self._bar.update(self._whole, description=name, completed=rows, total=total, rate=rate, size=human_bytes(size))

    def _show_table(self, name: str, table: _Table, rate: float) -> None:
        """Show the bar of a large table under way."""
        if self._bar is None or (table.expected or 0) < LARGE_ROWS:
            return
        if table.task is None:
            table.task = self._bar.add_task(f"  {printable(name)}", total=table.expected, rate="", size="")
        total = max(table.expected or 0, table.rows)
        shown = f"{rate:,.0f} rows/s"
        self._bar.update(table.task, completed=table.rows, total=total, rate=shown, size=human_bytes(table.bytes))

    def _sums(self) -> tuple[int, int, int]:
        """Return the rows that are there, those that are expected, and the bytes."""
        tables = self._tables.values()
        return (
            sum(table.rows for table in tables),
            sum(table.expected or 0 for table in tables),
            sum(table.bytes for table in tables),
        )

    def _line(self, rate: str) -> str:
        rows, total, size = self._sums()
        of = f" of {'' if self._exact else 'about '}{total:,}" if total else ""
        tables = f"{self._done:,} of {self._count:,} tables, " if self._count > 1 else ""
        return f"{tables}{rows:,}{of} rows, {human_bytes(size)}, {rate}"
