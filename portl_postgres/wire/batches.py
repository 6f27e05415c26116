"""Batches in COPY's own formats, binary and text."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import attrs
import psycopg
from psycopg import pq

import portl
from portl_postgres.wire.messages import Piece, bare, framed
from portl_postgres.wire.row_text import unescape

BINARY = "postgres-copy-binary"
TEXT = "postgres-copy-text"

_SHORT = struct.Struct("!h")
_LONG = struct.Struct("!i")


@attrs.define(kw_only=True)
class CopyBatch(portl.Batch):
    """Rows in one of COPY's formats, without header and trailer."""

    binary: bool
    #: Whole rows in each piece, about ``PUT_BYTES`` long.
    pieces: list[Piece] = attrs.field(repr=False)
    #: True if each row is in its own CopyData message, as on the wire.
    framed: bool = False

    @property
    def bare(self) -> Iterator[Piece]:
        """The pieces without message headers. A row that is a piece of its own is not copied."""
        if not self.framed:
            yield from self.pieces
            return
        for piece in self.pieces:
            rows = bare(piece)
            yield rows[0] if len(rows) == 1 else b"".join(rows)

    def take(self, start: int, stop: int) -> CopyBatch:
        """See ``Batch.take``."""
        rows = self._split()[start:stop]
        return attrs.evolve(
            self,
            first_row=self.first_row + start,
            rows=len(rows),
            size=sum(map(len, rows)),
            pieces=[b"".join(map(framed, rows) if self.framed else rows)] if rows else [],
        )

    def split(self) -> list[bytes]:
        """Return the bytes of each row."""
        return list(map(bytes, self._split()))

    def _split(self) -> Sequence[Piece]:
        """Return the rows; a large one that came as a message is not copied."""
        if self.framed:
            return [row for piece in self.pieces for row in bare(piece)]
        data = b"".join(self.pieces)
        if not self.binary:
            return data.splitlines(keepends=True) if b"\r" not in data else [r + b"\n" for r in data.split(b"\n")[:-1]]
        rows, position = [], 0
        while position < len(data):
            end = _tuple_end(data, position)
            rows.append(data[position:end])
            position = end
        return rows

    def values(self, row: int, fields: Sequence[portl.Field]) -> dict[str, str | None]:
        """See ``Batch.values``. Binary values are shown as text if psycopg can decode them, otherwise in hex."""
        data = bytes(self._split()[row])
        if self.binary:
            found = [_readable(value, field) for value, field in zip(binary_values(data), fields, strict=True)]
        else:
            texts = data[:-1].decode("utf-8", "backslashreplace").split("\t")
            found = [None if text == "\\N" else unescape(text) for text in texts]
        return {field.target.name: value for field, value in zip(fields, found, strict=True)}


def _tuple_end(data: bytes, position: int) -> int:
    (count,) = _SHORT.unpack_from(data, position)
    position += 2
    for _ in range(count):
        (length,) = _LONG.unpack_from(data, position)
        position += 4 + max(0, length)
    return position


def binary_values(data: bytes) -> Iterator[bytes | None]:
    """Yield the values of one row in the binary format; None for NULL."""
    (count,) = _SHORT.unpack_from(data, 0)
    position = 2
    for _ in range(count):
        (length,) = _LONG.unpack_from(data, position)
        position += 4
        yield None if length < 0 else data[position : position + length]
        position += max(0, length)


def _readable(value: bytes | None, field: portl.Field) -> str | None:
    from portl_postgres.catalog.tables import details

    if value is None:
        return None
    found = details(field.sent)
    oid = found.pg.root.oid if found else 0
    loader = psycopg.adapters.get_loader(oid, pq.Format.BINARY)
    if found and found.pg.root.kind == "e":
        return value.decode("utf-8", "backslashreplace")
    if loader is None:
        return "\\x" + value.hex()
    try:
        found = loader(oid, None).load(value)
        return "\\x" + found.hex() if isinstance(found, bytes) else str(found)
    except (psycopg.Error, ValueError, OverflowError):
        return "\\x" + value.hex()
