"""A source and a destination: a schema and rows for the one; a schema, a proposal and a writer for the other."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from itertools import islice, pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import attrs

import portl
from portl import Batch, Chunk, Column, Counts, Field, Reading, RowBatch, Split, Splitting, Table, Type
from portl_jsonl.values import dumped, guessed, loader, parsed

SUFFIX = ".jsonl"
#: Lines from which types are guessed.
LOOK_LINES = 1000


def described(path: Path, types: Mapping[str, str]) -> Table:
    """Return a file as a table: the columns of its first lines, then those that are only in ``types``."""
    named = {name: Type.parse(text) for name, text in types.items()}
    values: dict[str, list[Any]] = {}
    with path.open(encoding="utf-8") as lines:
        for line in islice(lines, LOOK_LINES):
            for name, value in json.loads(line).items():
                values.setdefault(name, []).append(value)
    columns = {name: named.get(name) or guessed(found) for name, found in values.items()} | named
    return Table(name=path.name, columns=tuple(Column(name=n, type=t, native=str(t)) for n, t in columns.items()))


def from_url(url: portl.Secret) -> Mapping[str, Any]:
    """Return the keys for ``jsonl:///folder`` or ``jsonl://relative/folder``, whose files are the tables."""
    folder = unquote(url.reveal().strip().removeprefix("jsonl://"))
    if "\0" in folder or not folder:
        raise portl.FieldError("folder", "is not of the form jsonl:///path/to/folder")
    return {"folder": folder}


def from_name(name: str) -> Mapping[str, Any]:
    """Return the key for a table: the file's name, with or without its suffix."""
    return {"path": name if name.endswith(SUFFIX) else name + SUFFIX}


def files(keys: Mapping[str, Any]) -> list[portl.TableEntry]:
    """Return the files of a folder as tables."""
    folder = Path(keys["folder"])
    if not folder.is_dir():
        raise portl.SchemaError(f"there is no folder {keys['folder']!r}")
    return [portl.TableEntry(name=path.stem, kind="file") for path in sorted(folder.glob(f"*{SUFFIX}"))]


@attrs.frozen(kw_only=True)
class JsonLinesSourceConfig(portl.SourceConfig):
    """The keys of the source. ``portl explain`` and editors show the comments."""

    #: The file.
    path: str
    #: Its folder; by default the current one.
    folder: str = "."
    #: Column to type: int, decimal(12, 2), timestamptz, array of text … Other types are guessed.
    types: dict[str, str] = attrs.field(factory=dict)


class JsonLinesSource(portl.Source[JsonLinesSourceConfig]):
    """Reads a file in chunks of lines."""

    @classmethod
    def tables(cls, keys: Mapping[str, Any], context: portl.Context) -> list[portl.TableEntry]:
        """Return the files of a folder."""
        return files(keys)

    @property
    def _path(self) -> Path:
        return Path(self.config.folder, self.config.path)

    def open(self, context: portl.Context) -> None:
        """Check that the file exists."""
        super().open(context)
        if not self._path.is_file():
            raise portl.SchemaError(f"there is no file {str(self._path)!r}")

    def label(self) -> str:
        """Return the file's name."""
        return str(self._path)

    def describe(self) -> Table:
        """Return the columns."""
        return described(self._path, self.config.types)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield all rows."""
        return self._rows(0, self._path.stat().st_size)

    def _rows(self, start: int, end: int) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of the lines that begin in a range of bytes."""
        columns = [(column.name, loader(column.type)) for column in self.describe().columns]
        with self._path.open("rb") as file:
            file.seek(start)
            while file.tell() < end:
                offset = file.tell()
                try:
                    row = self._row(parsed(file.readline()), columns)
                except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
                    raise portl.SchemaError(f"{self._path}, the line at byte {offset}: {error}") from error
                yield row

    def _row(self, line: dict[str, Any], columns: list[tuple[str, Callable[[Any], Any]]]) -> tuple[Any, ...]:
        """Return a line as a row. Raise ``ValueError`` for a key that is no column."""
        row = tuple([load(line.pop(name, None)) for name, load in columns])
        if line:
            raise ValueError(f"{next(iter(line))!r} is in none of the first {LOOK_LINES} lines: name it in `types`")
        return row

    # The rest is for resuming interrupted runs. A source without it starts over.

    def split(self, splitting: Splitting) -> Split:
        """Split the file at ends of lines."""
        if self.config.limit is not None:
            return Split(reason="`limit` counts lines")
        size, ends = self._path.stat().st_size, [0]
        step = splitting.chunk_rows * 100 if splitting.chunk_rows else splitting.chunk_bytes
        with self._path.open("rb") as file:
            while ends[-1] < size:
                file.seek(min(ends[-1] + step, size))
                file.readline()
                ends.append(file.tell())
        pairs = list(pairwise(ends)) or [(0, 0)]
        chunks = [Chunk(number=n, bounds={"from": a, "to": b}) for n, (a, b) in enumerate(pairs, 1)]
        return Split(chunks=tuple(chunks), by="lines", reason="", resumable=True)

    def snapshot(self) -> Mapping[str, Any]:
        """Return what distinguishes this state of the file from a later one."""
        found = self._path.stat()
        return {"bytes": found.st_size, "changed": found.st_mtime_ns}

    def resumable(self, lines: Any, run: portl.Run, *, repeatable: bool) -> list[portl.Finding]:
        """Refuse a file that has changed since, because its chunks would be different."""
        if all(dict(snapshot) == self.snapshot() for snapshot in run.snapshots.values()):
            return []
        return [portl.problem("resume", f"{self._path} has changed since", "`--restart` starts over")]

    def read(self, reading: Reading) -> Iterator[Batch]:
        """Yield the batches of a chunk."""
        if reading.chunk.bounds is None:
            yield from super().read(reading)
            return
        names = [column.name for column in self.describe().columns]
        indexes = [names.index(field.source.name) for field in reading.fields]
        rows = self._rows(reading.chunk.bounds["from"], reading.chunk.bounds["to"])
        number = first = 1
        while data := [tuple([row[index] for index in indexes]) for row in islice(rows, reading.batch_rows)]:
            yield RowBatch(number=number, first_row=first, rows=len(data), size=100 * len(data), data=data)
            number, first = number + 1, first + len(data)


