"""The values of rejected rows: texts, bytes that are no text, JSON; and the lines of the quarantine's file."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import portl
from portl_postgres.wire.row_text import dump, unescape

#: None for NULL, a text, or the bytes of a value that is none.
Cell = str | bytes | None


def as_bytes(value: object) -> bytes | None:
    """Return a value of a decoded row as the server would take its text."""
    if value is None:
        return None
    text = dump(value)
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def as_cell(data: bytes | None) -> Cell:
    """Return a text as such, and as bytes what is none."""
    if data is None:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data
    return data if "\0" in text else text


def line_cells(line: bytes) -> list[Cell]:
    """Return the values of a line of COPY's text format."""
    fields = line.removesuffix(b"\n").split(b"\t")
    # Latin-1 has one character for each byte, and the bytes of UTF-8's longer characters are no backslashes.
    return [
        None if field == b"\\N" else as_cell(unescape(field.decode("latin-1")).encode("latin-1")) for field in fields
    ]


def as_json(cell: Cell) -> str | dict[str, str] | None:
    """Return a value as the quarantine has it."""
    return {"hex": cell.hex()} if isinstance(cell, bytes) else cell


def parsed(text: str | None, columns: Iterable[str]) -> Iterator[str | None]:
    """Yield the texts of a row in the order of the columns.

    Raises:
        ValueError: says what is wrong with what stands there.
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


def binary_row(cells: Sequence[bytes | None]) -> bytes:
    """Return a row in COPY's binary format."""
    parts = [struct.pack("!h", len(cells))]
    for cell in cells:
        parts.append(struct.pack("!i", -1) if cell is None else struct.pack("!i", len(cell)) + cell)
    return b"".join(parts)


def append_lines(file: str, lines: Sequence[str], context: portl.Context) -> None:
    """Append to the quarantine's file; a failure is told and no more, for the rows are safe in the table."""
    data = "".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace")
    try:
        with Path(file).open("ab") as stream:
            stream.write(data)
    except OSError as error:
        text = f"{len(lines)} rejected row(s) could not be written to {file!r}: {error.strerror}"
        context.emit(portl.Warned(where="quarantine.file", message=text, remedy="they stand in the quarantine's table"))
