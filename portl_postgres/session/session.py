"""A session: one connection, its statements, transactions and settings."""

from __future__ import annotations

import ipaddress
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import pq
from psycopg.rows import tuple_row

import portl
from portl_postgres.session.connect_errors import HINT_SYSTEM
from portl_postgres.session.endings import Ending, Waiting
from portl_postgres.session.errors import HINT_SILENT, translate
from portl_postgres.session.holders import holders_of
from portl_postgres.session.same_server import same_server
from portl_postgres.session.settings import SERVER_FACTS, changing
from portl_postgres.session.waiting import ready
from portl_postgres.session.watchdog import Vigil

logger = logging.getLogger("portl.postgres")
sql_logger = logging.getLogger("portl.postgres.sql")

#: Seconds that a request to cancel a statement may take.
CANCEL_SECONDS = 5.0

#: Seconds between checks while waiting for a socket.
READY_SECONDS = 1.0

#: The version that introduced JIT compilation.
JIT_SINCE = 11

LOCK_NOT_AVAILABLE = "55P03"


class Session:
    """One connection, as used by portl.

    Args:
        connection: in autocommit mode, unless a caller's transaction is open on it.
        label: which side this is, for messages.
        secrets: to be kept out of messages.
        token: once cancelled, no further statements are sent until ``rollback``.
        network_timeout: seconds of silence after which the server is considered lost; 0 for no limit.
        parameters: libpq's keywords of the connection; None to read them from it.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        label: str,
        secrets: Sequence[portl.Secret],
        token: portl.CancelToken | None = None,
        network_timeout: float = 0.0,
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        self.connection = connection
        #: Notices when the server has fallen silent.
        self.vigil = Vigil(connection.pgconn, same_server(connection, parameters), network_timeout)
        #: The last statement sent.
        self.statement = ""
        #: The server processes that have answered so far.
        self.backends: set[int] = set()
        self.label = label
        self.secrets = tuple(secrets)
        self._token = token or portl.CancelToken()
        self._cancelling = threading.Lock()
        #: True once nothing may be cancelled any more: a cancelled run is cleaning up, or the session has ended.
        self._settled = False
        #: The original values of settings that ``settings`` changed for the session.
        self._original: dict[str, str] = {}
        #: True inside a caller's transaction.
        self.nested = connection.info.transaction_status is not pq.TransactionStatus.IDLE
        # Open transactions and savepoints; a caller's transaction is the first.
        self._depth = 1 if self.nested else 0
        self._waiting = Waiting()
        #: The answers to statements sent ahead, by statement.
        self.ahead: dict[tuple[str, ...], list[list[tuple[Any, ...]]]] = {}

    @property
    def pgconn(self) -> pq.abc.PGconn:
        """The connection at libpq's level."""
        return self.connection.pgconn

    @property
    def version(self) -> int:
        """The server's major version."""
        return self.connection.info.server_version // 10000

    @property
    def open(self) -> bool:
        """True inside a transaction, or if the next statement begins one."""
        return bool(self._waiting.opening) or self.connection.info.transaction_status is not pq.TransactionStatus.IDLE

    @property
    def begun(self) -> bool:
        """True inside portl's transaction, or inside its savepoint in the caller's transaction."""
        return self._depth > self.nested

    @property
    def broken(self) -> bool:
        """True if the connection is lost."""
        return self.connection.closed or self.pgconn.status != pq.ConnStatus.OK

    @property
    def near(self) -> bool:
        """True if the server is on this machine: reached over a Unix socket or loopback."""
        info = self.connection.info
        in_files = info.host.startswith(("/", "@")) or not info.hostaddr
        return in_files or ipaddress.ip_address(info.hostaddr.partition("%")[0]).is_loopback

    @property
    def speaks_unicode(self) -> bool:
        """True if the database's encoding has every character."""
        return self.connection.info.parameter_status("server_encoding") == "UTF8"

    def readable(self, text: str) -> str:
        """Return text with the characters that the server's encoding lacks escaped."""
        encoding = "utf-8" if self.speaks_unicode else "ascii"
        return text.replace("\0", "\\0").encode(encoding, "backslashreplace").decode(encoding)

    def query(self, statement: str, *parameters: object, what: str = "query") -> list[tuple[Any, ...]]:
        """Execute one statement, with $1, $2 … for parameters; return its rows."""
        with self._cursor(statement, parameters, what) as cursor:
            return cursor.fetchall() if cursor.description else []

    def execute(self, statement: str, *parameters: object, what: str = "statement") -> str:
        """Execute one statement; return its command tag."""
        with self._cursor(statement, parameters, what) as cursor:
            return cursor.statusmessage or ""

    def queries(self, statements: Sequence[str], *, what: str = "query") -> list[list[tuple[Any, ...]]]:
        """Execute several statements in one round trip; return the rows of each.

        They take no parameters: constants are part of the text. Outside a transaction, they form one.
        """
        found = []
        opening = self.opening()
        with self._cursor(";\n".join([*opening, *statements]), (), what) as cursor:
            more: bool | None = True
            while more:
                found.append(cursor.fetchall() if cursor.description else [])
                more = cursor.nextset()
        return found[len(opening) :]

    def looking(self, statements: Sequence[str], *, what: str = "query") -> list[list[tuple[Any, ...]]]:
        """Execute statements as ``queries`` does, and undo their settings, even if one of them fails.

        Statements that were sent ahead are not sent again.
        """
        if (known := self.ahead.pop(tuple(statements), None)) is not None:
            return known
        if not self._depth:
            return self.queries(statements, what=what)
        name = f"portl_{self._depth}"
        back = f"ROLLBACK TO SAVEPOINT {name}", f"RELEASE SAVEPOINT {name}"
        try:
            return self.queries([f"SAVEPOINT {name}", *statements, *back], what=what)[1:-2]
        except portl.Error:
            if not self.broken and not self._token.cancelled:
                self.queries(back)
            raise

    def bare(self, statements: Sequence[str], *, what: str = "query") -> list[list[tuple[Any, ...]]]:
        """Execute catalog queries in one round trip, with names printed in full.

        Every name outside pg_catalog is qualified. JIT is off: the queries' cost is overestimated so much that
        compiling would take longer than everything else (manual, 32.1).
        """
        asked = self.barely(statements)
        return self.looking(asked, what=what)[len(asked) - len(statements) :]

    def barely(self, statements: Sequence[str]) -> list[str]:
        """Return the statements that ``bare`` executes."""
        settings = ["search_path = pg_catalog", "standard_conforming_strings = on"]
        if self.version >= JIT_SINCE:
            settings.append("jit = off")
        return [*(f"SET LOCAL {setting}" for setting in settings), *statements]

    @contextmanager
    def _cursor(self, statement: str, parameters: Sequence[object], what: str) -> Iterator[psycopg.RawCursor[Any]]:
        self.check()
        if self._waiting.opening:
            self.queries([])
        self.log(statement)
        # A caller's connection may have another row factory.
        with self.translated(what), psycopg.RawCursor(self.connection, row_factory=tuple_row) as cursor:
            try:
                with self.vigil.waiting():
                    cursor.execute(statement.encode(), parameters or None)
            except KeyboardInterrupt:
                # If it arrives before psycopg waits, psycopg leaves the statement running.
                self.end_statement()
                raise
            yield cursor

    def end_statement(self) -> None:
        """End the running statement, if any, and read its remaining results."""
        if self.connection.info.transaction_status is not pq.TransactionStatus.ACTIVE:
            return
        self.cancel()
        with self.translated("ending a statement"), self.vigil.waiting():
            while not self.broken and (result := self._result()) is not None:
                if result.status == pq.ExecStatus.COPY_IN:
                    self.pgconn.put_copy_end(b"given up by portl")
                    while self.pgconn.flush():
                        ready(self.pgconn.socket, READY_SECONDS, writing=True)
                elif result.status == pq.ExecStatus.COPY_OUT:
                    while (length := self.pgconn.get_copy_data(1)[0]) >= 0:
                        if not length:
                            self._receive()
        self.vigil.hasty = False

    def _result(self) -> pq.abc.PGresult | None:
        while self.pgconn.is_busy():
            self._receive()
        return self.pgconn.get_result()

    def _receive(self) -> None:
        if ready(self.pgconn.socket, READY_SECONDS)[0]:
            self.pgconn.consume_input()

    def log(self, statement: str) -> None:
        """Note a statement that is about to be sent."""
        self.statement = statement
        sql_logger.debug("%s: %s", self.label, statement)

    def scrubbed(self, text: str) -> str:
        """Return a server's text without the secrets of this connection."""
        for secret in self.secrets:
            text = secret.scrub(text)
        return text

    @contextmanager
    def translated(self, what: str) -> Iterator[None]:
        """Translate errors of the driver and of the operating system into portl's."""
        try:
            yield
        except psycopg.Error as error:
            raise self.failure(error, what) from None
        except OSError as error:
            raise self.refused(error, what) from error

    def refused(self, error: OSError, what: str) -> portl.Error:
        """Return portl's error for one of the local system, usually a lack of file descriptors."""
        return portl.OperationError(f"{self.label}, {what}: {error}", hint=HINT_SYSTEM)

    def failure(self, error: psycopg.Error, what: str) -> portl.Error:
        """Return portl's error for one of the driver's."""
        verdict = self.vigil.verdict
        if verdict is not None and error.sqlstate is None:
            message = f"{self.label}, {what}: {self.scrubbed(verdict)}"
            return portl.ConnectionFailed(message, hint=HINT_SILENT, transient=True)
        found = translate(error, f"{self.label}, {what}", self.secrets)
        if found.sqlstate == LOCK_NOT_AVAILABLE and (holders := holders_of(self.vigil, self.statement)):
            found.hint = f"{found.hint}; {holders}"
        return found

    def begin(
        self,
        mode: str = "",
        then: Sequence[str] = (),
        what: str = "query",
        *,
        before: Sequence[str] = (),
        later: bool = False,
    ) -> list[list[tuple[Any, ...]]]:
        """Open a transaction, or a savepoint inside an open one.

        Args:
            mode: the transaction mode.
            then: statements to execute first in it, in the same round trip; their rows are returned. If one fails, the
                transaction stays open.
            what: a description of them, for messages.
            before: statements to execute before BEGIN, in the same round trip; their rows come first.
            later: True to send BEGIN only along with the next statement.
        """
        if later and not self._depth:
            self._waiting.opening, self._depth = [f"BEGIN {mode}".strip()], 1
            return []
        first = f"SAVEPOINT portl_{self._depth}" if self._depth else f"BEGIN {mode}".strip()
        self._depth += bool(then)
        found = self.queries([*before, first, *then], what=what)
        self._depth += not then
        del found[len(before)]
        return found

    def opening(self) -> list[str]:
        """Return the statements that are still to be sent; the caller has to send them now."""
        found, self._waiting.opening = self._waiting.opening, []
        return found

    def along(self, statements: Iterable[str]) -> None:
        """Send statements along with the next one of the open transaction."""
        self._waiting.opening += statements

    def at_commit(self, ending: Ending) -> None:
        """Send a statement along with the COMMIT of the open transaction."""
        self._waiting.endings.append(ending)

    def commit(self, first: Sequence[str] = ()) -> None:
        """Commit, or release the savepoint.

        Args:
            first: statements to execute before, in the same round trip. If one fails, the transaction stays open.

        Raises:
            OperationError: the server rolled back instead, as it does silently if an earlier error was swallowed.
            Error: the meaning of an ``Ending`` that was refused; the transaction is rolled back.
        """
        self.ahead.clear()
        if self._depth > 1:
            self.queries([*first, f"RELEASE SAVEPOINT portl_{self._depth - 1}"])
            self._depth -= 1
            return
        opening = self.opening()
        endings = list(self._waiting.endings)
        statements = [*opening, *(ending.statement for ending in endings), *first, "COMMIT"]
        try:
            with self._cursor(";\n".join(statements), (), "COMMIT") as cursor:
                while cursor.nextset():
                    pass
                tag = cursor.statusmessage
        except portl.Error as error:
            refused = next((ending.refused for ending in endings if ending.mark in error.message), None)
            if refused is None:
                raise
            self.rollback()
            raise refused() from None
        self._waiting.endings.clear()
        self._depth = 0
        if tag != "COMMIT":
            raise portl.OperationError(f"{self.label}: COMMIT was answered with {tag!r}: nothing was committed")

    def rollback(self) -> None:
        """Roll back, or roll back to the savepoint. On a broken connection, the server has done so."""
        self.ahead.clear()
        if self._token.cancelled:
            self.settle()
        if not self.broken:
            # Ctrl-C may come between a server's answer and our note of it, but the connection knows its state.
            self.end_statement()
        self._waiting.opening = []
        if self._depth <= 1:
            self._waiting.endings.clear()
        if not self.open:
            self._depth = 0
            return
        self._depth -= 1
        if self.broken:
            return
        if self._depth == 0:
            self.execute("ROLLBACK")
            return
        name = f"portl_{self._depth}"
        self.execute(f"ROLLBACK TO SAVEPOINT {name}")
        self.execute(f"RELEASE SAVEPOINT {name}")

    def back(self) -> None:
        """Roll back to the innermost savepoint, which stays."""
        self.execute(f"ROLLBACK TO SAVEPOINT portl_{self._depth - 1}")

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Keep a failure inside this context from aborting the open transaction, if any."""
        if not self._depth:
            yield
            return
        self.begin()
        try:
            yield
        except BaseException:
            self.rollback()
            raise
        self.commit()

    def speak_utf8(self) -> None:
        """Set the encoding before anything is read: under SQL_ASCII, psycopg returns bytes instead of str."""
        before = self.connection.info.parameter_status("client_encoding") or "UTF8"
        if before != "UTF8":
            self._original.setdefault("client_encoding", before)
            self.execute(f"SET {'LOCAL ' if self.nested else ''}client_encoding = 'UTF8'", what="changing the encoding")

    def settings(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Change settings of the session, or of the caller's transaction; return their previous values.

        Settings that this server version does not have are skipped.
        """
        (rows,) = self.queries([changing(wanted, local=self.nested)], what="changing settings")
        changed = {name: before for name, before, set_anew, *_ in rows if set_anew}
        self.answered(rows)
        if self._depth == self.nested:  # settings inside portl's own transaction end with it, or are restored there
            for name, before in changed.items():
                self._original.setdefault(name, before)
        return changed

    def identify(self) -> set[int]:
        """Find out which server process serves this session; return all that have answered so far."""
        self.answered(self.query(f"SELECT {SERVER_FACTS}", what="looking at the server"))
        return self.backends

    def answered(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Note the server process that has answered, which is at the end of each row."""
        if rows:
            backend, started, now = rows[0][-3:]
            self.vigil.belongs_to(backend, started, now)
            self.backends.add(backend)

    def check(self) -> None:
        """Raise ``Cancelled`` once the run is cancelled, unless it is already cleaning up."""
        if not self._settled:
            self._token.check()

    def interrupt(self) -> None:
        """End the running statement because the run is cancelled. Called from another thread."""
        with self._cancelling:
            if not self._settled:
                self.cancel()

    def settle(self) -> None:
        """Wait for a pending cancel request, and prevent others from hitting later statements."""
        with self._cancelling:
            self._settled = True

    def cancel(self) -> None:
        """Ask the server to end the running statement; abandon the connection if that is impossible."""
        try:
            self.connection.cancel_safe(timeout=min(CANCEL_SECONDS, self.vigil.seconds or CANCEL_SECONDS))
            self.vigil.hasty = True
        except (psycopg.Error, OSError) as error:
            said = self.scrubbed(" ".join(str(error).split()))
            logger.warning("%s: the running statement could not be cancelled: %s", self.label, said)
            self.vigil.give_up(f"the running statement could not be cancelled, so the connection was closed: {said}")

    def give_back(self) -> None:
        """Restore the settings that were changed on a caller's connection."""
        status = self.connection.info.transaction_status
        if self.broken or status not in (pq.TransactionStatus.IDLE, pq.TransactionStatus.INTRANS):
            return  # a failed transaction restores its settings itself
        try:
            self.settings(self._original)
        except portl.Error as error:
            logger.warning("%s: its settings could not be put back: %s", self.label, error.message)
