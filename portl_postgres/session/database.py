"""Connect to a database: parameters, retries, a run's connections, and sessions on them with portl's settings.

The first session of a run has a separate connection, because small jobs need no other, and a pool would cost more than
the connection itself. Workers' connections come from a pool; ``pool.max_size`` limits both together.

On a caller-supplied connection, portl restores the settings that it changes, neither commits nor rolls back an open
transaction (it works in savepoints inside it), and never closes the connection.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq

import portl
from portl_postgres.config import PostgresEnd
from portl_postgres.session.connect_errors import Stopped, connect_once, refusal
from portl_postgres.session.first import First, start
from portl_postgres.session.same_server import same_server
from portl_postgres.session.session import Session
from portl_postgres.session.settings import PRINTING, keywords, secrets_of, watchfulness

if TYPE_CHECKING:
    import psycopg_pool

logger = logging.getLogger("portl.postgres")

#: Seconds between checks of the cancel token while waiting for a connection.
_WAIT_SECONDS = 0.25

#: What such a pooler says to that, if it gets to say it (protocol_violation).
_NO_BLOCKS = "08P01"

#: Caller-supplied connections in use by a run. Two sides, or two runs, on one connection would interfere.
_in_use: weakref.WeakSet[psycopg.Connection[Any]] = weakref.WeakSet()
_in_use_lock = threading.Lock()


class Database:
    """The database of one side.

    Args:
        config: how to connect to it.
        handle: a caller-supplied psycopg connection or pool; None if portl opens its own.
        role: ``source`` or ``destination``.
    """

    def __init__(self, config: PostgresEnd, handle: object | None, role: str) -> None:
        self._config = config
        self._role = role
        self._handle = handle
        self._pool: psycopg_pool.ConnectionPool[Any] | None = None
        self._pooling = threading.RLock()
        #: Held by the user of the connection outside the pool.
        self._main = threading.Lock()
        self._attempt: _Attempt | None = None
        self.parameters = {} if handle is not None else keywords(config, role)
        #: The same, narrowed down to the server, of several, that the connection outside the pool leads to.
        self._there: Mapping[str, str] = self.parameters
        self._secrets = secrets_of(config, self.parameters)

    @property
    def label(self) -> str:
        """Where this is, for display."""
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
        """The most connections at a time."""
        if self._handle is not None and not isinstance(self._handle, psycopg.Connection):
            return int(self._caller_supplied_pool(self._handle).max_size)
        return 1 if self._handle is not None else self._config.pool.max_size

    @contextmanager
    def session(
        self, context: portl.Context, settings: Mapping[str, str], first: First | None = None
    ) -> Iterator[Session]:
        """Yield a session with portl's settings; on a caller-supplied connection, restore them afterwards.

        Args:
            context: that of the run.
            settings: in addition to those of every session.
            first: what to do in the round trip that changes them, on portl's own connection; if its transaction has not
                begun afterwards (``Session.begun``), it remains to be done.
        """
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
                connection.pgconn.nonblocking = 1  # as in psycopg: a blocking call would block every thread
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
                wanted = {**PRINTING, **watchfulness(limit, self._role), **limits, **settings}
                if first is None or not own or not self._started(session, wanted, first):
                    session.settings(wanted)
                self._check_pooler(session)
                _log_details(session)
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
        """Refuse a caller-supplied connection that is unusable, or already in use by a run."""
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
        with _in_use_lock:
            if connection in _in_use:
                raise self._unusable(
                    "the connection is in use by portl already; each side, and each run at the same time, needs one of"
                    " its own, or a pool that has them"
                )
            _in_use.add(connection)
        try:
            yield
        finally:
            with _in_use_lock:
                _in_use.discard(connection)

    def _unusable(self, text: str) -> portl.ConfigError:
        return portl.ConfigError([f"{self._role}: {text}"], origin="what was handed in")

    def _check_pooler(self, session: Session) -> None:
        """Refuse a pooler in transaction mode, where settings would get lost between transactions.

        A pooler reports other process ids than the server's. Whether it dedicates a backend to each client shows when a
        second client connects while the first is idle: if it does not, both get the same backend.
        """
        if session.nested or session.pgconn.backend_pid in session.backends:
            return
        answered = session.identify()
        shared = len(answered) > 1 or session.vigil.shared()
        if shared:
            raise self._pooled()

    def _started(self, session: Session, wanted: Mapping[str, str], first: First) -> bool:
        """See ``first.start``."""
        try:
            done = start(session, wanted, first)
        except portl.ConnectionFailed as error:
            # A pooler that hands each statement to another process ends a connection on which a transaction is open.
            if error.sqlstate == _NO_BLOCKS or session.vigil.pooled():
                raise self._pooled() from None
            raise
        if session.broken and session.vigil.pooled():
            raise self._pooled()
        return done

    def _pooled(self) -> portl.ConnectionFailed:
        return portl.ConnectionFailed(
            f"{self.label}: a pooler hands each transaction to another process of the server, and what portl sets,"
            " locks and sees in one would be lost in the next",
            hint="connect to the server itself, or to a pool in session mode (pgbouncer: pool_mode = session)",
        )

    def begin(self, context: portl.Context) -> None:
        """Start connecting in a thread; the first ``session`` waits for it."""
        if self._handle is None and self._attempt is None:
            self._attempt = _Attempt(self, context)

    def close(self) -> None:
        """Close portl's own connections."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.give_up()
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
        if handle is None and self._is_first(context):
            try:
                with self._main_connection(context) as connection:
                    yield connection
            finally:
                self._main.release()
            return
        pool = self._caller_supplied_pool(handle) if handle is not None else self._own_pool()
        connection = self._free(pool, context)
        try:
            yield connection
        finally:
            if handle is None:
                self._retire(pool, connection)
            pool.putconn(connection)

    def _caller_supplied_pool(self, handle: object) -> psycopg_pool.ConnectionPool[Any]:
        import psycopg_pool

        if isinstance(handle, psycopg_pool.ConnectionPool):
            return handle
        raise self._unusable(
            f"expected a psycopg.Connection or a psycopg_pool.ConnectionPool, "
            f"found {type(handle).__module__}.{type(handle).__name__}"
        )

    def _is_first(self, context: portl.Context) -> bool:
        """Return whether to use the connection outside the pool; wait for it if there is no other."""
        if self._main.acquire(blocking=False):
            return True
        if self._config.pool.max_size > 1:
            return False
        end = time.monotonic() + self._config.pool.timeout
        while (left := end - time.monotonic()) > 0:
            context.token.check()
            if self._main.acquire(timeout=min(_WAIT_SECONDS, left)):
                return True
        raise self._none_free()

    @contextmanager
    def _main_connection(self, context: portl.Context) -> Iterator[psycopg.Connection[Any]]:
        """Connect; close the connection at the end. If it was lost, discard this run's pool too."""
        with closing(self._connected(context)) as connection:  # its own __exit__ would commit
            self._there = same_server(connection, self.parameters)
            if self._config.pool.min_size > 1:
                self._own_pool()
            try:
                yield connection
            finally:
                if connection.info.transaction_status is not pq.TransactionStatus.IDLE and self._pool is not None:
                    connection.close()
                    self._retire(self._pool, connection)

    def _none_free(self) -> portl.ConnectionFailed:
        return portl.ConnectionFailed(
            f"{self.label}: no connection was free within {self._config.pool.timeout:g} s",
            hint="raise `pool.max_size` or `pool.timeout`",
            transient=self._handle is None,
        )

    def _free(self, pool: psycopg_pool.ConnectionPool[Any], context: portl.Context) -> psycopg.Connection[Any]:
        """Wait for a free connection in a pool."""
        import psycopg_pool

        end = time.monotonic() + self._config.pool.timeout
        while True:
            context.token.check()
            left = end - time.monotonic()
            try:
                found: psycopg.Connection[Any] = pool.getconn(timeout=max(min(_WAIT_SECONDS, left), 0.001))
                return found
            except psycopg_pool.PoolTimeout:
                if left > _WAIT_SECONDS:
                    continue
            except (psycopg_pool.PoolClosed, psycopg_pool.TooManyRequests) as error:
                # portl's own pool is closed as soon as one of its connections is lost, and replaced on next use.
                own = self._handle is None
                hint = None if own else "look at the pool that was handed in"
                raise portl.ConnectionFailed(f"{self.label}: {error}", hint=hint, transient=own) from None
            if self._handle is None:
                self.connect_once(context).finish()  # connect directly, as a pool hides why it has no connection
            raise self._none_free()

    def _retire(self, pool: psycopg_pool.ConnectionPool[Any], connection: psycopg.Connection[Any]) -> None:
        """Close portl's own pool after one of its connections was lost, as the others are in doubt.

        The pool would replace the connection in the background, hiding a wrong address or a refusal, which the next
        session, with a new pool, reports. Connections still in use are closed when returned.
        """
        if connection.info.transaction_status is not pq.TransactionStatus.IDLE:
            connection.close()  # do not wait for anything open on it
        if not connection.closed:
            return
        with self._pooling:
            if self._pool is pool:
                self._pool = None
        pool.close(timeout=5)

    def _own_pool(self) -> psycopg_pool.ConnectionPool[Any]:
        """Return the pool for all connections but the first."""
        import psycopg_pool

        with self._pooling:
            if self._pool is None:
                size = self._config.pool
                self._pool = psycopg_pool.ConnectionPool(
                    kwargs={**self._there, "autocommit": True},
                    min_size=max(0, size.min_size - 1),
                    max_size=size.max_size - 1,
                    timeout=size.timeout,
                    reconnect_timeout=size.timeout,
                    open=False,
                    name=f"portl-{self._role}",
                    num_workers=1,
                )
                self._pool.open()
            return self._pool

    def _connected(self, context: portl.Context) -> psycopg.Connection[Any]:
        """Connect, retrying transient failures. A pool would hide the reason of a failure.

        Raises:
            ConnectionFailed: after the last attempt.
            AuthenticationFailed: immediately.
        """
        connection: psycopg.Connection[Any] = psycopg.Connection(self._reached(context))
        connection.autocommit = True
        return connection

    def _reached(self, context: portl.Context) -> pq.abc.PGconn:
        def connect() -> pq.abc.PGconn:
            begun, self._attempt = self._attempt, None
            return begun.result() if begun is not None else self.connect_once(context)

        return portl.retrying(connect, context, f"connecting to the {self._role}")

    def connect_once(self, context: portl.Context, check: Callable[[], None] | None = None) -> pq.abc.PGconn:
        """Connect, without a second attempt.

        Args:
            context: that of the run.
            check: called several times a second; what it raises ends the attempt. By default, checks the cancel token.
        """
        check = check or context.token.check
        timeout = self.parameters.get("connect_timeout", "")
        if not re.fullmatch(r"\s*[-+]?\d*\s*", timeout):
            # libpq only honours it in its own waits.
            raise portl.ConnectionFailed(
                f"{self.label}: invalid integer value {timeout!r} for connection option 'connect_timeout'",
                hint="give it in whole seconds; 0 waits without a limit",
            )
        error = connect_once(self.parameters, check)
        if not isinstance(error, psycopg.Error):
            return error
        text = " ".join(str(error).split())
        for secret in self._secrets:
            text = secret.scrub(text)
        found = refusal(error, f"{self.label}: {text}", self.parameters, check)
        del error  # psycopg's error holds libpq's parameters, and the traceback would keep it alive
        raise found


