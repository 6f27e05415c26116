"""Write batches in transactions: straight into the table, through a staging table, or inside the server.

``transitions`` says which way rows take; ``target`` handles the table. Within a transaction, checked rows are kept by a
savepoint, and the rest can be undone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import attrs

import portl
from portl import Batch, Counts, DataError, Intent
from portl_postgres.destination.quarantine.file import append_lines
from portl_postgres.destination.quarantine.table import RejectedTable
from portl_postgres.destination.sequences import Sequences
from portl_postgres.destination.writing.server_side import ServerSideWay, merges_straight
from portl_postgres.destination.writing.staged import StagedWay
from portl_postgres.destination.writing.straight import Copying, StraightWay, Way
from portl_postgres.destination.writing.target import DURABLE, TargetTable
from portl_postgres.destination.writing.transitions import Event, Path, State, resolves
from portl_postgres.session.session import Session
from portl_postgres.wire.server_route import ServerBatch, carried

logger = logging.getLogger("portl.postgres")

UNIQUE_VIOLATION = "23505"
EXCLUSION_VIOLATION = "23P01"


@attrs.frozen(kw_only=True)
class _Written:
    """The checked contents of the open transaction."""

    rows: int = 0
    inserted: int = 0
    #: Lines for the quarantine's file.
    lines: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class _Mark:
    """The state at the savepoint, to return to on rollback."""

    written: _Written
    stage_made: bool
    #: True if a lock older than the savepoint prevents the table from being altered.
    verified: bool


class PostgresWriter(portl.Writer):
    """Writes one table's rows.

    Args:
        session: the destination's.
        intent: the job.
        context: the run's.
        before: DDL, executed in the first transaction, so that it is committed or undone with the first rows.
        after: DDL, executed after the last rows.
        straight: True if another writer of the same table has found that rows can go straight into it.
    """

    def __init__(
        self,
        session: Session,
        intent: Intent,
        context: portl.Context,
        *,
        before: Sequence[str],
        after: Sequence[str],
        straight: bool = False,
    ) -> None:
        self._session = session
        self._intent = intent
        self._context = context
        self._table = TargetTable(session, intent, before, after)
        creates = intent.create and bool(before)
        self._path = Path(intent, nested=session.nested, creates=creates, straight=straight)
        copying = Copying(session, intent, context.token)
        self._straight = StraightWay(copying, self._table.name, self._path)
        self._staged = StagedWay(session, intent, copying)
        self._server_side = ServerSideWay(session, intent, self._path)
        #: The way that has unchecked rows; None if there are none.
        self._way: Way | None = None
        self._written = _Written()
        self._mark: _Mark | None = None
        self._rejects = RejectedTable(session, intent, context.token) if intent.quarantine is not None else None

    @property
    def relation(self) -> int | None:
        """The table's oid, as far as the open transaction has seen it."""
        return self._table.relation

    @property
    def fresh(self) -> bool:
        """See ``Writer.fresh``. True if rows may be written frozen."""
        return self._path.state is State.FRESH and carried(self._intent.format) is self._intent.format

    @property
    def straight(self) -> bool:
        """True if rows go straight into the table for now."""
        return not self._path.staged

    def begin(self) -> None:
        """See ``Writer.begin``."""
        self._forget()
        try:
            unknown = self._path.state is State.UNKNOWN
            self._table.begin(asked=unknown)
            if unknown and self._table.empty():
                self._path.on(Event.EMPTY)
        except BaseException as error:
            self.rollback()  # no one else will: the engine does not consider a transaction open yet
            overtaken = self._table.overtaken(error)
            if overtaken is not None:
                raise overtaken from None
            raise

    def _forget(self) -> None:
        """Begin with nothing written."""
        self._way, self._mark, self._written = None, None, _Written()

    def write(self, batch: Batch) -> int:
        """See ``Writer.write``."""
        try:
            if self._way is None:
                self._table.defer()
                self._way = self._choose(batch)
            return self._way.write(batch)
        except DataError as error:
            raise self._explained(error) from None

    def _choose(self, batch: Batch) -> Way:
        """Return the way for a batch, prepared for it."""
        inside = isinstance(batch, ServerBatch)
        if inside and (not self._path.staged or merges_straight(self._intent)):
            return self._server_side
        if not self._path.staged:
            return self._straight
        self._staged.table.prepare()
        return self._staged

    def check(self) -> Counts:
        """See ``Writer.check``."""
        if self._way is None:
            return Counts()
        try:
            self._staged.checks = self._table.checks
            rows, counts = self._way.take_in()
            self._table.check()
        except DataError as error:
            raise self._explained(error) from None
        self._way = None
        written = self._written
        self._written = attrs.evolve(written, rows=written.rows + rows, inserted=written.inserted + counts.inserted)
        return counts

    def _explained(self, error: DataError) -> DataError:
        """Return a refusal, with a hint if the strategy does not resolve the conflict."""
        self._table.refused(error)
        if error.sqlstate == EXCLUSION_VIOLATION:
            error.hint = "an exclusion constraint is no key: no strategy resolves it; leave such rows out in the source"
        elif error.sqlstate == UNIQUE_VIOLATION and self._intent.key is not None and resolves(self._intent):
            error.hint = (
                f"`{self._intent.conflict.strategy.value}` resolves conflicts of the key"
                f" ({', '.join(self._intent.key.columns)}) alone; name the columns of {error.constraint!r} in"
                " `conflict.key`, or leave such rows out in the source"
            )
        return error

    def save(self) -> None:
        """See ``Writer.save``."""
        self.release()
        self._table.defer()
        if self._path.staged:
            self._staged.table.prepare()  # before the savepoint, so that a rollback does not undo it
        self._session.begin()
        self._path.on(Event.SAVEPOINT)
        self._mark = _Mark(written=self._written, stage_made=self._staged.table.made, verified=self._table.verified)

    def restore(self) -> None:
        """See ``Writer.restore``."""
        mark = self._mark
        if mark is None:
            raise portl.OperationError("there is no savepoint to go back to: save() comes first")
        self._give_up_rows()
        self._session.back()
        self._written = mark.written
        self._staged.table.restored(made=mark.stage_made)
        self._table.restored(verified=mark.verified)

    def release(self) -> None:
        """See ``Writer.release``."""
        if self._mark is not None:
            self._session.commit()
            self._mark = None

    def reject(self, rejections: Sequence[portl.Rejection]) -> None:
        """See ``Writer.reject``."""
        if self._rejects is None:
            raise portl.OperationError("the job names no quarantine: rows cannot be quarantined")
        lines = self._rejects.put(rejections)
        self._written = attrs.evolve(self._written, lines=(*self._written.lines, *lines))

    def unreject(self, run: str, chunk: int | None = None) -> None:
        """See ``Writer.unreject``."""
        if self._rejects is not None:
            self._rejects.remove(run, chunk)

    def commit(self) -> Counts:
        """See ``Writer.commit``."""
        counts = self.check()
        self.release()
        self._session.commit()
        written, self._written = self._written, _Written()
        self._table.committed = True
        self._staged.table.committed()
        if written.rows:
            self._path.on(Event.ALL_NEW if written.inserted == written.rows else Event.SOME_MET)
        self._path.on(Event.END)
        quarantine = self._intent.quarantine
        if written.lines and quarantine is not None and quarantine.file is not None:
            append_lines(quarantine.file, written.lines, self._context)
        return counts

    def rollback(self) -> None:
        """See ``Writer.rollback``."""
        self._give_up_rows()
        saved = self._mark is not None
        self._forget()
        self._path.on(Event.END)
        try:
            if saved:
                self._session.rollback()
        finally:
            self._session.rollback()
        self._table.rolled_back()
        self._staged.table.rolled_back()

    def _give_up_rows(self) -> None:
        way, self._way = self._way, None
        if way is not None:
            way.abort()

    def reconsider(self, error: DataError) -> bool:
        """See ``Writer.reconsider``. From the first conflict on, rows go through the staging table."""
        if error.sqlstate != UNIQUE_VIOLATION or not resolves(self._intent) or not self._path.on(Event.CONFLICT):
            return False
        logger.debug("a key is there already; going on through a staging table")
        if self._mark is not None:
            self.save()  # so that the staging table predates the savepoint
        return True

    def finish(self, record: Callable[[], None] | None = None) -> None:
        """See ``Writer.finish``."""
        try:
            self._table.begin_last()
            self._table.finished()
            Sequences(self._session, self._intent, self._table.name, self._context).advance()
            if record is not None:
                record()
            self._session.commit([*self._staged.table.tidy, *DURABLE])
        except BaseException:
            if self._session.open:
                self._session.rollback()
            raise
        self._staged.table.made = False

    def abandon(self, *, resumable: bool = False) -> None:
        """See ``Writer.abandon``. Builds the key of an unfinished table, so that the job can be continued."""
        if self._session.broken:
            return
        self._session.settle()
        for statement in self._staged.table.tidy:
            self._session.execute(statement)
        self._staged.table.made = False
        if not self._table.committed or resumable:
            return  # commits lost in a server crash are missing from the ledger too
        try:
            self._table.begin_last()
            self._session.commit(DURABLE)
        except BaseException:
            if self._session.open:
                self._session.rollback()
            raise
