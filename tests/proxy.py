"""A TCP proxy in front of a PostgreSQL server, for tests of what a network does to portl. Loopback only.

::

    with Proxy(endpoint) as proxy:
        job["source"] = db.end(host=proxy.host, port=proxy.port)
        proxy.delay(0.01)                  # from now on, also on connections that are open
        proxy.cut()                        # resets every connection
        proxy.black_hole()                 # goes on acknowledging, and forwards nothing
        proxy.cut_at_commit(after=True)    # the next COMMIT is carried out, its answer never arrives
        proxy.heal()

Every connection has one thread, which reads no more than ``QUEUE_BYTES`` ahead. A request to cancel is a connection
like any other. COMMIT is seen in the frontend's messages (manual, 55.7), so not under TLS. A blocking call of libpq
keeps the interpreter, and with it the proxy, waiting: do not make one in the process of the proxy.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Literal, Protocol

Direction = Literal["up", "down"]

#: Bytes that one direction of a connection reads ahead of what it has forwarded.
QUEUE_BYTES = 256 * 1024
_READ_BYTES = 64 * 1024
#: Connections at once; a test that needs more is wrong.
MAX_CONNECTIONS = 64

_CANCEL, _SSL, _GSS = 80877102, 80877103, 80877104
_RESET = struct.pack("ii", 1, 0)


class Address(Protocol):
    """Where a server listens."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


class Proxy:
    """Forwards to ``server`` what arrives at ``host`` and ``port``, until it is told to do worse.

    Everything can be called from any thread, and holds for connections that are open and for new ones.
    """

    host = "127.0.0.1"

    def __init__(self, server: Address) -> None:
        self._server = (server.host, server.port)
        self._lock = threading.RLock()
        self._links: set[_Link] = set()
        self._closing = False
        self._refusing = False
        self._hole = False
        self._latency: dict[Direction, float] = {"up": 0.0, "down": 0.0}
        self._rate: float | None = None
        self._budget: tuple[Direction, int, bool] | None = None
        self._at_commit: tuple[int, bool, bool] | None = None
        self._forwarded: dict[Direction, int] = {"up": 0, "down": 0}
        #: COMMITs that clients have sent so far.
        self.commits = 0
        #: Connections cut at a COMMIT so far.
        self.cut_commits = 0
        #: Connections accepted so far.
        self.accepted = 0
        self._listener = socket.create_server((self.host, 0), backlog=MAX_CONNECTIONS)
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, name=f"proxy-{self.port}", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and reset every connection."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self._thread.join()
        for link in self._open():
            link.doom(reset=True)
        for link in self._open():
            link.thread.join()

    @property
    def connections(self) -> int:
        """How many connections of clients are open."""
        return len(self._open())

    def forwarded(self, direction: Direction) -> int:
        """Return how many bytes were taken on: ``up`` to the server, ``down`` to the clients."""
        return self._forwarded[direction]

    def cut(self, *, after: int | None = None, direction: Direction = "down", reset: bool = True) -> None:
        """Cut every connection now, or the one that crosses a limit.

        Args:
            after: bytes, counted over all connections from this call on; forwards exactly so many, then cuts.
            direction: ``up`` counts what goes to the server, ``down`` what goes to the clients.
            reset: True sends RST both ways; False ends in order, as a server does that closes.
        """
        if after is not None:
            with self._lock:
                self._budget = (direction, after, reset)
            return
        links = self._open()
        for link in links:
            link.doom(reset=reset)
        for link in links:
            link.thread.join()

    def refuse(self) -> None:
        """Reset new connections as soon as they are made, until ``heal``, as if no server were there."""
        self._refusing = True

    def delay(self, seconds: float, *, rate: float | None = None, direction: Direction | None = None) -> None:
        """Hold everything back for so long on its way.

        Args:
            seconds: latency of one way.
            rate: bytes per second and connection, at most, in each direction; None for no limit.
            direction: ``up`` or ``down`` alone; None for both.
        """
        with self._lock:
            for way in self._latency:
                self._latency[way] = seconds if direction in (None, way) else self._latency[way]
            self._rate = rate

    def black_hole(self, *, existing: bool = True, new: bool = True) -> None:
        """Go on accepting and acknowledging, and forward nothing: no byte, and not the end of a connection either.

        Args:
            existing: what is open falls silent.
            new: what is opened from now on gets no answer.
        """
        with self._lock:
            self._hole = new
        for link in self._open() if existing else ():
            link.holed = True
            link.wake()

    def heal(self) -> None:
        """Forward again without delay or conditions. Connections that have lost bytes in a black hole are reset."""
        with self._lock:
            self._hole = self._refusing = False
            self._latency = {"up": 0.0, "down": 0.0}
            self._rate = self._budget = self._at_commit = None
        for link in self._open():
            if link.holed and link.lost:
                link.doom(reset=True)
            link.holed = False
            link.wake()

    def cut_at_commit(self, *, after: bool, number: int = 1, reset: bool = True) -> None:
        """Cut a connection, once, when its client sends COMMIT, as a statement of its own.

        Args:
            after: False cuts before the server sees it; True lets the server carry it out, and cuts once its answer
                is here, instead of handing the answer on.
            number: which COMMIT, counted from 1 over all connections from this call on.
            reset: as for ``cut``.
        """
        with self._lock:
            self._at_commit = (number, after, reset)

    def _open(self) -> list[_Link]:
        with self._lock:
            return list(self._links)

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.accepted += 1
                if self._refusing or len(self._links) >= MAX_CONNECTIONS:
                    _close(client, reset=True)
                    continue
                link = _Link(self, client, holed=self._hole)
                self._links.add(link)
            link.thread.start()

    def _taken(self, direction: Direction, size: int) -> tuple[int, bool | None]:
        """Return how many bytes of ``size`` may be forwarded, and, if the connection is to be cut then, how."""
        with self._lock:
            cut = None
            if self._budget is not None and self._budget[0] == direction:
                _, left, reset = self._budget
                if size >= left:
                    size, cut, self._budget = left, reset, None
                else:
                    self._budget = (direction, left - size, reset)
            self._forwarded[direction] += size
            return size, cut

    def _commit(self) -> tuple[bool, bool] | None:
        """Count a COMMIT; return (after, reset) if it is the one."""
        with self._lock:
            self.commits += 1
            if self._at_commit is None:
                return None
            number, after, reset = self._at_commit
            self._at_commit = (number - 1, after, reset) if number > 1 else None
            if number > 1:
                return None
            self.cut_commits += 1
            return after, reset


