"""Advisory locks of jobs and runs: take one, name its holder, terminate backends that outlived their process.

A key is the first eight bytes, as a signed big-endian integer, of the SHA-256 of a constant and the name of what is
locked. It must be the same in all versions of portl: see ``lock_key``.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import portl
from portl import Run
from portl_postgres.session.session import Session
from portl_postgres.sql.text import bound, statement

logger = logging.getLogger("portl.postgres")

#: How long to try for a lock, as servers are slow to notice that a client has died.
LOCK_SECONDS = 3.0
POLL_SECONDS = 0.1

_TRY = (
    "SELECT pg_catalog.pg_try_advisory_lock($1::int8), a.pid, a.backend_start::text"
    " FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = pg_catalog.pg_backend_pid()"
)
_RELEASE = "SELECT pg_catalog.pg_advisory_unlock($1::int8)"

#: By the key of an advisory lock, the backend that holds it and its description for messages.
Holders = dict[int, tuple[int | None, str]]

#: Locks that this process held on connections that broke: key, backend, and the backend's start. The server may not
#: have noticed yet.
_lost: set[tuple[int, int, str]] = set()


def lock_key(kind: str, name: str) -> int:
    """Return the key of an advisory lock.

    Args:
        kind: ``job``, ``run`` (a run's first transaction) or ``ledger`` (creating or upgrading one).
        name: that of the job or the run; empty for ``ledger``.
    """
    text = f"portl {kind}\0{name}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big", signed=True)


class JobLock:
    """The lock of a job, held by a session.

    Args:
        session: that of the destination.
        token: the run's cancel token.
    """

    def __init__(self, session: Session, token: portl.CancelToken) -> None:
        self._session = session
        self._token = token
        self._locked: str | None = None
        self._mine: tuple[int, int, str] | None = None

    def take(self, job: str, then: Sequence[str] = ()) -> list[list[tuple[Any, ...]]] | None:
        """See ``Ledger.lock``.

        Args:
            job: the job.
            then: queries to execute under the lock, in the same round trip.

        Returns:
            Their rows; None if one of them failed, or the lock was already held.
        """
        if self._locked == job:
            return None
        key = lock_key("job", job)
        end = time.monotonic() + LOCK_SECONDS
        while (found := self._tried_with(key, then) if then else None) is None and not self._try(key):
            self._end_lost(key)
            if time.monotonic() >= end:
                self._refuse(key, job)
            self._token.wait(POLL_SECONDS)
        self._locked = job
        return found

    def release(self) -> None:
        """See ``Ledger.unlock``."""
        job, self._locked = self._locked, None
        if job is None:
            return
        if self._session.broken:
            if self._mine is not None:
                _lost.add(self._mine)
            return
        if self._token.cancelled:
            self._session.settle()
        try:
            _query(self._session, _RELEASE, lock_key("job", job))
        except portl.Error as error:
            logger.debug("%s: releasing the job's lock failed: %s", self._session.label, error.message)

    def _tried_with(self, key: int, then: Sequence[str]) -> list[list[tuple[Any, ...]]] | None:
        """Try for the lock; return the rows of queries that see what its last holder committed, or None."""
        # READ COMMITTED, whatever the default, so that each statement sees the state when it begins.
        seeing = "SET LOCAL transaction_isolation = 'read committed'"
        try:
            _, lock, *found = self._session.queries([seeing, bound(_TRY, key), *then], what="the ledger")
        except (portl.ConnectionFailed, portl.Cancelled):
            raise
        except portl.Error as error:
            # The lock outlives the failure of the statements after it, so it is now taken again, alone.
            logger.debug("%s: %s", self._session.label, error.message)
            self._session.queries([bound(_RELEASE, key)], what="the ledger")
            return None
        return found if self._noted(key, lock) else None

    def _try(self, key: int) -> bool:
        return self._noted(key, _query(self._session, _TRY, key))

    def _noted(self, key: int, rows: Sequence[tuple[Any, ...]]) -> bool:
        """Return whether the lock was taken."""
        ((got, backend, began),) = rows
        self._mine = (key, backend, began)
        return bool(got)

    def _end_lost(self, key: int) -> None:
        """Terminate the backend of a connection that broke in this process, if it still holds the lock."""
        for pid, began in _query(
            self._session,
            "SELECT a.pid, a.backend_start::text FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = ANY($1::int4[])",
            [pid for (lost, pid, _) in _lost if lost == key],
        ):
            if (key, pid, began) in _lost:
                logger.warning("%s: ending backend %d, whose connection broke", self._session.label, pid)
                _query(self._session, "SELECT pg_catalog.pg_terminate_backend($1::int4)", pid)

    def _refuse(self, key: int, job: str) -> NoReturn:
        pid, who = who_holds(self._session, [key]).get(key, (None, "a backend that has ended since"))
        end_it = f", or end it: SELECT pg_terminate_backend({pid})" if pid else ""
        raise portl.AlreadyRunning(
            f"another process is running the job {job!r}: {who}", hint=f"wait until it is done{end_it}"
        )


def who_holds(session: Session, keys: Sequence[int]) -> Holders:
    """Return the holders of advisory locks."""
    return holders_of(_query(session, statement("ledger_holders"), list(keys)))


def _query(session: Session, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    return session.query(sql, *parameters, what="the ledger")


def holders_of(rows: Sequence[tuple[Any, ...]]) -> Holders:
    """Return the holders of advisory locks, from rows of ``sql/ledger_holders.sql``."""
    found: Holders = {}
    for key, pid, role, application, address, since in rows:
        known = [
            f"role {role}" if role else "",
            f"application {application!r}" if application else "",
            f"from {address}" if address else "",
            f"connected since {since}" if since else "",
        ]
        found[key] = pid, ", ".join([f"backend {pid}", *filter(None, known)])
    return found


def end(session: Session, pids: list[int], run: Run) -> None:
    """Terminate backends that are idle in a transaction because their client died, not active ones or other roles'."""
    try:
        idle = _query(
            session,
            "SELECT pid FROM pg_catalog.pg_stat_activity WHERE pid = ANY($1::int4[])"
            " AND state LIKE 'idle in transaction%' AND pg_catalog.pg_has_role(usesysid, 'USAGE')",
            pids,
        )
        for (pid,) in idle:
            _query(session, "SELECT pg_catalog.pg_terminate_backend($1::int4)", pid)
            logger.warning("%s: ended backend %d of an earlier attempt at the job %r", session.label, pid, run.job)
    except portl.PermissionDenied as error:
        logger.debug("%s: %s", session.label, error.message)


def writers(session: Session, table: str, where: str, parameters: Sequence[object]) -> list[int]:
    """Return the backends whose transactions have locked or changed a row."""
    rows = _query(session, f"SELECT xmax::text FROM {table} WHERE {where}", *parameters)
    transactions = [xmax for (xmax,) in rows]
    try:
        # xmax is a multixact if several transactions have locked the row.
        transactions += [
            xid
            for xmax in list(transactions)
            for (xid,) in _query(session, "SELECT xid::text FROM pg_catalog.pg_get_multixact_members($1::xid)", xmax)
        ]
    except portl.Error as error:
        logger.debug("xmax is not a multixact: %s", error.message)
    found = _query(
        session,
        "SELECT pid FROM pg_catalog.pg_locks WHERE locktype = 'transactionid' AND granted"
        " AND mode = 'ExclusiveLock' AND transactionid::text = ANY($1::text[])",
        transactions,
    )
    return [pid for (pid,) in found]
