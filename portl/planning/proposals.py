"""Propose the keys of a job from what stands at both sides: which columns go where, and what a conflict is."""

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
    """What a job should say, each part with the reason, for people."""

    #: Source column to destination column, where the names differ in no more than case and punctuation.
    mapping: Mapping[str, str] = attrs.field(factory=dict)
    #: Columns of the source that the destination's table lacks.
    missing: tuple[str, ...] = ()
    strategy: Strategy = Strategy.OVERWRITE
    #: The destination's columns that the key has, where the job must name them: it is not the primary key.
    key: tuple[str, ...] = ()
    #: Why this strategy and this key.
    because: str = ""

    def conflict(self, strategy: str | None = None) -> str | dict[str, Any]:
        """Return the value of the key ``conflict``.

        Args:
            strategy: another one than is proposed.
        """
        word = strategy or self.strategy.value
        return {"strategy": word, "key": list(self.key)} if self.key else word


def propose(plan: Plan) -> Proposal:
    """Return what to say in a job.

    Args:
        plan: of the same job without a mapping and without a word on conflicts; it may have problems.
    """
    task = plan.tables[0]
    left_out = dict(task.ignored)
    columns = [column.name for column in task.source.columns if column.name not in left_out]
    if task.intent.create:
        key = task.destination.primary_key
        if key is None:
            said = "Neither end has a key: a second run could not tell which rows are there, and is refused."
            return Proposal(because=said)
        return Proposal(
            because=f"Rows are known by the primary key ({', '.join(key.columns)}) that the new table gets."
        )
    there = [column.name for column in task.destination.columns]
    mapping = _alike([name for name in columns if name not in there], [name for name in there if name not in columns])
    missing = tuple(name for name in columns if name not in there and name not in mapping)
    arriving = {mapping.get(name, name) for name in columns} & set(there)
    keys = [key for key in task.destination.keys if arriving.issuperset(key.columns)]
    found = _key(keys, task.source.primary_key, mapping)
    if found is None:
        said = "The destination has no key that the rows bring: they are added, and a second run adds them again."
        return Proposal(mapping=mapping, missing=missing, strategy=Strategy.FAIL, because=said)
    kind = "primary key" if found.primary else "unique key"
    return Proposal(
        mapping=mapping,
        missing=missing,
        key=() if found.primary else found.columns,
        because=f"Rows are known by the destination's {kind} ({', '.join(found.columns)}).",
    )


def _alike(lacking: Iterable[str], free: Iterable[str]) -> dict[str, str]:
    """Return pairs of names that differ in case and punctuation alone, where there is no second one like them."""
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
    """Return the key of the destination that is the source's primary key, or its own primary key, or any."""
    wanted = {mapping.get(name, name) for name in primary.columns} if primary is not None else set()

    def rank(key: Key) -> tuple[bool, bool]:
        return set(key.columns) != wanted, not key.primary

    return min(keys, key=rank, default=None)