class _Direction:
    """One direction of a connection: what was read, when it is due, and how far it is written."""

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.queue: deque[tuple[float, bytes]] = deque()
        self.size = 0
        self.ended = False
        self.shut = False
        #: When the rate allows the next piece.
        self.free_at = 0.0

    def put(self, data: bytes, latency: float) -> None:
        self.queue.append((time.monotonic() + latency, data))
        self.size += len(data)

    def due(self) -> float | None:
        """Return when the next piece may go, None without one."""
        return max(self.queue[0][0], self.free_at) if self.queue else None


class _Link:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy, client: socket.socket, *, holed: bool) -> None:
        self._proxy = proxy
        self._client = client
        self._server: socket.socket | None = None
        self.holed = holed
        #: True once bytes were swallowed: the stream cannot go on.
        self.lost = False
        self._doom: bool | None = None
        self._answer: bytes | None = None
        self._answer_reset = True
        self._watch = _Watch()
        self._up, self._down = _Direction("up"), _Direction("down")
        self._bell, self._ear = socket.socketpair()
        self.thread = threading.Thread(target=self._run, name=f"proxy-{proxy.port}-link", daemon=True)

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            self._bell.send(b".")

    def doom(self, *, reset: bool) -> None:
        """End this connection."""
        self._doom = reset
        self.wake()

    def _run(self) -> None:
        try:
            while self._doom is None and not (self._up.shut and self._down.shut):
                if self._server is None and not self.holed:
                    self._connect()
                self._turn()
        except OSError:
            self._doom = True  # one side was reset: so is the other
        finally:
            with self._proxy._lock:
                self._proxy._links.discard(self)
            for end in (self._client, self._server, self._bell, self._ear):
                if end is not None:
                    _close(end, reset=bool(self._doom) and end not in (self._bell, self._ear))

    def _connect(self) -> None:
        self._server = socket.create_connection(self._proxy._server, timeout=10)
        for end in (self._client, self._server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setblocking(False)

    def _turn(self) -> None:
        """Wait for something to do, and do it."""
        directions = [(self._up, self._client, self._server), (self._down, self._server, self._client)]
        reads: list[Any] = [self._ear]
        writes: list[Any] = []
        now, timeout = time.monotonic(), 1.0
        for direction, origin, target in directions:
            if origin is not None and not direction.ended and (self.holed or direction.size < QUEUE_BYTES):
                reads.append(origin)
            due = None if self.holed else direction.due()
            if due is not None and target is not None:
                if due <= now:
                    writes.append(target)
                else:
                    timeout = min(timeout, due - now)
        readable, writable, _ = select.select(reads, writes, [], timeout)
        if self._ear in readable:
            self._ear.recv(4096)
            return  # something has changed: look again
        for direction, origin, target in directions:
            if origin in readable and origin is not None:
                self._read(direction, origin)
            if target in writable and target is not None:
                self._write(direction, target)
            if direction.ended and not direction.queue and not direction.shut and not self.holed and target is not None:
                with contextlib.suppress(OSError):
                    target.shutdown(socket.SHUT_WR)
                direction.shut = True

    def _read(self, direction: _Direction, origin: socket.socket) -> None:
        data = origin.recv(_READ_BYTES)
        if not data:
            direction.ended = True
        elif self.holed:
            self.lost = True
        elif direction is self._up:
            self._from_client(data)
        else:
            self._from_server(data)

    def _from_client(self, data: bytes) -> None:
        for piece, is_commit in self._watch.feed(data):
            if is_commit:
                found = self._proxy._commit()
                if found is not None and not found[0]:
                    self._doom = found[1]
                    return
                if found is not None:
                    self._answer, self._answer_reset = b"", found[1]
            self._up.put(piece, self._proxy._latency["up"])

    def _from_server(self, data: bytes) -> None:
        if self._watch.asked_tls:
            self._watch.answered_tls(data[:1])
        if self._answer is None:
            self._down.put(data, self._proxy._latency["down"])
            return
        self._answer += data
        # After ReadyForQuery the server waits for its client.
        if self._answer[-6:-1] == b"Z\0\0\0\5":
            self._doom = self._answer_reset

    def _write(self, direction: _Direction, target: socket.socket) -> None:
        if not direction.queue or self._doom is not None:
            return
        due, data = direction.queue.popleft()
        direction.size -= len(data)
        allowed, cut = self._proxy._taken(direction.direction, len(data))
        try:
            sent = target.send(data[:allowed]) if allowed else 0
        except BlockingIOError:
            sent = 0
        if cut is not None:
            self._doom = cut
            return
        if sent < len(data):
            direction.queue.appendleft((due, data[sent:]))
            direction.size += len(data) - sent
            with self._proxy._lock:
                self._proxy._forwarded[direction.direction] -= allowed - sent
        if self._proxy._rate:
            direction.free_at = time.monotonic() + sent / self._proxy._rate


class _Watch:
    """Cuts the frontend's stream into messages as far as it takes to see a COMMIT."""

    #: Query, Parse, Bind, Execute; longer ones are no COMMIT.
    _SEEN = b"QPBE"
    _MOST = 16 * 1024

    def __init__(self) -> None:
        self._held = b""
        self._skip = 0
        self._started = False
        self._opaque = False
        #: True between a request for encryption and its answer.
        self.asked_tls = False
        self._statements: set[bytes] = set()
        self._portals: set[bytes] = set()

    def answered_tls(self, answer: bytes) -> None:
        """Take note of the server's answer to a request for encryption."""
        self.asked_tls = False
        self._opaque = answer in (b"S", b"G")

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bool]]:
        """Yield what may go on; True with exactly the message that carries a COMMIT out."""
        if self._opaque:
            yield data, False
            return
        data, self._held = self._held + data, b""
        passed = position = 0
        while position < len(data):
            if self._skip:
                step = min(self._skip, len(data) - position)
                self._skip -= step
                position += step
                continue
            header = 5 if self._started else 8
            if len(data) - position < header:
                break
            if not self._started:
                length, code = struct.unpack_from("!ii", data, position)
                self.asked_tls = code in (_SSL, _GSS)
                self._started = not self.asked_tls
                self._opaque = code == _CANCEL
                self._skip = length
                continue
            kind = data[position : position + 1]
            length = 1 + struct.unpack_from("!i", data, position + 1)[0]
            if kind not in self._SEEN or length > self._MOST:
                self._skip = length
                continue
            if len(data) - position < length:
                break
            if self._is_commit(kind, data[position + 5 : position + length]):
                if passed < position:
                    yield data[passed:position], False
                yield data[position : position + length], True
                passed = position + length
            position += length
        if passed < position:
            yield data[passed:position], False
        self._held = data[position:]

    def _is_commit(self, kind: bytes, body: bytes) -> bool:
        if kind == b"Q":
            return _says_commit(body[:-1])
        first, _, rest = body.partition(b"\0")
        if kind == b"P":
            self._note(self._statements, first, _says_commit(rest.partition(b"\0")[0]))
        elif kind == b"B":
            self._note(self._portals, first, rest.partition(b"\0")[0] in self._statements)
        return kind == b"E" and first in self._portals

    @staticmethod
    def _note(names: set[bytes], name: bytes, holds: bool) -> None:
        (names.add if holds else names.discard)(name)


def _says_commit(text: bytes) -> bool:
    """Return whether a statement is COMMIT, or the last of several is."""
    return text.strip(b" \t\r\n;").upper().rpartition(b";")[2].strip() == b"COMMIT"


def _close(end: socket.socket, *, reset: bool) -> None:
    with contextlib.suppress(OSError):
        if reset:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    end.close()
