"""The measurements as text, JSON, tables for the docs, and a chart."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import psycopg

import portl
from benchmarks.measuring import Outcome, Verdict
from benchmarks.servers import Bench, value

Row = tuple[str, str, str]


def machine(bench: Bench) -> dict[str, str]:
    """Return the machine and the versions measured with."""
    return {
        "processor": _processor(),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgres": f"{value(bench.source, 'SHOW server_version')}, both sides on this machine, over loopback",
        "psycopg": f"{psycopg.__version__}, libpq {psycopg.pq.version()}",
        "portl": portl.__version__,
    }


def text(outcome: Outcome) -> str:
    """Return one piece of work as lines of text."""
    lines = [outcome.work.title]
    for way, figure, beside in _rows(outcome):
        lines.append(f"  {way:<36} {figure:>26}  {beside}".rstrip())
    lines += [f"    {_words(verdict)}" for verdict in outcome.verdicts]
    return "\n".join(lines)


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return the table of all targets."""
    rows = [(o.work.name, _asked(v), _found(v), _said(v)) for o in outcomes for v in o.verdicts]
    head = ("work", "reach", "found", "")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(4)]
    return "\n".join("  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip() for row in (head, *rows))


def markdown(outcomes: Sequence[Outcome]) -> str:
    """Return the tables for docs/performance.md."""
    lines = ["| work | reach | found | |", "|---|---|---|---|"]
    lines += [f"| {o.work.title} | {_asked(v)} | {_found(v)} | {_said(v)} |" for o in outcomes for v in o.verdicts]
    lines += ["", "| work | way | median (least to most) | |", "|---|---|---|---|"]
    for outcome in outcomes:
        lines += [f"| {outcome.work.name} | {way} | {figure} | {beside} |" for way, figure, beside in _rows(outcome)]
    return "\n".join(lines) + "\n"


def data(outcomes: Sequence[Outcome], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything as plain data."""
    return {
        **about,
        "works": [
            {
                "name": o.work.name,
                "title": o.work.title,
                "unit": o.work.unit,
                "note": o.work.note,
                "ways": [
                    {"name": f.way, "median": f.median, "values": list(f.values), "missing": f.missing}
                    for f in o.figures
                ],
                "reaches": [
                    {"asked": _asked(v), "bound": v.reach.bound, "found": v.found, "met": v.met} for v in o.verdicts
                ],
            }
            for o in outcomes
        ],
    }


def chart(outcomes: Sequence[Outcome]) -> str:
    """Return a chart of portl's time beside that of the other way, as SVG."""
    return draw(
        [
            (f"{o.work.name} / {v.against}", v.found, v.reach.bound, v.met)
            for o in outcomes
            for v in o.verdicts
            if v.found is not None and v.reach.against and v.reach.kind != "at least"
        ]
    )


def draw(bars: Sequence[tuple[str, float, float, bool | None]]) -> str:
    """Draw a bar for each label and figure, with a mark at the bound."""
    left, width, line = 330, 420, 22
    most = max([1.2, *(max(found, bound) for _, found, bound, _ in bars)])
    height = 48 + line * len(bars)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 70} {height}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{left + width + 70}" height="{height}" fill="#ffffff"/>',
        '<text x="8" y="18" font-weight="bold">portl\'s time over the other\'s; black: what is allowed</text>',
    ]
    for number, (label, found, bound, met) in enumerate(bars):
        top = 34 + number * line
        long, mark = width * found / most, left + width * bound / most
        colour = "#4c8c5a" if met else "#c0603a"
        parts += [
            f'<text x="{left - 8}" y="{top + 12}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{left}" y="{top}" width="{long:.1f}" height="15" fill="{colour}"/>',
            f'<rect x="{mark:.1f}" y="{top - 2}" width="2" height="19" fill="#000000"/>',
            f'<text x="{max(left + long, mark) + 6:.1f}" y="{top + 12}">{found:.2f}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _rows(outcome: Outcome) -> Iterator[Row]:
    first = outcome.figures[0]
    for figure in outcome.figures:
        if figure.median is None:
            yield figure.way, "-", f"left out: {figure.missing}"
            continue
        spread = f"{_number(figure.median)} {outcome.work.unit}"
        if len(figure.values) > 1:
            spread += f" ({_number(min(figure.values))} to {_number(max(figure.values))})"
        beside = ""
        if figure is not first and first.median and outcome.work.unit == "s":
            beside = f"{first.way} takes {first.median / figure.median:.2f} of it"
        yield figure.way, spread, beside


def _asked(verdict: Verdict) -> str:
    reach = verdict.reach
    beside = reach.label or ("x " + (verdict.against or " or ".join(reach.against)) if reach.against else "")
    if reach.label and reach.against:
        beside += f" ({verdict.against or reach.against[0]})"
    return f"{reach.way}: {reach.kind} {reach.bound:g} {beside}".strip()


def _found(verdict: Verdict) -> str:
    return "-" if verdict.found is None else _number(verdict.found)


def _said(verdict: Verdict) -> str:
    return {True: "met", False: "not met", None: "not measured"}[verdict.met]


def _words(verdict: Verdict) -> str:
    return f"{_asked(verdict)}: {_found(verdict)}, {_said(verdict)}"


def _number(found: float) -> str:
    return f"{found:.0f}" if found >= 30 else f"{found:.2f}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{os.cpu_count()} cores, {name or platform.machine()}"


def _memory() -> str:
    info = Path("/proc/meminfo")
    if not info.exists():
        return "unknown"
    return f"{int(info.read_text().split()[1]) / 1024**2:.0f} GiB"
