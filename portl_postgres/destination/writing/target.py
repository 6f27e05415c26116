"""The target table: created in the first transaction, watched for changes, finished after the last rows.

Deferred constraints would fail at COMMIT, too late to be dealt with. So they are checked with the current rows, and
deferred again before the next ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import portl
from portl import DataError, Intent
from portl_postgres.catalog import drift, equality
from portl_postgres.catalog.drift import Fingerprint
from portl_postgres.catalog.tables import table_details
from portl_postgres.destination import due_key
from portl_postgres.destination.writing.policies import POLICY_VIOLATION, Policies
from portl_postgres.destination.writing.straight import TOO_SHORT
from portl_postgres.session.session import Session
from portl_postgres.sql.text import quoted

#: Errors if two sessions create the same table: the table or its type exists, or catalog rows collide.
CREATED_TWICE = ("42P07", "42710", "23505")
FOREIGN_KEY_VIOLATION = "23503"
UNDEFINED_TABLE = "42P01"
#: What a refusal begins with that an altered table might have brought about: good rows look bad then.
_MISREAD = ("22", TOO_SHORT)

#: Makes a COMMIT wait for the disk, and with it all earlier commits. A transaction without WAL would not wait (xact.c,
#: RecordTransactionCommit), so this one writes a record that changes nothing.
DURABLE = ("SET LOCAL synchronous_commit = on", "SELECT pg_logical_emit_message(true, 'portl', '')")


class TargetTable:
    """The table, across the transactions of its writer.

    Args:
        session: the destination's.
        intent: the job.
        before: DDL for the first transaction, so that it is committed or undone with the first rows.
        after: DDL for after the last rows.
    """

    def __init__(self, session: Session, intent: Intent, before: Sequence[str], after: Sequence[str]) -> None:
        self._session = session
        self._intent = intent
        self._before = list(before)
        self._after = list(after)
        found = table_details(intent.target)
        #: Quoted.
        self.name = quoted(found.schema, found.name)
        self._look = drift.statement(self.name, [field.target.name for field in intent.fields])
        #: True for a table created by this run: no one else uses it yet.
        self._own = not found.oid and not intent.create
        self.committed = False
        #: The table's fingerprint before the first row; None if not read since it was created.
        self._known: Fingerprint | None = None
        #: True after a refusal that an altered table may have caused.
        self._suspect = False
        #: True if a lock of the open transaction has prevented alterations since the table was last read.
        self.verified = False
        #: True while deferrable constraints are set to immediate.
        self._immediate = False
        #: The row security policies for new rows; None if not read.
        self._policies: Policies | None = None

    @property
    def relation(self) -> int | None:
        """The table's oid, if the open transaction has read it."""
        return self._known.oid if self._known is not None and self._session.open else None

    def begin(self, *, asked: bool = False) -> None:
        """Open a transaction; create what is missing, and see whether the table is the one that was planned.

        Args:
            asked: True if it will be asked next whether the table is empty, and how its key compares.
        """
        self.verified = self._immediate = False
        creating = [] if self.committed else self._before
        if self._known is not None and not creating:
            self._session.begin(later=True)
            if self._suspect:
                self.recheck()
            return
        look = [self._look] if self._known is None else []
        if table_details(self._intent.target).row_security and self._policies is None:
            self._policies = Policies.of(self._session, self.name)
        what = "creating what is missing" if creating else "looking whether the table was altered"
        found = self._looked_ahead() if asked and look and not creating else None
        if found is None:
            found = self._begin([*creating, *look], what)
        if look:
            self._known = drift.of(found[-1])
            drift.insist(self._intent.target.name, drift.planned(self._intent), self._known)

    def _looked_ahead(self) -> list[list[tuple[Any, ...]]] | None:
        """Open a transaction, look at the table and at what will be asked next; None, and none is open: it is gone."""
        rows, operators = [self._any_rows], equality.look(self.name)
        try:
            found = self._session.begin(then=[self._look, *rows, *operators], what="looking at the table")
        except portl.Error as error:
            if error.sqlstate != UNDEFINED_TABLE:
                raise
            self._session.rollback()
            return None
        self._session.ahead.update({tuple(rows): found[1:2], tuple(operators): found[2:]})
        return found[:1]

    @property
    def _any_rows(self) -> str:
        return f"SELECT EXISTS (SELECT FROM {self.name})"

    def overtaken(self, error: BaseException) -> portl.Error | None:
        """Return the error to raise for a table that another process created in the meantime."""
        if not isinstance(error, portl.Error) or self.committed or not self._before or not self._intent.create:
            return None
        if error.sqlstate not in CREATED_TWICE or self._session.broken:
            return None
        ((there,),) = self._session.query("SELECT to_regclass($1) IS NOT NULL", self.name)
        if not there:
            return None
        return portl.SchemaError(
            f"{self._intent.target.name} was created by another process meanwhile",
            hint="run the job again: its rows go into the table that is there now",
            sqlstate=error.sqlstate,
        )

    def empty(self) -> bool:
        """Return whether it has no rows."""
        (((found,),),) = self._session.looking([self._any_rows])
        return not found

    def defer(self) -> None:
        """Defer constraints to the end of the transaction again."""
        if self._immediate and self._known is not None and self._known.deferred:
            self._session.execute(f"SET CONSTRAINTS {', '.join(self._known.deferred)} DEFERRED")
        self._immediate = False

    def check(self) -> None:
        """Check deferred constraints and, once in a transaction, that the table has not been altered."""
        if self._own and self._known is None:
            return  # one of several tables in a transaction, none of which has deferred constraints
        checks = self.checks
        if not self.verified:
            self._insist(checks)
            self.verified = True
        elif checks and self._session.ahead.pop(tuple(checks), None) is None:
            self._session.queries(checks, what=f"writing to {self._intent.target.name}")
        self._immediate = not self._session.nested

    @property
    def checks(self) -> list[str]:
        """The statements that ``check`` executes, or finds answered in ``Session.ahead``."""
        look = [self._look] if not self.verified and self._known is not None else []
        return look + ([] if self._session.nested else ["SET CONSTRAINTS ALL IMMEDIATE"])

    def refused(self, error: DataError) -> None:
        """Note a refused row, and name the policy that refused it."""
        if error.sqlstate == POLICY_VIOLATION and self._policies is not None:
            self._policies.name(error)
        self._suspect = not self.verified and (error.sqlstate or "").startswith(_MISREAD)

    def restored(self, *, verified: bool) -> None:
        """Note a rollback to a savepoint, and read the table again if it is suspect."""
        self.verified, self._immediate = verified, False
        if self._suspect:
            self.recheck()

    def recheck(self) -> None:
        """Refuse a table that was altered."""
        self._insist([self._look] if self._known is not None else [])

    def _insist(self, checks: Sequence[str]) -> None:
        """Refuse a table that was altered; the first of some statements reads it, if it is known."""
        if not checks:
            return
        found = self._session.ahead.pop(tuple(checks), None)
        if found is None:
            found = self._session.queries(checks, what=f"writing to {self._intent.target.name}")
        if self._known is not None:
            drift.insist(self._intent.target.name, self._known, drift.of(found[0]))
        self._suspect = False

    def rolled_back(self) -> None:
        """Note a rollback: a table created in it will be a different one when created again."""
        self.verified = self._immediate = False
        if not self.committed and self._before:
            self._known = None

    def begin_last(self) -> None:
        """Open the transaction for the statements after the rows, and execute them."""
        try:
            if self._after:
                self._begin(self._after, what="finishing the table")
            else:
                self._session.begin(later=True)
        except DataError as error:
            if error.sqlstate == FOREIGN_KEY_VIOLATION:
                error.hint = (
                    "copy the rows that it refers to, and run the job again; or leave foreign_keys out of `objects`"
                )
            raise

    def _begin(self, statements: list[str], what: str) -> list[list[tuple[Any, ...]]]:
        """Open a transaction and execute statements in it; return the rows of each.

        If another job that writes to the table has done what is due, or is about to, wait for it.
        """
        target = self._intent.target
        key, end = due_key.build_key(target), due_key.unmark(target)
        if key not in statements and end not in statements:
            return self._session.begin(then=statements, what=what)
        alone = f"LOCK TABLE {self.name} IN ACCESS EXCLUSIVE MODE"
        ((marked, built),) = self._session.begin(then=[alone, due_key.marked(target)], what=what)[-1]
        left = statements
        if not marked and end in left:
            left = left[left.index(end) + 1 :]  # everything due precedes the end of the record
        if built:
            left = [statement for statement in left if statement != key]
        return self._session.queries(left, what=what) if left else []

    def finished(self) -> None:
        """Note that the statements after the rows are done."""
        self._after = []
