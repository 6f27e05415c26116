"""Find the rows in which two tables differ, in the servers; see ``portl.connectors.mirroring``.

A pair is the hash of a row's key (or of the whole row, if there is no key), the digest of the row, and its place at the
source: its ``ctid``, which identifies the same row for as long as the source's transaction lasts. Rows of a view, a
query or a foreign table have no ctid; they are found again by the hash. The pairs of buckets that differ are relayed as
binary COPY into a temporary table at the destination, which joins them with its own.

Before the destination removes a row, it computes the row's digest again: a row that has changed since is kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar

import attrs

import portl
from portl import (
    Batch,
    Chunk,
    Comparison,
    DataError,
    Deletes,
    Differences,
    Intent,
    MirrorDestination,
    Mirroring,
    MirrorSource,
)
from portl_postgres.catalog.tables import table_details
from portl_postgres.session.session import Session
from portl_postgres.sql.text import bound, quoted, statement
from portl_postgres.verification.comparer import PYTHON, DestinationComparer, Expressions, SourceComparer
from portl_postgres.verification.images import judged_by_text, native
from portl_postgres.verification.mirrored import Mark, mirrored_rows
from portl_postgres.verification.places import Place, Places
from portl_postgres.wire.batches import CopyBatch
from portl_postgres.wire.copy import as_they_are
from portl_postgres.wire.copy_in import CopyIn
from portl_postgres.wire.copy_out import CopyOut

#: How rows are found again: by ctid, by tableoid and ctid, by the hash.
ROW, PARTITION, NONE = "row", "partition", "none"
PAIRS_ROWS, PAIRS_BYTES = 20_000, 1024 * 1024
_FOREIGN_KEY = "23503"
#: Settings for the join of pairs: enough memory to avoid files, and no sorting, which takes longer.
_JOINING = {"work_mem": "128MB", "enable_mergejoin": "off"}
_numbers = itertools.count(1)


@attrs.frozen(kw_only=True)
class MirroredRows:
    """The rows of a job at its source."""

    #: What follows FROM.
    rows: str
    row_security: str
    table: portl.Table
    #: The qualifier of columns.
    relation: str
    #: True if inheritance children are excluded.
    only: bool


class PostgresMirrorSource(SourceComparer, MirrorSource):
    """The source's side.

    Args:
        session: that of the source.
        token: checked while waiting.
        label: where this is, for messages.
        rows: those of the job.
        places: stores the places of rows to fetch.
    """

    def __init__(
        self, session: Session, token: portl.CancelToken, label: str, rows: MirroredRows, places: Places
    ) -> None:
        super().__init__(session, token, rows.rows, label, rows.row_security)
        self._table = rows.table
        self._relation = rows.relation
        self._only = rows.only
        self._places = places

    def offers(self, intent: Intent) -> Mapping[str, str]:
        """See ``Comparer.offers``: what a server computes, alone."""
        return {name: proof for name, proof in super().offers(intent).items() if name != PYTHON}

    def terms(self) -> Mapping[str, str]:
        """See ``Comparer.terms``."""
        return {**super().terms(), "places": self._found_by()}

    def _found_by(self) -> str:
        if self._table.kind == "query":
            return NONE
        (rows,) = self._session.bare([bound(statement("places"), table_details(self._table).oid)])
        return ROW if self._only and rows[0][0] == PARTITION else str(rows[0][0])

    def agree(self, comparison: Comparison) -> None:
        """See ``Comparer.agree``."""
        super().agree(comparison)
        kind = comparison.terms["places"]
        if kind != NONE:
            self._places.looked_for = f"{self._relation}.ctid", "pg_catalog.tid"
            return
        version = self._session.version
        flags = [judged_by_text(field, version) for field in comparison.intent.fields]
        expressions = Expressions(comparison, flags, [f"({column})" for column in self.columns()])
        self._places.looked_for = f"({expressions.spread})", "pg_catalog.int8"

    def pairs(self, buckets: Collection[int] | None) -> Iterator[Batch]:
        """See ``MirrorSource.pairs``."""
        e = self._expressions
        found, extra = _places(self._comparison.terms["places"], self._relation)
        columns = ", ".join(["portl_spread", e.digest, *found])
        chosen = _chosen(e.bucket, buckets)
        query = f"COPY (SELECT {columns} FROM {self._rows_of('', *extra)}{chosen}) TO STDOUT (FORMAT binary)"
        with as_they_are(self._session):
            copy = CopyOut(self._session, query, self._token, "comparing rows")
            yield from copy.batches(binary=True, rows=PAIRS_ROWS, size=PAIRS_BYTES)

    def aim(self, part: int, place: object) -> Chunk:
        """See ``MirrorSource.aim``."""
        assert isinstance(place, Place), "what the other side has returned"
        self._places.put(part, place)
        return Chunk(bounds={"by": portl.PLACES, "part": part})

    def forget(self) -> None:
        """See ``MirrorSource.forget``."""
        self._places.close()


class PostgresMirrorDestination(DestinationComparer, MirrorDestination):
    """The destination's side.

    Args:
        session: that of the destination.
        token: checked while waiting.
        name: the table's quoted name.
        label: where this is, for messages.
        intent: the job.
        mirroring: how it is mirrored.
    """

    transaction: ClassVar[str] = "ISOLATION LEVEL REPEATABLE READ"

    def __init__(
        self, session: Session, token: portl.CancelToken, name: str, label: str, intent: Intent, mirroring: Mirroring
    ) -> None:
        self._name = name
        self._mirroring = mirroring
        self._added = {column.name for column in intent.add}
        self._mark = Mark.of(intent.target, mirroring)
        super().__init__(session, token, mirrored_rows(name, intent, mirroring), label)
        #: True once ``differ`` has stored the differences.
        self._found = False
        #: The names of the temporary tables, which are dropped at the end.
        self._prefix = f"portl_mirror_{next(_numbers)}"

    def offers(self, intent: Intent) -> Mapping[str, str]:
        """See ``Comparer.offers``: what a server computes, alone."""
        return {name: proof for name, proof in super().offers(intent).items() if name != PYTHON}

    def columns(self) -> list[str]:
        """See ``ServerComparer.columns``. Columns that the run adds are still NULL."""
        found = super().columns()
        fields = self._comparison.intent.fields
        return [
            f"CAST(NULL AS {'text' if self._texts(field) else native(field.target)})"
            if field.target.name in self._added
            else column
            for field, column in zip(fields, found, strict=True)
        ]

    def _texts(self, field: portl.Field) -> bool:
        return judged_by_text(field, int(self._comparison.terms.get("version", self._session.version)))

    def _adopt(self, comparison: Comparison) -> None:
        if "TimeZone" in comparison.terms:
            self._set({"TimeZone": comparison.terms["TimeZone"]})
        columns = ", ".join(self.columns())
        self._session.query(f"SELECT {columns} FROM {self._from} LIMIT 0", what="looking at what is there")

    def differ(self, pairs: Iterable[Batch], buckets: Collection[int] | None) -> tuple[Differences, int]:
        """See ``MirrorDestination.differ``."""
        session, kind = self._session, self._comparison.terms["places"]
        here, there, differing = (self._temporary(name) for name in ("here", "there", "differing"))
        types = {ROW: ", place tid", PARTITION: ", relation int8, place tid", NONE: ""}[kind]
        self._set(_JOINING)
        with as_they_are(session):  # while the source computes its own, which are read ahead
            session.execute(f"CREATE TEMPORARY TABLE {there} AS {self._own(buckets)}", what="comparing rows")
        session.execute(f"CREATE TEMPORARY TABLE {here} (spread int8, digest int8{types})")
        sent = self._take_in(pairs, here)
        repeated = 0
        if self._comparison.repeats:
            ((repeated,),) = session.query(f"SELECT count(*) - count(DISTINCT spread) FROM {here}")
        session.execute(self._joined(here, there, differing), what="comparing rows")
        wanted = self._divide("wanted", differing, self._wanted(kind))
        keeps = self._mirroring.deletes is Deletes.KEEP
        removed = () if keeps else self._divide("removed", differing, self._removed())
        if self._mark is not None:
            self._find_marked(differing, self._mark)
        session.execute(f"DROP TABLE {here}, {there}, {differing}")
        self._open = False
        session.commit()
        self._found = True
        return Differences(fetched=wanted, removed=removed, repeated=repeated), sent

    def _temporary(self, name: str) -> str:
        return quoted("pg_temp", f"{self._prefix}_{name}")

    def _take_in(self, pairs: Iterable[Batch], here: str) -> int:
        """Copy the source's pairs into a table; return their size in bytes."""
        copy = CopyIn(
            self._session,
            f"COPY {here} FROM STDIN (FORMAT binary)",
            binary=True,
            token=self._token,
            what="taking in what the source has",
        )
        sent = 0
        try:
            for batch in pairs:
                assert isinstance(batch, CopyBatch), "both sides have agreed on a digest of the servers"
                sent += copy.write(batch)
        except BaseException:
            copy.abort()
            raise
        copy.finish()
        return sent

    def _own(self, buckets: Collection[int] | None) -> str:
        """Return the query for the destination's own pairs."""
        e = self._expressions
        rows = self._rows_of("", "tableoid::oid::int8 AS portl_relation", "ctid AS portl_place")
        return (
            f"SELECT portl_spread AS spread, {e.digest} AS digest, portl_relation AS there_in, portl_place AS there"
            f" FROM {rows}{_chosen(e.bucket, buckets)}"
        )

    def _joined(self, here: str, there: str, differing: str) -> str:
        """Return the statement that stores the pairs that only one side has."""
        equal = "h.spread = t.spread AND h.digest = t.digest"
        if not self._comparison.key:
            # Duplicate rows are numbered, and matched by number. If the source finds rows by hash, duplicates are
            # fetched all together or not at all.
            every = self._comparison.terms["places"] == NONE
            same = "PARTITION BY spread, digest"
            number = f"row_number() OVER ({same}) AS n{f', count(*) OVER ({same}) AS m' if every else ''}"
            here, there = f"(SELECT *, {number} FROM {here})", f"(SELECT *, {number} FROM {there})"
            equal += f" AND h.n = t.n{' AND h.m = t.m' if every else ''}"
        relation, place = _here(self._comparison.terms["places"])
        return (
            f"CREATE TEMPORARY TABLE {differing} AS SELECT h.spread IS NOT NULL AS is_here, {relation} AS here_in,"
            f" {place} AS here, t.there_in, t.there, coalesce(h.spread, t.spread) AS spread, t.digest"
            f" FROM {here} AS h FULL JOIN {there} AS t ON {equal} WHERE h.spread IS NULL OR t.spread IS NULL"
        )

    def _wanted(self, kind: str) -> str:
        """Return the query for source rows that are missing or different at the destination, in order of place."""
        distinct = "DISTINCT " if kind == NONE else ""
        return f"SELECT {distinct}here_in AS relation, here AS place FROM {{}} WHERE is_here"

    def _removed(self) -> str:
        """Return the query for the destination's surplus rows."""
        found = "SELECT there_in AS relation, there AS place, spread, digest FROM {} AS d WHERE NOT is_here"
        if not self._comparison.key:
            return found
        return f"{found} AND NOT EXISTS (SELECT FROM {{}} AS h WHERE h.is_here AND h.spread = d.spread)"

    def _divide(self, name: str, differing: str, query: str) -> tuple[int, ...]:
        """Store rows in a table, each with the number of its part; return the number of rows in each part."""
        found = query.replace("{}", differing)
        table, size = self._temporary(name), self._mirroring.part_rows
        numbered = f"(row_number() OVER (PARTITION BY relation ORDER BY place) - 1) / {size} AS portl_n"
        self._session.execute(
            f"CREATE TEMPORARY TABLE {table} AS SELECT dense_rank() OVER (ORDER BY relation, portl_n) AS part, r.*"
            f" FROM (SELECT f.*, {numbered} FROM ({found}) AS f) AS r",
            what="comparing rows",
        )
        counted = self._session.query(f"SELECT count(*) FROM {table} GROUP BY part ORDER BY part")
        if len(counted) > 1:
            self._session.execute(f"CREATE INDEX ON {table} (part)")
        return tuple(count for (count,) in counted)

    def _find_marked(self, differing: str, mark: Mark) -> None:
        """Store the rows that are marked as deleted but whose key the source has."""
        rows = self._scanned([mark.present])
        self._session.execute(
            f"CREATE TEMPORARY TABLE {self._temporary('marked')} AS SELECT portl_place AS place, portl_relation AS"
            f" relation, portl_spread AS spread FROM {rows} WHERE portl_spread IN"
            f" (SELECT spread FROM {differing} WHERE is_here)",
            what="looking for rows that are marked as deleted",
        )

    def _scanned(self, conditions: Iterable[str]) -> str:
        """Return the query for the rows that meet conditions, with their places."""
        found = " AND ".join(conditions)
        columns = [f"{column} AS c{number}" for number, column in enumerate(self.columns())]
        columns += ["tableoid::oid::int8 AS portl_relation", "ctid AS portl_place"]
        rows = f"SELECT {', '.join(columns)} FROM {self._name} WHERE {found}"
        return f"(SELECT *, {self._expressions.spread} AS portl_spread FROM ({rows}) AS portl_r OFFSET 0) AS portl_rows"

    def place(self, part: int) -> object:
        """See ``MirrorDestination.place``."""
        found = self._session.query(
            "SELECT relation, pg_catalog.array_agg(place ORDER BY place)::text"
            f" FROM {self._temporary('wanted')} WHERE part = $1 GROUP BY relation",
            part,
        )
        ((relation, values),) = found
        return Place(values=values, relation=relation)

    def restore(self) -> int:
        """See ``MirrorDestination.restore``."""
        mark = self._mark
        if mark is None or not self._found:
            return 0
        chosen = f"SELECT * FROM {self._temporary('marked')}"
        return self._change(f"UPDATE {self._name} AS t SET {mark.cleared}", chosen, [mark.present])

    def remove(self, part: int) -> int:
        """See ``MirrorDestination.remove``."""
        mark = self._mark
        action = f"DELETE FROM {self._name} AS t" if mark is None else f"UPDATE {self._name} AS t SET {mark.set}"
        chosen = f"SELECT * FROM {self._temporary('removed')} WHERE part = {part}"
        try:
            return self._change(action, chosen, same=f"r.digest = {self._expressions.digest}")
        except DataError as error:
            if error.sqlstate == _FOREIGN_KEY and error.table:
                error.hint = (
                    f"rows of {error.table} refer to rows that the source does not have: mirror {error.table} too,"
                    " or use `mirror: {deletes: soft}` or `keep`"
                )
            raise

    def _change(self, action: str, chosen: str, conditions: Sequence[str] = (), same: str = "true") -> int:
        """Change the rows at some places if they have not changed since the comparison; return their number.

        Args:
            action: the statement, up to its condition.
            chosen: the query for the places, with the hashes and digests of their rows.
            conditions: further conditions on the rows.
            same: the condition on their digest.
        """
        self._set({"row_security": self._row_security, "TimeZone": self._comparison.terms["TimeZone"]})
        rows = self._scanned([f"ctid = ANY (ARRAY(SELECT place FROM ({chosen}) AS portl_p))", *conditions])
        text = (
            f"WITH same AS MATERIALIZED (SELECT r.relation, r.place FROM {rows} JOIN ({chosen}) AS r"
            f" ON r.place = portl_place AND r.relation = portl_relation AND r.spread = portl_spread AND {same}),"
            f" done AS ({action} WHERE t.ctid = ANY (ARRAY(SELECT place FROM same))"
            " AND (t.tableoid::oid::int8, t.ctid) IN (SELECT relation, place FROM same) RETURNING 1)"
            " SELECT count(*) FROM done"
        )
        with as_they_are(self._session):
            ((count,),) = self._session.query(text, what=f"removing rows from {self._comparison.intent.target.name}")
        return int(count)

    def forget(self) -> None:
        """See ``MirrorDestination.forget``."""
        if not self._session.broken:
            names = ", ".join(map(self._temporary, ("here", "there", "differing", "wanted", "removed", "marked")))
            self._session.execute(f"DROP TABLE IF EXISTS {names}")


def _chosen(bucket: str, buckets: Collection[int] | None) -> str:
    return "" if buckets is None else f" WHERE {bucket} = ANY ('{{{','.join(map(str, buckets))}}}'::int8[])"


def _places(kind: str, relation: str) -> tuple[list[str], list[str]]:
    """Return the columns of a pair that hold its row's place, with their expressions."""
    place = f"{relation}.ctid AS portl_place"
    if kind == PARTITION:
        return ["portl_relation", "portl_place"], [f"{relation}.tableoid::oid::int8 AS portl_relation", place]
    return (["portl_place"], [place]) if kind == ROW else ([], [])


def _here(kind: str) -> tuple[str, str]:
    """Return the expressions for the relation and the place in the source's pairs."""
    if kind == NONE:
        return "0::int8", "h.spread"
    return ("h.relation" if kind == PARTITION else "0::int8"), "h.place"
