"""Sequences: their options, positions and next values (manual, CREATE SEQUENCE)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from portl import Kind
from portl_postgres.session.session import Session

#: The ranges of the types that a sequence can have.
RANGES = {
    Kind.SMALLINT: (-(2**15), 2**15 - 1),
    Kind.INT: (-(2**31), 2**31 - 1),
    Kind.BIGINT: (-(2**63), 2**63 - 1),
}


@attrs.frozen(kw_only=True)
class SequenceOptions:
    """The options of a sequence."""

    start: int
    increment: int
    minimum: int
    maximum: int
    cache: int
    cycle: bool

    @property
    def ascending(self) -> bool:
        """True if it counts up."""
        return self.increment > 0

    def limited(self, kind: Kind) -> SequenceOptions:
        """Return the options for a column of an integer type, whose range may be smaller than the sequence's."""
        low, high = RANGES[kind]
        low, high = max(self.minimum, low), min(self.maximum, high)
        return attrs.evolve(self, minimum=low, maximum=high, start=min(max(self.start, low), high))

    def clause(self, kind: Kind) -> str:
        """Return the options for CREATE SEQUENCE that are not the defaults of a type."""
        low, high = RANGES[kind]
        minimum, maximum = (1, high) if self.ascending else (low, -1)
        start = self.minimum if self.ascending else self.maximum
        parts = {
            f"INCREMENT BY {self.increment}": self.increment != 1,
            f"MINVALUE {self.minimum}": self.minimum != minimum,
            f"MAXVALUE {self.maximum}": self.maximum != maximum,
            f"START WITH {self.start}": self.start != start,
            f"CACHE {self.cache}": self.cache != 1,
            "CYCLE": self.cycle,
        }
        return " ".join(part for part, told in parts.items() if told)


@attrs.frozen(kw_only=True)
class PgSequence:
    """A sequence behind a column."""

    #: Qualified and quoted.
    name: str
    options: SequenceOptions
    #: ``last_value``: the value returned last or, if not ``called``, the next one. None if the role may not read it.
    #: Ignored in comparisons: a sequence that has advanced is still the same.
    last: int | None = attrs.field(eq=False)
    called: bool = attrs.field(eq=False)
    may_set: bool

    @property
    def is_unused(self) -> bool:
        """True if it has not been used since it was created."""
        return not self.called and self.last == self.options.start

    def at(self, last: int, *, called: bool) -> PgSequence:
        """Return the sequence as setval() would leave it."""
        return attrs.evolve(self, last=last, called=called)

    def has_passed(self, value: int) -> bool:
        """Return whether the next value lies beyond ``value`` in the direction of the sequence."""
        return self._next is not None and (self._next > value if self.options.ascending else self._next < value)

    def is_behind(self, other: PgSequence) -> bool:
        """Return whether its next value comes before that of ``other``."""
        return other._next is not None and not (self._next == other._next or self.has_passed(other._next))

    @property
    def _next(self) -> int | None:
        """The next value, disregarding limits."""
        if self.last is None:
            return None
        return self.last + self.options.increment if self.called else self.last


def read_sequences(session: Session, rows: Sequence[tuple[Any, ...]]) -> dict[str, PgSequence]:
    """Return the sequences behind columns, by the columns' names, from rows of ``sql/sequences.sql``."""
    return {row[0]: found for row, found in zip(rows, each_sequence(session, rows), strict=True)}


def each_sequence(session: Session, rows: Sequence[tuple[Any, ...]]) -> list[PgSequence]:
    """Return a sequence for each row of ``sql/sequences.sql``."""
    readable = [row[1] for row in rows if row[8]]
    queries = [f"SELECT last_value, is_called FROM {name}" for name in readable]
    found = session.queries(queries, what="reading sequences") if queries else []
    positions = {name: position for name, (position,) in zip(readable, found, strict=True)}
    sequences = []
    for _, name, start, increment, low, high, cache, cycle, may_read, may_update in rows:
        last, called = positions.get(name, (None, False))
        options = SequenceOptions(start=start, increment=increment, minimum=low, maximum=high, cache=cache, cycle=cycle)
        sequences.append(
            PgSequence(name=name, options=options, last=last, called=called, may_set=may_read and may_update)
        )
    return sequences
