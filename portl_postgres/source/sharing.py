"""One state of the source for several sessions: an exported snapshot, handed on and taken over (manual, 9.28.5)."""

from __future__ import annotations

import attrs

import portl
from portl_postgres.session import worker_sessions
from portl_postgres.session.session import Session
from portl_postgres.sql.text import literal

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

    def take_over(self, session: Session, label: str) -> None:
        """Read, in the transaction that has begun, what the source reads that this is a worker session of.

        Raises:
            ConnectionFailed: the snapshot is gone.
        """
        assert self.snapshot is not None, "it was handed on"
        try:
            session.execute(f"SET TRANSACTION SNAPSHOT {literal(self.snapshot)}", what="taking over the snapshot")
        except portl.Error as error:
            if error.sqlstate not in _SNAPSHOT_GONE:
                raise
            self.lost = True
            raise portl.ConnectionFailed(
                f"{label}: the snapshot that all connections read is lost, because the connection that took it has"
                f" ended: {error.message}",
                hint="copied rows stay; run the job again to resume with a new snapshot",
                sqlstate=SNAPSHOT_LOST,
                transient=True,
            ) from None
