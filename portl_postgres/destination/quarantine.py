"""The quarantine: a table beside the destination's, for rows that it refuses, written in the transaction of the others.

Each row stands there as JSON: column of the destination to the text of its value, null for NULL. The texts are those
that the column would read, whole: they are not masked, for the row is taken through again from them, edited by hand if
need be (``portl.retry_rejected``). Bytes that are no text in UTF-8, or that hold a NUL, stand as ``{"hex": "…"}``.

A row in COPY's binary format has its texts from the destination itself: it goes into a temporary table that has the
bare types of the columns, without modifiers, domains and constraints, and is read from there in the text format.

The file that a job may name besides gets the same as one JSON object a line, after the COMMIT: a process that dies in
between leaves a line out, so the table is the truth.
"""

from __future__ import annotations

import copy
import datetime as dt
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import portl
from portl import DataError, Finding, Intent, Rejected, Rejection, RowBatch
from portl_postgres.catalog.tables import shown, table_details
from portl_postgres.config import check_name
from portl_postgres.destination.rejected_cells import Cell, as_bytes, as_cell, as_json, binary_row, line_cells, parsed
from portl_postgres.session.session import Session
from portl_postgres.sql.text import listed, quoted
from portl_postgres.wire.batches import BINARY, CopyBatch, binary_values
from portl_postgres.wire.copy_in import CopyIn
from portl_postgres.wire.copy_out import CopyOut
from portl_postgres.wire.server_route import carried

SUFFIX = "__rejected"
#: What the server allows (manual, 4.1.1).
NAME_BYTES = 63
#: Rows put into one statement.
INSERT_ROWS = 500

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


def table_name(intent: Intent) -> tuple[str, str]:
    """Return the schema and the name of the quarantine's table; a name that is too long is shortened."""
    found = table_details(intent.target)
    wanted = intent.quarantine.table if intent.quarantine is not None else None
    if wanted is not None:
        return found.schema, wanted
    name = found.name + SUFFIX
    if len(name.encode()) > NAME_BYTES:
        mark = "_" + hashlib.sha256(found.name.encode()).hexdigest()[:8] + SUFFIX
        name = found.name.encode()[: NAME_BYTES - len(mark)].decode("utf-8", "ignore") + mark
    return found.schema, name


def examine(session: Session, intent: Intent) -> list[Finding]:
    """Return what stands in the way of putting rows aside. Writes nothing."""
    if intent.quarantine is None:
        return []
    schema, name = table_name(intent)
    try:
        check_name("quarantine.table", name)
    except portl.FieldError as error:
        return [portl.problem("quarantine.table", error.text)]
    findings = list(_reachable(session, schema, name))
    if carried(intent.format).name == BINARY:
        ((may,),) = session.query("SELECT has_database_privilege(current_database(), 'TEMPORARY')")
        if not may:
            findings.append(
                portl.problem(
                    "quarantine",
                    "the role may not create the temporary table by which binary rows are spelled out",
                    "GRANT TEMPORARY ON DATABASE … TO the role, or use `route: rows`",
                )
            )
    return findings + _writable(intent.quarantine.file)


