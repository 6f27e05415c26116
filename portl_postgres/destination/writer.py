"""Write batches: COPY straight into the table as long as nothing conflicts, through a staging table from then on.

Where the table has rows already, the first transaction goes through the staging table: a COPY that meets a key that is
there leaves dead rows behind. If nothing in it conflicts, the next go straight into the table.

Within a transaction, what was checked stays, and the rest can be undone: a savepoint stands behind it. The staging
table is emptied by TRUNCATE before it is filled again: rows that were deleted would slow every later statement of the
transaction down. Constraints that wait for the end of a transaction are checked at ``check``, and wait again after it.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import attrs

import portl
from portl import Batch, Counts, DataError, Intent, Strategy
from portl_postgres.catalog import drift as fingerprint
from portl_postgres.catalog.drift import Fingerprint
from portl_postgres.catalog.sequences import Sequences
from portl_postgres.catalog.tables import table_details
from portl_postgres.destination import due_key as unfinished
from portl_postgres.destination.conflicts import Merge
from portl_postgres.destination.quarantine import RejectedTable, append_lines
from portl_postgres.session.session import Session
from portl_postgres.sql.text import listed, quoted
from portl_postgres.wire.batches import BINARY
from portl_postgres.wire.copy import CopyIn
from portl_postgres.wire.server_route import ServerBatch, ServerFormat, carried

logger = logging.getLogger("portl.postgres")

BAD_TEXT = "22021"
#: What the server says of a binary value that is shorter than its type wants; poolers say it of lost connections.
TOO_SHORT = "08P01"
#: What COPY says of FREEZE: a cursor or a snapshot of the session's might not see the rows; another has made the table.
NOT_FROZEN = frozenset({"25000", "55000"})
UNIQUE_VIOLATION = "23505"
EXCLUSION_VIOLATION = "23P01"
#: What CREATE TABLE says where two make one table: the table, or its type, is there; or rows of the catalogs collide.
MADE_TWICE = ("42P07", "42710", UNIQUE_VIOLATION)
#: From this share of unchanged rows on it pays to leave them out before ON CONFLICT (docs/performance.md).
UNCHANGED_SHARE = 0.75


#: What lets a COMMIT wait for the disk: the WAL before it, with all earlier commits, goes first. A transaction that has
#: written no WAL does not wait (xact.c, RecordTransactionCommit), so this one writes a record that changes nothing.
_DURABLE = ("SET LOCAL synchronous_commit = on", "SELECT pg_logical_emit_message(true, 'portl', '')")


def copy_statement(table: str, intent: Intent, *, binary: bool, frozen: bool = False) -> str:
    """Return the COPY that brings rows into ``table``, which is quoted.

    Frozen rows need no look at the transaction that has written them, neither when the key is built nor ever after, and
    no VACUUM to freeze them. The table has to be made, or emptied, in the same (sub)transaction (manual, COPY, FREEZE).
    """
    columns = listed(field.target.name for field in intent.fields)
    options = "FORMAT binary" if binary else "FORMAT text, ENCODING 'UTF8'"
    options += ", FREEZE" if frozen else ""
    return f"COPY {table} ({columns}) FROM STDIN ({options})"


def merges_straight(intent: Intent) -> bool:
    """Tell whether conflicts of a query's rows can be resolved without a staging table.

    Rows with one key are told apart there, and the function for ``json`` comes with it. Without it the rows are counted
    by a second look at them, which in a query of the user's could cost as much as the first.
    """
    format = intent.format
    plain = isinstance(format, ServerFormat) and not format.own_sql
    return plain and not Merge(intent).repeats and "json" not in intent.conflict.columns.values()


@attrs.frozen(kw_only=True)
class _Mark:
    """What was so when the savepoint was set, and is so again after going back to it."""

    stage_made: bool
    #: True if a lock that is older than the savepoint keeps the table from being altered.
    verified: bool
    counted: Counts
    taken: int
    #: How many lines for the quarantine's file there were.
    lines: int


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
        self._columns = [field.target.name for field in intent.fields]
        self._binary = carried(intent.format).name == BINARY
        #: Rows come as a query and need no staging table, as long as none had to leave the server.
        self._straight = isinstance(intent.format, ServerFormat) and merges_straight(intent)
        # A run that is resumed builds the key of its table at the end; until then nothing conflicts.
        keyless = intent.resumed and found.unfinished
        self._resolves = intent.key is not None and intent.conflict.strategy is not Strategy.FAIL and not keyless
        self._must_stage = self._staged = self.must_stage(intent, nested=session.nested)
        self._probed = self._must_stage or not self._resolves or intent.create
        if stages is not None and not self._probed:
            # A look at the table would find the rows that the other writer has brought.
            self._staged, self._probed = stages, not stages
        # A caller's session may have temporary tables of its own.
        self._stage_name = f"portl_stage_{secrets.token_hex(4)}"
        self._stage_made = False
        self._merge = Merge(intent, self._stage_name)
        #: True if most staged rows are expected to stand in the table exactly so: as many as in those before.
        self._filters = True
        self._rejects = RejectedTable(session, intent, context.token) if intent.quarantine is not None else None
        self._copy: CopyIn | None = None
        #: What the table looked like before the first row; None: not looked at since it was made.
        self._known: Fingerprint | None = None
        #: True after a refusal that a table which was altered might have brought about.
        self._suspect = False
        self._committed = False
        #: Until the first COMMIT or ROLLBACK: rows of a table that the transaction has made may come frozen.
        self._freezes = intent.create and bool(before) and not session.nested
        self._frozen = False
        self._stage_full = False
        self._forget()

    def _forget(self) -> None:
        """Begin with nothing written."""
        # Since the last check: rows sent to the server, and rows that COPY has taken.
        self._sent = self._taken = 0
        #: What became of these rows, where that is known already.
        self._told: Counts | None = None
        # In the transaction, as far as it is checked.
        self._counted, self._checked = Counts(), 0
        self._lines: list[str] = []
        self._mark: _Mark | None = None
        self._verified = self._immediate = self._dirty = False

    @property
    def relation(self) -> int | None:
        """The table's oid, as far as the transaction that is open has seen it."""
        return self._known.oid if self._known is not None and self._session.open else None

    @property
    def fresh(self) -> bool:
        """See ``Writer.fresh``: rows may come frozen."""
        return self._freezes and not self._staged and carried(self._intent.format) is self._intent.format

    @property
    def stages(self) -> bool | None:
        """True if rows go through the staging table for now; None if that is still to be found out."""
        return self._staged if self._probed or self._committed else None

    @staticmethod
    def must_stage(intent: Intent, *, nested: bool) -> bool:
        """Tell whether COPY straight into the table is out of the question.

        COPY refuses a table with active row security, and a view. Inside a caller's transaction a deferrable key is
        checked at his COMMIT, too late to do anything about it.
        """
        found = table_details(intent.target)
        deferred = bool(
            nested and intent.key and intent.key.deferrable and intent.conflict.strategy is not Strategy.FAIL
        )
        return found.row_security or found.kind in ("v", "f") or deferred

    def begin(self) -> None:
        """See ``Writer.begin``."""
        self._forget()
        making = [] if self._committed else self._before
        look = [fingerprint.statement(self._table, self._columns)] if self._known is None else []
        what = "creating what is missing" if making else "looking whether the table was altered"
        if not (making or look):
            self._session.begin(later=True)
        try:
            found = self._session.begin(then=[*making, *look], what=what) if making or look else []
            self._prepare(fingerprint.of(found[-1]) if look else None)
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
        """Tell whether the table that could not be made is there by now."""
        if not self._intent.create or error.sqlstate not in MADE_TWICE or self._session.broken:
            return False
        return bool(self._session.query("SELECT to_regclass($1) IS NOT NULL", self._table)[0][0])

    def _prepare(self, seen: Fingerprint | None) -> None:
        """See whether the table is the one that was planned; make the staging table where rows go through it."""
        if seen is not None:
            self._known = seen
            fingerprint.insist(self._intent.target.name, fingerprint.planned(self._intent), self._known)
        elif self._suspect:
            self._insist()
        if not self._probed:
            self._staged = self._session.query(f"SELECT EXISTS (SELECT FROM {self._table})")[0][0]
            self._probed = not self._staged
        self._make_ready()

    def _insist(self, then: Sequence[str] = ()) -> None:
        """Refuse a table that was altered; execute in the same exchange what comes next."""
        look = [fingerprint.statement(self._table, self._columns)] if self._known is not None else []
        found = self._session.queries([*look, *then], what=f"writing to {self._intent.target.name}")
        if self._known is not None:
            fingerprint.insist(self._intent.target.name, self._known, fingerprint.of(found[0]))
        self._suspect = False

    def _make_ready(self) -> None:
        """Prepare for rows, the first ones or those after a check."""
        if self._staged and self._straight:
            pass  # the statement reads the query itself
        elif self._staged and not self._stage_made:
            self._make_stage()
        elif self._staged and self._stage_full:
            self._session.execute(f"TRUNCATE {self._merge.stage}")
        self._stage_full = False
        if self._immediate and self._known is not None and self._known.deferred:
            self._session.execute(f"SET CONSTRAINTS {', '.join(self._known.deferred)} DEFERRED")
        self._immediate = False

    def _make_stage(self) -> None:
        """Create the staging table: the destination's types and collations, none of its constraints."""
        self._merge = Merge(self._intent, self._stage_name, self._operators() if self._resolves else {})
        for statement in self._merge.prepare:
            self._session.execute(statement, what="creating the staging table")
        self._stage_made = True

    def _operators(self) -> dict[str, str]:
        """Return the equality of the key's columns by which the index compares, where it is an extension's.

        Its schema need not be in the search path; then ``=`` would be another operator, or none.
        """
        assert self._intent.key is not None
        rows = self._session.query(
            "SELECT a.attname::text, n.nspname::text, o.oprname::text FROM pg_catalog.pg_index AS i"
            " CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) AS x(num, class)"
            " JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = x.num"
            " JOIN pg_catalog.pg_opclass AS c ON c.oid = x.class"
            " JOIN pg_catalog.pg_amop AS m ON m.amopfamily = c.opcfamily AND m.amoplefttype = c.opcintype"
            " AND m.amoprighttype = c.opcintype AND m.amopstrategy = 3"
            " JOIN pg_catalog.pg_operator AS o ON o.oid = m.amopopr"
            " JOIN pg_catalog.pg_namespace AS n ON n.oid = o.oprnamespace"
            " WHERE i.indrelid = $1::regclass AND i.indisunique AND n.nspname <> 'pg_catalog'",
            self._table,
            what="looking at the key",
        )
        return {
            column: f"OPERATOR({quoted(schema)}.{operator})"
            for column, schema, operator in rows
            if column in self._intent.key.columns
        }

    def write(self, batch: Batch) -> int:
        """See ``Writer.write``."""
        if isinstance(batch, ServerBatch):
            try:
                self._write_inside(batch)
            except DataError as error:
                raise self._explained(error) from None
            return 0
        self._straight = False
        if self._copy is None:
            self._make_ready()
            self._dirty = True
            target = self._merge.stage if self._staged else self._table
            self._copy = self._copy_into(target)
        try:
            sent = self._copy.write(batch)
            self._sent += batch.rows
            if self._copy.answered:
                # In the middle of a COPY the server speaks up only to refuse (or to give a notice): no use going on.
                self._end_copy()
        except UnicodeEncodeError as error:
            raise DataError(f"a text that no encoding has a form for: {error.reason}", sqlstate=BAD_TEXT) from None
        except DataError as error:
            raise self._explained(error) from None
        return sent

    def _copy_into(self, target: str) -> CopyIn:
        self._frozen = self._freezes and not self._staged and self._mark is None
        return CopyIn(
            self._session,
            copy_statement(target, self._intent, binary=self._binary, frozen=self._frozen),
            binary=self._binary,
            token=self._context.token,
            what=f"writing to {self._intent.target.name}",
            types=[field.target.type for field in self._intent.fields],
        )

    def _write_inside(self, batch: ServerBatch) -> None:
        """Have the server bring a query's rows over: into the table, or into the staging table."""
        self._make_ready()
        self._dirty = True
        what = f"writing to {self._intent.target.name}"
        # Where a scan joins another halfway, LIMIT means other rows, and other ones come last.
        self._session.execute("SET LOCAL synchronize_seqscans = off")
        if self._staged and self._straight:
            merge = Merge(self._intent, operators=self._operators())
            rows = self._session.query(merge.statement(merge.selected(batch.select), batch.count), what=what)
            inserted, updated, batch.rows = rows[0]
            self._told = self._verdict(batch.rows, inserted, updated)
        else:
            columns = listed(field.target.name for field in self._intent.fields)
            staging = f"INSERT INTO {self._merge.stage} ({columns})\n{batch.select}"
            tag = self._session.execute(staging if self._staged else self._merge.insert(batch.select), what=what)
            batch.rows = int(tag.rsplit(" ", 1)[-1])
        self._sent += batch.rows
        self._taken += batch.rows

    def _verdict(self, rows: int, inserted: int, updated: int) -> Counts:
        """Return what became of rows that have no key in common."""
        rest = rows - inserted - updated
        if not self._resolves or self._intent.conflict.strategy is Strategy.SKIP:
            return Counts(inserted=inserted, skipped=rest)
        return Counts(inserted=inserted, updated=updated, unchanged=rest)

    def _end_copy(self) -> None:
        if self._copy is not None:
            copy, self._copy = self._copy, None
            try:
                self._taken += copy.finish()
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
        if not self._dirty:
            return Counts()
        try:
            counts = self._take_in()
        except DataError as error:
            raise self._explained(error) from None
        self._counted += counts
        self._checked += self._taken
        self._sent = self._taken = 0
        self._dirty = False
        return counts

    def _take_in(self) -> Counts:
        self._end_copy()
        if self._told is not None:
            counts, self._told = self._told, None
        elif not self._staged:
            counts = Counts(inserted=self._taken, skipped=self._sent - self._taken)
        elif self._taken:
            self._stage_full = True
            counts = self._take_over()
        else:
            counts = Counts()
        # A deferred constraint fails at COMMIT, too late to be handled there.
        check = [] if self._session.nested else ["SET CONSTRAINTS ALL IMMEDIATE"]
        if not self._verified:
            self._insist(check)
            self._verified = True
        elif check:
            self._session.execute(check[0], what=f"writing to {self._intent.target.name}")
        self._immediate = bool(check)
        return counts

    def _explained(self, error: DataError) -> DataError:
        """Return a refusal with advice; remember that a table which was altered refuses good rows too."""
        error.hint = self._advice(error) or error.hint
        self._suspect = not self._verified and (error.sqlstate or "").startswith(("22", TOO_SHORT))
        return error

    def save(self) -> None:
        """See ``Writer.save``."""
        self.release()
        self._make_ready()  # before the savepoint: going back must not undo it
        self._session.begin()
        self._mark = _Mark(
            stage_made=self._stage_made,
            verified=self._verified,
            counted=self._counted,
            taken=self._checked,
            lines=len(self._lines),
        )

    def restore(self) -> None:
        """See ``Writer.restore``."""
        mark = self._mark
        if mark is None:
            raise portl.OperationError("there is no savepoint to go back to: save() comes first")
        self._abort_copy()
        self._session.back()
        self._stage_made, self._verified = mark.stage_made, mark.verified
        self._counted, self._checked = mark.counted, mark.taken
        del self._lines[mark.lines :]
        self._sent = self._taken = 0
        self._told = None
        self._dirty = self._immediate = self._stage_full = False
        if self._suspect:
            self._insist()

    def release(self) -> None:
        """See ``Writer.release``."""
        if self._mark is not None:
            self._session.commit()
            self._mark = None

    def reject(self, rejections: Sequence[portl.Rejection]) -> None:
        """See ``Writer.reject``."""
        if self._rejects is None:
            raise portl.OperationError("the job names no quarantine: rows cannot be quarantined")
        self._lines += self._rejects.put(rejections)

    def unreject(self, run: str, chunk: int | None = None) -> None:
        """See ``Writer.unreject``."""
        if self._rejects is not None:
            self._rejects.remove(run, chunk)

    def commit(self) -> Counts:
        """See ``Writer.commit``."""
        counts = self.check()
        self.release()
        self._session.commit()
        self._committed, self._freezes = True, False
        self._stage_full = self._stage_full and self._session.nested
        if not self._probed and self._checked:
            self._probed = True
            self._staged = self._counted.inserted != self._checked
        quarantine = self._intent.quarantine
        if self._lines and quarantine is not None and quarantine.file is not None:
            append_lines(quarantine.file, self._lines, self._context)
        self._lines = []
        return counts

    def _advice(self, error: DataError) -> str | None:
        """Return what to try where a conflict is none that the strategy resolves."""
        if error.sqlstate == EXCLUSION_VIOLATION:
            return "an exclusion constraint is no key: no strategy resolves it; leave such rows out in the source"
        if error.sqlstate == UNIQUE_VIOLATION and self._resolves and self._intent.key is not None:
            return (
                f"`{self._intent.conflict.strategy.value}` resolves conflicts of the key"
                f" ({', '.join(self._intent.key.columns)}) alone; name the columns of {error.constraint!r} in"
                " `conflict.key`, or leave such rows out in the source"
            )
        return None

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
            self._known = None  # what is made again is another table
        self._forget()
        if self._stage_made and not self._session.broken:
            found = self._session.query("SELECT to_regclass($1)", self._merge.stage)
            self._stage_made = found[0][0] is not None
        # In a caller's transaction the rows of an earlier one of portl's may be there again.
        self._stage_full = self._stage_made and self._session.nested

    def _abort_copy(self) -> None:
        if self._copy is not None:
            copy, self._copy = self._copy, None
            copy.abort()

    def reconsider(self, error: DataError) -> bool:
        """See ``Writer.reconsider``: from the first conflict on, rows go through the staging table."""
        if self._staged or not self._resolves or error.sqlstate != UNIQUE_VIOLATION:
            return False
        logger.debug("a key is there already; going on through a staging table")
        self._staged = self._probed = True
        if self._mark is not None:
            self.save()  # so that the staging table stands before the savepoint
        return True

    def _take_over(self) -> Counts:
        """Take the staged rows into the table."""
        merge, strategy, staged = self._merge, self._intent.conflict.strategy, self._taken
        if strategy is Strategy.MERGE and self._resolves and merge.repeats:
            return self._merge_in_rounds(staged)
        inserted, updated = self._run(merge.statement(merge.rows, filtered=self._filters))
        rest = staged - inserted - updated
        self._filters = rest >= staged * UNCHANGED_SHARE
        if strategy is Strategy.OVERWRITE and self._resolves and merge.repeats and rest:
            ((distinct,),) = self._session.query(f"SELECT count(*) FROM {merge.rows}")
            replaced = staged - distinct
            return Counts(inserted=inserted, updated=updated + replaced, unchanged=rest - replaced)
        return self._verdict(staged, inserted, updated)

    def _merge_in_rounds(self, staged: int) -> Counts:
        """Merge the rows with one key one after the other: as many statements as the most frequent key has rows."""
        merge = self._merge
        ((rounds,),) = self._session.query(merge.most_repeats)
        if rounds == 1:
            inserted, updated = self._run(merge.statement(merge.all_rows, filtered=self._filters))
            self._filters = staged - inserted - updated >= staged * UNCHANGED_SHARE
            return Counts(inserted=inserted, updated=updated, unchanged=staged - inserted - updated)
        for statement in merge.number_rounds:
            self._session.execute(statement, what="numbering rows with one key")
        done = Counts()
        for number in range(1, rounds + 1):
            inserted, updated = self._run(merge.statement(merge.round(number)))
            done += Counts(inserted=inserted, updated=updated)
        self._session.execute(merge.drop_rounds)
        return done + Counts(unchanged=staged - done.inserted - done.updated)

    def _run(self, statement: str) -> tuple[int, int]:
        rows: list[tuple[Any, ...]] = self._session.query(statement, what=f"writing to {self._intent.target.name}")
        inserted, updated = rows[0]
        return inserted, updated

    def finish(self, record: Callable[[], None] | None = None) -> None:
        """See ``Writer.finish``."""
        try:
            self._session.begin(then=self._last(), what="finishing the table")
            self._after = []
            Sequences(self._session, self._intent, self._table, self._context).advance()
            if record is not None:
                record()
            self._session.commit([*(self._merge.tidy if self._stage_made else ()), *_DURABLE])
        except BaseException:
            if self._session.open:
                self._session.rollback()
            raise
        self._stage_made = False

    def _last(self) -> list[str]:
        """Return what is executed after the rows; another job that writes to the table may have built its key."""
        key = unfinished.build_key(self._intent.target)
        if key not in self._after:
            return self._after
        ((built,),) = self._session.query(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_index WHERE indrelid = to_regclass($1) AND indisprimary)",
            self._table,
            what="looking at the key",
        )
        return [statement for statement in self._after if statement != key] if built else self._after

    def _tidy(self) -> None:
        """Drop the temporary things: the session may be a caller's."""
        if self._stage_made:
            for statement in self._merge.tidy:
                self._session.execute(statement)
            self._stage_made = False

    def abandon(self, *, resumable: bool = False) -> None:
        """See ``Writer.abandon``: the key of a table that was begun is built, so that the same job can go on."""
        if self._session.broken:
            return
        self._session.settle()
        self._tidy()
        if not self._committed or resumable:
            return  # what a crash of the server would take is missing in the ledger too
        try:
            self._session.begin(then=self._last(), what="finishing the table")
            self._session.commit(_DURABLE)
        except BaseException:
            if self._session.open:
                self._session.rollback()
            raise
