"""``COPY (…) TO STDOUT``: read rows from the server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from itertools import starmap

import psycopg
from psycopg import pq

import portl
from portl_postgres.session.errors import words
from portl_postgres.session.session import Session, logger
from portl_postgres.session.waiting import ready
from portl_postgres.wire.batches import CopyBatch
from portl_postgres.wire.copy import HEADER, PUT_BYTES, drain, flush, receive, unfinished, wait_result
from portl_postgres.wire.copy_in import TRAILER
from portl_postgres.wire.messages import FRAME, POLL_SECONDS, Frames, Piece, error_of, unwrapped


class CopyOut:
    """``COPY (…) TO STDOUT`` on one session.

    Args:
        session: inside a transaction.
        statement: the COPY.
        token: checked while waiting.
        what: for messages.
        read_out: True if leaving early reads the remainder to its end, which keeps the transaction intact; False if it
            cancels the statement, which fails the transaction.
    """

    def __init__(
        self, session: Session, statement: str, token: portl.CancelToken, what: str, *, read_out: bool = False
    ) -> None:
        self._session = session
        self._statement = statement
        self._token = token
        self._what = what
        self.read_out = read_out
        #: Rows that have arrived for ``batches``.
        self.arrived = 0

    def batches(
        self, *, binary: bool, rows: int, size: int | None, first_row: int = 1
    ) -> Generator[CopyBatch, None, None]:
        """Yield batches of ``rows`` rows; a batch ends early when it holds ``size`` bytes."""
        limit = size if size is not None else 1 << 62
        number = 0
        wire = self._send()

        def batch(pieces: list[Piece], count: int, held: int) -> CopyBatch:
            nonlocal number, first_row
            number, first_row = number + 1, first_row + count
            return CopyBatch(
                number=number,
                first_row=first_row - count,
                rows=count,
                size=held,
                binary=binary,
                pieces=pieces,
                framed=wire,
            )

        with contextlib.closing((self._messages if wire else self._joined)(rows, limit, binary)) as found:
            # Not a for loop: its variable would keep a batch in memory while the next one is read.
            yield from starmap(batch, found)

    def _joined(self, rows: int, limit: int, binary: bool) -> Generator[tuple[list[Piece], int, int], None, None]:
        """Yield the pieces of each batch, its row count and its size, as read through libpq."""
        pieces: list[Piece] = []
        piece: list[bytes | memoryview] = []
        piece_bytes = batch_bytes = count = 0
        with contextlib.closing(self._rows(binary)) as found:
            for row in found:
                piece.append(row)
                piece_bytes += len(row)
                count += 1
                self.arrived += 1
                if piece_bytes < PUT_BYTES and count < rows:
                    continue
                pieces.append(row if len(piece) == 1 else b"".join(piece))
                batch_bytes += piece_bytes
                piece, piece_bytes, row = [], 0, b""
                if count >= rows or batch_bytes >= limit:
                    yield pieces, count, batch_bytes
                    pieces, batch_bytes, count = [], 0, 0
        if count:
            yield [*pieces, b"".join(piece)], count, batch_bytes + piece_bytes

    def _messages(self, rows: int, limit: int, binary: bool) -> Generator[tuple[list[Piece], int, int], None, None]:
        """Yield the same as ``_joined``, but as messages on the wire."""
        with self._session.translated(self._what), unfinished(self._session):
            frames = Frames(self._session, self._token, HEADER if binary else b"")
        left = False
        try:
            pieces: list[Piece] = []
            batch_bytes = count = 0
            while True:
                piece, found = frames.piece(rows - count)
                if found:
                    pieces.append(piece)
                    count += found
                    self.arrived += found
                    batch_bytes += len(piece) - found * FRAME
                del piece  # ``pieces`` has it, until the batch is handed on
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
        """Yield each row as sent by the server."""
        self._send()
        yield from self._rows(binary)

    def _rows(self, binary: bool) -> Generator[bytes | memoryview, None, None]:
        """Yield the rows of the statement that was sent, as read through libpq."""
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
                        row = data[len(HEADER) :] if data[: len(HEADER)] == HEADER else data
                    # The trailer is a message of its own, except after no row at all.
                    if binary and len(row) == 2 and row == TRAILER:
                        continue
                    if row:
                        yield row
                    del data, row  # or a long one would stay in memory beside the next
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
        """Send the statement; return whether its answer can be read past libpq."""
        self._session.log(self._statement)
        with self._session.translated(self._what), unfinished(self._session):
            # The extended protocol takes exactly one statement, whatever a query in it says.
            self._session.pgconn.send_query_params(self._statement.encode(), None)
            return flush(self._session, self._token) and unwrapped(self._session)

    def _started(self) -> None:
        """Wait until the server starts to send rows."""
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
            # The connection was lost in the meantime: there is nothing to stop.
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
