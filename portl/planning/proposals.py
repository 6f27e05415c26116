"""Propose keys of a job from the tables on both sides: the column mapping and the conflict target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from portl.config.models import Strategy
from portl.planning.plan import Plan
from portl.schema.tables import Key


@attrs.frozen(kw_only=True)
class Proposal:
    """The proposed keys of a job, with the reasons."""

    #: Source column to destination column, for names that differ only in case and punctuation.
    mapping: Mapping[str, str] = attrs.field(factory=dict)
    #: Columns of the source that the destination's table lacks.
    missing: tuple[str, ...] = ()
    strategy: Strategy = Strategy.OVERWRITE
    #: The key's columns at the destination, if it is not the primary key, so that the job has to name them.
    key: tuple[str, ...] = ()
    #: Why this strategy and this key, for display.
    because: str = ""

    def conflict(self, strategy: str | None = None) -> str | dict[str, Any]:
        """Return the value of the key ``conflict``.

        Args:
            strategy: one to use instead of the proposed one.
        """
        word = strategy or self.strategy.value
        return {"strategy": word, "key": list(self.key)} if self.key else word


def propose(plan: Plan) -> Proposal:
    """Return the proposal for a job.

    Args:
        plan: the plan of the job without ``schema_mapping`` and ``conflict``; it may have problems.
    """
    task = plan.tables[0]
    left_out = dict(task.ignored)
    columns = [column.name for column in task.source.columns if column.name not in left_out]
    if task.intent.create:
        key = task.destination.primary_key
        if key is None:
            return Proposal(
                because="Neither side has a key: a second run could not tell which rows exist, and is refused."
            )
        return Proposal(because=f"Rows are matched by the primary key of the new table ({', '.join(key.columns)}).")
    there = [column.name for column in task.destination.columns]
    mapping = _alike([name for name in columns if name not in there], [name for name in there if name not in columns])
    missing = tuple(name for name in columns if name not in there and name not in mapping)
    arriving = {mapping.get(name, name) for name in columns} & set(there)
    keys = [key for key in task.destination.keys if arriving.issuperset(key.columns)]
    found = _key(keys, task.source.primary_key, mapping)
    if found is None:
        because = "The destination has no key among these columns: rows are added, and a second run adds them again."
        return Proposal(mapping=mapping, missing=missing, strategy=Strategy.FAIL, because=because)
    kind = "primary key" if found.primary else "unique key"
    return Proposal(
        mapping=mapping,
        missing=missing,
        key=() if found.primary else found.columns,
        because=f"Rows are matched by the destination's {kind} ({', '.join(found.columns)}).",
    )


def _alike(lacking: Iterable[str], free: Iterable[str]) -> dict[str, str]:
    """Return pairs of names that differ only in case and punctuation, unless they are ambiguous."""
    ours, theirs = list(lacking), list(free)
    twice = {name for names in (ours, theirs) for name, times in Counter(map(_folded, names)).items() if times > 1}
    known = {_folded(name): name for name in theirs}
    return {
        name: known[_folded(name)]
        for name in ours
        if _folded(name) and _folded(name) in known and _folded(name) not in twice
    }


def _folded(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _key(keys: Iterable[Key], primary: Key | None, mapping: Mapping[str, str]) -> Key | None:
    """Return the destination's key that matches the source's primary key, else its own primary key, else any key."""
    wanted = {mapping.get(name, name) for name in primary.columns} if primary is not None else set()

    def rank(key: Key) -> tuple[bool, bool]:
        return set(key.columns) != wanted, not key.primary

    return min(keys, key=rank, default=None)
