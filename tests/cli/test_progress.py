"""Progress as a terminal and as a log show it."""

from __future__ import annotations

import io

from rich.console import Console

import portl
from portl.cli.progress import ProgressDisplay

WIDTH = 80


def shown(*happened: portl.Event, terminal: bool) -> tuple[str, list[str]]:
    """Return what is on the screen at the end, and the lines that were printed."""
    text, said = io.StringIO(), list[str]()
    console = Console(file=text, force_terminal=terminal, width=WIDTH, color_system=None, legacy_windows=False)
    display = ProgressDisplay(console, said.append, bars=terminal)
    with display.shown():
        for event in happened:
            match event:
                case portl.Started():
                    display.started(event)
                case portl.TableStarted():
                    display.begin(event)
                case portl.BatchCommitted():
                    display.advance(event)
                case portl.ObjectsStarted() | portl.ObjectProgress():
                    display.making(event)
                case portl.ObjectsMade():
                    display.made(event)
        if display._bar is not None:
            display._bar.refresh()
        screen = text.getvalue()
    return screen.rpartition("\x1b[2K")[2], said


def begun(*names: str, rows: int = 2_000_000) -> list[portl.Event]:
    tables = [
        portl.TableStarted(source=n, destination=n, route="relay", rows_expected=rows, rows_exact=False) for n in names
    ]
    return [portl.Started(name="j", source="s", destination="d", tables=len(names)), *tables]


def committed(name: str, rows: int) -> portl.BatchCommitted:
    return portl.BatchCommitted(
        table=name,
        first_batch=1,
        last_batch=1,
        rows=rows,
        bytes=rows * 100,
        total_rows=rows,
        total_bytes=rows * 100,
        rows_per_second=123_456.0,
    )


def building(phase: str, share: float | None) -> list[portl.Event]:
    objects = ("index sales.orders_at_total_customer_idx",)
    return [
        portl.ObjectsStarted(table="sales.orders", objects=objects, worker=2),
        portl.ObjectProgress(table="sales.orders", objects=objects, worker=2, phase=phase, share=share),
    ]


def test_a_terminal_shows_the_whole_and_what_is_under_way() -> None:
    happened = [*begun("sales.orders", "t" * 70), committed("sales.orders", 1_500_000), committed("t" * 70, 1_000_000)]
    screen, said = shown(*happened, *building("scanning table", 0.45), terminal=True)
    last = [line for line in screen.splitlines() if line.strip()][-4:]
    assert "0 of 2 tables" in last[0]
    assert "62%" in last[0]
    assert "2,500,000 rows" in last[0]
    assert "sales.orders" in last[1]
    assert "..." in last[2]
    assert "_total_customer_idx" in last[3]
    assert "45%" in last[3]
    assert "scanning table" in last[3]
    assert max(len(line) for line in last) <= WIDTH
    assert said == []


def test_what_is_created_leaves_the_terminal() -> None:
    made = portl.ObjectsMade(table=None, objects=("index i",), worker=2, began=0.0, seconds=1.0)
    screen, _ = shown(*begun("a", "b"), *building("sorting live tuples", None), made, terminal=True)
    assert "customer_idx" not in screen.splitlines()[-1]


def test_a_log_tells_phases_once() -> None:
    happened = [
        *building("scanning table", 0.1),
        *building("scanning table", 0.4),
        *building("sorting live tuples", None),
    ]
    _, said = shown(*begun("a", "b"), *happened, terminal=False)
    name = "index sales.orders_at_total_customer_idx"
    assert said == [f"creating {name}: scanning table, 10%", f"creating {name}: sorting live tuples"]
