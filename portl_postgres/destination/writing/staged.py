"""Write through a staging table: COPY into it, then one statement that resolves conflicts.

TRUNCATE empties the staging table before it is filled again, because dead rows would slow down every later statement of
the transaction.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence

from portl import Batch, Counts, Intent, Strategy
from portl_postgres.destination.writing.conflicts import Merge, identities, verdict
from portl_postgres.destination.writing.server_side import comparing, insert
from portl_postgres.destination.writing.straight import Copying, Way
from portl_postgres.destination.writing.transitions import resolves
from portl_postgres.session.session import Session
from portl_postgres.sql.text import with_columns
from portl_postgres.wire.server_route import ServerBatch

#: From this share of unchanged rows on, it pays to filter them out before ON CONFLICT (docs/performance.md).
UNCHANGED_SHARE = 0.75


class StagingTable:
    """The staging table, with the destination's types and collations but none of its constraints.

    Args:
        session: the destination's.
        intent: the job.
    """

    def __init__(self, session: Session, intent: Intent) -> None:
        self._session = session
        self._intent = intent
        # A caller's session may have other temporary tables.
        self._name = f"portl_stage_{secrets.token_hex(4)}"
        self.made = False
        self.full = False
        self.merge = Merge(intent, self._name)

    def prepare(self) -> None:
        """Create it, or empty it."""
        if not self.made:
            self.merge = comparing(self._session, self._intent, self._name)
            self._session.along(self.merge.prepare)
            self.made = True
        elif self.full:
            self._session.execute(f"TRUNCATE {self.merge.stage}")
        self.full = False

    def committed(self) -> None:
        """Note a COMMIT, which empties the table unless it only released a savepoint in the caller's transaction."""
        self.full = self.full and self._session.nested

    def restored(self, *, made: bool) -> None:
        """Note a rollback to a savepoint, at which the table was ``made`` or not."""
        self.made, self.full = made, False

    def rolled_back(self) -> None:
        """Note a rollback, which may have undone its creation."""
        if self.made and not self._session.broken:
            ((found,),) = self._session.query("SELECT to_regclass($1)", self.merge.stage)
            self.made = found is not None
        # In a caller's transaction, rows of an earlier portl transaction may have reappeared.
        self.full = self.made and self._session.nested

    @property
    def tidy(self) -> list[str]:
        """The statements that drop it, as the session may be the caller's."""
        return list(self.merge.tidy) if self.made else []


class StagedWay(Way):
    """Writes rows into the staging table, and merges them into the destination.

    Args:
        session: the destination's.
        intent: the job.
        copying: sends the rows.
    """

    def __init__(self, session: Session, intent: Intent, copying: Copying) -> None:
        self._session = session
        self._intent = intent
        self._copying = copying
        self.table = StagingTable(session, intent)
        #: True if most staged rows are expected to be unchanged, judging from those before.
        self._filters = True
        #: What ``TargetTable.check`` asks after the merge; sent along with it.
        self.checks: Sequence[str] = ()

    def write(self, batch: Batch) -> int:
        """See ``Way.write``."""
        copying, stage = self._copying, self.table.merge.stage
        if not isinstance(batch, ServerBatch):
            return copying.write(batch, stage)
        target = with_columns(stage, (field.target.name for field in self._intent.fields))
        batch.rows = insert(self._session, self._intent, f"INSERT INTO {target}\n{batch.select}")
        copying.sent += batch.rows
        copying.taken += batch.rows
        return 0

    def take_in(self) -> tuple[int, Counts]:
        """See ``Way.take_in``."""
        copying = self._copying
        copying.end()
        staged = copying.taken
        copying.sent = copying.taken = 0
        if not staged:
            return 0, Counts()
        self.table.full = True
        return staged, self._take_over(staged)

    def abort(self) -> None:
        """See ``Way.abort``."""
        self._copying.abort()

    def _take_over(self, staged: int) -> Counts:
        merge, strategy = self.table.merge, self._intent.conflict.strategy
        resolving = resolves(self._intent)
        if strategy is Strategy.MERGE and resolving and merge.repeats:
            return self._merge_in_rounds(staged)
        kept = self._meeting([name for name in identities(self._intent) if name in self._intent.kept])
        inserted, updated = self._resolve(merge)
        rest = staged - inserted - updated
        self._filters = rest >= staged * UNCHANGED_SHARE
        if strategy is Strategy.OVERWRITE and resolving and merge.repeats and rest:
            ((distinct,),) = self._session.query(f"SELECT count(*) FROM {merge.rows}")
            replaced = staged - distinct
            return Counts(inserted=inserted, updated=updated + replaced, unchanged=rest - replaced, kept=kept)
        return verdict(self._intent, staged, inserted, updated) + Counts(kept=kept)

    def _resolve(self, merge: Merge) -> tuple[int, int]:
        """Merge the rows, including GENERATED ALWAYS AS IDENTITY columns if their values change."""
        own = [name for name in identities(self._intent) if name not in self._intent.kept]
        if not self._meeting(own):
            return self._run(merge.statement(merge.rows, filtered=self._filters), self.checks)
        what = f"overwriting identity columns of {self._intent.target.name}"
        self._session.execute(merge.altered(own, "BY DEFAULT"), what=what)
        counts = self._run(merge.opened.statement(merge.rows, filtered=self._filters))
        # A table with pending deferred checks cannot be altered.
        self._session.execute("SET CONSTRAINTS ALL IMMEDIATE", what=what)
        self._session.execute(merge.altered(own, "ALWAYS"), what=what)
        return counts

    def _meeting(self, columns: Collection[str]) -> int:
        """Return how many rows match an existing one with a different value in some columns."""
        if not columns or not resolves(self._intent):
            return 0
        ((found,),) = self._session.query(self.table.merge.meeting(columns), what="looking at identity columns")
        return int(found)

    def _merge_in_rounds(self, staged: int) -> Counts:
        """Merge rows that share a key in sequence: as many statements as the most frequent key has rows."""
        merge = self.table.merge
        ((rounds,),) = self._session.query(merge.most_repeats)
        if rounds == 1:
            inserted, updated = self._run(merge.statement(merge.all_rows, filtered=self._filters), self.checks)
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

    def _run(self, statement: str, checks: Sequence[str] = ()) -> tuple[int, int]:
        (rows, *answers) = self._session.queries([statement, *checks], what=f"writing to {self._intent.target.name}")
        if checks:
            self._session.ahead[tuple(checks)] = answers
        inserted, updated = rows[0]
        return inserted, updated
