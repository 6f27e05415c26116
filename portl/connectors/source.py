"""What a connector implements to be read from. See ``portl.connectors``."""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar, TypeVar

from portl.config.incremental import By, IncrementalConfig
from portl.config.models import SourceConfig
from portl.config.objects import ObjectGroup
from portl.connectors.comparer import Comparer, Texts, canonical
from portl.connectors.exchange import (
    ROWS,
    Batch,
    Chunk,
    Field,
    Format,
    Intent,
    Reading,
    RowBatch,
    RowCount,
    Split,
    Splitting,
)
from portl.connectors.mirroring import MirrorSource
from portl.connectors.objects import Changes, Placement, SchemaObject
from portl.connectors.side import Side
from portl.schema.tables import Column, Table
from portl.values.errors import SchemaError
from portl.values.findings import Finding
from portl.values.runs import Behind, ChunkLine, Run

S = TypeVar("S", bound=SourceConfig)


class Source(Side[S]):
    """Where rows come from. The arguments are those of ``Side``."""

    #: The kinds of digests that tell which rows differ (``mode: mirror``), best first; both sides need one in common.
    #: That of ``ROWS`` is computed by the core from the rows; for the others there is ``mirror``.
    digests: ClassVar[Sequence[str]] = (ROWS.name,)
    #: By what ``since`` tells which rows have changed (``mode: incremental``).
    increments: ClassVar[Collection[By]] = ()

    @abc.abstractmethod
    def describe(self) -> Table:
        """Return the table or query as it stands. Raise ``SchemaError`` if it does not exist."""

    @abc.abstractmethod
    def rows(self) -> Iterable[tuple[Any, ...]]:
        """Yield all rows as tuples in the order of ``describe().columns``, with the types of ``portl.schema``."""

    def cast(self, column: Column, to: str, using: str | None) -> Column:
        """Return ``column`` as it leaves the source if the job's ``types`` ask for ``to``.

        Raises:
            SchemaError: this source cannot convert it, or does not know the type.
        """
        raise SchemaError(f"the source {self.label()} cannot convert {column.name!r} to {to!r}")

    def examine(self, fields: Sequence[Field]) -> list[Finding]:
        """Return what the user should know, such as missing privileges or hidden rows. Writes nothing."""
        return []

    def formats(self, fields: Sequence[Field]) -> Sequence[Format]:
        """Return the formats that suit these fields, best first; the last should be ``ROWS``."""
        return (ROWS,)

    def statement(self, fields: Sequence[Field], format: Format) -> str | None:
        """Return the statement that will read the rows, for display; None if there is none."""
        return None

    def count(self, *, exact: bool) -> RowCount | None:
        """Return the number of rows, or None if unknown. ``exact=False`` must be cheap."""
        return None

    def preview(self, fields: Sequence[Field], rows: int) -> list[tuple[str | None, ...]]:
        """Return the first rows as text, as they will arrive."""
        chosen = _chooser(self.describe(), fields)
        return [
            tuple(None if value is None else str(value) for value in chosen(row))
            for row in islice(self._limited(), rows)
        ]

    def split(self, splitting: Splitting) -> Split:
        """Return how to read it in chunks. Must be cheap: it is part of every plan."""
        return Split()

    def objects(
        self,
        schemas: Mapping[str, str],
        changes: Changes | None = None,
    ) -> tuple[Sequence[SchemaObject], Sequence[Finding]]:
        """Return the objects of the database, tables included, in dependency order, and findings.

        Args:
            schemas: source schema to destination schema, for the names in statements.
            changes: tables that are created in a different form. Their objects are returned in a form that fits;
                findings name those for which there is none.
        """
        return (), ()

    def objects_with(
        self, placement: Placement, groups: Collection[ObjectGroup]
    ) -> tuple[Sequence[SchemaObject], Sequence[Finding]]:
        """Return the objects of one table that fit the table to be created, and findings for the others.

        Objects that they depend on are included, in dependency order; referenced tables come without statements.

        Args:
            placement: the table, and the form it is created in.
            groups: the groups of objects that the job asks for.
        """
        return (), ()

    def snapshot(self) -> Mapping[str, Any]:
        """Return what tells the state that is read from later ones, as plain data for the ledger."""
        return {}

    def resumable(self, lines: Sequence[ChunkLine], run: Run, *, repeatable: bool) -> list[Finding]:
        """Return what prevents a run from being resumed, or what the user should know about resuming it.

        Args:
            lines: the run's chunk lines.
            run: its ``snapshots`` are what ``snapshot`` returned in earlier attempts.
            repeatable: True if writing a row twice does no harm (overwrite, skip).
        """
        return []

    def rest(self, reading: Reading, rows: int) -> Chunk | None:
        """Return the remainder of a chunk after its first ``rows`` rows, in the same state; None if nothing is left.

        Called after ``read`` of that chunk has ended or been closed, and only if ``Split.divisible`` is true.
        """
        raise NotImplementedError

    def comparer(self, intent: Intent) -> Comparer:
        """Return this side of a comparison (``portl.verify``): the rows as the destination should hold them."""

        def rows() -> Iterator[tuple[Any, ...]]:
            for batch in self.read(Reading(fields=intent.fields, format=ROWS, chunk=Chunk(), batch_rows=1000)):
                yield from batch.data  # type: ignore[attr-defined]  # of the format ROWS

        return Comparer(rows)

    def since(self, wanted: IncrementalConfig, watermark: Mapping[str, Any] | None) -> list[Finding]:
        """Read from now on only what changed since an earlier run (``mode: incremental``).

        Called only if there are ``increments``, before the source is examined, and again, replacing the earlier call,
        if planning is repeated. From then on ``snapshot`` has the key ``watermark``, plain data: ``value`` (where
        reading ends) and ``taken`` (when), both for display; ``since`` (the argument, without its own ``since``); and
        whatever else this method needs next time.

        Args:
            wanted: the job's settings for it.
            watermark: that of the earlier run; None to read everything.

        Returns:
            What the user should know: what is read, or why a watermark is no longer valid.
        """
        raise NotImplementedError

    def behind(self, wanted: IncrementalConfig, watermark: Mapping[str, Any]) -> Behind | None:
        """Return how much of the source is beyond a watermark, or None if unknown. Must be cheap.

        Called only if there are ``increments``. The arguments are those of ``since``.
        """
        return None

    def all_rows(self) -> None:
        """Read all rows from now on, overriding ``since``. Called before both sides are compared."""

    def condition(self) -> str | None:
        """Return the job's condition on the source's rows, to which a mirror is limited; None if there is none."""
        return None

    def mirror(self, intent: Intent) -> MirrorSource:
        """Return this side of a mirror (``mode: mirror``), by a kind of digest other than that of ``ROWS``."""
        raise NotImplementedError

    def select(self, reading: Reading, key: Sequence[str], wanted: Mapping[Texts, int]) -> Iterator[Batch]:
        """Yield the rows with certain keys, to copy them again.

        Args:
            reading: of the whole source; ``format`` is ROWS unless ``comparer`` is this connector's own.
            key: the destination's columns that identify a row; empty if all columns do.
            wanted: the keys in the comparer's form, each with the most rows to return.
        """
        names = [field.target.name for field in reading.fields]
        places = [names.index(name) for name in key or names]
        types = [field.target.type for field in reading.fields]
        left = dict(wanted)
        data: list[tuple[Any, ...]] = []
        number, first = 1, 1
        for batch in self.read(reading):
            for row in batch.data:  # type: ignore[attr-defined]  # of the format ROWS
                found = tuple([canonical(row[place], types[place]) for place in places])
                if left.get(found, 0) > 0:
                    left[found] -= 1
                    data.append(row)
            if len(data) >= reading.batch_rows:
                yield RowBatch(number=number, first_row=first, rows=len(data), size=_estimate(data), data=data)
                number, first, data = number + 1, first + len(data), []
        if data:
            yield RowBatch(number=number, first_row=first, rows=len(data), size=_estimate(data), data=data)

    def read(self, reading: Reading) -> Iterator[Batch]:
        """Yield the batches of one chunk in ``reading.format``, streaming."""
        chosen = _chooser(self.describe(), reading.fields)
        data: list[tuple[Any, ...]] = []
        number, first = 1, 1
        for row in self._limited():
            data.append(chosen(row))
            if len(data) >= reading.batch_rows:
                yield RowBatch(number=number, first_row=first, rows=len(data), size=_estimate(data), data=data)
                number, first, data = number + 1, first + len(data), []
        if data:
            yield RowBatch(number=number, first_row=first, rows=len(data), size=_estimate(data), data=data)

    def check(self) -> None:
        """Raise if readings with ``Reading.check`` false did not cover the whole state."""

    def _limited(self) -> Iterator[tuple[Any, ...]]:
        return islice(self.rows(), self.config.limit)


def _chooser(table: Table, fields: Sequence[Field]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    positions = {column.name: index for index, column in enumerate(table.columns)}
    wanted = [positions[field.source.name] for field in fields]
    return lambda row: tuple(row[index] for index in wanted)


def _estimate(data: Sequence[tuple[Any, ...]]) -> int:
    """Return a rough size of the rows in bytes: the lengths of strings, and 16 bytes for any other value."""
    return sum(len(v) if isinstance(v, (str, bytes)) else 16 for row in data for v in row)
