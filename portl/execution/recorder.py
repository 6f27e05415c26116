"""Record what happens during a run, in bounded memory, for its report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import attrs

from portl.values import events
from portl.values.history import History, Incident, Reason, Span
from portl.values.text import Line

#: The most spans that a page can show; beyond that, consecutive short ones are merged.
SPANS = 1500
#: The most incidents, and reasons of rejected rows, that are kept.
INCIDENTS, REASONS = 200, 200
#: Stands for reasons of rejected rows that are not kept.
_OTHER = "other reasons"


class Recorder:
    """Records the events of a run. Called in one thread."""

    def __init__(self) -> None:
        #: The ``time.monotonic()`` at which the run began.
        self.began = time.monotonic()
        self._started = datetime.now(UTC)
        self._spans: list[Span] = []
        #: Spans of one worker that together take less than this many seconds are merged.
        self._grain = 0.0
        self._incidents: list[Incident] = []
        self._further = 0
        self._reasons: Counter[tuple[str, str]] = Counter()

    def around(self, emit: Callable[[events.Event], None]) -> Callable[[events.Event], None]:
        """Return a function that notes an event and then passes it to the observers."""

        def noted(event: events.Event) -> None:
            self.note(event)
            emit(event)

        return noted

    def note(self, event: events.Event) -> None:
        """Note an event."""
        if isinstance(event, events.ChunkMoved):
            first, more = event.tables[0], len(event.tables) - 1
            name = f"{first} and {more} more" if more else first
            self._add("rows", name, event.worker, event.began, event.seconds, rows=event.rows, pieces=more + 1)
        elif isinstance(event, events.ObjectsMade):
            first, more = event.objects[0], len(event.objects) - 1
            name = f"{first} and {more} more" if more else first
            self._add("objects", name, event.worker, event.began, event.seconds, pieces=more + 1)
        elif isinstance(event, events.Compared):
            self._add("compare", event.table, 0, time.monotonic() - event.seconds, event.seconds)
        elif isinstance(event, events.Warned):
            self._incident("warning", event.where, event.without_values or event.message, event.remedy)
        elif isinstance(event, events.Retrying):
            said = f"attempt {event.attempt} of {event.attempts} failed: {event.error}"
            self._incident("retry", event.what, said, None)
        elif isinstance(event, events.RowsRejected):
            for reason, count in event.reasons.items():
                known = (event.table, reason) in self._reasons or len(self._reasons) < REASONS
                self._reasons[(event.table, reason) if known else ("", _OTHER)] += count

    @contextmanager
    def during(self, kind: str, name: str) -> Iterator[None]:
        """Note what the run's session does inside this context."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._add(kind, name, 0, began, time.monotonic() - began)

    def history(self, plan: Sequence[Line], failed: str | None = None) -> History:
        """Return the history so far.

        Args:
            plan: the plan as lines, without a preview of rows.
            failed: why the run failed, without values from rows.
        """
        return History(
            started=self._started,
            seconds=time.monotonic() - self.began,
            spans=tuple(sorted(self._spans, key=lambda span: (span.begin, span.worker))),
            incidents=tuple(self._incidents),
            further_incidents=self._further,
            reasons=tuple(
                Reason(table=table, reason=reason, rows=rows) for (table, reason), rows in self._reasons.most_common()
            ),
            plan=tuple(plan),
            failed=failed,
        )

    def _incident(self, kind: str, where: str, message: str, remedy: str | None) -> None:
        if len(self._incidents) >= INCIDENTS:
            self._further += 1
            return
        at = time.monotonic() - self.began
        self._incidents.append(Incident(at=at, kind=kind, where=where, message=message, remedy=remedy))

    def _add(
        self, kind: str, name: str, worker: int, began: float, seconds: float, *, rows: int = 0, pieces: int = 1
    ) -> None:
        begin = max(0.0, began - self.began)
        end = begin + seconds
        self._spans.append(Span(kind=kind, name=name, worker=worker, begin=begin, end=end, rows=rows, pieces=pieces))
        while len(self._spans) > SPANS:
            self._grain = max(2 * self._grain, end / SPANS)
            self._spans = merged(self._spans, self._grain)


def merged(spans: Sequence[Span], grain: float) -> list[Span]:
    """Merge consecutive spans of one worker and kind that together take less than ``grain`` seconds."""
    found: list[Span] = []
    last: dict[int, int] = {}
    for span in sorted(spans, key=lambda span: span.begin):
        position = last.get(span.worker)
        before = found[position] if position is not None else None
        if before is not None and position is not None and before.kind == span.kind and span.end - before.begin < grain:
            found[position] = attrs.evolve(
                before, end=max(before.end, span.end), rows=before.rows + span.rows, pieces=before.pieces + span.pieces
            )
            continue
        last[span.worker] = len(found)
        found.append(span)
    return found