class _Attempt:
    """An attempt to connect, in a separate thread.

    Args:
        database: what to connect to.
        context: that of the run.
    """

    def __init__(self, database: Database, context: portl.Context) -> None:
        self._database = database
        self._context = context
        self._over = threading.Event()
        self._found: pq.abc.PGconn | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._connect, name="portl-connect", daemon=True)
        self._thread.start()

    def _connect(self) -> None:
        try:
            self._found = self._database.connect_once(self._context, self._check)
        except BaseException as error:
            self._failure = error

    def _check(self) -> None:
        if self._over.is_set():
            raise Stopped
        self._context.token.check()

    def result(self) -> pq.abc.PGconn:
        """Wait for the connection; raise the error if there is none."""
        try:
            while self._thread.is_alive():
                self._thread.join(_WAIT_SECONDS)
        except BaseException:
            self.give_up()
            raise
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        assert self._found is not None, "an attempt ends with the one or the other"
        return self._found

    def give_up(self) -> None:
        """End the attempt, and close its connection, if any."""
        self._over.set()
        self._thread.join()
        if self._found is not None:
            self._found.finish()


def _log_details(session: Session) -> None:
    """Log where a connection leads."""
    info, tls = session.connection.info, "TLS" if session.pgconn.ssl_in_use else "no TLS"
    said = "%s: PostgreSQL %s, backend %d, role %s, database %s, %s"
    version = info.parameter_status("server_version")
    logger.debug(said, session.label, version, info.backend_pid, info.user, info.dbname, tls)
