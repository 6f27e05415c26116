"""INSERT … SELECT: the rows of a query go into the table without leaving the server."""

from __future__ import annotations

from portl import Batch, Counts, Intent, OperationError
from portl_postgres.catalog.equality import key_operators
from portl_postgres.catalog.tables import table_details
from portl_postgres.destination.writing.conflicts import Merge, identities, verdict
from portl_postgres.destination.writing.straight import Way
from portl_postgres.destination.writing.transitions import Path, resolves
from portl_postgres.session.session import Session
from portl_postgres.sql.text import quoted
from portl_postgres.wire.server_route import ServerBatch, ServerFormat

#: A scan that joins another halfway changes which rows LIMIT selects, and which come last.
_WHOLE_SCANS = "SET LOCAL synchronize_seqscans = off"


class ServerSideWay(Way):
    """One statement for all rows of a query, which also resolves conflicts.

    Args:
        session: that of the destination.
        intent: the job.
        path: says whether rows may conflict.
    """

    def __init__(self, session: Session, intent: Intent, path: Path) -> None:
        self._session = session
        self._intent = intent
        self._path = path
        self._rows = 0
        self._counts = Counts()

    def write(self, batch: Batch) -> int:
        """See ``Way.write``."""
        if not isinstance(batch, ServerBatch):
            raise OperationError(f"{self._session.label}: a batch of an unknown format arrived: {batch!r}")
        session, intent = self._session, self._intent
        if self._path.staged:
            merge = comparing(session, intent)
            statement = merge.statement(merge.selected(batch.select), batch.count)
            session.execute(_WHOLE_SCANS)
            inserted, updated, batch.rows = session.query(statement, what=f"writing to {intent.target.name}")[0]
            self._counts += verdict(intent, batch.rows, inserted, updated)
        else:
            batch.rows = insert(session, intent, Merge(intent).insert(batch.select))
            self._counts += Counts(inserted=batch.rows)
        self._rows += batch.rows
        return 0

    def take_in(self) -> tuple[int, Counts]:
        """See ``Way.take_in``."""
        found = self._rows, self._counts
        self.abort()
        return found

    def abort(self) -> None:
        """See ``Way.abort``."""
        self._rows, self._counts = 0, Counts()


def comparing(session: Session, intent: Intent, name: str = "portl_stage") -> Merge:
    """Return a ``Merge`` that compares keys as their index does. Takes the arguments of ``Merge``."""
    if intent.key is None or not resolves(intent):
        return Merge(intent, name)
    found = table_details(intent.target)
    return Merge(intent, name, key_operators(session, quoted(found.schema, found.name), intent.key.columns))


def insert(session: Session, intent: Intent, statement: str) -> int:
    """Execute an INSERT … SELECT; return its row count."""
    session.execute(_WHOLE_SCANS)
    tag = session.execute(statement, what=f"writing to {intent.target.name}")
    return int(tag.rsplit(" ", 1)[-1])


def merges_straight(intent: Intent) -> bool:
    """Return whether conflicts of a query's rows can be resolved without a staging table.

    A staging table is needed to separate rows that share a key, to find out whether identity columns have to be
    altered, and for the function behind the rule ``json``. Without it, rows are counted by reading them a second time,
    which for a user's query could cost as much as the first.
    """
    format = intent.format
    plain = isinstance(format, ServerFormat) and not format.own_sql and not identities(intent)
    return plain and not Merge(intent).repeats and "json" not in intent.conflict.columns.values()
