"""Progress on standard error: bars on a terminal, otherwise a line every few seconds."""

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

#: Seconds between lines of progress without a bar; not fewer, as logs are stored.
PROGRESS_SECONDS = 2.0
#: The same for objects, which take longer.
BUILDING_SECONDS = 30.0
#: Of many tables, those with at least this many rows get their own bar while being copied.
LARGE_ROWS = 10_000
#: The most table bars, to leave room on the screen.
MOST_BARS = 12
#: Characters for a name on an ordinary terminal, and for the bar; a wide terminal has room for more.
NAME, BAR = 22, 8


@attrs.define
class _Table:
    """A table being copied."""

    expected: int | None
    rows: int = 0
    bytes: int = 0
    task: TaskID | None = None


class ProgressDisplay:
    """Shows the progress of a run.

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
        #: The number of tables; those that have begun, by name; how many have all their rows.
        self._count = 1
        self._tables: dict[str, _Table] = {}
        self._done = 0
        self._whole: TaskID | None = None
        #: The bars of objects that workers are creating, by worker.
        self._builds: dict[int, TaskID] = {}
        self._exact = False
        self._began = time.monotonic()
        #: When a line about rows was last printed; and, for each worker's objects, when and for which phase.
        self._printed = float("-inf")
        self._told: dict[int, tuple[float, str]] = {}

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show bars if there is a terminal."""
        if not self._bars:
            yield
            return
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        wide = self._console.width >= 110
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=2 * BAR if wide else BAR),
            TaskProgressColumn(text_format_no_percentage="    "),
            TextColumn("{task.fields[said]}", markup=False),
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
        self._builds.clear()
        self._done = 0
        if self._bar is not None:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._whole = self._bar.add_task("", total=None, said="")

    def begin(self, event: portl.TableStarted) -> None:
        """Begin a table."""
        if self._count == 1:
            self._say(f"{event.source} -> {event.destination} ({event.route})")
        self._tables[event.destination] = _Table(event.rows_expected)
        self._exact = self._count == 1 and event.rows_exact
        self._show(0)

    def done(self, table: str) -> None:
        """Count a table whose rows are all there."""
        self._done += 1
        found = self._tables.get(table)
        if found is not None and found.task is not None and self._bar is not None:
            self._bar.remove_task(found.task)
            found.task = None
        self._show(self._rate())

    def advance(self, event: portl.BatchCommitted) -> None:
        """Show committed rows."""
        found = self._tables.setdefault(event.table, _Table(None))
        found.rows, found.bytes = event.total_rows, event.total_bytes
        rate = event.rows_per_second
        if self._count > 1:
            rate = self._rate()
            self._show_table(event.table, found, event.rows_per_second)
        self._show(rate)
        if not self._console.is_terminal and time.monotonic() - self._printed >= PROGRESS_SECONDS:
            self._printed = time.monotonic()
            self._say(self._line(f"{rate:,.0f} rows/s"))

    def making(self, event: portl.ObjectsStarted | portl.ObjectProgress) -> None:
        """Show a worker's progress in creating objects."""
        phase = event.phase if isinstance(event, portl.ObjectProgress) else ""
        share = event.share if isinstance(event, portl.ObjectProgress) else None
        more = len(event.objects) - 1
        name = printable(event.objects[0]) + (f" and {more:,} more" if more else "")
        if self._bar is None:
            self._tell(event.worker, name, phase, share)
            return
        task = self._builds.get(event.worker)
        if task is None:
            task = self._builds[event.worker] = self._bar.add_task("", total=None, said="")
        total = None if share is None else 100
        self._bar.update(task, description=f"  {self._named(name)}", total=total, said=phase)
        if share is not None:
            self._bar.update(task, completed=100 * share)

    def made(self, event: portl.ObjectsMade) -> None:
        """Count created objects."""
        task = self._builds.pop(event.worker, None)
        self._told.pop(event.worker, None)
        if task is not None and self._bar is not None:
            self._bar.remove_task(task)

    def _tell(self, worker: int, name: str, phase: str, share: float | None) -> None:
        """Print a line about objects being created, whenever these change and at intervals."""
        if self._console.is_terminal or not phase:
            return
        at, last = self._told.get(worker, (float("-inf"), ""))
        if phase == last and time.monotonic() - at < BUILDING_SECONDS:
            return
        self._told[worker] = time.monotonic(), phase
        self._say(f"creating {name}: {phase}" + (f", {share:.0%}" if share is not None else ""))

    def _named(self, name: str) -> str:
        """Return a name that fits; a long one is cut at the start, as its end says more."""
        room = max(NAME, self._console.width - 76)
        return name if len(name) <= room else f"...{name[3 - room :]}"

    def _rate(self) -> float:
        """Return the rows per second of the whole run."""
        rows = sum(table.rows for table in self._tables.values())
        return rows / max(1e-6, time.monotonic() - self._began)

    def _show(self, rate: float) -> None:
        """Show the overall bar."""
        if self._bar is None or self._whole is None:
            return
        rows, expected, size = self._sums()
        # If the estimate is too low, the bar must not show 100 % before the end.
        total = max(expected, rows) if expected else None
        name = f"{self._done:,} of {self._count:,} tables" if self._count > 1 else ""
        said = f"{short(rows)} rows {human_bytes(size)}" + (f" {short(rate)}/s" if rate else "")
        self._bar.update(self._whole, description=name, completed=rows, total=total, said=said)

    def _show_table(self, name: str, table: _Table, rate: float) -> None:
        """Show the bar of a large table being copied."""
        if self._bar is None or (table.expected or 0) < LARGE_ROWS:
            return
        if table.task is None:
            if sum(found.task is not None for found in self._tables.values()) >= MOST_BARS:
                return
            table.task = self._bar.add_task(f"  {self._named(printable(name))}", total=table.expected, said="")
        total = max(table.expected or 0, table.rows)
        said = f"{short(table.rows)} rows {human_bytes(table.bytes)} {short(rate)}/s"
        self._bar.update(table.task, completed=table.rows, total=total, said=said)

    def _sums(self) -> tuple[int, int, int]:
        """Return the rows copied, the rows expected, and the bytes."""
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


def short(count: float) -> str:
    """Return a number in at most six characters and a comma."""
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if count >= 10 * size or (unit == "G" and count >= size):
            return f"{count / size:,.1f}{unit}"
    return f"{count:,.0f}"
