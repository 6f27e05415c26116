"""The statements that merge rows from the staging table into the destination.

The staging table is temporary and has the destination's types and collations, but no constraints. If the source may
hold two rows with one key, it numbers the rows in order of arrival: ``ctid`` is no substitute, because a later, smaller
row may fill a gap on an earlier page. One set-based statement merges the rows:

* An identical row is not written again: the new row image is compared with the old one byte by byte (``*<>``, manual
  9.25.5 and 9.25.6). Unlike ``IS DISTINCT FROM``, this works for types without equality (json, xml, point) and tells
  1.0 from 1.00. If most rows are expected to be identical, they are also filtered out before the INSERT, which saves
  the row locks and their WAL. The filter is a subquery, an index lookup for each row: a join would read the whole table
  for each group of rows. If many rows have changed, the lookup is wasted.
* Of two rows with one key, overwrite keeps the last and skip the first; merge applies both in order, in rounds.
* A row is found by the equality of its key's index, under which 1.0 equals 1.00. Overwrite also sets such key columns,
  so that the row equals the source's in every column.
* A GENERATED ALWAYS AS IDENTITY column takes values from INSERT but not from UPDATE. If such a value has to change, the
  column is BY DEFAULT during the statement (``Merge.opened``).
* A deferrable key cannot be the arbiter of ON CONFLICT (manual, INSERT): instead, rows are joined, and an UPDATE and an
  INSERT do the work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import attrs

from portl import Column, Conflict, Counts, Field, Intent, Strategy
from portl_postgres.catalog.tables import ColumnDetails, details, table_details
from portl_postgres.catalog.types import PgType
from portl_postgres.destination.writing.transitions import resolves
from portl_postgres.sql.text import listed, quoted, with_columns

#: In the user's expressions, ``destination`` is the existing row.
TARGET = "destination"
NEW = "excluded"
STAGED = "portl_staged"

#: The function for the merge rule ``json``; temporary, and dropped with the staging table.
_JSON_MERGE = """CREATE FUNCTION {name}(a jsonb, b jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE AS $portl$
BEGIN
    IF pg_catalog.jsonb_typeof(a) <> 'object' OR pg_catalog.jsonb_typeof(b) <> 'object' THEN
        RETURN b;
    END IF;
    RETURN (SELECT coalesce(pg_catalog.jsonb_object_agg(k, CASE
                WHEN NOT b ? k THEN a -> k
                WHEN NOT a ? k THEN b -> k
                ELSE {name}(a -> k, b -> k) END), '{{}}')
              FROM (SELECT pg_catalog.jsonb_object_keys(a) AS k
                    UNION SELECT pg_catalog.jsonb_object_keys(b)) AS keys);
END
$portl$"""

#: Types whose explicit cast truncates a value that an assignment refuses as too long.
_CUT_BY_CAST = {"varchar", "bpchar", "bit", "varbit"}


class Merge:
    """Builds the statements of one job.

    Args:
        intent: the job.
        name: the name of the staging table, from which other temporary names are derived.
        operators: by column, equality operators of key columns that are not in the search path.
    """

    def __init__(self, intent: Intent, name: str = "portl_stage", operators: Mapping[str, str] | None = None) -> None:
        self._intent = intent
        self._name = name
        self.stage = quoted("pg_temp", name)
        self._rounds = quoted("pg_temp", f"{name}_rounds")
        self._function = quoted("pg_temp", f"{name}_json")
        self._operators = operators or {}
        found = table_details(intent.target)
        self._table = quoted(found.schema, found.name)
        self._counts_by_xmax = found.kind == "r"
        self._columns = [field.target.name for field in intent.fields]
        self._number = quoted(_free("portl_number", self._columns))
        self._round = quoted(_free("portl_round", self._columns))
        self._key = intent.key.columns if intent.key else ()
        self._strategy = intent.conflict.strategy
        #: True if staged rows may share a key.
        self.repeats = bool(self._key) and not intent.distinct

    @property
    def joins(self) -> bool:
        """True if ON CONFLICT cannot be used."""
        return bool(self._intent.key and self._intent.key.deferrable)

    @property
    def prepare(self) -> Iterator[str]:
        """The statements that create the staging table and other prerequisites."""
        yield (
            f"CREATE TEMPORARY TABLE {quoted(self._name)} ON COMMIT DELETE ROWS"
            f" AS SELECT {listed(self._columns)} FROM {self._table} WITH NO DATA"
        )
        if self.repeats:
            yield f"ALTER TABLE {self.stage} ADD COLUMN {self._number} bigint GENERATED ALWAYS AS IDENTITY"
        if self._needs_function:
            yield _JSON_MERGE.format(name=self._function)

    @property
    def tidy(self) -> Iterator[str]:
        """The statements that drop everything created by ``prepare``."""
        yield f"DROP TABLE IF EXISTS {self.stage}"
        if self._needs_function:
            yield f"DROP FUNCTION IF EXISTS {self._function}(jsonb, jsonb)"

    @property
    def _needs_function(self) -> bool:
        return self._strategy is Strategy.MERGE and "json" in self._intent.conflict.columns.values()

    @property
    def all_rows(self) -> str:
        """All staged rows."""
        return f"{self.stage} AS {STAGED}"

    @property
    def rows(self) -> str:
        """The staged rows that one statement merges; under merge, those of one round."""
        if not self.repeats or self._strategy in (Strategy.FAIL, Strategy.MERGE):
            return self.all_rows
        return self.one_of_each(last=self._strategy is Strategy.OVERWRITE)

    def one_of_each(self, *, last: bool) -> str:
        """Return the staged rows, with only the last, or the first, of those with the same key."""
        keys = self._key_of_row
        order = f"{self._number} DESC" if last else self._number
        return f"(SELECT DISTINCT ON ({keys}) * FROM {self.stage} ORDER BY {keys}, {order}) AS {STAGED}"

    @property
    def most_repeats(self) -> str:
        """The query for the largest number of staged rows that share a key."""
        return (
            f"SELECT coalesce(max(n), 1) FROM (SELECT count(*) AS n FROM {self.stage}"
            f" GROUP BY {self._key_of_row}) AS portl_keys"
        )

    @property
    def number_rounds(self) -> Iterator[str]:
        """The statement that copies the staged rows with their rounds: the n-th row with a key is in round n."""
        yield (
            f"CREATE TEMPORARY TABLE {quoted(self._name + '_rounds')} ON COMMIT DROP AS SELECT *, row_number() OVER"
            f" (PARTITION BY {self._key_of_row} ORDER BY {self._number}) AS {self._round} FROM {self.stage}"
        )
        yield f"CREATE INDEX ON {self._rounds} ({self._round})"

    @property
    def drop_rounds(self) -> str:
        """The statement that undoes ``number_rounds``."""
        return f"DROP TABLE {self._rounds}"

    def round(self, number: int) -> str:
        """Return the rows of one round."""
        return f"(SELECT * FROM {self._rounds} WHERE {self._round} = {number}) AS {STAGED}"

    @property
    def _key_of_row(self) -> str:
        """The expressions that rows with the same key share."""
        keys = listed(self._key)
        if self._intent.key is not None and self._intent.key.nulls_equal:
            return keys
        # NULLs in a key are never equal, so each such row stands alone.
        any_null = " OR ".join(f"{quoted(name)} IS NULL" for name in self._key)
        return f"{keys}, CASE WHEN {any_null} THEN {self._number} END"

    def selected(self, select: str) -> str:
        """Return a query's rows as the source of a merge, without a staging table."""
        return f"(\n{select}\n) AS {STAGED}"

    def insert(self, select: str) -> str:
        """Return the plain INSERT of a query's rows."""
        return self._insert(self.selected(select))

    def statement(self, rows: str, counted: str | None = None, *, filtered: bool = True) -> str:
        """Return the statement that merges ``rows`` and returns one row: inserted, updated.

        Args:
            rows: what follows FROM.
            filtered: True to filter out identical rows before ON CONFLICT locks them.
            counted: a query whose rows are counted in the same statement, and so under the same snapshot, as a third
                column.
        """
        also = "" if counted is None else f", (SELECT count(*) FROM ({counted}) AS portl_read)"
        if self._strategy is Strategy.FAIL or not self._key:
            return self._counted(self._insert(rows), also)
        if self.joins:
            return self._joined(rows, also)
        target = f"ON CONFLICT ({listed(self._key)})"
        assignments = {} if self._strategy is Strategy.SKIP else self._assignments(NEW)
        if not assignments:
            return self._counted(f"{self._insert(rows)} {target} DO NOTHING", also)
        # The filter avoids ON CONFLICT's row lock; the condition at the end still holds if another session has changed
        # the row since. OFFSET prevents the planner from turning it into a join.
        same = f"SELECT FROM {self._there} AND ({self._differs(STAGED)}) IS NOT TRUE OFFSET 0"
        chosen = f" WHERE NOT EXISTS ({same})" if filtered else ""
        action = f"DO UPDATE SET {_set(assignments)} WHERE {self._differs(NEW)}"
        return self._counted_apart(f"{self._insert(rows)}{chosen} {target} {action}", also)

    @property
    def opened(self) -> Merge:
        """The merge that also sets GENERATED ALWAYS AS IDENTITY columns, while these are BY DEFAULT."""
        fields = tuple(
            attrs.evolve(field, target=attrs.evolve(field.target, identity="by default"))
            if field.target.name in identities(self._intent)
            else field
            for field in self._intent.fields
        )
        return Merge(attrs.evolve(self._intent, fields=fields), self._name, self._operators)

    def altered(self, columns: Collection[str], generated: str) -> str:
        """Return the statement that sets identity columns to ``BY DEFAULT`` or ``ALWAYS``."""
        actions = ", ".join(f"ALTER COLUMN {quoted(name)} SET GENERATED {generated}" for name in columns)
        return f"ALTER TABLE {self._table} {actions}"

    def meeting(self, columns: Collection[str]) -> str:
        """Return the query for how many staged rows match an existing row with a different value in some columns."""
        there, staged = ([f"{row}.{quoted(name)}" for name in columns] for row in (TARGET, STAGED))
        differs = f"({', '.join(there)}) IS DISTINCT FROM ({', '.join(staged)})"
        return f"SELECT count(*) FROM {self.rows} JOIN {self._table} AS {TARGET} ON {self._same_key()} WHERE {differs}"

    def _insert(self, rows: str) -> str:
        target = with_columns(f"{self._table} AS {TARGET}", self._columns)
        overriding = " OVERRIDING SYSTEM VALUE" if self._has_identity() else ""
        return f"INSERT INTO {target}{overriding} SELECT {listed(self._columns)} FROM {rows}"

    def _has_identity(self) -> bool:
        return any(field.target.identity == "always" for field in self._intent.fields)

    def _changeable(self, *, key: bool) -> list[Field]:
        """Return the fields that an UPDATE may set.

        Args:
            key: True to include key columns whose values can be equal without being identical.
        """
        fields = (f for f in self._intent.fields if f.target.identity != "always")
        return [f for f in fields if f.target.name not in self._key or (key and not f.target.exact)]

    def _assignments(self, new: str) -> Mapping[str, str]:
        """Return the new value of each column."""
        conflict = self._intent.conflict
        if replaces(conflict):
            return {f.target.name: f"{new}.{quoted(f.target.name)}" for f in self._changeable(key=True)}
        values = {
            f.target.name: self.merged(f.target, conflict.columns.get(f.target.name, "coalesce"), new)
            for f in self._changeable(key=False)
        }
        for name, expression in conflict.columns.items():
            if name not in self._columns and name in self._intent.target.by_name and name not in self._key:
                values[name] = self.merged(self._intent.target.by_name[name], expression, new)
        return {name: value for name, value in values.items() if value != f"{TARGET}.{quoted(name)}"}

    def merged(self, column: Column, how: str, new: str) -> str:
        """Return a column's value after merging the row ``new`` into the row ``destination``."""
        name = quoted(column.name)
        old, fresh = f"{TARGET}.{name}", f"{new}.{name}"
        either = f"CASE WHEN {old} IS NULL THEN {fresh} WHEN {fresh} IS NULL THEN {old} ELSE {{}} END"
        found = {
            "keep": old,
            "replace": fresh,
            "coalesce": f"coalesce({fresh}, {old})",
            "greatest": f"greatest({old}, {fresh})",
            "least": f"least({old}, {fresh})",
            "sum": either.format(f"{old} + {fresh}"),
            "append": either.format(f"{old} || {fresh}"),
            "union": either.format(
                f"ARRAY(SELECT portl_item FROM unnest({old} || {fresh}) WITH ORDINALITY AS portl_u(portl_item, portl_n)"
                " GROUP BY portl_item ORDER BY min(portl_n))"
            ),
            "json": either.format(f"{self._function}({old}::jsonb, {fresh}::jsonb)::{column.native}"),
        }.get(how)
        return found if found is not None else self._expression(how, new)

    def _expression(self, text: str, new: str) -> str:
        """Return a user's expression, in which ``source`` and ``destination`` name the two rows."""
        columns = ", ".join(f"{new}.{quoted(name)} AS {quoted(name)}" for name in self._columns)
        # The newline is needed because the expression may end with a comment.
        return f"(SELECT ({text}\n) FROM (SELECT {columns}) AS source)"

    def _differs(self, new: str) -> str:
        """Return whether the row would change."""
        assignments = self._assignments(new)
        old_image = ", ".join(f"{TARGET}.{quoted(name)}" for name in assignments)
        new_image = ", ".join(self._as_stored(name, value, new) for name, value in assignments.items())
        # The casts keep the parser from comparing the two rows column by column.
        differs = f"ROW({old_image})::record *<> ROW({new_image})::record"
        for name, value in assignments.items():
            column = self._intent.target.by_name[name]
            if value != f"{new}.{quoted(name)}" and _cut_by_cast(column):
                # A value that becomes equal only by the cast is too long: it has to be refused, not filtered out.
                differs = f"({differs} OR CAST({value} AS {column.native})::text IS DISTINCT FROM ({value})::text)"
        newest_by = self._intent.conflict.newest_by
        if newest_by is not None:
            old, fresh = f"{TARGET}.{quoted(newest_by)}", f"{new}.{quoted(newest_by)}"
            return f"({fresh} > {old} OR ({old} IS NULL AND {fresh} IS NOT NULL)) AND {differs}"
        return differs

    def _as_stored(self, name: str, value: str, new: str) -> str:
        """Return a value as the column would store it, so that the two images have the same types."""
        plain = value == f"{new}.{quoted(name)}"
        return value if plain else f"CAST({value} AS {self._intent.target.by_name[name].native})"

    @staticmethod
    def _counted(insert: str, also: str) -> str:
        """Return a statement that counts the result of an INSERT without an UPDATE."""
        return f"WITH portl_done AS ({insert} RETURNING 1) SELECT count(*), 0::bigint{also} FROM portl_done"

    def _counted_apart(self, insert: str, also: str) -> str:
        """Return a statement that counts the result of an INSERT … ON CONFLICT DO UPDATE."""
        if self._counts_by_xmax:
            # An inserted row has no xmax; a row updated by ON CONFLICT was locked first, and has one.
            returned, fresh, source = "xmax = 0 AS portl_fresh", "portl_fresh", "portl_done"
        else:
            # A partitioned table returns no system columns, but the statement's snapshot tells which keys existed.
            returned, source = listed(self._key), f"portl_done AS {STAGED}"
            fresh = f"NOT EXISTS (SELECT FROM {self._there})"
        return (
            f"WITH portl_done AS ({insert} RETURNING {returned})"
            f" SELECT count(*) FILTER (WHERE {fresh}), count(*) FILTER (WHERE NOT {fresh}){also} FROM {source}"
        )

    @property
    def _there(self) -> str:
        """The destination's row with the staged row's key."""
        return f"{self._table} AS {TARGET} WHERE {self._same_key()}"

    def _same_key(self) -> str:
        nulls = self._intent.key is not None and self._intent.key.nulls_equal
        found = []
        for name in self._key:
            old, fresh = f"{TARGET}.{quoted(name)}", f"{STAGED}.{quoted(name)}"
            equal = f"{old} {self._operators.get(name, '=')} {fresh}"
            found.append(f"({equal} OR ({old} IS NULL AND {fresh} IS NULL))" if nulls else equal)
        return " AND ".join(found)

    def _joined(self, rows: str, also: str) -> str:
        """Return the statement for a deferrable key: an UPDATE of existing rows, an INSERT of the others."""
        insert = f"{self._insert(rows)} WHERE NOT EXISTS (SELECT FROM {self._there})"
        assignments = {} if self._strategy is Strategy.SKIP else self._assignments(STAGED)
        if not assignments:
            return self._counted(insert, also)
        update = (
            f"UPDATE {self._table} AS {TARGET} SET {_set(assignments)} FROM {rows}"
            f" WHERE {self._same_key()} AND {self._differs(STAGED)} RETURNING 1"
        )
        return (
            f"WITH portl_up AS ({update}), portl_in AS ({insert} RETURNING 1)"
            f" SELECT (SELECT count(*) FROM portl_in), (SELECT count(*) FROM portl_up){also}"
        )


def replaces(conflict: Conflict) -> bool:
    """Return whether existing rows are replaced as a whole, key included."""
    overwrites = conflict.strategy is Strategy.OVERWRITE
    return overwrites or (conflict.strategy is Strategy.MERGE and conflict.newest_by is not None)


def identities(intent: Intent) -> tuple[str, ...]:
    """Return the GENERATED ALWAYS AS IDENTITY columns that overwriting a row has to set."""
    if intent.conflict.strategy is not Strategy.OVERWRITE or intent.key is None or intent.create:
        return ()
    fields = (field.target for field in intent.fields if field.target.identity == "always")
    return tuple(column.name for column in fields if column.name not in intent.key.columns)


def _set(assignments: Mapping[str, str]) -> str:
    return ", ".join(f"{quoted(name)} = {value}" for name, value in assignments.items())


def _free(wanted: str, taken: Collection[str]) -> str:
    """Return a name that no column has."""
    while wanted in taken:
        wanted += "_"
    return wanted


def _cut_by_cast(column: Column) -> bool:
    found = pg_type(column)
    parts = (found, found.element.root if found.element else None) if found else ()
    return any(part is not None and part.name in _CUT_BY_CAST for part in parts)


def pg_type(column: Column) -> PgType | None:
    """Return a column's type, below any domains."""
    found = details(column)
    return found.pg.root if isinstance(found, ColumnDetails) else None


def verdict(intent: Intent, rows: int, inserted: int, updated: int) -> Counts:
    """Return the counts for rows with distinct keys."""
    rest = rows - inserted - updated
    if not resolves(intent) or intent.conflict.strategy is Strategy.SKIP:
        return Counts(inserted=inserted, skipped=rest)
    return Counts(inserted=inserted, updated=updated, unchanged=rest)
