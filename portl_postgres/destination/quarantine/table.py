"""The quarantine's table, beside the destination's, written in the transaction of the accepted rows."""

from __future__ import annotations

import copy
import datetime as dt
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import portl
from portl import DataError, Intent, Rejected, Rejection, RowBatch
from portl_postgres.catalog.tables import shown, table_details
from portl_postgres.destination.quarantine.rows import Cell, RowTexts, as_json, parsed
from portl_postgres.session.session import Session
from portl_postgres.sql.text import listed, quoted

SUFFIX = "__rejected"
#: The server's limit (manual, 4.1.1).
NAME_BYTES = 63
#: The largest row that can be quarantined, in bytes: as JSON it may take twice that, and the server's limit is 1 GB.
LARGEST_ROW = 480 * 1024 * 1024
#: The most rows in one statement, and the bytes after which no more are added.
INSERT_ROWS, INSERT_BYTES = 500, 8 * 1024 * 1024

COLUMNS = {
    "id": "bigint",
    "job": "text",
    "run": "text",
    "rejected_at": "timestamp with time zone",
    "reason": "text",
    "sqlstate": "text",
    "constraint_name": "text",
    "column_name": "text",
    "source_position": "text",
    "chunk": "integer",
    "batch": "integer",
    "row_number": "bigint",
    "row": "json",
}
_MORE = {
    "id": " GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    "rejected_at": " NOT NULL DEFAULT clock_timestamp()",
}


def table_name(intent: Intent) -> tuple[str, str]:
    """Return the schema and the name of the quarantine's table, shortened if too long."""
    found = table_details(intent.target)
    wanted = intent.quarantine.table if intent.quarantine is not None else None
    if wanted is not None:
        return found.schema, wanted
    name = found.name + SUFFIX
    if len(name.encode()) > NAME_BYTES:
        mark = "_" + hashlib.sha256(found.name.encode()).hexdigest()[:8] + SUFFIX
        name = found.name.encode()[: NAME_BYTES - len(mark)].decode("utf-8", "ignore") + mark
    return found.schema, name


def relation(session: Session, table: str) -> int:
    """Return a table's oid; 0 if there is none."""
    ((oid,),) = session.query("SELECT coalesce(to_regclass($1)::oid::bigint, 0)", table)
    return int(oid)


def insist(session: Session, schema: str, name: str) -> None:
    """Refuse a table that has the quarantine's name but is not one.

    Raises:
        SchemaError: it lacks columns; says which.
    """
    there = dict(
        session.query(
            "SELECT attname::text, pg_catalog.format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute"
            " WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped",
            quoted(schema, name),
        )
    )
    lacking = [f"{column} {type}" for column, type in COLUMNS.items() if there.get(column) != type]
    if lacking:
        raise portl.SchemaError(
            f"{shown(schema, name)} is not a quarantine of portl's: it lacks {', '.join(lacking)}",
            hint="name another table in `quarantine.table`, or rename this one",
        )


def _portions(rejections: Sequence[Rejection]) -> Iterator[list[Rejection]]:
    """Yield groups of rejections for one statement each: as text, rows take several times their memory."""
    portion: list[Rejection] = []
    size = 0
    for rejection in rejections:
        portion.append(rejection)
        size += rejection.row.size
        if len(portion) == INSERT_ROWS or size >= INSERT_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


