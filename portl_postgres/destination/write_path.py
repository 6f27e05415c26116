"""Which way rows are written: by COPY straight into the table, through a staging table, or inside the server.

=========================================  ==========  ===========================================================
what is known                              rows go     what changes that
=========================================  ==========  ===========================================================
COPY is out of the question                staged      nothing: row security, a view, a key that is checked too late
nothing is to be resolved, or a new table  straight    a key that is there already: staged from then on
another writer of the table has found out  as there    the same
nothing yet                                straight    the first look: staged, if the table has rows
it had rows, and the first transaction     staged      a COMMIT: straight if none of its rows met one of them, for
goes through the staging table                         a COPY that meets a key that is there leaves dead rows
=========================================  ==========  ===========================================================

Rows of a query that never leave the server need no staging table as long as no row had to (``inside``).
"""

from __future__ import annotations

from portl import Counts, DataError, Intent, Strategy
from portl_postgres.catalog.tables import table_details
from portl_postgres.destination.conflicts import Merge
from portl_postgres.session.session import Session
from portl_postgres.sql.text import listed
from portl_postgres.wire.server_route import ServerFormat

UNIQUE_VIOLATION = "23505"


def copy_statement(table: str, intent: Intent, *, binary: bool, frozen: bool = False) -> str:
    """Return the COPY that brings rows into ``table``, which is quoted.

    Frozen rows need no look at the transaction that has written them, neither when the key is built nor ever after, and
    no VACUUM to freeze them. The table has to be made, or emptied, in the same (sub)transaction (manual, COPY, FREEZE).
    """
    columns = listed(field.target.name for field in intent.fields)
    options = "FORMAT binary" if binary else "FORMAT text, ENCODING 'UTF8'"
    options += ", FREEZE" if frozen else ""
    return f"COPY {table} ({columns}) FROM STDIN ({options})"


def merges_straight(intent: Intent) -> bool:
    """Return whether conflicts of a query's rows can be resolved without a staging table.

    Rows with one key are told apart there, and the function for ``json`` comes with it. Without it the rows are counted
    by a second look at them, which in a query of the user's could cost as much as the first.
    """
    format = intent.format
    plain = isinstance(format, ServerFormat) and not format.own_sql
    return plain and not Merge(intent).repeats and "json" not in intent.conflict.columns.values()


def must_stage(intent: Intent, *, nested: bool) -> bool:
    """Return whether COPY straight into the table is out of the question.

    COPY refuses a table with active row security, and a view. Inside a caller's transaction a deferrable key is
    checked at their COMMIT, too late to do anything about it.
    """
    found = table_details(intent.target)
    deferred = bool(nested and intent.key and intent.key.deferrable and intent.conflict.strategy is not Strategy.FAIL)
    return found.row_security or found.kind in ("v", "f") or deferred


class WritePath:
    """The way that rows are written for now; the table above has its transitions.

    Args:
        intent: the job.
        nested: True inside a caller's transaction.
        found: what another writer of the table has found out: True if rows are to be staged; None: nothing.
    """

    def __init__(self, intent: Intent, *, nested: bool, found: bool | None) -> None:
        #: True as long as the statement that reads a query's rows can write them, too.
        self.inside = isinstance(intent.format, ServerFormat) and merges_straight(intent)
        # A resumed run builds the key of its table at the end; until then nothing conflicts.
        keyless = intent.resumed and table_details(intent.target).unfinished
        #: True if a key that is there is for the strategy to resolve.
        self.resolves = intent.key is not None and intent.conflict.strategy is not Strategy.FAIL and not keyless
        self.staged = must_stage(intent, nested=nested)
        self._settled = self.staged or not self.resolves or intent.create
        if found is not None and not self._settled:
            # A look at the table would find the rows that the other writer has brought.
            self.staged, self._settled = found, not found

    def look(self, session: Session, table: str) -> None:
        """Look into the table, once: rows that are there may be met."""
        if not self._settled:
            self.staged = session.query(f"SELECT EXISTS (SELECT FROM {table})")[0][0]
            self._settled = not self.staged

    def committed(self, counted: Counts, rows: int) -> None:
        """Go straight if none of the first transaction's rows met one that was there."""
        if not self._settled and rows:
            self._settled = True
            self.staged = counted.inserted != rows

    def refused(self, error: DataError) -> bool:
        """Return whether the same rows shall be written again, through the staging table from now on."""
        if self.staged or not self.resolves or error.sqlstate != UNIQUE_VIOLATION:
            return False
        self.staged = self._settled = True
        return True

    def told(self, *, committed: bool) -> bool | None:
        """Return what another writer of the table may go by: True if rows are staged; None if nobody knows yet."""
        return self.staged if self._settled or committed else None
