"""COPY at libpq's level: rows pass through as the bytes that the server sent (manual, 32.10 and 53.2.7).

The server sends one CopyData message a row, so the boundaries of rows cost nothing to see. Where nothing wraps the
connections, these messages are read and written as they are, past libpq (``frames``). Where TLS or GSSAPI does, libpq
hands over the rows one by one, and takes them joined to larger messages. The reading connection is
asked without blocking and waited for with ``select``; the writing one is in libpq's non-blocking mode and flushed
after every put. That is as fast as blocking calls, and it leaves Python's other threads free: psycopg holds the
interpreter's lock while a blocking get waits, so a stalled server would stop the whole program, its Ctrl-C included.
Without the flush, a non-blocking libpq queues without bound and moves the whole queue at every send.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

import psycopg
from psycopg import pq

import portl
from portl_postgres.session.errors import words
from portl_postgres.session.session import Session, logger
from portl_postgres.session.waiting import ready
from portl_postgres.wire.batches import CopyBatch
from portl_postgres.wire.column_codecs import CopiedRows, rows_dumper
from portl_postgres.wire.messages import FRAME, POLL_SECONDS, Frames, Pace, bare, error_of, framed, twin, unwrapped

#: Bytes joined before each put; larger ones were 10 to 30 % slower in trials.
PUT_BYTES = 32 * 1024

#: Signature, flags and length of the header's extension (manual, COPY, Binary Format).
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
#: Spares the process a signal when the server is gone; where the system has no such flag, Python ignores the signal.
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)


class CopyOut:
    """``COPY (…) TO STDOUT`` on one session.

    Args:
        session: inside a transaction.
        statement: the COPY.
        token: looked at while waiting.
        what: for messages.
        read_out: True: leaving early reads the remainder to its end, which leaves the transaction as it is; False: it
            cancels the statement, and the transaction is failed.
    """

    def __init__(
        self, session: Session, statement: str, token: portl.CancelToken, what: str, *, read_out: bool = False
    ) -> None:
        self._session = session
        self._statement = statement
        self._token = token
        self._what = what
        self.read_out = read_out

    def batches(
        self, *, binary: bool, rows: int, size: int | None, first_row: int = 1
    ) -> Generator[CopyBatch, None, None]:
        """Yield batches of ``rows`` rows; a batch ends early when it holds ``size`` bytes."""
        limit = size if size is not None else 1 << 62
        number = 1
        wire = self._send()
        with contextlib.closing((self._messages if wire else self._joined)(rows, limit, binary)) as found:
            for pieces, count, held in found:
                yield CopyBatch(
                    number=number,
                    first_row=first_row,
                    rows=count,
                    size=held,
                    binary=binary,
                    pieces=pieces,
                    framed=wire,
                )
                number, first_row = number + 1, first_row + count

    def _joined(self, rows: int, limit: int, binary: bool) -> Generator[tuple[list[bytes], int, int], None, None]:
        """Yield the pieces of each batch, its rows and its bytes, as libpq hands them over."""
        pieces: list[bytes] = []
        piece: list[bytes | memoryview] = []
        piece_bytes = batch_bytes = count = 0
        with contextlib.closing(self._rows(binary)) as found:
            for row in found:
                piece.append(row)
                piece_bytes += len(row)
                count += 1
                if piece_bytes < PUT_BYTES and count < rows:
                    continue
                pieces.append(b"".join(piece))
                batch_bytes += piece_bytes
                piece, piece_bytes = [], 0
                if count >= rows or batch_bytes >= limit:
                    yield pieces, count, batch_bytes
                    pieces, batch_bytes, count = [], 0, 0
        if count:
            yield [*pieces, b"".join(piece)], count, batch_bytes + piece_bytes

    def _messages(self, rows: int, limit: int, binary: bool) -> Generator[tuple[list[bytes], int, int], None, None]:
        """Yield the same as ``_joined``, as the wire has it."""
        with self._session.translated(self._what), unfinished(self._session):
            frames = Frames(self._session, self._token, HEADER if binary else b"")
        left = False
        try:
            pieces: list[bytes] = []
            batch_bytes = count = 0
            while True:
                piece, found = frames.piece(rows - count)
                if found:
                    pieces.append(piece)
                    count += found
                    batch_bytes += len(piece) - found * FRAME
                if count and (not found or count >= rows or batch_bytes >= limit):
                    yield pieces, count, batch_bytes
                    pieces, batch_bytes, count = [], 0, 0
                if not found:
                    return
        except psycopg.Error as error:
            raise self._session.failure(error, self._what) from None
        except OSError as error:
            raise self._session.refused(error, self._what) from error
        except GeneratorExit:
            left = True
            raise
        finally:
            if not frames.finished:
                self._abort(frames.skip, cancel=not (left and self.read_out))
            frames.close()

    def rows(self, *, binary: bool) -> Iterator[bytes | memoryview]:
        """Yield each row as the server sends it."""
        self._send()
        yield from self._rows(binary)

    def _rows(self, binary: bool) -> Generator[bytes | memoryview, None, None]:
        """Yield the rows of the statement that was sent, as libpq hands them over."""
        pgconn = self._session.pgconn
        get, consume, fileno = pgconn.get_copy_data, pgconn.consume_input, pgconn.socket
        vigil = self._session.vigil
        self._started()
        finished = left = False
        first = binary
        try:
            while True:
                length, data = get(1)
                if length > 0:
                    row: bytes | memoryview = data
                    if first:
                        first = False
                        row = bytes(data).removeprefix(HEADER)
                    # The trailer is a message of its own, except after no row at all.
                    if binary and len(row) == 2 and row == TRAILER:
                        continue
                    if row:
                        yield row
                elif length == 0:
                    with vigil.waiting():
                        while not ready(fileno, POLL_SECONDS)[0]:
                            self._token.check()
                        with self._session.translated(self._what):
                            consume()
                else:
                    finished = True
                    break
        except psycopg.Error as error:
            finished = True
            raise self._session.failure(error, self._what) from None
        except GeneratorExit:
            left = True
            raise
        finally:
            if not finished:
                self._abort(self._skip, cancel=not (left and self.read_out))
        self._end()

    def _send(self) -> bool:
        """Send the statement; tell whether its answer can be read past libpq."""
        self._session.log(self._statement)
        with self._session.translated(self._what), unfinished(self._session):
            # The extended protocol takes exactly one statement, whatever a query in it says.
            self._session.pgconn.send_query_params(self._statement.encode(), None)
            return flush(self._session, self._token) and unwrapped(self._session)

    def _started(self) -> None:
        """Wait until the server begins to send rows."""
        pgconn = self._session.pgconn
        with self._session.translated(self._what), unfinished(self._session):
            result = wait_result(self._session)
            if result is None or result.status != pq.ExecStatus.COPY_OUT:
                drain(self._session)
                raise error_of(result, pgconn)

    def _end(self) -> None:
        pgconn = self._session.pgconn
        with self._session.translated(self._what), unfinished(self._session):
            failed = None
            while (result := wait_result(self._session)) is not None:
                if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.COPY_OUT):
                    failed = error_of(result, pgconn)
                    break
            if failed is not None:
                drain(self._session)
                raise failed

    def _abort(self, skip: Callable[[portl.CancelToken | None], bool], *, cancel: bool) -> None:
        """Make the server stop sending, unless the remainder is to be read, and read what is on its way."""
        if self._session.broken:
            return
        try:
            if not cancel and skip(self._token):
                return
            self._session.cancel()
            skip(None)
            self._session.vigil.hasty = False
        except psycopg.Error as error:
            # The connection was lost meanwhile: there is nothing left to stop.
            logger.debug("%s: %s", self._session.label, words(error))
        except OSError as error:
            self._session.vigil.give_up(str(error))

    def _skip(self, token: portl.CancelToken | None) -> bool:
        """Read the remainder; return False if the token was cancelled before its end."""
        pgconn = self._session.pgconn
        with self._session.vigil.waiting():
            while not self._session.broken:
                if token is not None and token.cancelled:
                    return False
                length, _ = pgconn.get_copy_data(1)
                if length < 0:
                    break
                if length == 0:
                    receive(self._session)
        drain(self._session)
        return True


class CopyIn:
    """``COPY … FROM STDIN`` on one session. ``finish`` must follow, or ``abort``.

    Args:
        session: inside a transaction.
        statement: the COPY, none of a user's text in it.
        binary: which format it takes.
        token: looked at while waiting.
        what: for messages.
        types: of the columns, for rows that come decoded.
    """

    def __init__(
        self,
        session: Session,
        statement: str,
        *,
        binary: bool,
        token: portl.CancelToken,
        what: str,
        types: Sequence[portl.Type] = (),
    ) -> None:
        self._session = session
        self._dump = rows_dumper(types)
        self._binary = binary
        self._token = token
        self._what = what
        self._pace = Pace()
        #: What is left of a message of which a part is sent.
        self._unsent = memoryview(b"")
        #: The bytes of it that were sent since, until they are counted.
        self._sent: list[int] = []
        opening = session.opening()
        session.log(f"{opening}; {statement}" if opening else statement)
        pgconn = session.pgconn
        with session.translated(what), unfinished(session):
            if opening:
                pgconn.send_query(f"{opening}; {statement}".encode())
            else:
                pgconn.send_query_params(statement.encode(), None)
            #: True if messages can be sent past libpq.
            self._unwrapped = flush(session, token) and unwrapped(session)
            result = wait_result(session)
            if opening and result is not None and result.status == pq.ExecStatus.COMMAND_OK:
                result = wait_result(session)
            if result is None or result.status != pq.ExecStatus.COPY_IN:
                drain(session)
                raise error_of(result, pgconn)
        self.open = True
        session.vigil.sending()
        if binary:
            self._put(HEADER)

    def write(self, batch: portl.Batch) -> int:
        """Send a batch; return its bytes. A refusal of the server's shows at ``finish``."""
        if isinstance(batch, portl.RowBatch):
            portions = batch.portions() if isinstance(batch, CopiedRows) else [batch.data]
            return sum(self._put_all(data) for rows in portions for data in self._dump(rows))
        if not isinstance(batch, CopyBatch) or batch.binary is not self._binary:
            raise portl.OperationError(f"{self._session.label}: a batch of an unknown format arrived: {batch!r}")
        if batch.framed and self._unwrapped:
            with self._session.translated(self._what), twin(self._session) as wire:
                for piece in batch.pieces:
                    self._send(wire, framed(b"".join(bare(piece))) if self._pace.slow else piece)
            self._pace.sent(batch.size)
        else:
            for piece in batch.bare:
                self._put(piece)
        return batch.size

    def _send(self, wire: socket.socket, messages: bytes) -> None:
        """Send whole messages past libpq, which holds nothing back at this moment."""
        vigil = self._session.vigil
        vigil.sent = (vigil.sent or 0) + len(messages)
        self._unsent = memoryview(messages)
        self._send_rest(wire, self._token)

    def _send_rest(self, wire: socket.socket, token: portl.CancelToken) -> None:
        while self._left():
            try:
                # Ctrl-C comes between a call and what is made of its answer. Here both are one call.
                self._sent.extend(map(wire.send, (self._unsent,), (_NO_SIGNAL,)))
            except BlockingIOError:
                with self._session.translated(self._what), self._session.vigil.waiting(), self._pace.waiting():
                    receive(self._session, sending=True)
                token.check()
            except OSError:
                # The connection is lost. libpq will say why once the COPY is ended: it reads the server's last words.
                # If it is not quite lost, nothing may follow a message of which a part was sent.
                with contextlib.suppress(OSError):
                    wire.shutdown(socket.SHUT_WR)
                self._unsent = memoryview(b"")

    def _left(self) -> bool:
        """Count what was sent; tell whether anything is left of the message."""
        sent = self._sent
        if sent:
            self._unsent = self._unsent[sent[0] :]
            self._sent = []
        return bool(self._unsent)

    def _put_all(self, data: bytes) -> int:
        for start in range(0, len(data), PUT_BYTES):
            self._put(data[start : start + PUT_BYTES])
        return len(data)

    @property
    def answered(self) -> bool:
        """True if the server has said something, which it does in the middle of a COPY only to refuse or to warn."""
        return ready(self._session.pgconn.socket, 0)[0]

    def _put(self, data: bytes) -> None:
        pgconn = self._session.pgconn
        vigil = self._session.vigil
        vigil.sent = (vigil.sent or 0) + len(data)
        with self._session.translated(self._what):
            pgconn.put_copy_data(data)
            flush(self._session, self._token)

    def finish(self) -> int:
        """End the COPY and return the number of rows it took.

        Raises:
            DataError: if a row was refused.
        """
        if self._binary:
            self._put(TRAILER)
        return self._end(None)

    def abort(self) -> None:
        """End the COPY without its rows. The transaction is failed afterwards."""
        if not self.open or self._session.broken:
            self.open = False
            return
        if not self.answered:
            # A trigger, or a lock, may keep the server from reading that the COPY is given up.
            self._session.cancel()
        try:
            self._end(b"given up by portl")
        except portl.Error:
            # The server answers with an error that says just this: the COPY was given up.
            return

    def _end(self, reason: bytes | None) -> int:
        self.open = False
        self._session.vigil.sent_all()
        pgconn = self._session.pgconn
        taken = 0
        failed: psycopg.Error | None = None
        # To give up is what a cancelled run does: it must not be cancelled in turn.
        token = self._token if reason is None else portl.CancelToken()
        if self._left():
            with self._session.translated(self._what), twin(self._session) as wire:
                self._send_rest(wire, token)
        with self._session.translated(self._what), unfinished(self._session):
            pgconn.put_copy_end(reason)
            flush(self._session, token)
            while (result := wait_result(self._session)) is not None:
                if result.status == pq.ExecStatus.COMMAND_OK:
                    taken = result.command_tuples or 0
                elif failed is None:
                    failed = error_of(result, pgconn)
            if failed is not None:
                raise failed
        return taken


