"""Reach a database: parameters, retries, the pool, and sessions with portl's settings.

A caller's own connection is lent, not owned: the settings that portl changes on it are put back, a transaction that
is open on it is neither committed nor rolled back (portl works in savepoints inside it), and it is never closed.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import psycopg_pool
import tenacity
from psycopg import pq
from psycopg.rows import tuple_row

import portl
from portl_postgres.config import PostgresEnd
from portl_postgres.conninfo import SECRET_KEYWORDS, parse_url
from portl_postgres.failures import HINT_SILENT, translate
from portl_postgres.reaching import connect_once, refusal
from portl_postgres.sqltext import literal
from portl_postgres.watchdog import Vigil

logger = logging.getLogger("portl.postgres")
sql_logger = logging.getLogger("portl.postgres.sql")

#: Seconds that a request to cancel a statement may take.
CANCEL_SECONDS = 5.0

#: What fixes how values print and are read, so that text means the same at both ends (manual, 20.11). Left as the
#: user has them: TimeZone and the order of DateStyle, which decide what his query means.
PRINTING = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",  # before version 12, less than 3 loses digits
    "bytea_output": "hex",
    "client_encoding": "UTF8",
    "xmloption": "content",
    "array_nulls": "on",  # off, {a,NULL} is read as two texts
    # A transaction that waits for the other end is not idle in the sense of these limits: the source's holds the
    # snapshot while the destination works, the destination's its rows while the source does. What the limits are for,
    # locks that a dead client leaves behind, the server's own look after the client is for (``_LIMITS``).
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
}

#: Seconds between two looks of the server, amid a statement, at whether its client is there.
CHECK_SECONDS = 10
#: A setting that an error answers where the server's system cannot do it (manual, 20.3.2): on Linux it always can.
_LINUX_ALONE = "client_connection_check_interval"

LOCK_NOT_AVAILABLE = "55P03"
#: Who holds locks on relations that a statement names, the strongest first; plain reading is in nobody's way.
_HOLDERS = """
    SELECT 'process ' || l.pid, nullif('(' || a.application_name || ')', '()'), a.state, 'with ' || l.mode, 'on',
        c.oid::regclass
    FROM pg_catalog.pg_locks AS l
    JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
    JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.granted AND l.pid <> {backend} AND l.mode <> 'AccessShareLock' AND c.relkind IN ('r', 'p', 'm', 'f')
        AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
        AND strpos({statement}, c.relname) > 0
    ORDER BY l.mode NOT LIKE '%Exclusive%', l.mode LIKE 'Row%', a.xact_start
    LIMIT 3
