"""The transaction that a source reads in, and its state for several sessions.

The state is an exported snapshot, handed on and taken over (manual, 9.28.5).
"""

from __future__ import annotations

import attrs

import portl
from portl_postgres.catalog import tables
from portl_postgres.config import PostgresSourceConfig
from portl_postgres.session import worker_sessions
from portl_postgres.session.first import First
from portl_postgres.session.session import Session
from portl_postgres.source.selection import search_path
from portl_postgres.sql.text import literal
from portl_postgres.wire import server_route

_TRANSACTION = "ISOLATION LEVEL REPEATABLE READ, READ ONLY"

#: Parallel workers, and scans that join others halfway, return rows in another order each time.
_IN_ORDER = ("SET LOCAL max_parallel_workers_per_gather = 0", "SET LOCAL synchronize_seqscans = off")

#: How versions answer to a snapshot that is gone: no such file, no such object, its process has ended.
_SNAPSHOT_GONE = ("22023", "42704", "55000")
SNAPSHOT_LOST = "22023"


@attrs.define(kw_only=True)
class SharedSnapshot:
    """What a source's session and its worker sessions have in common."""

    #: The snapshot that this session reads; None for one that takes its own.
    snapshot: str | None = None
    #: The one that it has exported; None: none yet.
    exported: str | None = None
    #: Marks worker sessions in other processes.
    mark: int = attrs.field(factory=worker_sessions.new_mark)
    #: True for what came out of a pickle.
    travelled: bool = False
    #: True once the snapshot could not be taken over any more.
    lost: bool = False

    def handed_on(self, session: Session) -> SharedSnapshot:
        """Return what a worker session starts with: it reads the same state."""
        if self.exported is None:
            self.exported = (
                self.snapshot
                or session.query("SELECT pg_catalog.pg_export_snapshot()", what="exporting the snapshot")[0][0]
            )
        return SharedSnapshot(snapshot=self.exported, mark=self.mark)

    @property
    def taking(self) -> str:
        """The statement that takes over the snapshot."""
        assert self.snapshot is not None, "it was handed on"
        return f"SET TRANSACTION SNAPSHOT {literal(self.snapshot)}"

    def take_over(self, session: Session) -> None:
        """Read, in the transaction that has begun, what the source reads that this is a worker session of.

        Raises:
            ConnectionFailed: the snapshot is gone.
        """
        try:
            session.execute(self.taking, what="taking over the snapshot")
        except portl.Error as error:
            if error.sqlstate not in _SNAPSHOT_GONE:
                raise
            self.lost = True
            raise portl.ConnectionFailed(
                f"{session.label}: the snapshot that all connections read is lost, because the connection that took it"
                f" has ended: {error.message}",
                hint="copied rows stay; run the job again to resume with a new snapshot",
                sqlstate=SNAPSHOT_LOST,
                transient=True,
            ) from None


def first(shared: SharedSnapshot, config: PostgresSourceConfig) -> First:
    """Return what a session of portl's own does first, so that its transaction has begun: see ``begin``."""
    if shared.snapshot is not None:  # the session of a worker, which knows all else
        return First(mode=_TRANSACTION, then=[shared.taking, *_settings(config)])
    looks = server_route.DATABASE_LOOK, server_route.PLACE_LOOK
    bare = [tables.looks([(config.schema, config.table)])] if config.table is not None else []
    return First(mode=_TRANSACTION, then=_settings(config), looks=looks, bare=bare)


def begin(session: Session, shared: SharedSnapshot, config: PostgresSourceConfig) -> None:
    """Begin the transaction that a session reads in, or work in the caller's.

    Raises:
        ConnectionFailed: the snapshot is gone.
    """
    settings = _settings(config)
    if session.nested:
        settings.insert(0, "SET LOCAL transaction_read_only = on")
    if shared.snapshot is None:
        session.begin(_TRANSACTION, settings)
    else:
        session.begin(_TRANSACTION)
        shared.take_over(session)
        session.queries(settings)


def _settings(config: PostgresSourceConfig) -> list[str]:
    return [*_IN_ORDER, f"SELECT set_config('search_path', {search_path(config)}, true)"]
