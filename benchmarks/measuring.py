"""Several ways to do one piece of work, measured in turns, and the targets to reach."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Literal

import attrs


class Missing(Exception):
    """A way that cannot be measured here; the text says why."""


def nothing() -> None:
    """Prepare nothing."""


@attrs.frozen(kw_only=True)
class Way:
    """One way to do the work."""

    name: str
    #: Returns the figure if it measures itself; otherwise None, and the figure is the elapsed time in seconds.
    run: Callable[[], float | None]
    #: Done before each run, not measured.
    prepare: Callable[[], None] = nothing
    #: True if it need not alternate, because its figure does not depend on the load.
    once: bool = False


@attrs.frozen(kw_only=True)
class Reach:
    """A target: a bound for one way's figure, or for its ratio to the best of others."""

    way: str
    #: The ways to compare with, of which the best one measured counts; None to judge the figure itself.
    against: tuple[str, ...] = ()
    bound: float
    kind: Literal["at most", "at least", "under"] = "at most"
    #: What the bound is about, if it is more than a ratio of times.
    label: str = ""

    def holds(self, found: float) -> bool:
        """Return whether a figure is within the bound."""
        if self.kind == "at least":
            return found >= self.bound
        return found < self.bound if self.kind == "under" else found <= self.bound


@attrs.frozen(kw_only=True)
class Work:
    """A piece of work."""

    name: str
    title: str
    ways: Sequence[Way]
    reaches: Sequence[Reach] = ()
    unit: str = "s"
    note: str = ""
    #: Fewer than the run's rounds, if one takes long.
    rounds: int | None = None


@attrs.frozen(kw_only=True)
class Figure:
    """The measurements of one way."""

    way: str
    #: One for each round.
    values: tuple[float, ...] = ()
    missing: str | None = None

    @property
    def median(self) -> float | None:
        """The median of the rounds."""
        return statistics.median(self.values) if self.values else None


@attrs.frozen(kw_only=True)
class Verdict:
    """A bound and the measured result."""

    reach: Reach
    found: float | None
    against: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it was met; None if it could not be measured."""
        return None if self.found is None else self.reach.holds(self.found)


@attrs.frozen(kw_only=True)
class Outcome:
    """A piece of work, measured."""

    work: Work
    figures: tuple[Figure, ...]

    def median(self, way: str) -> float | None:
        """Return the median of one way."""
        return next((f.median for f in self.figures if f.way == way), None)

    @property
    def verdicts(self) -> list[Verdict]:
        """The results for the bounds."""
        return [self._verdict(reach) for reach in self.work.reaches]

    def _verdict(self, reach: Reach) -> Verdict:
        own = self.median(reach.way)
        if own is None or not reach.against:
            return Verdict(reach=reach, found=own)
        others = {name: found for name in reach.against if (found := self.median(name)) is not None}
        if not others:
            return Verdict(reach=reach, found=None)
        best = min(others, key=lambda name: others[name])
        # A ratio of times; "at least" asks how many times as fast.
        ratio = others[best] / own if reach.kind == "at least" else own / others[best]
        return Verdict(reach=reach, found=ratio, against=best)


def measure(work: Work, rounds: int, settle: Callable[[], None], say: Callable[[str], None]) -> Outcome:
    """Run the ways in turns, rotating the order so that none always follows the same neighbour.

    A way that fails is left out with its reason: neither a timing nor a peer may end a benchmark.
    """
    values: dict[str, list[float]] = {way.name: [] for way in work.ways}
    missing: dict[str, str] = {}
    for number in range(min(rounds, work.rounds or rounds)):
        turn = number % len(work.ways)
        for way in (*work.ways[turn:], *work.ways[:turn]):
            if way.name in missing or (way.once and values[way.name]):
                continue
            try:
                way.prepare()
                settle()
                began = time.perf_counter()
                found = way.run()
                took = time.perf_counter() - began
            except Missing as reason:
                missing[way.name] = str(reason)
                say(f"  {way.name}: left out: {reason}")
                continue
            except Exception as error:
                missing[way.name] = f"failed: {type(error).__name__}: {error}"
                say(f"  {way.name}: {missing[way.name]}")
                continue
            values[way.name].append(took if found is None else found)
            say(f"  {way.name}: {values[way.name][-1]:.3f} {work.unit}")
    figures = (Figure(way=way.name, values=tuple(values[way.name]), missing=missing.get(way.name)) for way in work.ways)
    return Outcome(work=work, figures=tuple(figures))