"""

#: Seconds between two looks at the token while a connection of a pool is waited for.
_POOL_SECONDS = 0.25

#: What chooses between several servers, or says where one is.
_CHOICE = {"host", "hostaddr", "port", "service", "servicefile", "target_session_attrs", "load_balance_hosts"}

#: Callers' connections that a run has in hand. Two ends, or two runs, on one would spoil each other's statements.
_lent: weakref.WeakSet[psycopg.Connection[Any]] = weakref.WeakSet()
_lending = threading.Lock()


class Session:
    """One connection in portl's hands.

    Args:
        connection: in autocommit mode, unless a caller's transaction is open on it.
        label: which end this is, for messages.
        secrets: to be kept out of messages.
        token: a cancelled one keeps further statements from being sent, until ``rollback``.
        network_timeout: seconds of silence after which the server is taken for lost; 0 for no limit.
        parameters: libpq's keywords of the connection; None has them read from it.
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
        self._cancel_seconds = min(CANCEL_SECONDS, network_timeout or CANCEL_SECONDS)
        #: What notices that the server has fallen silent.
        self.vigil = Vigil(connection.pgconn, _twin(connection, parameters), network_timeout)
        #: What was sent last.
        self.statement = ""
        #: The processes at the server that have answered so far.
        self.backends: set[int] = set()
        self.label = label
        self.secrets = tuple(secrets)
        self._token = token or portl.CancelToken()
        self._cancelling = threading.Lock()
        #: True once nothing is to be cancelled any more: a cancelled run tidies up, or the session has ended.
        self._settled = False
        #: What ``settings`` has changed for the session to what it was.
        self._original: dict[str, str] = {}
        #: True inside a transaction of the caller's.
        self.nested = connection.info.transaction_status is not pq.TransactionStatus.IDLE
        # Transactions and savepoints that are open; the caller's transaction is the first.
        self._depth = 1 if self.nested else 0

    @property
    def pgconn(self) -> pq.abc.PGconn:
        """The connection at libpq's level."""
        return self.connection.pgconn

    @property
    def version(self) -> int:
        """The server's major version."""
        return self.connection.info.server_version // 10000

    @property
    def broken(self) -> bool:
        """True if the connection is lost."""
        return self.connection.closed or self.pgconn.status != pq.ConnStatus.OK

    def log_details(self) -> None:
        """Log where this connection leads."""
        info, pgconn = self.connection.info, self.pgconn
        logger.debug(
            "%s: PostgreSQL %s, backend %d, role %s, database %s, %s",
            self.label,
            info.parameter_status("server_version"),
            info.backend_pid,
            info.user,
            info.dbname,
            "TLS" if pgconn.ssl_in_use else "no TLS",
        )

    def query(self, statement: str, *parameters: object, what: str = "query") -> list[tuple[Any, ...]]:
        """Execute one statement, with $1, $2 … for parameters; return its rows."""
        with self._cursor(statement, parameters, what) as cursor:
            return cursor.fetchall() if cursor.description else []

    def execute(self, statement: str, *parameters: object, what: str = "statement") -> str:
        """Execute one statement; return its command tag."""
        with self._cursor(statement, parameters, what) as cursor:
            return cursor.statusmessage or ""

    @contextmanager
    def _cursor(self, statement: str, parameters: Sequence[object], what: str) -> Iterator[psycopg.RawCursor[Any]]:
        self.check()
        self.log(statement)
        # A caller's connection may make rows in another way.
        with self.translated(what), psycopg.RawCursor(self.connection, row_factory=tuple_row) as cursor:
            with self.vigil.waiting():
                cursor.execute(statement.encode(), parameters or None)
            yield cursor

    def log(self, statement: str) -> None:
        """Take note of a statement that is about to be sent."""
        self.statement = statement
        sql_logger.debug("%s: %s", self.label, statement)

    def scrubbed(self, text: str) -> str:
        """Return a server's words without the secrets of this connection."""
        for secret in self.secrets:
            text = secret.scrub(text)
        return text

    @contextmanager
    def translated(self, what: str) -> Iterator[None]:
        """Raise the driver's errors as portl's."""
        try:
            yield
        except psycopg.Error as error:
            raise self.failure(error, what) from None

    def failure(self, error: psycopg.Error, what: str) -> portl.Error:
        """Return portl's error for one of the driver's."""
        verdict = self.vigil.verdict
        if verdict is not None and error.sqlstate is None:
            message = f"{self.label}, {what}: {self.scrubbed(verdict)}"
            return portl.ConnectionFailed(message, hint=HINT_SILENT, transient=True)
        found = translate(error, f"{self.label}, {what}", self.secrets)
        if found.sqlstate == LOCK_NOT_AVAILABLE and (holders := self._holders()):
            found.hint = f"{found.hint}; {holders}"
        return found

    def _holders(self) -> str | None:
        """Return who holds locks on what the last statement names, for people; None if that is not to be found out."""
        rows = self.vigil.ask(_HOLDERS.format(statement=literal(self.statement), backend=self.vigil.backend))
        found = [" ".join(value.decode(errors="replace") for value in row if value) for row in rows or []]
        return f"locks are held there by {', and by '.join(found)}" if found else None

    def begin(self, mode: str = "") -> None:
        """Open a transaction, or a savepoint inside one that is open."""
        self.execute(f"SAVEPOINT portl_{self._depth}" if self._depth else f"BEGIN {mode}".strip())
        self._depth += 1

    def commit(self) -> None:
        """Commit, or release the savepoint.

        Raises:
            OperationError: if the server rolled back instead, which it does without an error after one was swallowed.
        """
        if self._depth > 1:
            self.execute(f"RELEASE SAVEPOINT portl_{self._depth - 1}")
            self._depth -= 1
            return
        tag = self.execute("COMMIT", what="COMMIT")
        self._depth = 0
        if tag != "COMMIT":
            raise portl.OperationError(f"{self.label}: COMMIT was answered by {tag!r}: nothing was committed")

    def rollback(self) -> None:
        """Roll back, or back to the savepoint. On a broken connection the server has done it."""
        if self._token.cancelled:
            self.settle()
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
        """Keep a failure inside from spoiling the transaction that is open, if one is."""
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
        """Change the encoding before anything is read: under SQL_ASCII psycopg returns bytes where texts are meant."""
        before = self.connection.info.parameter_status("client_encoding") or "UTF8"
        if before != "UTF8":
            self._original.setdefault("client_encoding", before)
            self.execute(f"SET {'LOCAL ' if self.nested else ''}client_encoding = 'UTF8'", what="changing the encoding")

    def settings(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Change settings of the session, or of the caller's transaction; return what they were.

        Settings that this version of the server does not have are left out.
        """
        names = list(wanted)
        rows = self.query(
            "SELECT n, current_setting(n, true), pg_backend_pid() FROM unnest($1::text[]) AS n"
            f" WHERE n <> '{_LINUX_ALONE}' OR version() LIKE '%linux%'",
            names,
            what="reading settings",
        )
        before = {name: value for name, value, _ in rows if value is not None}
        self.backends.update(backend for _, _, backend in rows)
        changes = {name: wanted[name] for name in before if before[name] != wanted[name]}
        if changes:
            if self._depth == self.nested:  # what is set in a transaction of portl's goes with it, or is put back there
                for name in changes:
                    self._original.setdefault(name, before[name])
            self.query(
                "SELECT set_config(n, v, $3) FROM unnest($1::text[], $2::text[]) AS s(n, v)",
                list(changes),
                list(changes.values()),
                self.nested,
                what="changing settings",
            )
        return {name: before[name] for name in changes}

    def identify(self) -> set[int]:
        """Learn which process at which server works for this session; return all that have answered it so far."""
        ((backend, started, now),) = self.query(
            "SELECT pg_backend_pid(), (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text,"
            " extract(epoch FROM clock_timestamp())::float8",
            what="looking at the server",
        )
        self.vigil.belongs_to(backend, started, now)
        return self.backends | {backend}

    @contextmanager
    def bare_path(self) -> Iterator[None]:
        """Make the server print every name outside pg_catalog with its schema, and not compile queries of catalogs.

        Their cost is guessed so high that compiling would take longer than all else (manual, 32.1).
        """
        before = self.settings({"search_path": "pg_catalog", "standard_conforming_strings": "on", "jit": "off"})
        try:
            yield
        finally:
            if self.connection.info.transaction_status in (pq.TransactionStatus.IDLE, pq.TransactionStatus.INTRANS):
                self.settings(before)

    def check(self) -> None:
        """Raise ``Cancelled`` once the run is cancelled, unless it is tidying up already."""
        if not self._settled:
            self._token.check()

    def interrupt(self) -> None:
        """End the statement that is running because the run is cancelled; called from another thread."""
        with self._cancelling:
            if not self._settled:
                self.cancel()

    def settle(self) -> None:
        """Wait for a request to cancel that is on its way, and let no other hit what comes now."""
        with self._cancelling:
            self._settled = True

    def cancel(self) -> None:
        """Ask the server to end the statement that is running; give the connection up if it cannot be asked."""
        try:
            self.connection.cancel_safe(timeout=self._cancel_seconds)
            self.vigil.hasty = True
        except psycopg.Error as error:
            said = self.scrubbed(" ".join(str(error).split()))
            logger.warning("%s: the running statement could not be cancelled: %s", self.label, said)
            self.vigil.give_up(f"the running statement could not be cancelled, and the connection was given up: {said}")

    def give_back(self) -> None:
        """Put back the settings that were changed on a caller's connection."""
        status = self.connection.info.transaction_status
        if self.broken or status not in (pq.TransactionStatus.IDLE, pq.TransactionStatus.INTRANS):
            return  # a failed transaction takes the settings of its own back
        try:
            self.settings(self._original)
        except portl.Error as error:
            logger.warning("%s: its settings could not be put back: %s", self.label, error.message)


class Database:
    """One end's database.

    Args:
        config: how to reach it.
        handle: a psycopg connection or pool of the caller's, where he gave one.
        role: ``source`` or ``destination``.
    """

    def __init__(self, config: PostgresEnd, handle: object | None, role: str) -> None:
        self._config = config
        self._role = role
        self._handle = handle
        self._pool: psycopg_pool.ConnectionPool[Any] | None = None
        self._pooling = threading.RLock()
        self.parameters = {} if handle is not None else _parameters(config, role)
        self._secrets = _secrets(config, self.parameters)

    @property
    def label(self) -> str:
        """Where this is, for people."""
        if self._handle is not None:
            return f"{self._role} (the caller's connection)"
        parameters = self.parameters
        user = f"{parameters['user']}@" if "user" in parameters else ""
        host = str(parameters.get("host", "local socket"))
        port = f":{parameters['port']}" if "port" in parameters else ""
        database = f"/{parameters['dbname']}" if "dbname" in parameters else ""
        return f"{self._role} {user}{host}{port}{database}"

    @property
    def most(self) -> int:
        """How many connections there may be at a time."""
        if isinstance(self._handle, psycopg_pool.ConnectionPool):
            return int(self._handle.max_size)
        return 1 if self._handle is not None else self._config.pool.max_size

    @contextmanager
    def session(self, context: portl.Context, settings: Mapping[str, str]) -> Iterator[Session]:
        """Lend a session with portl's settings; what was changed on a caller's connection is put back."""
        with self._connection(context) as connection, self._exclusive(connection):
            own = self._handle is None
            idle = connection.info.transaction_status is pq.TransactionStatus.IDLE
            autocommit, threshold = connection.autocommit, connection.prepare_threshold
            limit = self._config.network_timeout
            parameters = self.parameters if own else None
            session = Session(connection, self.label, self._secrets, context.token, limit, parameters)
            undo = context.token.subscribe(session.interrupt)
            try:
                session.vigil.start()
                connection.pgconn.nonblocking = 1  # as psycopg has it: a blocking call keeps every thread waiting
                if idle and not autocommit:
                    connection.autocommit = True
                connection.prepare_threshold = None
                limits = {
                    name: f"{round(seconds * 1000)}ms"
                    for name, seconds in (
                        ("statement_timeout", self._config.statement_timeout),
                        ("lock_timeout", self._config.lock_timeout),
                    )
                    if seconds or own
                }
                session.speak_utf8()
                session.settings({**PRINTING, **_watchfulness(limit, self._role), **limits, **settings})
                self._check_pooler(session)
                yield session
            finally:
                undo()
                session.settle()
                if not own:
                    session.give_back()
                session.vigil.stop()
                if not own:
                    connection.prepare_threshold = threshold
                    if idle and connection.info.transaction_status is pq.TransactionStatus.IDLE:
                        connection.autocommit = autocommit

    @contextmanager
    def _exclusive(self, connection: psycopg.Connection[Any]) -> Iterator[None]:
        """Refuse a caller's connection that cannot be worked with, or that is in use by a run already."""
        if self._handle is None:
            yield
            return
        status = connection.info.transaction_status
        obstacles = {
            "is closed": connection.closed,
            "is in pipeline mode; leave it first": connection.pgconn.pipeline_status != pq.PipelineStatus.OFF,
            "is busy with a statement; finish it first": status is pq.TransactionStatus.ACTIVE,
            "is in a transaction that has failed; roll it back first": status is pq.TransactionStatus.INERROR,
        }
        found = [obstacle for obstacle, present in obstacles.items() if present]
        if found:
            raise self._unusable(f"the connection {found[0]}")
        with _lending:
            if connection in _lent:
                raise self._unusable(
                    "the connection is in use by portl already; each end, and each run at the same time, needs one of"
                    " its own, or a pool that has them"
                )
            _lent.add(connection)
        try:
            yield
        finally:
            with _lending:
                _lent.discard(connection)

    def _unusable(self, text: str) -> portl.ConfigError:
        return portl.ConfigError([f"{self._role}: {text}"], origin="what was handed in")

    def _check_pooler(self, session: Session) -> None:
        """Refuse a pooler that hands each transaction to another process of the server: settings would get lost there.

        A pooler tells its clients other process numbers than the server's. Whether it keeps one process for one
        client shows when a second client comes while the first is idle: where it does not, both are given the same.
        """
        answered = session.identify()
        if session.nested or (len(answered) == 1 and session.pgconn.backend_pid in answered):
            return
        shared = len(answered) > 1 or session.vigil.shared()
        if shared:
            raise portl.ConnectionFailed(
                f"{self.label}: a pooler hands each transaction to another process of the server, and what portl sets,"
                " locks and sees in one would be lost in the next",
                hint="connect to the server itself, or to a pool in session mode (pgbouncer: pool_mode = session)",
            )

    def close(self) -> None:
        """Close what is portl's own."""
        with self._pooling:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close(timeout=5)

    @contextmanager
    def _connection(self, context: portl.Context) -> Iterator[psycopg.Connection[Any]]:
        handle = self._handle
        if isinstance(handle, psycopg.Connection):
            yield handle
            return
        if handle is not None and not isinstance(handle, psycopg_pool.ConnectionPool):
            raise self._unusable(
                f"expected a psycopg.Connection or a psycopg_pool.ConnectionPool, "
                f"found {type(handle).__module__}.{type(handle).__name__}"
            )
        pool = handle if handle is not None else self._own_pool(context)
        connection = self._free(pool, context)
        try:
            yield connection
        finally:
            if handle is None:
                self._retire(pool, connection)
            pool.putconn(connection)

    def _free(self, pool: psycopg_pool.ConnectionPool[Any], context: portl.Context) -> psycopg.Connection[Any]:
        """Wait for a free connection of a pool."""
        seconds = self._config.pool.timeout
        end = time.monotonic() + seconds
        while True:
            context.token.check()
            left = end - time.monotonic()
            try:
                found: psycopg.Connection[Any] = pool.getconn(timeout=max(min(_POOL_SECONDS, left), 0.001))
                return found
            except psycopg_pool.PoolTimeout:
                if left > _POOL_SECONDS:
                    continue
            except (psycopg_pool.PoolClosed, psycopg_pool.TooManyRequests) as error:
                # portl's own is closed as soon as one of its connections is lost; there is a new one next time.
                own = self._handle is None
                hint = None if own else "look at the pool that was handed in"
                raise portl.ConnectionFailed(f"{self.label}: {error}", hint=hint, transient=own) from None
            if self._handle is None:
                self._connect_once(context)  # a pool hides why it has none
            raise portl.ConnectionFailed(
                f"{self.label}: no connection was free within {seconds:g} s",
                hint="raise `pool.max_size` or `pool.timeout`",
                transient=self._handle is None,
            )

    def _retire(self, pool: psycopg_pool.ConnectionPool[Any], connection: psycopg.Connection[Any]) -> None:
        """Close a pool of portl's own one of whose connections was lost: the others are in doubt.

        The pool would replace it behind the scenes, and keep a wrong address or a refusal for itself; the next
        session finds that out, and says it, with a new pool. Connections that are lent still are closed on return.
        """
        if connection.info.transaction_status is not pq.TransactionStatus.IDLE:
            connection.close()  # what is open on it must not be waited for
        if not connection.closed:
            return
        with self._pooling:
            if self._pool is pool:
                self._pool = None
        pool.close(timeout=5)

    def _own_pool(self, context: portl.Context) -> psycopg_pool.ConnectionPool[Any]:
        with self._pooling:
            if self._pool is None:
                self._probe(context)  # a pool repeats a wrong password until its time is up, and hides the reason
                size = self._config.pool
                self._pool = psycopg_pool.ConnectionPool(
                    kwargs={**self.parameters, "autocommit": True},
                    min_size=size.min_size,
                    max_size=size.max_size,
                    timeout=size.timeout,
                    reconnect_timeout=size.timeout,
                    open=False,
                    name=f"portl-{self._role}",
                    num_workers=1,
                )
                self._pool.open()
            return self._pool

    def _probe(self, context: portl.Context) -> None:
        """Connect once, with retries for what may pass.

        Raises:
            ConnectionFailed: after the last attempt.
            AuthenticationFailed: at once.
        """
        retry = context.retry

        def report(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            pause = state.next_action.sleep if state.next_action else 0.0
            text = error.message if isinstance(error, portl.Error) else str(error)
            logger.warning(
                "attempt %d of %d failed, again in %.1f s: %s", state.attempt_number, retry.attempts, pause, text
            )
            context.emit(
                portl.Retrying(
                    what=f"connecting to the {self._role}",
                    attempt=state.attempt_number,
                    attempts=retry.attempts,
                    pause=pause,
                    error=text,
                )
            )

        tenacity.Retrying(
            stop=tenacity.stop_after_attempt(retry.attempts),
            wait=tenacity.wait_exponential(multiplier=0.5, max=retry.max_delay) + tenacity.wait_random(0, 0.5),
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, portl.Error) and error.transient),
            sleep=context.token.wait,
            before_sleep=report,
            reraise=True,
        )(self._connect_once, context)

    def _connect_once(self, context: portl.Context) -> None:
        timeout = self.parameters.get("connect_timeout", "")
        if not re.fullmatch(r"\s*[-+]?\d*\s*", timeout):
            # libpq looks at it only where it waits itself.
            raise portl.ConnectionFailed(
                f"{self.label}: invalid integer value {timeout!r} for connection option 'connect_timeout'",
                hint="give it in whole seconds; 0 waits without a limit",
            )
        error = connect_once(self.parameters, context.token.check)
        if error is None:
            return
        text = " ".join(str(error).split())
        for secret in self._secrets:
            text = secret.scrub(text)
        found = refusal(error, f"{self.label}: {text}", self.parameters, context.token.check)
        del error  # psycopg's error holds libpq's parameters, and this frame goes with the exception
        raise found


