"""The staging table of one writer: made when it is needed, filled, taken over by one statement, emptied.

It is emptied by TRUNCATE before it is filled again: rows that were deleted would slow every later statement of the
transaction down.
"""

from __future__ import annotations

from typing import Any

from portl import Counts, Intent, Strategy
from portl_postgres.catalog.tables import table_details
from portl_postgres.destination.conflicts import Merge
from portl_postgres.session.session import Session
from portl_postgres.sql.text import quoted

#: From this share of unchanged rows on it pays to leave them out before ON CONFLICT (docs/performance.md).
UNCHANGED_SHARE = 0.75


class Staging:
    """A staging table, and the statements that take its rows over.

    Args:
        session: the destination's.
        intent: the job.
        name: of its own, for a caller's session may have temporary tables too.
        resolves: True if the strategy resolves conflicts.
    """

    def __init__(self, session: Session, intent: Intent, name: str, *, resolves: bool) -> None:
        self._session = session
        self._intent = intent
        self._name = name
        self._resolves = resolves
        self._what = f"writing to {intent.target.name}"
        self.made = False
        self.full = False
        self.merge = Merge(intent, name)
        #: True if most staged rows are expected to stand in the table exactly so: as many as in those before.
        self._filters = True

    def ready(self) -> None:
        """Make it, or empty it."""
        if not self.made:
            self._make()
        elif self.full:
            self._session.execute(f"TRUNCATE {self.merge.stage}")
        self.full = False

    def _make(self) -> None:
        """Create it: the destination's types and collations, none of its constraints."""
        operators = self.operators() if self._resolves else {}
        self.merge = Merge(self._intent, self._name, operators)
        for statement in self.merge.prepare:
            self._session.execute(statement, what="creating the staging table")
        self.made = True

    def operators(self) -> dict[str, str]:
        """Return the equality of the key's columns by which the index compares, where it is an extension's.

        Its schema need not be in the search path; then ``=`` would be another operator, or none.
        """
        assert self._intent.key is not None
        found = table_details(self._intent.target)
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
            quoted(found.schema, found.name),
            what="looking at the key",
        )
        return {
            column: f"OPERATOR({quoted(schema)}.{operator})"
            for column, schema, operator in rows
            if column in self._intent.key.columns
        }

    def take_over(self, staged: int) -> Counts:
        """Take the staged rows into the table; ``staged`` is how many there are."""
        self.full = True
        merge, strategy = self.merge, self._intent.conflict.strategy
        if strategy is Strategy.MERGE and self._resolves and merge.repeats:
            return self._merge_in_rounds(staged)
        inserted, updated = self._run(merge.statement(merge.rows, filtered=self._filters))
        rest = staged - inserted - updated
        self._filters = rest >= staged * UNCHANGED_SHARE
        if strategy is Strategy.OVERWRITE and self._resolves and merge.repeats and rest:
            ((distinct,),) = self._session.query(f"SELECT count(*) FROM {merge.rows}")
            replaced = staged - distinct
            return Counts(inserted=inserted, updated=updated + replaced, unchanged=rest - replaced)
        return self.verdict(staged, inserted, updated)

    def verdict(self, rows: int, inserted: int, updated: int) -> Counts:
        """Return what became of rows that have no key in common."""
        rest = rows - inserted - updated
        if not self._resolves or self._intent.conflict.strategy is Strategy.SKIP:
            return Counts(inserted=inserted, skipped=rest)
        return Counts(inserted=inserted, updated=updated, unchanged=rest)

    def _merge_in_rounds(self, staged: int) -> Counts:
        """Merge the rows with one key one after the other: as many statements as the most frequent key has rows."""
        merge = self.merge
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
        rows: list[tuple[Any, ...]] = self._session.query(statement, what=self._what)
        inserted, updated = rows[0]
        return inserted, updated

    def see(self) -> None:
        """See what a rollback has left of it."""
        if self.made and not self._session.broken:
            self.made = self._session.query("SELECT to_regclass($1)", self.merge.stage)[0][0] is not None
        # In a caller's transaction the rows of an earlier one of portl's may be there again.
        self.full = self.made and self._session.nested

    def tidy(self) -> list[str]:
        """Return the statements that drop it: the session may be a caller's."""
        return list(self.merge.tidy) if self.made else []
