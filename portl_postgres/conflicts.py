"""The statements that take rows from the staging table into the destination.

The staging table is temporary, has the destination's types and collations, and no constraints; its ``ctid`` is the
order in which the rows arrived. One set-based statement takes them over:

* A row that stands there exactly so is not written again: the new row image is compared with the old one byte by byte
  (``*<>``, manual 9.25.5 and 9.25.6). Unlike ``IS DISTINCT FROM`` that works for types without equality (json, xml, point), and it sees
  the difference between 1.0 and 1.00.
* Two rows with one key: overwrite keeps the last, skip the first, merge applies them in their order, in rounds.
* A key that is deferrable cannot be the arbiter of ON CONFLICT (manual, INSERT): there the rows are joined and an
  UPDATE and an INSERT do the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from portl import Column, Field, Intent, Strategy
from portl_postgres.catalog import ColumnDetails, details, table_details
from portl_postgres.sqltext import Unbalanced, check_expression, listed, quoted

#: ``destination`` is the name under which the user's expressions know the row that is there.
TARGET = "destination"
NEW = "excluded"

#: The function that ``json`` under merge needs; temporary, gone with the session.
JSON_MERGE = """CREATE OR REPLACE FUNCTION pg_temp.portl_json_merge(a jsonb, b jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE AS $portl$
BEGIN
    IF a IS NULL OR b IS NULL THEN
        RETURN coalesce(b, a);
    END IF;
    IF pg_catalog.jsonb_typeof(a) <> 'object' OR pg_catalog.jsonb_typeof(b) <> 'object' THEN
        RETURN b;
    END IF;
    RETURN (SELECT coalesce(pg_catalog.jsonb_object_agg(k, CASE
                WHEN NOT b ? k THEN a -> k
                WHEN NOT a ? k THEN b -> k
                ELSE pg_temp.portl_json_merge(a -> k, b -> k) END), '{}')
              FROM (SELECT pg_catalog.jsonb_object_keys(a) AS k
                    UNION SELECT pg_catalog.jsonb_object_keys(b)) AS keys);
END
$portl$"""


class Merge:
    """Builds the statements of one job.

    Args:
        intent: the job.
        stage: the staging table, quoted.
    """

    def __init__(self, intent: Intent, stage: str) -> None:
        self._intent = intent
        self._stage = stage
        found = table_details(intent.target)
        self._table = quoted(found.schema, found.name)
        self._counts_by_xmax = found.kind == "r"
        self._columns = [field.target.name for field in intent.fields]
        self._key = intent.key.columns if intent.key else ()
        self._strategy = intent.conflict.strategy

    @property
    def joins(self) -> bool:
        """True if ON CONFLICT cannot be used."""
        return bool(self._intent.key and self._intent.key.deferrable)

    @property
    def prepare(self) -> tuple[str, ...]:
        """What must be executed once before the first statement."""
        words = set(self._intent.conflict.columns.values())
        return (JSON_MERGE,) if self._strategy is Strategy.MERGE and "json" in words else ()

    def duplicates(self) -> str:
        """Return the query for the largest number of staged rows with one key."""
        keys = listed(self._key)
        not_null = " AND ".join(f"{quoted(name)} IS NOT NULL" for name in self._key)
        return (
            f"SELECT coalesce(max(n), 1) FROM (SELECT count(*) AS n FROM {self._stage}"
            f" WHERE {not_null} GROUP BY {keys}) AS portl_keys"
        )

    def last_of_each(self) -> str:
        """Return the staged rows without those that a later one with the same key replaces."""
        keys = listed(self._key)
        # A NULL in the key is never equal to another unless the key says so: such rows all stay.
        apart = "" if self._nulls_equal else f", CASE WHEN {self._any_null()} THEN ctid END"
        return f"(SELECT DISTINCT ON ({keys}{apart}) * FROM {self._stage} ORDER BY {keys}{apart}, ctid DESC) AS portl_staged"

    def round(self, number: int) -> str:
        """Return the staged rows that are the ``number``-th with their key."""
        apart = "" if self._nulls_equal else f", CASE WHEN {self._any_null()} THEN ctid END"
        return (
            f"(SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY {listed(self._key)}{apart} ORDER BY ctid)"
            f" AS portl_round FROM {self._stage}) AS portl_numbered WHERE portl_round = {number}) AS portl_staged"
        )

    @property
    def all_rows(self) -> str:
        """All staged rows."""
        return f"{self._stage} AS portl_staged"

    def statement(self, rows: str) -> str:
        """Return the statement that takes ``rows`` over; its one row is: inserted, updated."""
        if self._strategy is Strategy.FAIL or not self._key:
            return self._counted(self._insert(rows))
        if self.joins:
            return self._joined(rows)
        target = f"ON CONFLICT ({listed(self._key)})"
        if self._strategy is Strategy.SKIP:
            return self._counted(f"{self._insert(rows)} {target} DO NOTHING")
        return self._counted(f"{self._insert(rows)} {target} {self._update(NEW)}", rows)

    @property
    def _nulls_equal(self) -> bool:
        return bool(self._intent.key and self._intent.key.nulls_equal)

    def _any_null(self) -> str:
        return " OR ".join(f"{quoted(name)} IS NULL" for name in self._key)

    def _insert(self, rows: str) -> str:
        columns = listed(self._columns)
        overriding = " OVERRIDING SYSTEM VALUE" if self._has_identity() else ""
        return f"INSERT INTO {self._table} AS {TARGET} ({columns}){overriding} SELECT {columns} FROM {rows}"

    def _has_identity(self) -> bool:
        return any(field.target.identity == "always" for field in self._intent.fields)

    def _changeable(self) -> list[Field]:
        """Return the fields that an UPDATE may set: not the key, not GENERATED ALWAYS AS IDENTITY."""
        return [f for f in self._intent.fields if f.target.name not in self._key and f.target.identity != "always"]

    def _assignments(self, new: str) -> Mapping[str, str]:
        """Return column to new value."""
        if self._strategy is not Strategy.MERGE:
            return {f.target.name: f"{new}.{quoted(f.target.name)}" for f in self._changeable()}
        conflict = self._intent.conflict
        if conflict.newest_by is not None:
            return {f.target.name: f"{new}.{quoted(f.target.name)}" for f in self._changeable()}
        values = {
            f.target.name: self._merged(f.target, conflict.columns.get(f.target.name, "coalesce"), new)
            for f in self._changeable()
        }
        for name, expression in conflict.columns.items():
            if name not in values and name in self._intent.target.by_name and name not in self._key:
                values[name] = self._merged(self._intent.target.by_name[name], expression, new)
        kept = [name for name, value in values.items() if value == f"{TARGET}.{quoted(name)}"]
        return {name: value for name, value in values.items() if name not in kept}

    def _merged(self, column: Column, how: str, new: str) -> str:
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
        }.get(how)
        if found is not None:
            return found
        if how == "json":
            kind = column.native
            return f"pg_temp.portl_json_merge({old}::jsonb, {fresh}::jsonb)::{kind}"
        return self._expression(how, new)

    def _expression(self, text: str, new: str) -> str:
        """Return a user's expression, in which ``source`` and ``destination`` are the two rows."""
        columns = ", ".join(f"{new}.{quoted(name)} AS {quoted(name)}" for name in self._columns)
        return f"(SELECT ({text}) FROM (SELECT {columns}) AS source)"

    def _update(self, new: str) -> str:
        """Return the DO UPDATE part; DO NOTHING where no column can change."""
        assignments = self._assignments(new)
        if not assignments:
            return "DO NOTHING"
        return f"DO UPDATE SET {self._set(assignments)} WHERE {self._differs(assignments, new)}"

    @staticmethod
    def _set(assignments: Mapping[str, str]) -> str:
        return ", ".join(f"{quoted(name)} = {value}" for name, value in assignments.items())

    def _differs(self, assignments: Mapping[str, str], new: str) -> str:
        old_image = ", ".join(f"{TARGET}.{quoted(name)}" for name in assignments)
        new_image = ", ".join(self._as_stored(name, value) for name, value in assignments.items())
        # The casts keep the parser from taking the two rows for a comparison column by column.
        differs = f"ROW({old_image})::record *<> ROW({new_image})::record"
        newest_by = self._intent.conflict.newest_by
        if self._strategy is Strategy.MERGE and newest_by is not None:
            old, fresh = f"{TARGET}.{quoted(newest_by)}", f"{new}.{quoted(newest_by)}"
            return f"({fresh} > {old} OR ({old} IS NULL AND {fresh} IS NOT NULL)) AND {differs}"
        return differs

    def _as_stored(self, name: str, value: str) -> str:
        """Return a value as the column would hold it, so that the two images have the same types."""
        column = self._intent.target.by_name[name]
        plain = value == f"{NEW}.{quoted(name)}" or self._strategy is not Strategy.MERGE
        return value if plain else f"CAST({value} AS {column.native})"

    def _counted(self, insert: str, rows: str | None = None) -> str:
        """Return a statement that counts what an INSERT did."""
        if "DO UPDATE" not in insert:
            return f"WITH portl_done AS ({insert} RETURNING 1) SELECT count(*), 0::bigint FROM portl_done"
        if self._counts_by_xmax:
            # A row that an INSERT has made has no xmax; one that ON CONFLICT has updated was locked first and has.
            return (
                f"WITH portl_done AS ({insert} RETURNING (xmax = 0) AS fresh)"
                " SELECT count(*) FILTER (WHERE fresh), count(*) FILTER (WHERE NOT fresh) FROM portl_done"
            )
        # A partitioned table returns no system columns: the keys that were there are counted in the same snapshot.
        return (
            f"WITH portl_done AS ({insert} RETURNING 1),"
            f" portl_known AS (SELECT count(*) AS n FROM {rows} WHERE EXISTS ("
            f"SELECT FROM {self._table} AS {TARGET} WHERE {self._same_key('portl_staged')})),"
            f" portl_all AS (SELECT count(*) AS n FROM {rows})"
            " SELECT a.n - k.n, (SELECT count(*) FROM portl_done) - (a.n - k.n) FROM portl_all AS a, portl_known AS k"
        )

    def _same_key(self, new: str) -> str:
        equals = "IS NOT DISTINCT FROM" if self._nulls_equal else "="
        return " AND ".join(f"{TARGET}.{quoted(name)} {equals} {new}.{quoted(name)}" for name in self._key)

    def _joined(self, rows: str) -> str:
        """Return the statement for a deferrable key: an UPDATE of the rows that are there, an INSERT of the others."""
        columns = listed(self._columns)
        overriding = " OVERRIDING SYSTEM VALUE" if self._has_identity() else ""
        insert = (
            f"INSERT INTO {self._table} ({columns}){overriding} SELECT {columns} FROM {rows} WHERE NOT EXISTS ("
            f"SELECT FROM {self._table} AS {TARGET} WHERE {self._same_key('portl_staged')}) RETURNING 1"
        )
        assignments = {} if self._strategy is Strategy.SKIP else self._assignments("portl_staged")
        if not assignments:
            return f"WITH portl_in AS ({insert}) SELECT count(*), 0::bigint FROM portl_in"
        update = (
            f"UPDATE {self._table} AS {TARGET} SET {self._set(assignments)} FROM {rows}"
            f" WHERE {self._same_key('portl_staged')} AND {self._differs(assignments, 'portl_staged')} RETURNING 1"
        )
        return (
            f"WITH portl_up AS ({update}), portl_in AS ({insert})"
            " SELECT (SELECT count(*) FROM portl_in), (SELECT count(*) FROM portl_up)"
        )

    def first_of_each(self) -> str:
        """Return the staged rows without those that an earlier one with the same key precedes."""
        keys = listed(self._key)
        apart = "" if self._nulls_equal else f", CASE WHEN {self._any_null()} THEN ctid END"
        return f"(SELECT DISTINCT ON ({keys}{apart}) * FROM {self._stage} ORDER BY {keys}{apart}, ctid) AS portl_staged"


def check_merge(intent: Intent) -> list[tuple[str, str]]:
    """Return what is wrong with ``conflict.columns`` and ``newest_by``: where, and what."""
    wrong: list[tuple[str, str]] = []
    conflict = intent.conflict
    known = intent.target.by_name
    filled = {field.target.name for field in intent.fields}
    for name, how in conflict.columns.items():
        where = f"conflict.columns.{name}"
        if name not in known:
            wrong.append((where, f"the destination has no column {name!r}; it has: {', '.join(known)}"))
        elif intent.key and name in intent.key.columns:
            wrong.append((where, "the key itself is not merged"))
        else:
            wrong += [(where, text) for text in _unfit(known[name], how, name in filled)]
    if conflict.newest_by is not None and conflict.newest_by not in filled:
        wrong.append(("conflict.newest_by", f"no column of the source goes to {conflict.newest_by!r}"))
    return wrong


def _unfit(column: Column, how: str, filled: bool) -> Sequence[str]:
    from portl import MERGE_WORDS

    if how not in MERGE_WORDS:
        try:
            check_expression(how)
        except Unbalanced as error:
            return [str(error)]
        return []
    if not filled:
        return [f"`{how}` needs a value, and no column of the source goes there"]
    found = details(column)
    kind = found.pg.root.kind if isinstance(found, ColumnDetails) else ""
    name = found.pg.root.name if isinstance(found, ColumnDetails) else ""
    if how == "union" and kind != "A":
        return [f"`union` is for arrays, and {column.name!r} is {column.native}"]
    if how == "json" and name not in ("json", "jsonb"):
        return [f"`json` is for json and jsonb, and {column.name!r} is {column.native}"]
    if how == "append" and kind != "A" and name not in ("text", "varchar", "bpchar", "jsonb", "bytea", "citext"):
        return [f"`append` is for texts and arrays, and {column.name!r} is {column.native}"]
    return []
