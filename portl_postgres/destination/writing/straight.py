"""Write by COPY straight into the table: the fast path."""

from __future__ import annotations

import abc

import portl
from portl import Batch, Counts, DataError, Intent
from portl_postgres.destination.writing.transitions import Path, State
from portl_postgres.session.session import Session
from portl_postgres.sql.text import with_columns
from portl_postgres.wire.batches import BINARY
from portl_postgres.wire.copy import text_options, unchecked
from portl_postgres.wire.copy_in import CopyIn
from portl_postgres.wire.server_route import carried

BAD_TEXT = "22021"
#: The server's message for a binary value that is too short for its type; poolers use it for lost connections.
TOO_SHORT = "08P01"
#: COPY refuses FREEZE if a cursor or snapshot of the session might miss the rows, or if the table is not new.
NOT_FROZEN = frozenset({"25000", "55000"})


class Way(abc.ABC):
    """A way to write rows: they are written, then either taken in or aborted."""

    @abc.abstractmethod
    def write(self, batch: Batch) -> int:
        """Write a batch; return the bytes sent. Raise ``DataError`` if a row is refused."""

    @abc.abstractmethod
    def take_in(self) -> tuple[int, Counts]:
        """Bring the written rows into the table; return their number and their counts."""

    @abc.abstractmethod
    def abort(self) -> None:
        """Give up rows that were written but not taken in. The caller rolls back."""


class Copying:
    """Sends rows to a table by COPY.

    Args:
        session: inside a transaction.
        intent: the job.
        token: checked while waiting.
    """

    def __init__(self, session: Session, intent: Intent, token: portl.CancelToken) -> None:
        self._session = session
        self._intent = intent
        self._token = token
        self._copy: CopyIn | None = None
        self._frozen = False
        #: Rows sent, and rows that the server accepted.
        self.sent = self.taken = 0

    def write(self, batch: Batch, table: str, *, frozen: bool = False) -> int:
        """Send a batch to ``table``, a quoted name; return its size in bytes."""
        if self._copy is None:
            self._frozen = frozen
            if unchecked(self._session):  # bytes are stored unchecked
                self._session.execute("SET LOCAL client_encoding = 'SQL_ASCII'")
            binary = carried(self._intent.format).name == BINARY
            self._copy = CopyIn(
                self._session,
                copy_statement(table, self._intent, binary=binary, frozen=frozen, text=text_options(self._session)),
                binary=binary,
                token=self._token,
                what=f"writing to {self._intent.target.name}",
                types=[field.target.type for field in self._intent.fields],
            )
        try:
            sent = self._copy.write(batch)
        except UnicodeEncodeError as error:
            raise DataError(f"a text that no encoding has a form for: {error.reason}", sqlstate=BAD_TEXT) from None
        self.sent += batch.rows
        if self._copy.answered:
            # In the middle of a COPY the server only answers to refuse (or with a notice), so stop sending.
            self.end()
        return sent

    def end(self) -> None:
        """End the current COPY."""
        if self._copy is None:
            return
        copy, self._copy = self._copy, None
        try:
            self.taken += copy.finish()
            if unchecked(self._session):
                self._session.execute("SET LOCAL client_encoding = 'UTF8'")
        except portl.OperationError as error:
            # FREEZE is refused while the caller has a cursor open; the next transaction does without.
            error.transient = error.transient or (self._frozen and error.sqlstate in NOT_FROZEN)
            raise
        except portl.ConnectionFailed as error:
            if error.sqlstate != TOO_SHORT or self._session.broken:
                raise
            raise DataError(error.message, sqlstate=TOO_SHORT) from None

    def abort(self) -> None:
        """Abort the current COPY, and forget what was sent."""
        copy, self._copy = self._copy, None
        self.sent = self.taken = 0
        if copy is not None:
            copy.abort()


class StraightWay(Way):
    """COPY into the table itself.

    Args:
        copying: sends the rows.
        table: quoted.
        path: says whether rows may be written frozen.
    """

    def __init__(self, copying: Copying, table: str, path: Path) -> None:
        self._copying = copying
        self._table = table
        self._path = path

    def write(self, batch: Batch) -> int:
        """See ``Way.write``."""
        return self._copying.write(batch, self._table, frozen=self._path.state is State.FRESH)

    def take_in(self) -> tuple[int, Counts]:
        """See ``Way.take_in``. A trigger may have suppressed rows."""
        copying = self._copying
        copying.end()
        sent, taken = copying.sent, copying.taken
        copying.sent = copying.taken = 0
        return taken, Counts(inserted=taken, skipped=sent - taken)

    def abort(self) -> None:
        """See ``Way.abort``."""
        self._copying.abort()


def copy_statement(
    table: str, intent: Intent, *, binary: bool, frozen: bool = False, text: str = "FORMAT text, ENCODING 'UTF8'"
) -> str:
    """Return the COPY that writes rows to ``table``, a quoted name.

    Frozen rows need no check of the transaction that wrote them, either when the key is built or later, and no VACUUM
    to freeze them. The table must have been created or truncated in the same (sub)transaction.
    """
    target = with_columns(table, (field.target.name for field in intent.fields))
    options = "FORMAT binary" if binary else text
    options += ", FREEZE" if frozen else ""
    return f"COPY {target} FROM STDIN ({options})"
