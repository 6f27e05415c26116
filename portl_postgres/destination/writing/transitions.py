"""Which way rows are written, and what changes that.

==========  =========================  ======================================================  ==========
state       rows go                    event                                                   next state
==========  =========================  ======================================================  ==========
UNKNOWN     through the staging table  a transaction begins and the table is empty             STRAIGHT
..                                     rows are committed, none met an existing row            STRAIGHT
..                                     rows are committed, some met an existing row            STAGED
FRESH       straight, frozen           a savepoint is set, or the transaction ends             STRAIGHT
..                                     a key exists already, and the strategy resolves that    STAGED
STRAIGHT    straight                   a key exists already, and the strategy resolves that    STAGED
STAGED      through the staging table  (none)
==========  =========================  ======================================================  ==========

A table with rows starts as UNKNOWN: a COPY that meets an existing key leaves dead rows behind, so the first transaction
goes through the staging table. FRESH is a table created by the open transaction, whose rows can be written frozen
(manual, COPY, FREEZE).
"""

from __future__ import annotations

import enum

from portl import Intent, Strategy
from portl_postgres.catalog.tables import table_details


class State(enum.Enum):
    """What is known about the table's rows."""

    UNKNOWN = enum.auto()
    FRESH = enum.auto()
    STRAIGHT = enum.auto()
    STAGED = enum.auto()


class Event(enum.Enum):
    """What changes the state."""

    EMPTY = enum.auto()
    ALL_NEW = enum.auto()
    SOME_MET = enum.auto()
    SAVEPOINT = enum.auto()
    END = enum.auto()
    CONFLICT = enum.auto()


_NEXT = {
    (State.UNKNOWN, Event.EMPTY): State.STRAIGHT,
    (State.UNKNOWN, Event.ALL_NEW): State.STRAIGHT,
    (State.UNKNOWN, Event.SOME_MET): State.STAGED,
    (State.FRESH, Event.SAVEPOINT): State.STRAIGHT,
    (State.FRESH, Event.END): State.STRAIGHT,
    (State.FRESH, Event.CONFLICT): State.STAGED,
    (State.STRAIGHT, Event.CONFLICT): State.STAGED,
}


class Path:
    """The state of one writer.

    Args:
        intent: the job.
        nested: True inside a caller's transaction.
        creates: True if this writer creates the table.
        straight: True if another writer of the table has found that rows can go straight.
    """

    def __init__(self, intent: Intent, *, nested: bool, creates: bool, straight: bool) -> None:
        if must_stage(intent, nested=nested):
            self.state = State.STAGED
        elif creates and not nested:
            self.state = State.FRESH
        elif intent.create or straight or not resolves(intent):
            self.state = State.STRAIGHT
        else:
            self.state = State.UNKNOWN

    @property
    def staged(self) -> bool:
        """True if rows go through the staging table."""
        return self.state in (State.UNKNOWN, State.STAGED)

    def on(self, event: Event) -> bool:
        """Go to the next state; return whether it changed."""
        before, self.state = self.state, _NEXT.get((self.state, event), self.state)
        return self.state is not before


def resolves(intent: Intent) -> bool:
    """Return whether the job resolves conflicts.

    A resumed run builds the key of a table that it created at the end; until then nothing conflicts.
    """
    keyless = intent.resumed and table_details(intent.target).keyless
    return intent.key is not None and intent.conflict.strategy is not Strategy.FAIL and not keyless


def must_stage(intent: Intent, *, nested: bool) -> bool:
    """Return whether COPY straight into the table is ruled out.

    COPY refuses views and tables with active row security. Inside a caller's transaction, a deferrable key is checked
    at the caller's COMMIT, too late to do anything about it.
    """
    found = table_details(intent.target)
    deferred = bool(nested and intent.key and intent.key.deferrable and intent.conflict.strategy is not Strategy.FAIL)
    return found.row_security or found.kind in ("v", "f") or deferred
