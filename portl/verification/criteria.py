"""How the rows of a job are matched, and which differences count against it.

* Missing rows always count.
* Different rows count under overwrite and fail. Under skip and merge, the destination's own values may stay, so they
  are reported but do not count.
* Extra rows are reported. They count only if there is no key, because then a row copied twice shows up as an extra one.

Of source rows that share a key, the last counts under overwrite and merge, the first under skip.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from portl.config.models import Strategy
from portl.connectors.exchange import Intent
from portl.verification.tally import Tally


@attrs.frozen(kw_only=True)
class Criteria:
    """How rows are matched, and which differences count."""

    #: The destination's columns that identify rows; empty if rows are compared as a whole.
    key: tuple[str, ...]
    #: The conflict strategy; ``fail`` if there is no key.
    strategy: Strategy
    #: True if source rows can share a key, so that only one of them arrives.
    repeats: bool
    #: True if NULLs in the key are equal.
    nulls_equal: bool
    #: False if keys can be equal but print differently.
    exact: bool
    #: Columns that are not compared, because existing rows keep their own values.
    kept: tuple[str, ...] = ()

    @classmethod
    def of(cls, intent: Intent) -> Criteria:
        """Return the criteria for a table of a job."""
        key = _key(intent)
        strategy = intent.conflict.strategy if intent.key is not None else Strategy.FAIL
        return cls(
            key=key,
            strategy=strategy,
            repeats=bool(key) and strategy is not Strategy.FAIL and not intent.distinct,
            nulls_equal=intent.key is not None and intent.key.nulls_equal,
            exact=all(intent.target.by_name[name].exact for name in key),
            kept=tuple(sorted(intent.kept)),
        )

    @property
    def keeps_own(self) -> bool:
        """True if rows that existed before may keep their values."""
        return self.strategy in (Strategy.SKIP, Strategy.MERGE)

    def equal(self, tally: Tally) -> bool:
        """Return whether the destination holds what the job should have put there."""
        return not (tally.missing or (tally.different and not self.keeps_own) or (tally.extra and not self.key))

    def notes(self, tally: Tally, *, rejected_to: str | None, limited: bool) -> Iterator[str]:
        """Yield the limitations of the answer.

        Args:
            tally: the differences.
            rejected_to: where rejected rows go.
            limited: True if the job has a ``source.limit``.
        """
        if tally.extra and self.key:
            yield "extra rows may come from elsewhere and stay; they do not count as a difference"
        if tally.extra and not self.key:
            yield "without a key, a row that was copied twice is an extra row: it counts as a difference"
        if tally.different and self.strategy is Strategy.SKIP:
            yield "`skip` leaves rows that were there before as they are: different rows do not count as a difference"
        if tally.different and self.strategy is Strategy.MERGE:
            yield "`merge` combines the source's values with those that were there: different rows do not count"
        if self.kept:
            yield f"not compared: {', '.join(self.kept)}, where rows that existed keep their own value"
        if tally.missing and rejected_to:
            yield f"rejected rows count as missing; they are in {rejected_to}"
        if tally.repeated:
            which = "first" if self.strategy is Strategy.SKIP else "last"
            yield f"of source rows with the same key, the {which} was compared"
        if limited:
            yield "`source.limit` without an order reads whichever rows the source returns first"


def _key(intent: Intent) -> tuple[str, ...]:
    """Return the columns to match rows by: those of the job's key, otherwise those of a key without NULLs."""
    filled = {field.target.name for field in intent.fields}
    if intent.key is not None and set(intent.key.columns) <= filled:
        return intent.key.columns
    known = intent.target.by_name
    for key in sorted(intent.target.keys, key=lambda k: not k.primary):
        if set(key.columns) <= filled and not any(known[name].nullable for name in key.columns):
            return key.columns
    return ()
