"""Compute a comparison in the servers: the rows that the source should have produced, and the destination's rows.

The source's side is the SELECT list of the copy, cast to the destination's types, so that scale, precision, padding and
so on are those of the destination. Each value is then turned into an image: bytes or text that are equal exactly if the
values print alike. So 1.0 is not 1.00, and -0 is not 0; json is compared as written.

Three facts about the hash functions decide the images (src/backend/access/hash/hashfunc.c, utils/adt/rowtypes.c):

* they follow equality, under which 1.0 equals 1.00: numbers are hashed in binary form (manual, 9.5, ``*send``);
* those of bigint and timestamps fold 64 bits into 32, so that 1 and 4294967296 collide: also hashed in binary form;
* that of a record is a linear combination of its columns' hashes, so that two rows that swap a value would have the
  same sum. So a row's digest is seeded with the hash of its key, or with a first hash of the whole row.

If the two servers disagree on fixed values, or one's encoding is not UTF-8, md5 is used instead.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import ClassVar

import portl
from portl import BucketSum, Comparer, Comparison, Intent, Kind, RowLine, Texts
from portl_postgres.catalog.equality import key_operators
from portl_postgres.catalog.tables import details
from portl_postgres.catalog.types import PgType
from portl_postgres.session.session import Session
from portl_postgres.sql.text import quoted
from portl_postgres.verification import by_key
from portl_postgres.verification.images import HASHES_RECORDS, image, judged_by_text, produced, shown
from portl_postgres.wire import select_list as expressions
from portl_postgres.wire.column_codecs import PORTION_BYTES, PORTION_ROWS, rows_loader
from portl_postgres.wire.copy import as_they_are, text_options
from portl_postgres.wire.copy_out import CopyOut
from portl_postgres.wire.row_text import unescape

HASH, MD5, PYTHON = "hash", "md5", portl.Comparer.PYTHON
#: Integers that differ only in their last bits share a bucket: rows are often in key order, so that the sum just
#: updated is still in the processor's cache. Grouping 2 M rows took 1.5 s without this, 0.3 s with it. Also, rows that
#: were written together tend to differ together.
NEIGHBOURS = 4

#: One value of each type whose hash function is relied upon, and a NULL.
_TRIAL = (
    "SELECT hash_record_extended(ROW(true, 1::int2, -5::int4, date '2024-01-01', 77::oid,"
    " uuid '00000000-0000-4000-8000-0000000000aa', '\\x00ff'::bytea, CAST('portl' AS text) COLLATE \"C\", NULL::text),"
    " 12345678901234)::text"
)
_SETTINGS = {
    "jit": "off",  # compiling takes longer than it saves
    "synchronize_seqscans": "off",  # LIMIT must select the same rows as in the run
    "work_mem": "64MB",  # with less, grouping spills whole rows and takes a third longer
}


class Expressions:
    """The expressions of one side over its rows.

    Args:
        comparison: the terms.
        by_text: for each field, whether its text is compared.
        names: the expression for each field; by default the names from ``_rows_of``.
    """

    def __init__(self, comparison: Comparison, by_text: Sequence[bool], names: Sequence[str] | None = None) -> None:
        fields = comparison.intent.fields
        self.names = list(names) if names is not None else [f"c{number}" for number in range(len(fields))]
        pgs = []
        for field in fields:
            found = details(field.target)
            assert found is not None
            pgs.append(found.pg)
        places = [[f.target.name for f in fields].index(name) for name in comparison.key]
        known = list(zip(self.names, pgs, by_text, strict=True))
        scaled = [field.target.type.scale is not None for field in fields]
        images = [
            image(name, pg, by_text=flag, scaled=fixed) for (name, pg, flag), fixed in zip(known, scaled, strict=True)
        ]
        self.texts = [shown(name, pg, by_text=flag) for name, pg, flag in known]
        self.key = [self.texts[place] for place in places]
        whole, key = _row(images), _row([images[place] for place in places])
        mask = comparison.buckets - 1
        #: The digest's seed, to be selected as ``portl_spread``.
        self.spread = ""
        self.bucket = f"(portl_spread & {mask})"
        if comparison.digest == MD5:
            self.spread = _md5(key if places else whole, "left")
            self.digest = _md5(whole, "right")
            return
        if len(places) == 1 and _is_whole(pgs[places[0]], by_text=by_text[places[0]]):
            # An integer is its own seed, to save hashing it twice. NULL must differ from -1.
            name = self.names[places[0]]
            images[places[0]] = f"{name} IS NULL"
            self.spread = f"coalesce(CAST({name} AS int8), -1)"
            # All bits are folded into the number, so that the numbers of a dense key fill the buckets evenly, and those
            # of a key with gaps as well.
            folded = range(NEIGHBOURS, 63, max(1, mask.bit_length()))
            self.bucket = f"(({' # '.join(f'(portl_spread >> {shift})' for shift in folded)}) & {mask})"
        else:
            self.spread = f"pg_catalog.hash_record_extended({key if places else whole}, 1)"
        self.digest = f"pg_catalog.hash_record_extended({_row(images)}, portl_spread)"


def _is_whole(pg: PgType, *, by_text: bool) -> bool:
    return not by_text and pg.root.builtin and pg.root.name in ("int2", "int4", "int8")


def _row(images: Iterable[str]) -> str:
    return f"ROW({', '.join(images)})"


def _md5(row: str, half: str) -> str:
    digest = f"pg_catalog.md5(pg_catalog.record_send({row}))"
    return f"CAST(CAST('x' || pg_catalog.{half}({digest}, 16) AS bit(64)) AS int8)"


class ServerComparer(Comparer):
    """One side of a comparison, computed in its server.

    Args:
        session: that of the side.
        token: checked while waiting.
        rows: what follows FROM.
        label: where this is, for messages.
        row_security: the setting; off, because rows hidden by a policy would look as if they were missing.
    """

    role = ""
    #: The mode of the transaction in which everything is compared.
    transaction: ClassVar[str] = "ISOLATION LEVEL REPEATABLE READ, READ ONLY"

    def __init__(
        self, session: Session, token: portl.CancelToken, rows: str, label: str, row_security: str = "off"
    ) -> None:
        super().__init__(self._decoded)
        self._session = session
        self._token = token
        self._from = rows
        self._label = label
        self._row_security = row_security
        self._open = False

    def _begin(self) -> None:
        if not self._open:
            # Inside the source's transaction this is a savepoint, which also undoes the settings.
            self._session.begin(self.transaction)
            self._open = True
            self._set({**_SETTINGS, "row_security": self._row_security})

    def _set(self, settings: Mapping[str, str]) -> None:
        for name, value in settings.items():
            self._session.query("SELECT set_config($1, $2, true)", name, value, what=f"setting {name}")

    def offers(self, intent: Intent) -> Mapping[str, str]:
        """See ``Comparer.offers``."""
        if any(details(field.target) is None for field in intent.fields):
            return super().offers(intent)
        self._begin()
        found = {}
        ((encoding,),) = self._session.query("SELECT current_setting('server_encoding')")
        if self._session.version >= HASHES_RECORDS and encoding == "UTF8":
            ((found[HASH],),) = self._session.query(_TRIAL, what="trying the hash functions")
        return {**found, MD5: "", **super().offers(intent)}

    def agree(self, comparison: Comparison) -> None:
        """See ``Comparer.agree``."""
        super().agree(comparison)
        self._begin()
        self._adopt(comparison)
        if comparison.digest != PYTHON:
            terms = comparison.terms
            source_version = int(terms.get("version", self._session.version))
            flags = [judged_by_text(field, source_version) for field in comparison.intent.fields]
            self._expressions = Expressions(comparison, flags)

    def _adopt(self, comparison: Comparison) -> None:
        """Adopt the terms of the other side."""

    def columns(self) -> list[str]:
        """Return an expression for each field, in the destination's form."""
        raise NotImplementedError

    def _rows_of(self, joined: str = "", *more: str, numbered: bool = False) -> str:
        """Return the query for the rows.

        Args:
            joined: what to join them with.
            more: further columns.
            numbered: True to add a column with their position.
        """
        columns = [f"{column} AS c{number}" for number, column in enumerate(self.columns())]
        columns += more
        if numbered:
            columns.append("pg_catalog.row_number() OVER () AS portl_order")
        rows = f"SELECT {', '.join(columns)} FROM {self._from} {joined}"
        # OFFSET 0 prevents the planner from computing the key's hash twice, which took two thirds of the time.
        return f"(SELECT *, {self._expressions.spread} AS portl_spread FROM ({rows}) AS portl_r OFFSET 0) AS portl_rows"

    def count(self) -> int:
        """See ``Comparer.count``."""
        self._begin()
        rows = self._session.query(
            f"SELECT count(*) FROM (SELECT 1 FROM {self._from}) AS portl_rows", what="counting the rows"
        )
        return int(rows[0][0])

    def sums(self) -> Mapping[int, BucketSum]:
        """See ``Comparer.sums``."""
        if self._comparison.digest == PYTHON:
            return super().sums()
        e = self._expressions
        statement = f"SELECT {e.bucket}, count(*), sum({e.digest})::text FROM {self._rows_of()} GROUP BY 1"
        with as_they_are(self._session):
            rows = self._session.query(statement, what="computing the checksums")
        return {bucket: BucketSum(count, int(total)) for bucket, count, total in rows}

    def lines(self, buckets: Collection[int] | None, *, texts: bool) -> Iterator[tuple[int, list[RowLine]]]:
        """See ``Comparer.lines``."""
        if self._comparison.digest == PYTHON:
            yield from super().lines(buckets, texts=texts)
            return
        e = self._expressions
        chosen = "" if buckets is None else f" WHERE {e.bucket} = ANY ('{{{','.join(map(str, buckets))}}}'::int8[])"
        order = ", portl_order" if self._comparison.repeats else ""
        rows = f"{self._rows_of(numbered=bool(order))}{chosen} ORDER BY 1{order}"
        for bucket, group in groupby(self._numbered(e.bucket, rows, texts=texts), key=lambda pair: pair[0]):
            yield bucket, [line for _, line in group]

    def _numbered(self, number: str, rows: str, *, texts: bool) -> Iterator[tuple[int, RowLine]]:
        """Yield rows, each with a number.

        Args:
            number: an expression.
            rows: what follows FROM.
            texts: True for the texts of all columns as well.
        """
        e, width = self._expressions, len(self._comparison.key)
        columns = ", ".join([number, e.digest, *e.key, *(e.texts if texts else ())])
        statement = f"COPY (SELECT {columns} FROM {rows}) TO STDOUT ({text_options(self._session)})"
        with as_they_are(self._session):
            for row in CopyOut(self._session, statement, self._token, "comparing rows").rows(binary=False):
                value, digest, *rest = bytes(row)[:-1].decode("utf-8", "surrogateescape").split("\t")
                found = tuple([None if text == "\\N" else unescape(text) for text in rest])
                yield int(value), RowLine(found[:width], digest, found[width:] if texts else None)

    def _decoded(self) -> Iterator[tuple[object, ...]]:
        """Yield decoded rows, for comparison with a side that is not PostgreSQL."""
        columns = ", ".join(self.columns())
        statement = f"COPY (SELECT {columns} FROM {self._from}) TO STDOUT ({text_options(self._session)})"
        load = rows_loader(self._types())
        copy = CopyOut(self._session, statement, self._token, "comparing rows")
        for batch in copy.batches(binary=False, rows=PORTION_ROWS, size=PORTION_BYTES):
            yield from load(batch.bare)

    def _types(self) -> list[portl.Type]:
        raise NotImplementedError

    def cancel(self) -> None:
        """See ``Comparer.cancel``."""
        self._session.cancel()

    def close(self) -> None:
        """See ``Comparer.close``."""
        if self._open:
            self._open = False
            self._session.rollback()


