"""The transaction that a source reads in, and its snapshot for several sessions.

The snapshot is exported by one session and imported by others (manual, 9.28.5).
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

#: Parallel workers, and scans that join others halfway, return rows in a different order each time.
_IN_ORDER = ("SET LOCAL max_parallel_workers_per_gather = 0", "SET LOCAL synchronize_seqscans = off")

#: How versions report a snapshot that is gone: no such file, no such object, its process has ended.
_SNAPSHOT_GONE = ("22023", "42704", "55000")
SNAPSHOT_LOST = "22023"


@attrs.define(kw_only=True)
class SharedSnapshot:
    """What a source's session and its worker sessions share."""

    #: The snapshot that this session imports; None if it takes its own.
    snapshot: str | None = None
    #: The snapshot that it exported; None if none yet.
    exported: str | None = None
    #: Marks worker sessions in other processes.
    mark: int = attrs.field(factory=worker_sessions.new_mark)
    #: True for an unpickled copy.
    travelled: bool = False
    #: True once the snapshot could no longer be imported.
    lost: bool = False

    def handed_on(self, session: Session) -> SharedSnapshot:
        """Return what a worker session needs to read the same state."""
        if self.exported is None:
            self.exported = (
                self.snapshot
                or session.query("SELECT pg_catalog.pg_export_snapshot()", what="exporting the snapshot")[0][0]
            )
        return SharedSnapshot(snapshot=self.exported, mark=self.mark)

    @property
    def taking(self) -> str:
        """The statement that imports the snapshot."""
        assert self.snapshot is not None, "it was handed on"
        return f"SET TRANSACTION SNAPSHOT {literal(self.snapshot)}"

    def take_over(self, session: Session) -> None:
        """Make the transaction just begun read the same state as the source's main session.

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
    """Return what a new session does first to begin its transaction; see ``begin``."""
    if shared.snapshot is not None:  # a worker's session, which knows everything else
        return First(mode=_TRANSACTION, then=[shared.taking, *_settings(config)])
    looks = server_route.DATABASE_LOOK, server_route.PLACE_LOOK
    bare = [tables.looks([(config.schema, config.table)])] if config.table is not None else []
    return First(mode=_TRANSACTION, then=_settings(config), looks=looks, bare=bare)


def begin(session: Session, shared: SharedSnapshot, config: PostgresSourceConfig) -> None:
    """Begin the reading transaction, or work in the caller's.

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
