"""COPY at libpq's level: rows pass through as the bytes sent by the server (manual, 32.10 and 53.2.7).

The server sends one CopyData message a row, so the boundaries of rows cost nothing to see. Where nothing wraps the
connections, these messages are read and written as they are, past libpq (``frames``). Where TLS or GSSAPI does, libpq
hands over the rows one by one, and takes them joined to larger messages. The reading connection is
asked without blocking and waited for with ``select``; the writing one is in libpq's non-blocking mode and flushed
after every put. That is as fast as blocking calls, and it leaves Python's other threads free: psycopg holds the
interpreter's lock while a blocking get waits, so a stalled server would stop the whole program, its Ctrl-C included.
Without the flush, a non-blocking libpq queues without bound and moves the whole queue at every send.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import pq

import portl
from portl_postgres.session.session import Session, logger
from portl_postgres.session.waiting import ready
from portl_postgres.wire.messages import POLL_SECONDS

#: Bytes joined before each put; larger puts were 10 to 30 % slower in measurements.
PUT_BYTES = 32 * 1024

#: Signature, flags and length of the header extension (manual, COPY, Binary Format).
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)


def unchecked(session: Session) -> bool:
    """Return whether the database is SQL_ASCII, so that its bytes may not be text in any encoding."""
    return session.connection.info.parameter_status("server_encoding") == "SQL_ASCII"


def text_options(session: Session) -> str:
    """Return the options of a COPY in the text format: in UTF-8, or, where nobody has checked them, the bytes."""
    return f"FORMAT text, ENCODING '{'SQL_ASCII' if unchecked(session) else 'UTF8'}'"


@contextmanager
def as_they_are(session: Session) -> Iterator[None]:
    """Let the bytes of an SQL_ASCII database pass unchanged.

    Binary COPY, and all other values, have no encoding of their own: they are converted to the client's, or from it
    (manual, COPY, ENCODING), and what is no UTF-8 is refused.
    """
    if not unchecked(session):
        yield
        return
    session.execute("SET LOCAL client_encoding = 'SQL_ASCII'")
    try:
        yield
    finally:
        if not session.broken and session.connection.info.transaction_status is not pq.TransactionStatus.INERROR:
            session.execute("SET LOCAL client_encoding = 'UTF8'")


def receive(session: Session, *, sending: bool = False) -> None:
    """Wait briefly until the server sends or can receive something, and read what it sent."""
    pgconn = session.pgconn
    readable, writable = ready(pgconn.socket, POLL_SECONDS, writing=sending)
    if readable or writable:
        session.vigil.wait()  # data is flowing, so the server is not silent
    if readable:
        pgconn.consume_input()


def flush(session: Session, token: portl.CancelToken) -> bool:
    """Send everything that libpq has buffered, reading what the server sends so that neither blocks the other.

    Returns:
        True if it was sent immediately and nothing was read.
    """
    if not session.pgconn.flush():
        return True
    with session.vigil.waiting():
        while session.pgconn.flush():
            receive(session, sending=True)
            token.check()
    return False


def wait_result(session: Session) -> pq.abc.PGresult | None:
    """Return the next result, without holding the interpreter lock while the server is working."""
    if session.pgconn.is_busy():
        with session.vigil.waiting():
            while session.pgconn.is_busy():
                receive(session)
    return session.pgconn.get_result()


@contextmanager
def unfinished(session: Session) -> Iterator[None]:
    """End the statement at the server if waiting for its answer is interrupted by Ctrl-C or the cancel token."""
    try:
        yield
    except psycopg.Error:
        raise
    except BaseException:
        if not session.broken:
            try:
                session.end_statement()
            except portl.Error as error:
                # The connection was lost or abandoned in the meantime: there is nothing to end.
                logger.debug("%s", error.message)
        raise


def drain(session: Session) -> None:
    """Read the remaining results of a statement."""
    while (result := wait_result(session)) is not None:
        if result.status in (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH):
            break
