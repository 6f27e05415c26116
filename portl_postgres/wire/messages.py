"""Rows as messages on the wire, read past libpq in whole runs (manual, 54.2.6 and 54.7).

libpq returns one row per call and creates an object for each; together with Python's overhead, a narrow row costs more
here than at either server. But on an unencrypted connection, a stream of CopyData messages is the same in both
directions. So it is read from the socket as it comes, and only the lengths are examined, to count the rows and to split
between them. Rows of equal length, as with fixed-width columns, are counted in runs. A row longer than the buffer gets
one of its own size, which is passed on unchanged, so that a large value is in memory only once.

Whether TLS, GSSAPI or anything else wraps the connection shows in the first bytes of the server's answer, before
anything has been read: if they are not those of an expected message, libpq does the work (``copy``).

libpq notices nothing: it has not read since before the COPY was sent, so none of the rows are in its buffers.
Everything that is not a row is kept and passed to libpq at the end, through a socket pair that briefly replaces the
connection's socket. So errors, notices, settings and the transaction state remain libpq's, as ever.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator

import psycopg
from psycopg import errors as pg_errors
from psycopg import pq

import portl
from portl_postgres.session.forked import hold
from portl_postgres.session.session import Session
from portl_postgres.session.waiting import ready

#: The header of a CopyData message: its kind, and its length, which includes itself (manual, 54.7).
FRAME = 5
ROW = ord("d")
_READY = ord("Z")
#: How the answer begins: with ParseComplete or, if a BEGIN was sent along with the COPY, with its CommandComplete.
_ANSWERS = (b"1\0\0\0\4", b"C\0\0\0\n")
#: The last bytes of a connection: none, an unsolicited ErrorResponse, or a TLS alert.
_LAST_WORDS = (b"", b"E", b"\x15")
_HEAD = struct.Struct("!BI")
#: The length of the message that ends the rows in the binary format; no row with a column is so short.
_TRAILER_LENGTH = 6
_TRAILER = b"d\0\0\0\x06\xff\xff"

#: Rows, with or without message headers.
Piece = bytes | bytearray | memoryview

#: Bytes to read ahead. A longer message gets its own buffer.
BUFFER_BYTES = 64 * 1024
#: Bytes gathered before they are passed on, unless the batch is full earlier.
PIECE_BYTES = 32 * 1024
#: From this many rows of equal length on, counting them as a run is faster than one by one.
_RUN = 16
#: Rows counted one by one before looking for a run again.
_SINGLY = 256
#: The most bytes of other messages kept before libpq gets them, as a function may raise a notice for each row.
_KEPT_BYTES = 64 * 1024
#: Seconds of sending between judgements of whether the link is slow.
PACE_SECONDS = 0.1
#: Bytes per second up to which a link counts as slow: 100 Mbit/s, and a little for buffers.
SLOW_BYTES = 13_000_000
#: Shares of time spent waiting: above the first, rows are joined, until it falls below the second, as joining itself
#: reduces it.
WAITS, STILL_WAITS = 0.9, 0.6
#: Seconds between checks of the cancel token while nothing arrives.
POLL_SECONDS = 0.25


def twin(session: Session) -> socket.socket:
    """Return a duplicate of a session's socket. Closing it leaves libpq's open."""
    found = socket.socket(fileno=os.dup(session.pgconn.socket))
    # As in libpq, whatever default the application has set (socket.setdefaulttimeout).
    found.setblocking(False)
    hold(found)
    return found


def unwrapped(session: Session) -> bool:
    """Wait for the answer to the statement just sent; return whether its bytes are plain protocol messages.

    Nothing is read from the socket.
    """
    if os.name != "posix":
        return False  # descriptors of sockets cannot be duplicated
    fileno = session.pgconn.socket
    with twin(session) as wire, session.vigil.waiting():
        while not ready(fileno, POLL_SECONDS)[0]:
            pass  # a cancelled run ends the statement, and the watchdog detects a silent server
        try:
            return wire.recv(FRAME, socket.MSG_PEEK) in _ANSWERS
        except OSError:
            return False  # libpq will run into it too, and report it


def ended(session: Session) -> bool:
    """Return whether the server is known to have ended an idle connection.

    Nothing is sent, and nothing is read from the socket, so any thread may call this while another uses the session.
    """
    if not ready(session.pgconn.socket, 0)[0]:
        return False
    if os.name != "posix":
        return True
    try:
        with twin(session) as wire:
            return wire.recv(1, socket.MSG_PEEK) in _LAST_WORDS
    except OSError:
        return True


def walk(data: bytearray, position: int, end: int, most: int, *, binary: bool) -> tuple[int, int]:
    """Count rows.

    Args:
        data: messages.
        position: where a message begins.
        end: where the received bytes end.
        most: the most rows to count.
        binary: stop at the message that ends the rows in the binary format.

    Returns:
        Where the first message begins that is not a row, is incomplete, or exceeds ``most``; and the number of rows.
    """
    unpack, special = _HEAD.unpack_from, _TRAILER_LENGTH if binary else 0
    last, count = end - FRAME, 0
    while position <= last and count < most:
        step, found = _run(data, position, end, most - count, special)
        position += step * found
        count += found
        if found >= _RUN:
            continue
        for _ in range(min(most - count, _SINGLY)):
            if position > last:
                return position, count
            kind, length = unpack(data, position)
            following = position + 1 + length
            if kind != ROW or following > end or length == special:
                return position, count
            position = following
            count += 1
    return position, count


def _run(data: bytearray, position: int, end: int, most: int, special: int) -> tuple[int, int]:
    """Return the length of the message here, and the number of consecutive messages of that length."""
    kind, length = _HEAD.unpack_from(data, position)
    step = length + 1
    found = min(most, (end - position) // step)
    if kind != ROW or length == special or found < _RUN:
        return step, 0
    head = data[position : position + FRAME]
    for byte in (4, 3, 2, 1, 0):  # the last one of the length differs most
        # If all before it are like the first, the next one begins where this looks.
        column = data[position + byte : position + found * step : step]
        found -= len(column.lstrip(head[byte : byte + 1]))
    return step, found


def bare(piece: Piece) -> list[Piece]:
    """Return the rows of whole CopyData messages without headers; a large one is not copied."""
    rows: list[Piece] = []
    position, end, unpack = 0, len(piece), _HEAD.unpack_from
    found = piece if end <= BUFFER_BYTES else memoryview(piece)
    while position < end:
        following = position + 1 + unpack(piece, position)[1]
        rows.append(found[position + FRAME : following])
        position = following
    return rows


def framed(row: Piece) -> bytes:
    """Return the CopyData message of a row."""
    return _HEAD.pack(ROW, len(row) + 4) + row


class Pace:
    """Tells whether rows are sent over a slow link: nearly all time is spent waiting, and little is sent.

    A message for each row costs five bytes per row, which take time on a slow link: a fifth, for a row of two integers.
    Joining the rows costs processor time instead, of which there is then plenty. A busy destination on this machine
    also makes us wait, but it may be short of processor time, so waiting alone is not enough.
    """

    def __init__(self) -> None:
        #: True while it is so.
        self.slow = False
        self._since = time.monotonic()
        self._waited = 0.0
        self._sent = 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait inside."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - began

    def sent(self, size: int) -> None:
        """Count bytes, and judge by those since the last judgement, if it was long enough ago."""
        self._sent += size
        passed = time.monotonic() - self._since
        if passed >= PACE_SECONDS:
            waits = self._waited >= passed * (STILL_WAITS if self.slow else WAITS)
            self.slow = waits and self._sent < SLOW_BYTES * passed
            self._since, self._waited, self._sent = self._since + passed, 0.0, 0


class Frames:
    """The answer to a COPY TO STDOUT.

    Args:
        session: has sent the statement, for which ``unwrapped`` returned True.
        token: checked while waiting.
        header: bytes before the first row in its message, to be removed.
    """

    def __init__(self, session: Session, token: portl.CancelToken, header: bytes) -> None:
        self._session = session
        self._token: portl.CancelToken | None = token
        self._binary = bool(header)
        self._header = header
        self._socket = twin(session)
        self._data = bytearray(BUFFER_BYTES)
        #: Where what is not handed on yet begins and ends.
        self._start = self._end = 0
        #: The bytes that have arrived behind it, until they are counted.
        self._arrived: list[int] = []
        #: Messages for libpq.
        self._kept = bytearray()
        self._failure: psycopg.Error | None = None
        #: True once the server is ready for another statement.
        self.finished = False

    def close(self) -> None:
        """Release the socket, which remains libpq's."""
        self._socket.close()

    def piece(self, most: int) -> tuple[Piece, int]:
        """Return up to ``most`` next rows, as whole messages, and their number; none after the last.

        Raises:
            psycopg.Error: the server's error, or the loss of the connection.
            Cancelled: the token was cancelled.
        """
        position, count = self._start, 0
        while not self.finished:
            if self._header:
                self._leave_header_out()
                position = self._start
            if not self._header:
                position, found = walk(self._data, position, self._end, most - count, binary=self._binary)
                count += found
            if count == most or position - self._start >= PIECE_BYTES:
                break
            if self._interrupted(position):
                if count:
                    break
                self._start = position
                if row := self._take_other():
                    return row, 1
                position = self._start
            elif count and self._end == len(self._data):
                break
            else:
                position -= self._fill(position)
        if self.finished:
            self._settle()
        rows: Piece
        if position - self._start == len(self._data):
            fresh = bytearray(BUFFER_BYTES)
            # No call stands between these, and so no Ctrl-C.
            rows, self._data = self._data, fresh
            self._start = self._end = 0
            return rows, count
        rows = bytes(memoryview(self._data)[self._start : position])
        self._start = position
        return rows, count

    def _leave_header_out(self) -> None:
        """Remove the header from the first row's message, or skip a message with only the header."""
        start, left_out = self._start, len(self._header)
        if self._end - start < FRAME + left_out:
            return
        kind, length = _HEAD.unpack_from(self._data, start)
        if kind != ROW:
            return
        # What was the message's head stays one of a whole message until it is passed over.
        _HEAD.pack_into(self._data, start + left_out, ROW, length - left_out)
        self._start += left_out if length > 4 + left_out else FRAME + left_out
        self._header = b""

    def _interrupted(self, position: int) -> bool:
        """Return whether the next message is complete but not a row, or as short as the trailer."""
        if self._end - position < FRAME:
            return False
        kind, length = _HEAD.unpack_from(self._data, position)
        special = kind != ROW or (self._binary and length == _TRAILER_LENGTH)
        return special and position + 1 + length <= self._end

    def _take_other(self) -> bytes:
        """Take the message at the start; return it if it is a row after all, one without columns."""
        kind, length = _HEAD.unpack_from(self._data, self._start)
        message = bytes(self._data[self._start : self._start + 1 + length])
        self._start += len(message)
        if kind == ROW:
            return message if message != _TRAILER else b""
        self._kept += message
        self.finished = kind == _READY
        if len(self._kept) > _KEPT_BYTES:
            self._hand_over()
        return b""

    def skip(self, token: portl.CancelToken | None = None) -> bool:
        """Read and discard the remainder; return False if the token was cancelled before its end."""
        self._token = None
        self._count()
        while not self.finished:
            if token is not None and token.cancelled:
                return False
            self._start, _ = walk(self._data, self._start, self._end, BUFFER_BYTES, binary=self._binary)
            if self._interrupted(self._start):
                self._take_other()
            else:
                self._fill(self._start, patient=token is None)
        self._hand_over()
        return True

    def _fill(self, position: int, *, patient: bool = True) -> int:
        """Read what has arrived, once something has; return by how much the buffer was shifted to the front."""
        moved = 0
        if self._end == len(self._data):
            moved = self._start
            rest = self._data[moved:]
            length, size = len(rest), BUFFER_BYTES
            if length >= FRAME:
                size = max(size, 1 + _HEAD.unpack_from(rest)[1])
            if size != len(self._data):
                self._data = bytearray(size)
            # No call stands between these, and so no Ctrl-C.
            self._data[:length] = rest
            self._start, self._end = 0, length
        try:
            with memoryview(self._data) as view:
                # Ctrl-C can come between a call and the use of its result. Here both are one call.
                self._arrived.extend(map(self._socket.recv_into, (view[self._end :],)))
        except BlockingIOError:
            self._wait(patient)
            return moved
        except OSError:
            self._arrived = [0]
        if not self._arrived[0]:
            self._lost()
        self._count()
        return moved

    def _count(self) -> None:
        """Count what has arrived."""
        arrived = self._arrived
        if arrived:
            self._end += arrived[0]
            self._arrived = []

    def _wait(self, patient: bool) -> None:
        with self._session.vigil.waiting():
            while not ready(self._socket.fileno(), POLL_SECONDS)[0] and patient:
                if self._token is not None:
                    self._token.check()

    def _lost(self) -> None:
        """Raise the reason why no more will come, and let libpq see that the connection is lost."""
        with contextlib.suppress(psycopg.Error):
            self._settle()
        try:
            self._session.pgconn.consume_input()
        except psycopg.Error as error:
            raise self._failure or error from None
        raise self._failure or psycopg.OperationalError("the server closed the connection unexpectedly")

    def _settle(self) -> None:
        """Pass everything kept to libpq; raise the server's error if there is one."""
        self._hand_over()
        if self._failure is not None:
            raise self._failure

    def _hand_over(self) -> None:
        """Let libpq read the messages kept for it."""
        pgconn = self._session.pgconn
        rest = memoryview(bytes(self._kept))
        self._kept.clear()
        with self._stand_in(pgconn.socket) as other:
            while rest or ready(pgconn.socket, 0)[0]:
                with contextlib.suppress(BlockingIOError):
                    rest = rest[other.send(rest) :]
                pgconn.consume_input()
                self._digest(pgconn)

    @contextlib.contextmanager
    def _stand_in(self, fileno: int) -> Iterator[socket.socket]:
        """Replace libpq's socket with one side of a socket pair; yield the other side."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for end in (ours, theirs):
                end.setblocking(False)
            try:
                os.dup2(theirs.fileno(), fileno, inheritable=False)
                yield ours
            finally:
                os.dup2(self._socket.fileno(), fileno, inheritable=False)

    def _digest(self, pgconn: pq.abc.PGconn) -> None:
        """Process the results that libpq has so far."""
        while not pgconn.is_busy() and (result := pgconn.get_result()) is not None:
            if result.status == pq.ExecStatus.COPY_OUT:
                if pgconn.get_copy_data(1)[0] == 0:
                    return
            elif result.status != pq.ExecStatus.COMMAND_OK and self._failure is None:
                self._failure = error_of(result, pgconn)


def error_of(result: pq.abc.PGresult | None, pgconn: pq.abc.PGconn) -> psycopg.Error:
    """Return psycopg's exception for an error result."""
    if result is None or result.status != pq.ExecStatus.FATAL_ERROR:
        status = pq.ExecStatus(result.status).name if result is not None else "no result"
        return psycopg.OperationalError(f"unexpected answer to COPY: {status}; {pgconn.get_error_message()}")
    return pg_errors.error_from_result(result)
