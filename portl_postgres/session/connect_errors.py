"""Explain why connecting failed: which failures are transient, and what to change for the others.

libpq reports no SQLSTATE for a failed connect, and the server's text may be in any language. So the connect is repeated
with libpq's protocol trace (manual, 32.11, PQtrace) going to a file in memory, which shows the code of the server's
answer. If tracing is not available, PQping is used, which blocks Python's other threads.
"""

from __future__ import annotations

import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import attrs
import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

import portl
from portl_postgres.session.waiting import ready

HINT_UNREACHABLE = (
    "check that PostgreSQL is running and listens there (host and port), and that no firewall is in between"
)
HINT_REFUSED = (
    "check username, password and database, whether the server wants TLS (sslmode), and the server's pg_hba.conf"
)
HINT_PASSWORD = "check username and password, and the method that the server's pg_hba.conf asks for"
HINT_NO_PASSWORD = "the server wants a password: set `password`, best from the environment (password: ${NAME})"
HINT_ROLE = "check that the role exists and may log in, whether the server wants TLS (sslmode), and its pg_hba.conf"
HINT_DATABASE = "check `database`; psql -l lists what there is"
HINT_CONNECT = "the role needs CONNECT: GRANT CONNECT ON DATABASE … TO the role"
HINT_TLS = (
    "the server is there, and what fails is TLS: check sslmode, whether the server has TLS switched on, and that"
    " sslrootcert holds the authority of its certificate, which must name the host as it is written here"
)
HINT_ATTRIBUTES = (
    "the server is there and takes the role, and it is not what `target_session_attrs` asks for: list a server that is,"
    " or leave the parameter out"
)
HINT_SYSTEM = (
    "the system of this machine said so, not the server: the process may need a higher limit of open files (ulimit -n);"
    " what is committed stays, and the job goes on there when it is run again"
)
HINT_STARTING = "the server is starting up or shutting down; try again in a moment"
HINT_FULL = "the server, database or role has no connection left: close some, or raise the limit"

#: psycopg only supports tracing on Linux.
TRACES = sys.platform == "linux"

#: SQLSTATE of a refused connect to its hint; any other has HINT_REFUSED.
_PERMANENT = {"28P01": HINT_PASSWORD, "28000": HINT_ROLE, "3D000": HINT_DATABASE, "42501": HINT_CONNECT}
_PASSING = {"57P01": HINT_STARTING, "57P02": HINT_STARTING, "57P03": HINT_STARTING, "53300": HINT_FULL}
_PASSING_CLASSES = ("08", "53", "57")

#: Severity first (in the server's language), the same in English since 9.6, then the code.
_ANSWER = re.compile(rb'\tErrorResponse\t S "[^"]*" (?:V "[A-Z]+" )?C "([0-9A-Z]{5})" ')
_ADDRESS = ("host", "hostaddr", "port", "connect_timeout", "service", "servicefile")
_DEFAULT_SECONDS = 10
#: Stands for ``connect_timeout=0``: the operating system gives up at about this time.
_NO_LIMIT_SECONDS = 130.0
#: Seconds between checks whether anyone is still waiting.
_SLICE_SECONDS = 0.1


def _go_on() -> None:
    """Never end a connect early."""


class Stopped(Exception):
    """A connect was abandoned because no one is waiting for it any more."""


def connect_once(parameters: Mapping[str, str], check: Callable[[], None]) -> pq.abc.PGconn | psycopg.Error:
    """Connect; return the connection or the error.

    Args:
        parameters: libpq's keywords.
        check: called several times a second; what it raises ends the attempt.
    """
    found: psycopg.Error = psycopg.OperationalError("there is no host to connect to")
    for attempt in _attempts(parameters):
        try:
            pgconn = pq.PGconn.connect_start(make_conninfo(**attempt).encode())
            connected: bool | None = False
            try:
                connected = _poll(pgconn, _seconds(attempt), check)
                if connected:
                    return pgconn
                if connected is None:
                    found = psycopg.errors.ConnectionTimeout("connection timeout expired")
                else:
                    found = psycopg.OperationalError(f"connection failed: {pgconn.get_error_message()}")
            finally:
                if not connected:
                    pgconn.finish()
        except psycopg.Error as error:
            found = error
    return found