def receive(session: Session, *, sending: bool = False) -> None:
    """Wait a moment until the server has said something, or will take something, and take in what it said."""
    pgconn = session.pgconn
    readable, writable = ready(pgconn.socket, POLL_SECONDS, writing=sending)
    if readable or writable:
        session.vigil.wait()  # what moves is not silent
    if readable:
        pgconn.consume_input()


def flush(session: Session, token: portl.CancelToken) -> bool:
    """Send all that libpq holds back, reading what the server has to say so that neither waits for the other.

    Returns:
        True if it went at once, and nothing was read.
    """
    if not session.pgconn.flush():
        return True
    with session.vigil.waiting():
        while session.pgconn.flush():
            receive(session, sending=True)
            token.check()
    return False


def wait_result(session: Session) -> pq.abc.PGresult | None:
    """Return the next result, without holding the interpreter while the server is at work."""
    if session.pgconn.is_busy():
        with session.vigil.waiting():
            while session.pgconn.is_busy():
                receive(session)
    return session.pgconn.get_result()


@contextmanager
def unfinished(session: Session) -> Iterator[None]:
    """End the statement at the server if waiting for its answer is interrupted, by Ctrl-C or by the token."""
    try:
        yield
    except psycopg.Error:
        raise
    except BaseException:
        if not session.broken:
            session.cancel()
            try:
                _clear(session)
            except psycopg.Error as error:
                # The connection was lost meanwhile, or given up: nothing is left to end.
                logger.debug("%s: %s", session.label, words(error))
            session.vigil.hasty = False
        raise


def _clear(session: Session) -> None:
    """Read all that a statement has still to say, whatever it is."""
    pgconn = session.pgconn
    while (result := wait_result(session)) is not None:
        if result.status == pq.ExecStatus.COPY_IN:
            pgconn.put_copy_end(b"given up by portl")
            flush(session, portl.CancelToken())
        elif result.status == pq.ExecStatus.COPY_OUT:
            with session.vigil.waiting():
                while (length := pgconn.get_copy_data(1)[0]) >= 0:
                    if length == 0:
                        receive(session)


def drain(session: Session) -> None:
    """Read the remaining results of a statement."""
    while (result := wait_result(session)) is not None:
        if result.status in (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH):
            break