def _watch_over(seconds: float) -> tuple[int, int, int]:
    """Return after how many idle seconds TCP asks the peer, how many seconds apart, and how often."""
    return max(1, round(seconds / 2)), max(1, round(seconds / 8)), 3


def _watchfulness(seconds: float, role: str) -> dict[str, str]:
    """Return the settings by which the server notices that its client is gone, and gives up what it has locked.

    ``tcp_user_timeout`` ends also a connection whose other end is well and takes nothing for a while (tcp(7)). That is
    what rows do when the end that they go to waits for a lock. So the side that sends rows does without: the source's
    server, and libpq towards the destination, where the watchdog stands in for it.
    """
    if not seconds:
        return {}
    idle, interval, count = _watch_over(seconds)
    found = {
        "tcp_keepalives_idle": str(idle),
        "tcp_keepalives_interval": str(interval),
        "tcp_keepalives_count": str(count),
        _LINUX_ALONE: f"{min(CHECK_SECONDS, idle)}s",
    }
    if role != "source":
        found["tcp_user_timeout"] = str(round(seconds * 1000))
    return found


def _keepalives(seconds: float, role: str) -> dict[str, str]:
    """Return the keywords by which libpq notices that the server is gone; see ``_watchfulness``."""
    if not seconds:
        return {}
    idle, interval, count = _watch_over(seconds)
    found = {
        "keepalives": "1",
        "keepalives_idle": str(idle),
        "keepalives_interval": str(interval),
        "keepalives_count": str(count),
    }
    if role == "source":
        found["tcp_user_timeout"] = str(round(seconds * 1000))
    return found