def _attempts(parameters: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """Yield the parameters of each attempt that libpq would make (manual, 32.1.1.3).

    With several hosts, libpq leaves the time limit for each to its caller.
    """
    hosts = list(_hosts(parameters))
    if parameters.get("load_balance_hosts") == "random":
        random.shuffle(hosts)
    if parameters.get("target_session_attrs") == "prefer-standby":
        yield from ({**host, "target_session_attrs": "standby"} for host in hosts)
        hosts = [{**host, "target_session_attrs": "any"} for host in hosts]
    yield from hosts


def _hosts(parameters: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """Yield the parameters for each of several hosts."""
    lists = {name: parameters[name].split(",") for name in ("host", "hostaddr", "port") if parameters.get(name)}
    count = max((len(values) for values in lists.values()), default=1)
    if count == 1 or any(len(values) not in (1, count) for values in lists.values()):
        yield parameters
        return
    for number in range(count):
        yield {**parameters, **{name: values[number % len(values)] for name, values in lists.items()}}


def ask_server(
    parameters: Mapping[str, str], statement: Callable[[int], str], seconds: float, over: threading.Event
) -> list[tuple[bytes | None, ...]] | None:
    """Connect, execute one query, disconnect; return its rows as text, or None if that failed or took too long.

    Args:
        parameters: libpq's keywords, for one host.
        statement: returns the query for the server's version number.
        seconds: the limit for everything.
        over: an event that ends it.

    Raises:
        Stopped: once ``over`` is set.
    """
    end = time.monotonic() + seconds
    check = _stopping(over)
    try:
        pgconn = pq.PGconn.connect_start(make_conninfo(**parameters).encode())
        try:
            if not _poll(pgconn, seconds, check):
                return None
            pgconn.nonblocking = 1
            pgconn.send_query(statement(pgconn.server_version).encode())
            while pgconn.flush() or pgconn.is_busy():
                if time.monotonic() >= end:
                    return None
                check()
                if ready(pgconn.socket, min(_SLICE_SECONDS, max(0.0, end - time.monotonic())))[0]:
                    pgconn.consume_input()
            result = pgconn.get_result()
        finally:
            pgconn.finish()
    except psycopg.Error:
        return None
    if result is None or result.status != pq.ExecStatus.TUPLES_OK:
        return None
    return [tuple(result.get_value(row, column) for column in range(result.nfields)) for row in range(result.ntuples)]


def answers(parameters: Mapping[str, str], seconds: float, over: threading.Event) -> bool:
    """Return whether a server answers at all, even with a refusal.

    Raises:
        Stopped: once ``over`` is set.
    """
    if not TRACES:
        return _ping(parameters) in (pq.Ping.OK, pq.Ping.REJECT)
    answer = _ask(parameters, seconds, _stopping(over))
    return answer.connected or answer.needs_password or answer.state is not None


def _stopping(over: threading.Event) -> Callable[[], None]:
    def check() -> None:
        if over.is_set():
            raise Stopped

    return check


def refusal(
    error: psycopg.Error, message: str, parameters: Mapping[str, str], check: Callable[[], None] = _go_on
) -> portl.ConnectionFailed:
    """Return portl's error for a failed connect.

    Args:
        error: the driver's error.
        message: its text, without secrets.
        parameters: libpq's keywords.
        check: called several times a second; what it raises ends the diagnosis.
    """
    if isinstance(error, psycopg.errors.ConnectionTimeout):
        return portl.ConnectionFailed(message, hint=HINT_UNREACHABLE, transient=True)
    if not TRACES:
        return _pinged(message, parameters)
    try:
        answer = _ask(parameters, check=check)
    except OSError as refused:
        return portl.ConnectionFailed(f"{message}; {refused}", hint=HINT_SYSTEM, transient=True)
    if answer.connected:
        return portl.ConnectionFailed(message, hint=HINT_UNREACHABLE, transient=True)
    if answer.state is not None:
        return _answered(message, answer.state)
    if answer.needs_password:
        return portl.AuthenticationFailed(message, hint=HINT_NO_PASSWORD)
    if not answer.attempted and _ping(parameters) is pq.Ping.NO_ATTEMPT:
        return portl.ConnectionFailed(message, hint=HINT_REFUSED)
    chooses = parameters.get("target_session_attrs", "any") != "any"
    if chooses and _ask({**parameters, "target_session_attrs": "any"}, check=check).connected:
        # Transient: a failover may be under way.
        return portl.ConnectionFailed(message, hint=HINT_ATTRIBUTES, transient=True)
    # No answer from the server: either it is not there, or libpq hung up because of the encryption.
    bare = _ask(_unencrypted(parameters), check=check)
    if bare.connected or bare.needs_password or bare.state is not None:
        return portl.AuthenticationFailed(message, hint=HINT_TLS)
    return portl.ConnectionFailed(message, hint=HINT_UNREACHABLE, transient=True)


def _answered(message: str, state: str) -> portl.ConnectionFailed:
    if state.startswith(_PASSING_CLASSES):
        hint = _PASSING.get(state, HINT_UNREACHABLE)
        return portl.ConnectionFailed(message, hint=hint, sqlstate=state, transient=True)
    return portl.AuthenticationFailed(message, hint=_PERMANENT.get(state, HINT_REFUSED), sqlstate=state)


def _pinged(message: str, parameters: Mapping[str, str]) -> portl.ConnectionFailed:
    found = _ping(parameters)
    if found is pq.Ping.OK:
        return portl.AuthenticationFailed(message, hint=HINT_REFUSED)
    if found is pq.Ping.REJECT:
        return portl.ConnectionFailed(message, hint=HINT_STARTING, transient=True)
    if found is pq.Ping.NO_ATTEMPT:
        return portl.ConnectionFailed(message, hint=HINT_REFUSED)
    if _ping(_unencrypted(parameters)) in (pq.Ping.OK, pq.Ping.REJECT):
        return portl.AuthenticationFailed(message, hint=HINT_TLS)
    return portl.ConnectionFailed(message, hint=HINT_UNREACHABLE, transient=True)


def _unencrypted(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of a connect that any server answers, even if only to refuse it."""
    found = {name: parameters[name] for name in _ADDRESS if name in parameters}
    return {**found, "sslmode": "disable", "gssencmode": "disable"}


def _ping(parameters: Mapping[str, str]) -> pq.Ping:
    # psycopg's compiled implementation returns a bare int.
    return pq.Ping(pq.PGconn.ping(make_conninfo(**parameters).encode()))


@attrs.frozen(kw_only=True)
class _Answer:
    #: False if libpq gave up before it had an address to connect to.
    attempted: bool = True
    connected: bool = False
    #: The SQLSTATE of the server's refusal, if it gave one.
    state: str | None = None
    #: True if the server asked for a password but none was set.
    needs_password: bool = False


def _ask(parameters: Mapping[str, str], seconds: float | None = None, check: Callable[[], None] = _go_on) -> _Answer:
    """Connect with protocol tracing; return the outcome."""
    trace = os.memfd_create("portl")  # it contains the password exchange, so it is kept in memory only, and briefly
    try:
        pgconn = pq.PGconn.connect_start(make_conninfo(**parameters).encode())
        try:
            attempted = pgconn.status != pq.ConnStatus.BAD
            pgconn.trace(trace)
            pgconn.set_trace_flags(pq.Trace.SUPPRESS_TIMESTAMPS)
            connected = bool(_poll(pgconn, _seconds(parameters) if seconds is None else seconds, check))
            needs_password = bool(pgconn.needs_password)
            pgconn.untrace()
        finally:
            pgconn.finish()
        states = _ANSWER.findall(os.pread(trace, os.fstat(trace).st_size, 0))
    except psycopg.Error:
        return _Answer()
    finally:
        os.close(trace)
    # The last one counts: with sslmode=prefer, or several hosts, libpq continues after a refusal.
    return _Answer(
        attempted=attempted,
        connected=connected,
        state=states[-1].decode() if states else None,
        needs_password=needs_password and not states,
    )


def _seconds(parameters: Mapping[str, str]) -> float:
    """Return how long a connect may take, by psycopg's rules; libpq has already refused anything but a number."""
    try:
        seconds = float(parameters.get("connect_timeout") or _DEFAULT_SECONDS)
    except ValueError:
        return float(_DEFAULT_SECONDS)
    return max(2.0, seconds) if seconds > 0 else _NO_LIMIT_SECONDS


def _poll(pgconn: pq.abc.PGconn, seconds: float, check: Callable[[], None]) -> bool | None:
    """Finish a connect; return whether it succeeded, or None if it ran out of time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        check()
        status = pgconn.connect_poll()
        if status == pq.PollingStatus.OK:
            return True
        if status == pq.PollingStatus.FAILED:
            return False
        reading = status == pq.PollingStatus.READING
        while time.monotonic() < end:
            check()
            if any(ready(pgconn.socket, _SLICE_SECONDS, reading=reading, writing=not reading)):
                break
    return None
