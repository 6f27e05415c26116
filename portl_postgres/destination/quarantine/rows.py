"""The form of a row in the quarantine: JSON, destination column to the text of its value, null for NULL.

The texts are the column's complete input. They are not masked, because the row is written again from them, edited by
hand if need be (``portl.retry_rejected``). Bytes that are not valid UTF-8, or that contain a NUL, are stored as
``{"hex": "…"}``.

For a row in COPY's binary format, the destination itself provides the texts: the row goes into a temporary table with
the bare column types, without modifiers, domains and constraints, and is read from there in text format.
"""

from __future__ import annotations

import json
import secrets
import struct
from collections.abc import Iterable, Iterator, Sequence

import portl
from portl import DataError, Intent, Rejection, RowBatch
from portl_postgres.catalog.tables import table_details
from portl_postgres.session.session import Session
from portl_postgres.sql.text import quoted
from portl_postgres.wire.batches import CopyBatch, binary_values
from portl_postgres.wire.copy_in import CopyIn
from portl_postgres.wire.copy_out import CopyOut
from portl_postgres.wire.row_text import dump, unescape

#: None for NULL, text, or bytes for a value that is not text.
Cell = str | bytes | None


class RowTexts:
    """Converts rejected rows to text.

    Args:
        session: that of the destination, inside the transaction of the rows.
        intent: the job.
        token: checked while waiting.
    """

    def __init__(self, session: Session, intent: Intent, token: portl.CancelToken) -> None:
        self._session = session
        self._intent = intent
        self._token = token
        self._types: list[str] | None = None

    def of(self, rejections: Sequence[Rejection]) -> list[list[Cell]]:
        """Return the values of each row, in field order."""
        found: list[list[Cell]] = []
        binary: list[int] = []
        for index, rejection in enumerate(rejections):
            batch = rejection.row
            if isinstance(batch, RowBatch):
                found.append([_cell(_bytes(value)) for value in batch.data[0]])
            elif isinstance(batch, CopyBatch) and not batch.binary:
                found.append(_line_cells(b"".join(batch.bare)))
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
        """Return the texts of binary rows; bisect to find those that the server cannot read."""
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
        columns = [f"c{n}" for n in range(len(self._intent.fields))]
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
            data = b"".join(map(_binary_row, rows))
            stream.write(CopyBatch(number=1, first_row=1, rows=len(rows), size=len(data), binary=True, pieces=[data]))
            stream.finish()
        except BaseException:
            stream.abort()
            raise
        query = f"SELECT {', '.join(columns)} FROM {table} ORDER BY n"
        out = CopyOut(session, f"COPY ({query}) TO STDOUT (FORMAT text, ENCODING 'UTF8')", self._token, what)
        del data  # the result takes several times its memory
        found = [_line_cells(line) for line in out.rows(binary=False)]
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
                    # With modifier -1, a type is spelled in a form without one: bpchar, not character.
                    " SELECT b.name, pg_catalog.format_type(b.type, -1) FROM base AS b"
                    " JOIN pg_catalog.pg_type AS t ON t.oid = b.type WHERE t.typtype <> 'd'",
                    quoted(target.schema, target.name),
                )
            )
            self._types = [rows[field.target.name] for field in self._intent.fields]
        return self._types


def _bytes(value: object) -> bytes | None:
    if value is None:
        return None
    text = dump(value)
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _cell(data: bytes | None) -> Cell:
    """Return valid text as str, anything else as bytes."""
    if data is None:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data
    return data if "\0" in text else text


def _line_cells(line: bytes | memoryview) -> list[Cell]:
    """Return the values of a line of COPY's text format."""
    fields = bytes(line[:-1]).split(b"\t")
    return [None if field == b"\\N" else _cell(_unescaped(field)) for field in fields]


def _unescaped(field: bytes) -> bytes:
    """Undo COPY's backslash escapes in a field."""
    if field.startswith(b"\\\\") and field.find(b"\\", 2) < 0:
        return field[1:]  # a ``bytea``, which may be large
    # Latin-1 maps each byte to one character, and multi-byte UTF-8 characters contain no backslash byte.
    return unescape(field.decode("latin-1")).encode("latin-1") if b"\\" in field else field


def as_json(cell: Cell) -> str | dict[str, str] | None:
    """Return a value as stored in JSON."""
    return {"hex": cell.hex()} if isinstance(cell, bytes) else cell


def parsed(text: str | None, columns: Iterable[str]) -> Iterator[str | None]:
    """Yield the texts of a row in column order.

    Raises:
        ValueError: the stored row is malformed; says how.
    """
    try:
        found = json.loads(text or "null")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("`row` is no JSON object of column to text")
    columns = list(columns)
    unknown = [name for name in found if name not in columns]
    if unknown:
        raise ValueError(f"`row` has {unknown[0]!r}, which this job does not fill; it fills: {', '.join(columns)}")
    for name in columns:
        if name not in found:
            raise ValueError(f"`row` lacks {name!r}; write null for NULL")
        yield _text(name, found[name])


def _text(name: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, dict) and set(value) == {"hex"} and isinstance(value["hex"], str):
        try:
            return bytes.fromhex(value["hex"]).decode("utf-8", "surrogateescape")
        except ValueError:
            pass
    raise ValueError(f'`row` has for {name!r} neither a text, nor null, nor {{"hex": "…"}}')


def _binary_row(cells: Sequence[bytes | None]) -> bytes:
    parts = [struct.pack("!h", len(cells))]
    for cell in cells:
        parts.append(struct.pack("!i", -1) if cell is None else struct.pack("!i", len(cell)) + cell)
    return b"".join(parts)
