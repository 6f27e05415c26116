"""Lay out spans of work on a timeline: a track for each worker, time from left to right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import attrs

from portl.values.history import Incident, Span

#: Dimensions in the drawing's own units; a page scales it to its width.
WIDTH, LABEL, TRACK, GAP, AXIS = 1000, 86, 22, 6, 26
#: Minimum width of a span, so that it stays visible.
LEAST = 1.5
#: The most time marks on the axis.
TICKS = 8


@attrs.frozen(kw_only=True)
class Bar:
    """A span on the timeline."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    #: The tooltip.
    title: str


@attrs.frozen(kw_only=True)
class Mark:
    """A moment on the timeline."""

    x: float
    text: str


@attrs.frozen(kw_only=True)
class Drawing:
    """A timeline, laid out."""

    width: int
    height: int
    tracks: tuple[tuple[float, str], ...]
    bars: tuple[Bar, ...]
    ticks: tuple[Mark, ...]
    incidents: tuple[Mark, ...]
    #: The kinds of spans on it, in the order of a run.
    kinds: tuple[str, ...]


#: In the order of a run.
KINDS = ("plan", "compare", "rows", "objects", "verify")


def drawing(spans: Sequence[Span], incidents: Sequence[Incident], seconds: float) -> Drawing:
    """Lay out the timeline of a run that took ``seconds``."""
    workers = sorted({span.worker for span in spans})
    total = max([seconds, *(span.end for span in spans), 1e-3])
    scale = (WIDTH - LABEL) / total
    tops = {worker: number * (TRACK + GAP) for number, worker in enumerate(workers)}
    bars = tuple(
        Bar(
            kind=span.kind,
            x=round(LABEL + span.begin * scale, 2),
            y=tops[span.worker],
            width=round(max(LEAST, (span.end - span.begin) * scale), 2),
            height=TRACK,
            title=_title(span),
        )
        for span in spans
    )
    return Drawing(
        width=WIDTH,
        height=len(workers) * (TRACK + GAP) + AXIS,
        tracks=tuple((tops[worker] + TRACK / 2, f"worker {worker}" if worker else "run") for worker in workers),
        bars=bars,
        ticks=tuple(Mark(x=round(LABEL + at * scale, 2), text=spoken(at)) for at in _ticks(total)),
        incidents=tuple(
            Mark(x=round(LABEL + min(found.at, total) * scale, 2), text=f"{spoken(found.at)}: {found.kind}")
            for found in incidents
        ),
        kinds=tuple(kind for kind in KINDS if any(span.kind == kind for span in spans)),
    )


def _title(span: Span) -> str:
    parts = [f"{span.name} and others" if span.pieces > 1 and " more" not in span.name else span.name]
    if span.rows:
        parts.append(f"{span.rows:,} rows")
    if span.pieces > 1:
        parts.append(f"{span.pieces:,} pieces")
    took = f"{spoken(span.begin)} to {spoken(span.end)}"
    return "\n".join([*parts, took])


def _ticks(total: float) -> Iterator[float]:
    step = 10 ** math.floor(math.log10(total / TICKS))
    step = next(step * factor for factor in (1, 2, 5, 10) if total / (step * factor) <= TICKS)
    for number in range(int(total / step) + 1):
        if number * step <= 0.97 * total:
            yield number * step


def spoken(seconds: float) -> str:
    """Return a duration for display."""
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    if seconds >= 60:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    if seconds >= 10:
        return f"{seconds:.0f} s"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
