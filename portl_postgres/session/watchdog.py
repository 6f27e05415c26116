"""Notice a server that has fallen silent, and end the wait for it.

TCP's own limits (keepalives, ``tcp_user_timeout``) detect a peer that acknowledges nothing, but not a proxy, tunnel or
load balancer that acknowledges everything and forwards nothing. So each session notes since when it has been waiting
for the server; time in which portl itself works, or waits for the other side, does not count. After half of
``network_timeout`` without a byte, the watchdog asks over a separate connection what the backend is doing
(``pg_stat_activity``, where a role sees its own backends):

* it is working, or waiting for a lock or the disk: all is well, however long it takes;
* it is gone, or waiting for us, in two consecutive checks: its messages, or ours, have been lost;
* the server cannot be reached before ``network_timeout`` is over: the connection is considered lost, too.

In the last two cases the socket is shut down, the blocked call fails, and ``Vigil.verdict`` says why.

While rows are sent into a COPY, the server says nothing, and everything sent may be swallowed: then the bytes in
``pg_stat_progress_copy`` (since version 14) have to grow; older servers are checked when the COPY ends.

One thread watches all sessions of the process, as long as there are any; each check briefly gets its own thread.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import attrs
import psycopg
from psycopg import pq

from portl_postgres.session import forked
from portl_postgres.session.connect_errors import Stopped, answers, ask_server

logger = logging.getLogger("portl.postgres")

#: Seconds after which a cancelled statement that does not end is looked into.
HASTY_SECONDS = 2.0
#: The shortest time limit of a check, in seconds: connecting can be slow on a busy machine.
LOOK_SECONDS = 2.0
#: The time limit, in seconds, of a query that is only informative.
ASK_SECONDS = 3.0
#: Bytes sent into a COPY between two checks above which the server must have received some: more than all buffers
#: between here and a server that reads can hold.
SENT_BYTES = 16 * 1024 * 1024

_ACTIVITY = (
    "SELECT a.pid, a.wait_event, {copied}, (extract(epoch FROM s.started) * 1000000)::bigint::text,"
    " s.started > to_timestamp({begun})"
    " FROM (SELECT pg_postmaster_start_time() AS started) AS s"
    " LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = {pid}"
)
_COPIED = "(SELECT c.bytes_processed FROM pg_catalog.pg_stat_progress_copy AS c WHERE c.pid = a.pid)"
_COPIED_SINCE = 140000

#: tcpi_last_data_recv, milliseconds, in Linux's struct tcp_info (linux/tcp.h).
_LAST_RECEIVED = struct.Struct("=52xI")


class Backend(enum.Enum):
    """The result of a check of a backend."""

    WORKING = "at work"
    WAITING = "the server waits for this client"
    GONE = "its backend is gone"
    UNREACHABLE = "it does not answer a new connection either"
    #: The server does not let us look, or is a different one: no reason to end anything.
    UNKNOWN = "unknown"


@attrs.frozen
class Look:
    """A backend at one moment."""

    backend: Backend
    #: Bytes that its COPY has received; None if not available.
    copied: int | None = None


class Vigil:
    """The state of one session: since when it has been waiting for the server, and the verdict on that.

    Args:
        pgconn: the session's connection.
        parameters: libpq's keywords of another connection to the same server.
        seconds: ``network_timeout``; 0 for no limit.
    """

    def __init__(self, pgconn: pq.abc.PGconn, parameters: Mapping[str, str], seconds: float) -> None:
        self._pgconn = pgconn
        self._parameters = parameters
        #: ``network_timeout``.
        self.seconds = seconds
        self._lock = threading.Lock()
        self._since: float | None = None
        self._proved = 0.0
        self._over = threading.Event()
        self._looking: threading.Thread | None = None
        #: The backend's pid; behind a pooler, not the one that libpq knows.
        self.backend = pgconn.backend_pid
        self._server: str | None = None
        self._begun = 0.0
        #: Why the connection was shut down, for display; None if it was not.
        self.verdict: str | None = None
        #: True while waiting for a cancelled statement to end.
        self.hasty = False
        #: Bytes sent into the current COPY; None outside of one.
        self.sent: int | None = None

    def belongs_to(self, backend: int, server: str, begun: float) -> None:
        """Note which process serves the session.

        Args:
            backend: the pid.
            server: when its server was started, in microseconds since the epoch: behind a load balancer, the next
                connection may lead to a different one.
            begun: a time at which the session existed, by the server's clock, in seconds since the epoch.
        """
        self.backend, self._server, self._begun = backend, server, begun

    def shared(self) -> bool:
        """Return whether a new connection is served by the same process as this session."""
        rows = self.ask("SELECT pg_backend_pid()")
        return bool(rows and rows[0][0] == str(self.backend).encode())

    def pooled(self) -> bool:
        """Return whether one process serves two new connections, the one after the other: a pooler's."""
        first = self.ask("SELECT pg_backend_pid()")
        return first is not None and first == self.ask("SELECT pg_backend_pid()")

    def ask(self, statement: str) -> list[tuple[bytes | None, ...]] | None:
        """Execute a query over a new connection; return its rows as text, or None if it is not answered soon."""
        try:
            return ask_server(self._parameters, lambda _: statement, ASK_SECONDS, self._over)
        except Stopped:
            return None

    def wait(self) -> None:
        """Start waiting for the server, or restart because something has moved."""
        with self._lock:
            self._since = time.monotonic()

    def done(self) -> None:
        """Stop waiting."""
        with self._lock:
            self._since = None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside this context as waiting for the server."""
        self.wait()
        try:
            yield
        finally:
            self.done()

    def sending(self) -> None:
        """Start sending rows, which the server does not acknowledge."""
        self._proved = time.monotonic()
        self.sent = 0

    def sent_all(self) -> None:
        """Stop sending: the server's answer comes next."""
        self.sent = None

    def start(self) -> None:
        """Start watching this session."""
        forked.hold(self)
        if self.seconds:
            _watchdog.add(self)

    def stop(self) -> None:
        """Stop watching it; no check is in progress afterwards."""
        self._over.set()
        forked.release(self)
        _watchdog.remove(self)
        if self._looking is not None:
            self._looking.join()
            self._looking = None

    def fileno(self) -> int:
        """Return the descriptor of the session's socket."""
        return self._pgconn.socket

    @property
    def tick(self) -> float:
        """Seconds between consecutive checks."""
        return min(1.0, self.seconds / 8)

    def consider(self) -> None:
        """Check the backend if nothing has been heard from it for long. Called by the watchdog."""
        if self._looking is not None and self._looking.is_alive():
            return
        limit = min(self.seconds / 2, HASTY_SECONDS) if self.hasty else self.seconds / 2
        since = self._since
        if since is not None and time.monotonic() - max(since, self._proved) >= limit:
            received = self._received()
            if received is None or received >= limit:  # otherwise a long answer is arriving
                self._start(self._judge_wait, since)
        elif self.sent is not None and time.monotonic() - self._proved >= limit:
            self._start(self._judge_sending, self._proved)

    def _start(self, judge: Callable[[float], None], begun: float) -> None:
        self._looking = threading.Thread(target=judge, args=(begun,), name="portl-look", daemon=True)
        self._looking.start()

    def _judge_wait(self, since: float) -> None:
        bad = 0
        while not self._over.is_set() and self._since == since:
            found = self._look(since)
            waited = time.monotonic() - since
            if found.backend in (Backend.WORKING, Backend.UNKNOWN):
                self._proved = time.monotonic()
                return
            bad += 1
            certain = found.backend is not Backend.UNREACHABLE or waited >= self.seconds or self.hasty
            if found.backend is Backend.GONE or (bad > 1 and certain):
                self._shut_down(found.backend.value, waited, since)
                return
            self._over.wait(self.tick)

    def _judge_sending(self, begun: float) -> None:
        first: tuple[int, Look] | None = None
        bad = 0
        while not self._over.is_set() and (sent := self.sent) is not None:
            since = self._since
            if since is not None and time.monotonic() - since >= self.seconds / 2:
                return  # nothing more is received: treat it like any other wait
            found = self._look(begun)
            silent = time.monotonic() - begun
            if found.backend in (Backend.GONE, Backend.UNREACHABLE):
                bad += 1
                if found.backend is Backend.GONE or (bad > 1 and silent >= self.seconds):
                    self._shut_down(found.backend.value, silent, None)
                    return
            elif found.backend is not Backend.WAITING or found.copied is None:
                break
            elif first is None:
                first = (sent, found)
            elif found.copied != first[1].copied:
                break
            elif sent - first[0] >= SENT_BYTES:
                self._shut_down("it does not receive what is sent", silent, None)
                return
            self._over.wait(self.tick)
        self._proved = time.monotonic()

    def _look(self, since: float) -> Look:
        """Ask over a new connection what the backend is doing."""

        def statement(version: int) -> str:
            copied = _COPIED if version >= _COPIED_SINCE else "NULL"
            return _ACTIVITY.format(copied=copied, pid=int(self.backend), begun=float(self._begun))

        end = time.monotonic() + max(self.seconds - (time.monotonic() - since), LOOK_SECONDS)
        try:
            rows = ask_server(self._parameters, statement, end - time.monotonic(), self._over)
            if rows is None:
                alive = answers(self._parameters, max(end - time.monotonic(), 0.1), self._over)
                return Look(Backend.UNKNOWN if alive else Backend.UNREACHABLE)
        except (Stopped, OSError):  # a local error, such as no descriptors left
            return Look(Backend.UNKNOWN)
        ((pid, event, copied, server, restarted),) = rows
        if self._server is not None and server != self._server.encode() and restarted != b"t":
            return Look(Backend.UNKNOWN)
        if pid is None or (self._server is not None and server != self._server.encode()):
            return Look(Backend.GONE)
        found = Backend.WAITING if event in (b"ClientRead", b"ClientWrite") else Backend.WORKING
        return Look(found, int(copied) if copied is not None else None)

    def _received(self) -> float | None:
        """Return how many seconds ago something was received; None if the system does not tell."""
        if sys.platform != "linux":
            return None
        with self._lock, contextlib.suppress(OSError, psycopg.Error, struct.error):
            if self._since is not None:
                with socket.socket(fileno=os.dup(self._pgconn.socket)) as twin:
                    found = twin.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_RECEIVED.size)
                return float(_LAST_RECEIVED.unpack(found)[0]) / 1000
        return None

    def _shut_down(self, why: str, silent: float, since: float | None) -> None:
        """End the wait that began at ``since``, or the COPY that rows are sent into."""
        with self._lock:
            if self.sent is None if since is None else self._since != since:
                return  # it answered at the last moment
            self._end(
                f"the server has sent nothing for {silent:.0f} s, and {why} (network_timeout: {self.seconds:g} s)"
            )

    def give_up(self, verdict: str) -> None:
        """Shut the connection down because it is no longer of use."""
        with self._lock:
            self._end(verdict)

    def _end(self, verdict: str) -> None:
        self.verdict = self.verdict or verdict
        logger.debug("backend %d is abandoned: %s", self.backend, verdict)
        with contextlib.suppress(OSError, psycopg.Error):
            # The descriptor stays libpq's; it is not duplicated, as there may be no descriptors left.
            borrowed = socket.socket(fileno=self._pgconn.socket)
            try:
                borrowed.shutdown(socket.SHUT_RDWR)
            finally:
                borrowed.detach()


class _Watchdog:
    """The thread that checks all vigils periodically."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._vigils: set[Vigil] = set()
        self._thread: threading.Thread | None = None

    def add(self, vigil: Vigil) -> None:
        with self._changed:
            self._vigils.add(vigil)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="portl-watchdog", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def remove(self, vigil: Vigil) -> None:
        with self._changed:
            self._vigils.discard(vigil)
            last = self._thread if not self._vigils else None
            self._changed.notify_all()
        if last is not None:
            last.join(timeout=1.0)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._vigils:
                    self._thread = None
                    return
                self._changed.wait(min(vigil.tick for vigil in self._vigils))
                vigils = list(self._vigils)
            for vigil in vigils:
                vigil.consider()


_watchdog = _Watchdog()


def _forget() -> None:
    """Start afresh in a child process: the parent's sessions are not its own, and their locks may be held for ever."""
    global _watchdog
    _watchdog = _Watchdog()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