class RejectedTable:
    """The quarantine's table of one job.

    Args:
        session: that of the destination, inside the transaction of the rows.
        intent: the job.
        token: checked while waiting.
    """

    def __init__(self, session: Session, intent: Intent, token: portl.CancelToken) -> None:
        self._session = session
        self._intent = intent
        self._texts = RowTexts(session, intent, token)
        self._schema, self._name = table_name(intent)
        self._table = quoted(self._schema, self._name)
        self._columns = [field.target.name for field in intent.fields]
        self._job = session.readable(intent.job)

    def put(self, rejections: Sequence[Rejection]) -> list[str]:
        """Quarantine rows; return a line of JSON for each, if the job names a file for the quarantine."""
        for rejection in rejections:
            if rejection.row.size > LARGEST_ROW:
                raise portl.OperationError(
                    f"{rejection.position} is too large for the quarantine, which keeps a row as text:"
                    f" {rejection.row.size:,} bytes; it was refused for this: {rejection.error.message}",
                    hint="fix its cause, leave the row out in the source, or leave the column out (`exclude_columns`)",
                )
        try:
            self._make()
            return [line for portion in _portions(rejections) for line in self._put(portion)]
        except DataError as error:
            # Not a DataError: it must not be mistaken for a refusal of the current rows.
            raise portl.OperationError(f"rejected rows could not be quarantined: {error.message}") from None

    def _put(self, rejections: Sequence[Rejection]) -> list[str]:
        """Quarantine some rows; return a line for each if the job names a file."""
        rows = [dict(zip(self._columns, cells, strict=True)) for cells in self._texts.of(rejections)]
        records = [self._record(r, row) for r, row in zip(rejections, rows, strict=True)]
        self._insert(records)
        wanted = self._intent.quarantine is not None and self._intent.quarantine.file is not None
        return [json.dumps(record, ensure_ascii=False) for record in records] if wanted else []

    def remove(self, run: str, chunk: int | None) -> None:
        """Remove what a run, or one of its chunks, quarantined.

        Raises:
            OperationError: the role may not.
        """
        if not relation(self._session, self._table):
            return
        self._session.execute(
            f"DELETE FROM {self._table} WHERE run = $1 AND ($2::int4 IS NULL OR chunk = $2)",
            run,
            chunk,
            what=f"removing rows from {self._table} that come once more",
        )

    def _make(self) -> None:
        if not relation(self._session, self._table):
            # Two workers may get here at once: IF NOT EXISTS alone would fail in one of them.
            self._session.query("SELECT pg_advisory_xact_lock(hashtext($1), hashtext('portl'))", self._table)
            columns = ", ".join(f"{quoted(name)} {type}{_MORE.get(name, '')}" for name, type in COLUMNS.items())
            self._session.execute(
                f"CREATE TABLE IF NOT EXISTS {self._table} ({columns})", what=f"creating {self._table}"
            )
        insist(self._session, self._schema, self._name)

    def _record(self, rejection: Rejection, row: Mapping[str, Cell]) -> dict[str, Any]:
        error = rejection.error
        return {
            "job": self._job or None,
            "run": self._intent.run or None,
            "rejected_at": dt.datetime.now(dt.UTC).isoformat(),
            "reason": _reason(error, row, self._intent),
            "sqlstate": error.sqlstate,
            "constraint_name": error.constraint,
            "column_name": error.column,
            "source_position": rejection.position,
            "chunk": rejection.chunk,
            "batch": error.batch if error.batch is not None else rejection.row.number,
            "row_number": error.row if error.row is not None else rejection.row.first_row,
            "row": {name: as_json(cell) for name, cell in row.items()},
        }

    def _insert(self, records: Sequence[Mapping[str, Any]]) -> None:
        names = [name for name in COLUMNS if name != "id"]
        # Characters that the server's encoding lacks are escaped; the type json stores the escapes unchanged.
        plain = self._session.speaks_unicode
        rows = [json.dumps(record["row"], ensure_ascii=not plain) for record in records]
        arrays = [[None if r[name] is None else str(r[name]) for r in records] for name in names if name != "row"]
        # Each row is a separate parameter: escaping large text as an array element would take several copies.
        columns = [f"${n}::text[]" for n in range(1, len(arrays) + 1)]
        columns.append(f"ARRAY[{', '.join(f'${len(arrays) + n}::text' for n in range(1, len(rows) + 1))}]")
        casts = ", ".join(f"v.{quoted(name)}::{COLUMNS[name]}" for name in names)
        tag = self._session.execute(
            f"INSERT INTO {self._table} ({listed(names)}) SELECT {casts}"
            f" FROM unnest({', '.join(columns)})"
            f" WITH ORDINALITY AS v({listed(names)}, portl_n) ORDER BY v.portl_n",
            *arrays,
            *rows,
            what=f"quarantining rows in {self._table}",
        )
        self._insist_on(len(records), tag, "quarantined in")

    def _insist_on(self, rows: int, tag: str, what: str) -> None:
        """Raise if a trigger, rule or policy of the table kept a statement from affecting all rows.

        A row missing from the quarantine would be lost; one that is not removed from it would arrive twice.
        """
        done = int(tag.rsplit(" ", 1)[-1])
        if done != rows:
            raise portl.OperationError(
                f"{rows} row(s) were to be {what} {shown(self._schema, self._name)}, and {done} were",
                hint="see which trigger, rule or row security policy of that table keeps them from it",
            )

    def read(self, after: int, limit: int) -> list[Rejected]:
        """Return the job's next rows, locked until the transaction ends."""
        if not relation(self._session, self._table):
            return []
        insist(self._session, self._schema, self._name)
        rows = self._session.query(
            "SELECT id, coalesce(batch, 0), coalesce(row_number, 0), coalesce(source_position, ''), \"row\"::text"
            f" FROM {self._table} WHERE id > $1::bigint AND ($2 = '' OR coalesce(job, $2) = $2)"
            " ORDER BY id LIMIT $3::bigint FOR UPDATE",
            after,
            self._job,
            limit,
            what=f"reading {self._table}",
        )
        return [self._rejected(*row) for row in rows]

    def _rejected(self, id: int, batch: int, number: int, position: str, text: str | None) -> Rejected:
        try:
            data = tuple(parsed(text, self._columns))
        except ValueError as error:
            return Rejected(id=id, row=None, trouble=str(error), position=position)
        row = RowBatch(number=batch, first_row=number, rows=1, size=len(text or ""), data=[data])
        return Rejected(id=id, row=row, position=position)

    def settle(self, gone: Sequence[Rejected], still: Sequence[tuple[Rejected, DataError]]) -> None:
        """Remove the rows that were accepted; record why the others were not."""
        if gone:
            tag = self._session.execute(
                f"DELETE FROM {self._table} WHERE id = ANY($1::bigint[])", [row.id for row in gone], what="tidying up"
            )
            self._insist_on(len(gone), tag, "removed from")
        if not still:
            return
        reasons = []
        for rejected, error in still:
            values = dict(zip(self._columns, rejected.row.data[0], strict=True)) if rejected.row is not None else {}
            reasons.append(_reason(error, values, self._intent))
        self._session.execute(
            f"UPDATE {self._table} AS q SET reason = v.reason, sqlstate = v.sqlstate,"
            " constraint_name = v.named, column_name = v.at, rejected_at = clock_timestamp()"
            " FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[])"
            " AS v(id, reason, sqlstate, named, at) WHERE q.id = v.id",
            [rejected.id for rejected, _ in still],
            reasons,
            [error.sqlstate for _, error in still],
            [error.constraint for _, error in still],
            [error.column for _, error in still],
            what="recording why rows are refused",
        )


def _reason(error: DataError, row: Mapping[str, Any], intent: Intent) -> str:
    """Return the server's message in a form fit for the quarantine."""
    values = {name: cell if isinstance(cell, str) else None for name, cell in row.items()}
    return portl.masked(copy.copy(error), values, intent.mask).message.replace("\0", "\N{SYMBOL FOR NULL}")