def _reachable(session: Session, schema: str, name: str) -> Iterator[Finding]:
    table = quoted(schema, name)
    if _oid(session, table):
        try:
            _insist(session, schema, name)
        except portl.SchemaError as error:
            yield portl.problem("quarantine.table", error.message, error.hint)
        ((may,),) = session.query("SELECT has_table_privilege($1, 'INSERT')", table)
        if not may:
            text = f"the role may not INSERT into {shown(schema, name)}, where rejected rows go"
            yield portl.problem("quarantine", text, f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO the role")
        return
    rows = session.query("SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = $1", schema)
    if rows and not rows[0][0]:
        text = f"the role may not create the table {shown(schema, name)}, where rejected rows go"
        yield portl.problem("quarantine", text, f"GRANT CREATE ON SCHEMA {quoted(schema)} TO the role")


def _writable(file: str | None) -> list[Finding]:
    if file is None:
        return []
    path = Path(file)
    if os.access(path if path.exists() else path.parent, os.W_OK) and not path.is_dir():
        return []
    return [portl.problem("quarantine.file", f"{file!r} cannot be written", "name a file in a folder that is there")]


def _oid(session: Session, table: str) -> int:
    ((oid,),) = session.query("SELECT coalesce(to_regclass($1)::oid::bigint, 0)", table)
    return int(oid)


def _insist(session: Session, schema: str, name: str) -> None:
    """Refuse a table of the quarantine's name that is another.

    Raises:
        SchemaError: says which columns it lacks.
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
            f"{shown(schema, name)} is no quarantine of portl's: it lacks {', '.join(lacking)}",
            hint="name another table in `quarantine.table`, or rename this one",
        )


class RejectedTable:
    """The quarantine's table of one job.

    Args:
        session: the destination's, inside the transaction of the rows.
        intent: the job.
        token: looked at while waiting.
    """

    def __init__(self, session: Session, intent: Intent, token: portl.CancelToken) -> None:
        self._session = session
        self._intent = intent
        self._token = token
        self._schema, self._name = table_name(intent)
        self._table = quoted(self._schema, self._name)
        self._columns = [field.target.name for field in intent.fields]
        self._types: list[str] | None = None
        self._job = session.readable(intent.job)

    def put(self, rejections: Sequence[Rejection]) -> list[str]:
        """Write rows down; return a line of JSON for each, for the quarantine's file."""
        try:
            self._make()
            rows = [dict(zip(self._columns, cells, strict=True)) for cells in self._cells(rejections)]
            records = [self._record(r, row) for r, row in zip(rejections, rows, strict=True)]
            for start in range(0, len(records), INSERT_ROWS):
                self._insert(records[start : start + INSERT_ROWS])
        except DataError as error:
            # Nobody must take this for a refusal of the rows at hand.
            raise portl.OperationError(f"rejected rows could not be quarantined: {error.message}") from None
        return [json.dumps(record, ensure_ascii=False) for record in records]

    def remove(self, run: str, chunk: int | None) -> None:
        """Remove what a run, or one of its chunks, has put aside.

        Raises:
            OperationError: if the role may not.
        """
        if not _oid(self._session, self._table):
            return
        self._session.execute(
            f"DELETE FROM {self._table} WHERE run = $1 AND ($2::int4 IS NULL OR chunk = $2)",
            run,
            chunk,
            what=f"removing rows from {self._table} that come once more",
        )

    def _make(self) -> None:
        if not _oid(self._session, self._table):
            # Two workers may come here at once: IF NOT EXISTS alone would fail in one of them.
            self._session.query("SELECT pg_advisory_xact_lock(hashtext($1), hashtext('portl'))", self._table)
            columns = ", ".join(f"{quoted(name)} {type}{_MORE.get(name, '')}" for name, type in COLUMNS.items())
            self._session.execute(
                f"CREATE TABLE IF NOT EXISTS {self._table} ({columns})", what=f"creating {self._table}"
            )
        _insist(self._session, self._schema, self._name)

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
            "batch": rejection.row.number,
            "row_number": error.row if error.row is not None else rejection.row.first_row,
            "row": {name: as_json(cell) for name, cell in row.items()},
        }

    def _insert(self, records: Sequence[Mapping[str, Any]]) -> None:
        names = [name for name in COLUMNS if name != "id"]
        # What the server's encoding has no form for is escaped: the type json keeps that as it is.
        plain = self._session.speaks_unicode
        texts = [{**record, "row": json.dumps(record["row"], ensure_ascii=not plain)} for record in records]
        arrays = [[None if t[name] is None else str(t[name]) for t in texts] for name in names]
        casts = ", ".join(f"v.{quoted(name)}::{COLUMNS[name]}" for name in names)
        tag = self._session.execute(
            f"INSERT INTO {self._table} ({listed(names)}) SELECT {casts}"
            f" FROM unnest({', '.join(f'${n}::text[]' for n in range(1, len(names) + 1))})"
            f" WITH ORDINALITY AS v({listed(names)}, portl_n) ORDER BY v.portl_n",
            *arrays,
            what=f"putting rows aside in {self._table}",
        )
        self._insist_on(len(records), tag, "quarantined in")

    def _insist_on(self, rows: int, tag: str, what: str) -> None:
        """Refuse to go on where a trigger, a rule or a policy of the table's has kept rows from a statement.

        What would not stand in the quarantine would be lost; what is not removed from it would come twice.
        """
        done = int(tag.rsplit(" ", 1)[-1])
        if done != rows:
            raise portl.OperationError(
                f"{rows} row(s) were to be {what} {shown(self._schema, self._name)}, and {done} were",
                hint="see which trigger, rule or row security policy of that table keeps them from it",
            )

    def read(self, after: int, limit: int) -> list[Rejected]:
        """Return the job's next rows; hold them until the transaction ends."""
        if not _oid(self._session, self._table):
            return []
        _insist(self._session, self._schema, self._name)
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
        """Remove those that have gone through; write down why the others have not."""
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
            what="writing down why rows are refused",
        )

    def _cells(self, rejections: Sequence[Rejection]) -> list[list[Cell]]:
        """Return the texts of each row."""
        found: list[list[Cell]] = []
        binary: list[int] = []
        for index, rejection in enumerate(rejections):
            batch = rejection.row
            if isinstance(batch, RowBatch):
                found.append([as_cell(as_bytes(value)) for value in batch.data[0]])
            elif isinstance(batch, CopyBatch) and not batch.binary:
                found.append(line_cells(b"".join(batch.bare)))
            elif isinstance(batch, CopyBatch):
                found.append(list(binary_values(b"".join(batch.bare))))
                binary.append(index)
            else:
                raise portl.OperationError(f"a row of an unknown format arrived: {batch!r}")
        if binary:
            raw = [[cell if isinstance(cell, bytes) else None for cell in found[index]] for index in binary]
            for index, cells in zip(binary, self._spelled(raw), strict=True):
                found[index] = cells
        return found

    def _spelled(self, rows: Sequence[Sequence[bytes | None]]) -> list[list[Cell]]:
        """Return the texts of binary rows; those that the server cannot read are found by halving."""
        try:
            with self._session.scope():
                return self._through_server(rows)
        except DataError:
            if len(rows) > 1:
                middle = len(rows) // 2
                return self._spelled(rows[:middle]) + self._spelled(rows[middle:])
        filled = [n for n, cell in enumerate(rows[0]) if cell is not None]
        if len(filled) == 1:
            return [list(rows[0])]
        left = set(filled[: len(filled) // 2])
        halves = (
            [cell if n in left else None for n, cell in enumerate(rows[0])],
            [cell if n not in left else None for n, cell in enumerate(rows[0])],
        )
        (one,), (two,) = (self._spelled([half]) for half in halves)
        return [[a if a is not None else b for a, b in zip(one, two, strict=True)]]

    def _through_server(self, rows: Sequence[Sequence[bytes | None]]) -> list[list[Cell]]:
        session, what = self._session, "spelling out rejected rows"
        name = f"portl_spelled_{secrets.token_hex(4)}"
        table = quoted("pg_temp", name)
        columns = [f"c{n}" for n in range(len(self._columns))]
        made = ", ".join(f"{c} {t}" for c, t in zip(columns, self._bare_types(), strict=True))
        number = "n bigint GENERATED ALWAYS AS IDENTITY"
        session.execute(f"CREATE TEMPORARY TABLE {quoted(name)} ({made}, {number}) ON COMMIT DROP", what=what)
        stream = CopyIn(
            session,
            f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT binary)",
            binary=True,
            token=self._token,
            what=what,
        )
        try:
            data = b"".join(map(binary_row, rows))
            stream.write(CopyBatch(number=1, first_row=1, rows=len(rows), size=len(data), binary=True, pieces=[data]))
            stream.finish()
        except BaseException:
            stream.abort()
            raise
        query = f"SELECT {', '.join(columns)} FROM {table} ORDER BY n"
        out = CopyOut(session, f"COPY ({query}) TO STDOUT (FORMAT text, ENCODING 'UTF8')", self._token, what)
        found = [line_cells(bytes(line)) for line in out.rows(binary=False)]
        session.execute(f"DROP TABLE {table}", what=what)
        return found

    def _bare_types(self) -> list[str]:
        """Return the types of the filled columns without modifiers and domains."""
        if self._types is None:
            target = table_details(self._intent.target)
            rows = dict(
                self._session.query(
                    "WITH RECURSIVE base(name, type) AS (SELECT attname::text, atttypid FROM pg_catalog.pg_attribute"
                    " WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped"
                    " UNION ALL SELECT b.name, t.typbasetype FROM base AS b"
                    " JOIN pg_catalog.pg_type AS t ON t.oid = b.type WHERE t.typtype = 'd')"
                    # With the modifier -1 a type is spelled so that it has none: bpchar, not character.
                    " SELECT b.name, pg_catalog.format_type(b.type, -1) FROM base AS b"
                    " JOIN pg_catalog.pg_type AS t ON t.oid = b.type WHERE t.typtype <> 'd'",
                    quoted(target.schema, target.name),
                )
            )
            self._types = [rows[name] for name in self._columns]
        return self._types


_MORE = {
    "id": " GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    "rejected_at": " NOT NULL DEFAULT clock_timestamp()",
}


def _reason(error: DataError, row: Mapping[str, Any], intent: Intent) -> str:
    """Return the server's words as the quarantine may show them."""
    values = {name: cell if isinstance(cell, str) else None for name, cell in row.items()}
    return portl.masked(copy.copy(error), values, intent.mask).message.replace("\0", "\N{SYMBOL FOR NULL}")
