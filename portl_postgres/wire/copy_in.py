"""``COPY … FROM STDIN``: send rows to the server."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

import psycopg
from psycopg import pq

import portl
from portl_postgres.session.session import Session
from portl_postgres.session.waiting import ready
from portl_postgres.wire.batches import CopyBatch
from portl_postgres.wire.column_codecs import CopiedRows, rows_dumper
from portl_postgres.wire.copy import HEADER, PUT_BYTES, drain, flush, receive, unfinished, wait_result
from portl_postgres.wire.messages import BUFFER_BYTES, Pace, Piece, bare, error_of, framed, twin, unwrapped

TRAILER = b"\xff\xff"
#: Suppresses SIGPIPE when the server is gone; on systems without the flag, Python ignores the signal.
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)


class CopyIn:
    """``COPY … FROM STDIN`` on one session. ``finish`` or ``abort`` must follow.

    Args:
        session: inside a transaction.
        statement: the COPY, free of user-supplied SQL.
        binary: True for the binary format.
        token: checked while waiting.
        what: for messages.
        types: those of the columns, for decoded rows.
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
        #: The rest of a partially sent message.
        self._unsent = memoryview(b"")
        #: The bytes of it sent since, until they are counted.
        self._sent: list[int] = []
        opening = session.opening()
        all_of_it = "; ".join([*opening, statement])
        session.log(all_of_it)
        pgconn = session.pgconn
        with session.translated(what), unfinished(session):
            if opening:
                pgconn.send_query(all_of_it.encode())
            else:
                pgconn.send_query_params(statement.encode(), None)
            #: True if messages can be sent past libpq.
            self._unwrapped = flush(session, token) and unwrapped(session)
            result = wait_result(session)
            while opening and result is not None and result.status == pq.ExecStatus.COMMAND_OK:
                result = wait_result(session)
            if result is None or result.status != pq.ExecStatus.COPY_IN:
                drain(session)
                raise error_of(result, pgconn)
        self.open = True
        session.vigil.sending()
        if binary:
            self._put(HEADER)

    def write(self, batch: portl.Batch) -> int:
        """Send a batch; return its size in bytes. A refusal by the server is raised by ``finish``."""
        if isinstance(batch, portl.RowBatch):
            portions = batch.portions() if isinstance(batch, CopiedRows) else [batch.data]
            return sum(self._put_all(data) for rows in portions for data in self._dump(rows))
        if not isinstance(batch, CopyBatch) or batch.binary is not self._binary:
            raise portl.OperationError(f"{self._session.label}: a batch of an unknown format arrived: {batch!r}")
        if batch.framed and self._unwrapped:
            with self._session.translated(self._what), twin(self._session) as wire:
                for piece in batch.pieces:
                    joined = self._pace.slow and len(piece) <= BUFFER_BYTES
                    self._send(wire, framed(b"".join(bare(piece))) if joined else piece)
            self._pace.sent(batch.size)
        else:
            for piece in batch.bare:
                self._put_all(piece)
        return batch.size

    def _send(self, wire: socket.socket, messages: Piece) -> None:
        """Send whole messages past libpq, which holds nothing back at this moment."""
        vigil = self._session.vigil
        vigil.sent = (vigil.sent or 0) + len(messages)
        self._unsent = memoryview(messages)
        self._send_rest(wire, self._token)

    def _send_rest(self, wire: socket.socket, token: portl.CancelToken) -> None:
        while self._left():
            try:
                # Ctrl-C can come between a call and the use of its result. Here both are one call.
                self._sent.extend(map(wire.send, (self._unsent,), (_NO_SIGNAL,)))
            except BlockingIOError:
                with self._session.translated(self._what), self._session.vigil.waiting(), self._pace.waiting():
                    receive(self._session, sending=True)
                token.check()
            except OSError:
                # The connection is lost. libpq will say why once the COPY is ended: it reads the server's last words.
                # If it is not entirely lost, nothing may follow a partially sent message.
                with contextlib.suppress(OSError):
                    wire.shutdown(socket.SHUT_WR)
                self._unsent = memoryview(b"")

    def _left(self) -> bool:
        """Count what was sent; return whether anything is left of the message."""
        sent = self._sent
        if sent:
            # Even an empty view would keep a large message in memory.
            self._unsent = self._unsent[sent[0] :] if sent[0] < len(self._unsent) else memoryview(b"")
            self._sent = []
        return bool(self._unsent)

    def _put_all(self, data: Piece) -> int:
        """Send rows in messages that libpq can buffer, which need not end at row boundaries."""
        if len(data) <= BUFFER_BYTES:
            self._put(data)
            return len(data)
        with memoryview(data) as view:
            for start in range(0, len(data), PUT_BYTES):
                self._put(view[start : start + PUT_BYTES])
        return len(data)

    @property
    def answered(self) -> bool:
        """True if the server has said something, which it does in the middle of a COPY only to refuse or to warn."""
        return ready(self._session.pgconn.socket, 0)[0]

    def _put(self, data: Piece) -> None:
        pgconn = self._session.pgconn
        vigil = self._session.vigil
        vigil.sent = (vigil.sent or 0) + len(data)
        with self._session.translated(self._what):
            pgconn.put_copy_data(data)
            flush(self._session, self._token)

    def finish(self) -> int:
        """End the COPY and return the number of rows accepted.

        Raises:
            DataError: a row was refused.
        """
        if self._binary:
            self._put(TRAILER)
        return self._end(None)

    def abort(self) -> None:
        """Abort the COPY and its rows. The transaction is failed afterwards."""
        if not self.open or self._session.broken:
            self.open = False
            return
        if not self.answered:
            # A trigger, or a lock, may keep the server from reading that the COPY is given up.
            self._session.cancel()
        try:
            self._end(b"given up by portl")
        except portl.Error:
            # The server answers with an error that only confirms this.
            return

    def _end(self, reason: bytes | None) -> int:
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
            self.open = False
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