def _twin(connection: psycopg.Connection[Any], parameters: Mapping[str, str] | None) -> dict[str, str]:
    """Return the keywords of another connection to the very server that a connection leads to."""
    info = connection.info
    if parameters is None:
        parameters = {**info.get_parameters(), "password": info.password}
    found = {name: value for name, value in parameters.items() if name not in _CHOICE and value}
    found.update(host=info.host, port=str(info.port))
    if not info.host.startswith(("/", "@")) and info.hostaddr:
        found["hostaddr"] = info.hostaddr  # a name may lead to several servers in turn
    return found


def _parameters(config: PostgresEnd, role: str) -> dict[str, str]:
    """Return libpq's keywords for a config."""
    found: dict[str, str] = {
        **_keepalives(config.network_timeout, role),
        "application_name": config.application_name,
        "connect_timeout": str(config.connect_timeout),
        **config.params,
    }
    if config.url is not None:
        found.update(parse_url(config.url))
    keys = {"host": "host", "port": "port", "database": "dbname", "username": "user"}
    keys.update({name: name for name in ("sslmode", "sslrootcert", "sslcert", "sslkey")})
    for key, keyword in keys.items():
        value = getattr(config, key)
        if value is not None:
            found[keyword] = str(value)
    if config.password is not None:
        found["password"] = config.password.reveal()
    return found


def _secrets(config: PostgresEnd, parameters: Mapping[str, str]) -> tuple[portl.Secret, ...]:
    passwords = (parameters.get(name) for name in SECRET_KEYWORDS)
    found = [portl.Secret(value) for value in passwords if value]
    return (*found, *([config.url] if config.url is not None else []))