class SourceComparer(ServerComparer):
    """The rows that the source should have produced. Takes the arguments of ``ServerComparer``."""

    def terms(self) -> Mapping[str, str]:
        """See ``Comparer.terms``."""
        ((zone,),) = self._session.query("SELECT current_setting('TimeZone')")
        return {"TimeZone": zone, "version": str(self._session.version)}

    def columns(self) -> list[str]:
        """See ``ServerComparer.columns``."""
        fields = self._comparison.intent.fields
        if self._comparison.digest == PYTHON:
            return [expressions.item(field).sql for field in fields]
        return [produced(field, self._session.version) for field in fields]

    def places(self, keys: Sequence[Texts], *, last: bool) -> Mapping[Texts, int]:
        """See ``Comparer.places``."""
        if self._comparison.digest == PYTHON:
            return super().places(keys, last=last)
        statement = by_key.places(self._rows_of(numbered=True), self._expressions.key, keys, last=last)
        rows = self._session.query(statement, what="looking for the order of rows with one key")
        return {keys[number - 1]: place for number, place in rows}

    def _types(self) -> list[portl.Type]:
        fields = self._comparison.intent.fields
        plain = portl.Type(kind=Kind.TEXT)
        return [f.sent.type if details(f.sent) and expressions.keeps_type(f) else plain for f in fields]