@attrs.frozen(kw_only=True)
class JsonLinesDestinationConfig(portl.DestinationConfig):
    """The keys of the destination."""

    #: The file, to which rows are appended.
    path: str
    #: Its folder; by default the current one.
    folder: str = "."
    #: Column to type, where an existing file does not tell.
    types: dict[str, str] = attrs.field(factory=dict)


class JsonLinesDestination(portl.Destination[JsonLinesDestinationConfig]):
    """Appends to a file."""

    @classmethod
    def tables(cls, keys: Mapping[str, Any], context: portl.Context) -> list[portl.TableEntry]:
        """Return the files of a folder."""
        return files(keys)

    @property
    def _path(self) -> Path:
        return Path(self.config.folder, self.config.path)

    def label(self) -> str:
        """Return the file's name."""
        return str(self._path)

    def target(self) -> str:
        """Return the file's name."""
        return str(self._path)

    def describe(self) -> Table | None:
        """Return the columns of an existing file. A file without lines accepts any."""
        found = described(self._path, self.config.types) if self._path.is_file() else None
        return found if found is not None and found.columns else None

    def propose(self, source: Table, columns: Mapping[str, Column]) -> Table:
        """Return the table that this run creates: any column of any type."""
        return Table(
            name=self._path.name,
            columns=tuple(Column(name=c.name, type=c.type, native=str(c.type)) for c in columns.values()),
        )

    def stored(self, fields: tuple[Field, ...]) -> Iterator[tuple[Any, ...]]:  # type: ignore[override]
        """Yield the rows of the file, for ``portl verify``."""
        columns = [(field.target.name, loader(field.target.type)) for field in fields]
        with self._path.open(encoding="utf-8") as lines:
            for line in map(parsed, lines):
                yield tuple([load(line.get(name)) for name, load in columns])

    def writer(self, intent: portl.Intent) -> portl.Writer:
        """Return a writer."""
        return JsonLinesWriter(self._path, [field.target for field in intent.fields])


class JsonLinesWriter(portl.Writer):
    """A transaction is what was appended since ``begin``: a rollback truncates the file."""

    def __init__(self, path: Path, columns: list[Column]) -> None:
        self._path = path
        self._columns = columns
        self._rows = 0

    def begin(self) -> None:
        """Remember the end of the file."""
        self._file = self._path.open("ab")
        self._end = self._file.tell()
        self._rows = 0

    def write(self, batch: Batch) -> int:
        """Append a line for each row."""
        assert isinstance(batch, RowBatch)
        lines = []
        for row in batch.data:
            pairs = zip(self._columns, row, strict=True)
            line = {column.name: dumped(value, column.type) for column, value in pairs}
            lines.append(json.dumps(line, ensure_ascii=False, allow_nan=False))
        data = "".join(f"{line}\n" for line in lines).encode("utf-8")
        self._file.write(data)
        self._rows += batch.rows
        return len(data)

    def commit(self) -> Counts:
        """Flush the lines to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return Counts(inserted=self._rows)

    def rollback(self) -> None:
        """Truncate the file to its former end."""
        self._file.close()
        os.truncate(self._path, self._end)
