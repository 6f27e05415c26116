"""Count the rows that differ, name the first of them, and remember those that a repair has to copy again."""

from __future__ import annotations

import json
from typing import TextIO

import attrs

from portl.connectors.exchange import Intent
from portl.values.differences import DIFFERENT, EXTRA, MISSING, RowDifference
from portl.values.masking import COVER
from portl.verification.match import Difference


@attrs.define(kw_only=True)
class Tally:
    """The differences found so far."""

    intent: Intent
    #: The columns that rows are matched by.
    key: tuple[str, ...]
    #: How many rows to name.
    named: int
    #: The kinds of differences that a repair removes.
    repairable: frozenset[str] = frozenset()
    #: Receives the keys of the rows to repair as JSON, one per line; None if no repair follows.
    spool: TextIO | None = None
    missing: int = 0
    extra: int = 0
    different: int = 0
    repeated: int = 0
    rows: list[RowDifference] = attrs.field(factory=list)
    #: The buckets of the first rows that differ.
    buckets: set[int] = attrs.field(factory=set)

    def fresh(self) -> Tally:
        """Return an empty tally that names as many rows and remembers none for a repair."""
        return Tally(intent=self.intent, key=self.key, named=self.named)

    def add(self, difference: Difference, *buckets: int) -> None:
        """Count a difference between rows of a bucket, and name it if it is one of the first."""
        source, destination = difference
        kind = EXTRA if source is None else MISSING if destination is None else DIFFERENT
        if self.missing + self.extra + self.different < self.named:
            self.buckets.update(buckets)
        setattr(self, kind, getattr(self, kind) + 1)
        line = source or destination
        assert line is not None
        if self.spool is not None and kind in self.repairable:
            json.dump(line.key or line.texts, self.spool)
            self.spool.write("\n")
        if line.texts is not None and len(self.rows) < self.named:
            self.rows.append(self._named(kind, difference))

    def _named(self, kind: str, difference: Difference) -> RowDifference:
        names = [field.target.name for field in self.intent.fields]
        ours, theirs = (line.texts if line else None for line in difference)
        row = dict(zip(names, ours or theirs or (), strict=True))
        columns: dict[str, tuple[str | None, str | None]] = {}
        if ours is not None and theirs is not None:
            columns = {name: (a, b) for name, a, b in zip(names, ours, theirs, strict=True) if a != b}
        return RowDifference(
            kind=kind,
            key={name: self._shown(name, row[name]) for name in self.key or names},
            columns={name: (self._shown(name, a), self._shown(name, b)) for name, (a, b) in columns.items()},
        )

    def _shown(self, name: str, value: str | None) -> str | None:
        """Return a value for the result: hidden if the job masks it, with non-text bytes escaped."""
        if value is None or name in self.intent.mask:
            return None if value is None else COVER
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