class DestinationComparer(ServerComparer):
    """The destination's rows. Takes the arguments of ``ServerComparer``."""

    def _adopt(self, comparison: Comparison) -> None:
        if "TimeZone" in comparison.terms:
            self._set({"TimeZone": comparison.terms["TimeZone"]})
        columns = ", ".join(quoted(field.target.name) for field in comparison.intent.fields)
        self._session.query(f"SELECT {columns} FROM {self._from} LIMIT 0", what="looking at what is there")

    def columns(self) -> list[str]:
        """See ``ServerComparer.columns``."""
        comparison = self._comparison
        names = [quoted(field.target.name) for field in comparison.intent.fields]
        if comparison.digest == PYTHON:
            return names
        version = int(comparison.terms.get("version", self._session.version))
        flags = [judged_by_text(field, version) for field in comparison.intent.fields]
        return [f"CAST({name} AS text)" if flag else name for name, flag in zip(names, flags, strict=True)]

    def alike(self, keys: Sequence[Texts], *, texts: bool) -> Mapping[Texts, RowLine]:
        """See ``Comparer.alike``."""
        comparison, session = self._comparison, self._session
        if comparison.digest == PYTHON:
            return super().alike(keys, texts=texts)
        by_name = {field.target.name: field for field in comparison.intent.fields}
        versions = int(comparison.terms.get("version", session.version)), session.version
        nulls = comparison.intent.key is not None and comparison.intent.key.nulls_equal
        operators = key_operators(session, self._from, comparison.key)
        key = [by_name[name] for name in comparison.key]
        joined = by_key.equals(key, keys, operators, versions, nulls=nulls)
        rows = self._rows_of(joined, "portl_number")
        return {keys[number - 1]: line for number, line in self._numbered("portl_number", rows, texts=texts)}

    def _types(self) -> list[portl.Type]:
        return [field.target.type for field in self._comparison.intent.fields]
