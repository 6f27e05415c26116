"""Find and end worker sessions in other processes, by a mark on the sessions.

The mark is a shared advisory lock on a random number: the server releases it when the session ends, shows who holds it,
and lets a role terminate its own sessions. (manual, 13.3.5, 53.12, 9.28.2; standbys have advisory locks too)
"""

from __future__ import annotations

import secrets

from portl_postgres.session.session import Session

_END = """
    SELECT pg_catalog.pg_terminate_backend(l.pid)
    FROM pg_catalog.pg_locks AS l
    WHERE l.locktype = 'advisory' AND l.classid = '{high}'::oid AND l.objid = '{low}'::oid AND l.objsubid = 1
        AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())
"""


def new_mark() -> int:
    """Return a number that no one else uses for a lock."""
    return secrets.randbits(63)


def wear(session: Session, mark: int) -> None:
    """Mark a session, until it ends."""
    session.query("SELECT pg_catalog.pg_advisory_lock_shared($1::int8)", mark, what="marking the session")


def end(session: Session, mark: int) -> int:
    """End all marked sessions, over another connection to the same server; return their number.

    A server that cannot be reached ends them itself, once it notices that no one is listening.
    """
    rows = session.vigil.ask(_END.format(high=mark >> 32, low=mark & 0xFFFFFFFF))
    return len(rows or ())
