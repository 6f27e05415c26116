"""Write batches in transactions: by COPY, or inside the server; straight, or through a staging table.

``WritePath`` says which way rows go, ``Staging`` is the staging table, ``DriftGuard`` notices a table that was altered,
and ``Pending`` is what the open transaction holds:

==========  =========================================  =============================================================
call        before it                                  after it
==========  =========================================  =============================================================
begin       nothing is pending                         the transaction is open; the first makes what is missing
write       rows are sent, or on their way in a COPY   more are
check       the same                                   they are in the table, and counted
save        they are counted                           what was checked stays whatever comes
restore     more was written since ``save``            that is undone
commit      anything                                   the rows are there; nothing is pending
rollback    anything                                   nothing is pending
==========  =========================================  =============================================================

Constraints that wait for the end of a transaction are checked at ``check``, and wait again after it.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence

import attrs

import portl
from portl import Batch, Counts, DataError, Intent
from portl_postgres.catalog.drift import DriftGuard
from portl_postgres.catalog.sequences import Sequences
from portl_postgres.catalog.tables import table_details
from portl_postgres.destination import due_key
from portl_postgres.destination.conflicts import Merge
from portl_postgres.destination.quarantine import RejectedTable
from portl_postgres.destination.rejected_cells import append_lines
from portl_postgres.destination.staging import Staging
from portl_postgres.destination.write_path import UNIQUE_VIOLATION, WritePath, copy_statement
from portl_postgres.session.session import Session
from portl_postgres.sql.text import listed, quoted
from portl_postgres.wire.batches import BINARY
from portl_postgres.wire.copy_in import CopyIn
from portl_postgres.wire.server_route import ServerBatch, carried

logger = logging.getLogger("portl.postgres")

BAD_TEXT = "22021"
#: What the server says of a binary value that is shorter than its type wants; poolers say it of lost connections.
TOO_SHORT = "08P01"
#: What COPY says of FREEZE: a cursor or a snapshot of the session's might not see the rows; another has made the table.
NOT_FROZEN = frozenset({"25000", "55000"})
EXCLUSION_VIOLATION = "23P01"
#: What CREATE TABLE says where two make one table: the table, or its type, is there; or rows of the catalogs collide.
MADE_TWICE = ("42P07", "42710", UNIQUE_VIOLATION)

#: What lets a COMMIT wait for the disk: the WAL before it, with all earlier commits, goes first. A transaction that has
#: written no WAL does not wait (xact.c, RecordTransactionCommit), so this one writes a record that changes nothing.
_DURABLE = ("SET LOCAL synchronous_commit = on", "SELECT pg_logical_emit_message(true, 'portl', '')")


@attrs.define(kw_only=True)
class Pending:
    """What the open transaction holds."""

    #: Since the last check: rows sent to the server, and rows that it has taken.
    sent: int = 0
    taken: int = 0
    #: What became of these rows, where that is known already.
    told: Counts | None = None
    #: True if there is something to check.
    dirty: bool = False
    #: As far as it is checked: what became of the rows, and how many there are.
    counted: Counts = attrs.field(factory=Counts)
    checked: int = 0
    #: Lines for the quarantine's file.
    lines: tuple[str, ...] = ()
    #: True if a lock of this transaction keeps the table from being altered since it was looked at.
    verified: bool = False
    #: True while constraints that wait for the end of a transaction do not.
    immediate: bool = False

    def check(self, counts: Counts) -> None:
        """Count what was written since the last check."""
        self.counted += counts
        self.checked += self.taken
        self.sent = self.taken = 0
        self.dirty = False

    @property
    def kept(self) -> Pending:
        """What is so again after going back to here."""
        return Pending(counted=self.counted, checked=self.checked, lines=self.lines, verified=self.verified)


class PostgresWriter(portl.Writer):
    """Writes one table's rows.

    Args:
        session: the destination's.
        intent: the job.
        context: the run's.
        before: DDL, executed in the first transaction, so that it stands or falls with the first rows.
        after: DDL, executed after the last.
        stages: what another writer has learnt of the same table: True if rows should go through the staging table;
            None: find out.
    """

    def __init__(
        self,
        session: Session,
        intent: Intent,
        context: portl.Context,
        *,
        before: Sequence[str],
        after: Sequence[str],
        stages: bool | None = None,
    ) -> None:
        self._session = session
        self._intent = intent
        self._context = context
        self._before = list(before)
        self._after = list(after)
        found = table_details(intent.target)
        self._table = quoted(found.schema, found.name)
        self._path = WritePath(intent, nested=session.nested, found=stages)
        self._staging = Staging(session, intent, f"portl_stage_{secrets.token_hex(4)}", resolves=self._path.resolves)
        self._guard = DriftGuard(session, intent, self._table)
        self._pending = Pending()
        #: What was pending when the savepoint was set, and whether the staging table was made; None: there is none.
        self._mark: tuple[Pending, bool] | None = None
        self._copy: CopyIn | None = None
        self._committed = False
        #: Until the first COMMIT or ROLLBACK: rows of a table that the transaction has made may come frozen.
        self._freezes = intent.create and bool(before) and not session.nested

    @property
    def relation(self) -> int | None:
        """The table's oid, as far as the transaction that is open has seen it."""
        known = self._guard.known
        return known.oid if known is not None and self._session.open else None

    @property
    def fresh(self) -> bool:
        """See ``Writer.fresh``: rows may come frozen."""
        return self._freezes and not self._path.staged and carried(self._intent.format) is self._intent.format

    @property
    def stages(self) -> bool | None:
        """True if rows go through the staging table for now; None if that is still to be found out."""
        return self._path.told(committed=self._committed)

    def begin(self) -> None:
        """See ``Writer.begin``."""
        self._pending, self._mark = Pending(), None
        making = [] if self._committed else self._before
        look = self._guard.look
        what = "creating what is missing" if making else "looking whether the table was altered"
        if not (making or look):
            self._session.begin(later=True)
        try:
            found = self._session.begin(then=[*making, *look], what=what) if making or look else []
            self._guard.begin(found[-1] if look else None)
            self._path.look(self._session, self._table)
            self._make_ready()
        except portl.Error as error:
            self.rollback()
            if making and self._overtaken(error):
                raise portl.SchemaError(
                    f"{self._intent.target.name} was made by another process meanwhile",
                    hint="run the job again: its rows go into the table that is there now",
                    sqlstate=error.sqlstate,
                ) from None
            raise
        except BaseException:
            self.rollback()  # nobody else will: for the engine no transaction is open yet
            raise

    def _overtaken(self, error: portl.Error) -> bool:
        """Return whether the table that could not be made is there by now."""
        if not self._intent.create or error.sqlstate not in MADE_TWICE or self._session.broken:
            return False
        return bool(self._session.query("SELECT to_regclass($1) IS NOT NULL", self._table)[0][0])

    def _make_ready(self) -> None:
        """Prepare for rows, the first ones or those after a check."""
        if self._path.staged and not self._path.inside:  # inside, the statement reads the query itself
            self._staging.ready()
        self._staging.full = False
        known = self._guard.known
        if self._pending.immediate and known is not None and known.deferred:
            self._session.execute(f"SET CONSTRAINTS {', '.join(known.deferred)} DEFERRED")
        self._pending.immediate = False

    def write(self, batch: Batch) -> int:
        """See ``Writer.write``."""
        try:
            if isinstance(batch, ServerBatch):
                self._write_inside(batch)
                return 0
            return self._write_copy(batch)
        except UnicodeEncodeError as error:
            raise DataError(f"a text that no encoding has a form for: {error.reason}", sqlstate=BAD_TEXT) from None
        except DataError as error:
            raise self._explained(error) from None

    def _write_copy(self, batch: Batch) -> int:
        self._path.inside = False
        if self._copy is None:
            self._make_ready()
            self._pending.dirty = True
            self._copy = self._copy_into(self._staging.merge.stage if self._path.staged else self._table)
        sent = self._copy.write(batch)
        self._pending.sent += batch.rows
        if self._copy.answered:
            # In the middle of a COPY the server speaks up only to refuse (or to give a notice): no use going on.
            self._end_copy()
        return sent

    @property
    def _frozen(self) -> bool:
        """True if the rows of the next COPY, or of the one under way, come frozen."""
        return self._freezes and not self._path.staged and self._mark is None

    def _copy_into(self, target: str) -> CopyIn:
        binary = carried(self._intent.format).name == BINARY
        return CopyIn(
            self._session,
            copy_statement(target, self._intent, binary=binary, frozen=self._frozen),
            binary=binary,
            token=self._context.token,
            what=f"writing to {self._intent.target.name}",
            types=[field.target.type for field in self._intent.fields],
        )

    def _write_inside(self, batch: ServerBatch) -> None:
        """Have the server bring a query's rows over: into the table, or into the staging table."""
        self._make_ready()
        self._pending.dirty = True
        staging, what = self._staging, f"writing to {self._intent.target.name}"
        # Where a scan joins another halfway, LIMIT means other rows, and other ones come last.
        self._session.execute("SET LOCAL synchronize_seqscans = off")
        if self._path.staged and self._path.inside:
            merge = Merge(self._intent, operators=staging.operators())
            rows = self._session.query(merge.statement(merge.selected(batch.select), batch.count), what=what)
            inserted, updated, batch.rows = rows[0]
            self._pending.told = staging.verdict(batch.rows, inserted, updated)
        else:
            columns = listed(field.target.name for field in self._intent.fields)
            into = f"INSERT INTO {staging.merge.stage} ({columns})\n{batch.select}"
            tag = self._session.execute(into if self._path.staged else staging.merge.insert(batch.select), what=what)
            batch.rows = int(tag.rsplit(" ", 1)[-1])
        self._pending.sent += batch.rows
        self._pending.taken += batch.rows

    def _end_copy(self) -> None:
        if self._copy is not None:
            copy, self._copy = self._copy, None
            try:
                self._pending.taken += copy.finish()
            except portl.OperationError as error:
                # Frozen rows are refused while a cursor of the caller's is open; the next transaction freezes none.
                error.transient = error.transient or (self._frozen and error.sqlstate in NOT_FROZEN)
                raise
            except portl.ConnectionFailed as error:
                if error.sqlstate != TOO_SHORT or self._session.broken:
                    raise
                raise DataError(error.message, sqlstate=TOO_SHORT) from None

    def check(self) -> Counts:
        """See ``Writer.check``."""
        if not self._pending.dirty:
            return Counts()
        try:
            counts = self._take_in()
        except DataError as error:
            raise self._explained(error) from None
        self._pending.check(counts)
        return counts

    def _take_in(self) -> Counts:
        self._end_copy()
        pending = self._pending
        if pending.told is not None:
            counts, pending.told = pending.told, None
        elif not self._path.staged:
            counts = Counts(inserted=pending.taken, skipped=pending.sent - pending.taken)
        else:
            counts = self._staging.take_over(pending.taken) if pending.taken else Counts()
        # A deferred constraint fails at COMMIT, too late to be handled there.
        check = [] if self._session.nested else ["SET CONSTRAINTS ALL IMMEDIATE"]
        if not pending.verified:
            self._guard.insist(check)
            pending.verified = True
        elif check:
            self._session.execute(check[0], what=f"writing to {self._intent.target.name}")
        pending.immediate = bool(check)
        return counts

    def _explained(self, error: DataError) -> DataError:
        """Return a refusal with advice; remember that a table which was altered refuses good rows too."""
        error.hint = self._advice(error) or error.hint
        self._guard.suspect = not self._pending.verified and (error.sqlstate or "").startswith(("22", TOO_SHORT))
        return error

    def _advice(self, error: DataError) -> str | None:
        """Return what to try where a conflict is none that the strategy resolves."""
        if error.sqlstate == EXCLUSION_VIOLATION:
            return "an exclusion constraint is no key: no strategy resolves it; leave such rows out in the source"
        if error.sqlstate == UNIQUE_VIOLATION and self._path.resolves and self._intent.key is not None:
            return (
                f"`{self._intent.conflict.strategy.value}` resolves conflicts of the key"
                f" ({', '.join(self._intent.key.columns)}) alone; name the columns of {error.constraint!r} in"
                " `conflict.key`, or leave such rows out in the source"
            )
        return None

    def save(self) -> None:
        """See ``Writer.save``."""
        self.release()
        self._make_ready()  # before the savepoint: going back must not undo it
        self._session.begin()
        self._mark = self._pending.kept, self._staging.made

    def restore(self) -> None:
        """See ``Writer.restore``."""
        if self._mark is None:
            raise portl.OperationError("there is no savepoint to go back to: save() comes first")
        self._abort_copy()
        self._session.back()
        kept, self._staging.made = self._mark
        self._pending = kept.kept
        self._staging.full = False
        if self._guard.suspect:
            self._guard.insist()

    def release(self) -> None:
        """See ``Writer.release``."""
        if self._mark is not None:
            self._session.commit()
            self._mark = None

    def reject(self, rejections: Sequence[portl.Rejection]) -> None:
        """See ``Writer.reject``."""
        rejects = self._rejects
        if rejects is None:
            raise portl.OperationError("the job names no quarantine: rows cannot be quarantined")
        self._pending.lines += tuple(rejects.put(rejections))

    def unreject(self, run: str, chunk: int | None = None) -> None:
        """See ``Writer.unreject``."""
        rejects = self._rejects
        if rejects is not None:
            rejects.remove(run, chunk)

    @property
    def _rejects(self) -> RejectedTable | None:
        if self._intent.quarantine is None:
            return None
        return RejectedTable(self._session, self._intent, self._context.token)

    def commit(self) -> Counts:
        """See ``Writer.commit``."""
        counts = self.check()
        self.release()
        self._session.commit()
        self._committed, self._freezes = True, False
        self._staging.full = self._staging.full and self._session.nested
        pending = self._pending
        self._path.committed(pending.counted, pending.checked)
        quarantine = self._intent.quarantine
        if pending.lines and quarantine is not None and quarantine.file is not None:
            append_lines(quarantine.file, pending.lines, self._context)
        pending.lines = ()
        return counts

    def rollback(self) -> None:
        """See ``Writer.rollback``."""
        self._abort_copy()
        self._freezes = False
        saved, self._mark = self._mark is not None, None
        try:
            if saved:
                self._session.rollback()
        finally:
            self._session.rollback()
        if not self._committed and self._before:
            self._guard.known = None  # what is made again is another table
        self._pending = Pending()
        self._staging.see()

    def _abort_copy(self) -> None:
        if self._copy is not None:
            copy, self._copy = self._copy, None
            copy.abort()

    def reconsider(self, error: DataError) -> bool:
        """See ``Writer.reconsider``: from the first conflict on, rows go through the staging table."""
        if not self._path.refused(error):
            return False
        logger.debug("a key is there already; going on through a staging table")
        if self._mark is not None:
            self.save()  # so that the staging table stands before the savepoint
        return True

    def finish(self, record: Callable[[], None] | None = None) -> None:
        """See ``Writer.finish``."""
        try:
            self._session.begin(then=self._last(), what="finishing the table")
            self._after = []
            Sequences(self._session, self._intent, self._table, self._context).advance()
            if record is not None:
                record()
            self._session.commit([*self._staging.tidy(), *_DURABLE])
        except BaseException:
            if self._session.open:
                self._session.rollback()
            raise
        self._staging.made = False

    def _last(self) -> list[str]:
        """Return what is executed after the rows; another job that writes to the table may have built its key."""
        key = due_key.build_key(self._intent.target)
        if key not in self._after:
            return self._after
        ((built,),) = self._session.query(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_index WHERE indrelid = to_regclass($1) AND indisprimary)",
            self._table,
            what="looking at the key",
        )
        return [statement for statement in self._after if statement != key] if built else self._after

    def abandon(self, *, resumable: bool = False) -> None:
        """See ``Writer.abandon``: the key of a table that was begun is built, so that the same job can go on."""
        if self._session.broken:
            return
        self._session.settle()
        for statement in self._staging.tidy():
            self._session.execute(statement)
        self._staging.made = False
        if not self._committed or resumable:
            return  # what a crash of the server would take is missing in the ledger too
        try:
            self._session.begin(then=self._last(), what="finishing the table")
            self._session.commit(_DURABLE)
        except BaseException:
            if self._session.open:
                self._session.rollback()
            raise
