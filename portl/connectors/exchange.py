"""The values that the engine and the connectors exchange: formats, fields, chunks, batches of rows, the intent."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from portl.config.models import Conflict, Quarantine
from portl.config.objects import ObjectGroup
from portl.connectors.objects import SchemaObject
from portl.schema.conversions import Conversion
from portl.schema.tables import Column, Key, Table
from portl.values.errors import DataError
from portl.values.findings import Finding


@attrs.frozen(kw_only=True)
class Format:
    """A format that rows travel in. Sides that name the same format understand each other's batches."""

    name: str
    #: ``rows``, ``relay`` or ``server``.
    route: str
    #: Why the source offers it, for the plan.
    reason: str
    #: Why the source cannot use it for this job; None if it can.
    obstacle: str | None = None
    #: True if each chunk is read in a snapshot of its own, so that all rows have to be one chunk.
    own_state: bool = False
    #: The format for copying a chunk again after a row was refused, if this one cannot tell which row it was.
    then: Format | None = None


ROWS = Format(name="rows", route="rows", reason="decoded Python rows, which every connector understands")


@attrs.frozen(kw_only=True)
class Field:
    """A column of the source and the destination's column that it goes to."""

    #: As at the source.
    source: Column
    #: As read from the source: equal to ``source`` unless the job's ``types`` ask for a conversion.
    sent: Column
    #: As at the destination, now or once created.
    target: Column
    conversion: Conversion
    #: The conversion that the job asks for, an expression in the source's language.
    using: str | None = None


@attrs.frozen(kw_only=True)
class RowCount:
    """The number of rows at the source."""

    rows: int
    exact: bool


@attrs.frozen(kw_only=True)
class Chunk:
    """A slice of the source that can be read separately."""

    #: Counted from 1.
    number: int = 1
    #: Plain data, as in JSON, which only the source interprets; it is kept in the ledger. None is the whole source.
    bounds: Mapping[str, Any] | None = None
    #: Approximate number of rows; None if unknown.
    rows: int | None = None


@attrs.frozen(kw_only=True)
class Splitting:
    """How the engine wants a source split into chunks."""

    fields: tuple[Field, ...]
    #: Rows in a chunk, if the job says so.
    chunk_rows: int | None = None
    #: The target size of a chunk in bytes, otherwise.
    chunk_bytes: int
    #: False if rows must arrive in the source's order, because later ones win over earlier ones.
    any_order: bool = True


@attrs.frozen(kw_only=True)
class Split:
    """A source, split into chunks. Every row is in exactly one of them."""

    #: In reading order.
    chunks: tuple[Chunk, ...] = (Chunk(),)
    #: For display: ``the whole``, ``key ranges of id``, ``block ranges``.
    by: str = "the whole"
    #: Why it is split this way, for display.
    reason: str = "the source cannot be read in slices"
    #: True if a chunk can be read again in the same order, even by a later run, as long as its rows do not change.
    resumable: bool = False
    #: True if ``Source.rest`` can return the remainder of a chunk that is partly done.
    divisible: bool = False


@attrs.frozen(kw_only=True)
class Counts:
    """What happened to rows at the destination."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    #: Rows of the destination that the source no longer has: deleted, or marked as deleted.
    deleted: int = 0
    #: Of all these, rows that keep their own value in a column that cannot be set (``Intent.kept``).
    kept: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            inserted=self.inserted + other.inserted,
            updated=self.updated + other.updated,
            unchanged=self.unchanged + other.unchanged,
            skipped=self.skipped + other.skipped,
            deleted=self.deleted + other.deleted,
            kept=self.kept + other.kept,
        )


@attrs.define(kw_only=True)
class Batch(abc.ABC):
    """Consecutive rows that succeed or fail together."""

    #: Counted from 1 within a table.
    number: int
    #: The position of the first row among all rows that the source sends, from 1.
    first_row: int
    #: The number of rows. If the batch does not contain its rows, it is 0 until ``Writer.write`` sets it.
    rows: int
    #: Their size in memory, in bytes; an estimate is enough.
    size: int

    @abc.abstractmethod
    def take(self, start: int, stop: int) -> Batch:
        """Return the rows from ``start`` up to, not including, ``stop`` (from 0) as a batch with the same number."""

    def release(self) -> None:
        """Free what can be recomputed. Called after ``Writer.write``; the batch may still be written again."""

    @abc.abstractmethod
    def values(self, row: int, fields: Sequence[Field]) -> dict[str, str | None]:
        """Return row ``row`` (from 0) as text by the destination's column names, for an error message."""


@attrs.define(kw_only=True)
class RowBatch(Batch):
    """A batch in the format ``ROWS``."""

    data: list[tuple[Any, ...]] = attrs.field(repr=False)

    def take(self, start: int, stop: int) -> RowBatch:
        """See ``Batch.take``."""
        data = self.data[start:stop]
        size = self.size * len(data) // max(1, self.rows)
        return RowBatch(number=self.number, first_row=self.first_row + start, rows=len(data), size=size, data=data)

    def values(self, row: int, fields: Sequence[Field]) -> dict[str, str | None]:
        """See ``Batch.values``."""
        pairs = zip(fields, self.data[row], strict=True)
        return {field.target.name: None if value is None else str(value) for field, value in pairs}


@attrs.frozen(kw_only=True)
class Reading:
    """How the engine wants a chunk read."""

    fields: tuple[Field, ...]
    format: Format
    chunk: Chunk
    #: Rows in a batch.
    batch_rows: int
    #: Bytes after which a batch ends early; None for no limit.
    batch_bytes: int | None = None
    #: False if the engine itself calls ``Source.check`` before it commits the rows of several readings.
    check: bool = True


@attrs.frozen(kw_only=True)
class Examination:
    """What a destination reports about a job before it runs."""

    findings: tuple[Finding, ...] = ()
    #: The statements to execute before the rows, in order.
    before: tuple[str, ...] = ()
    #: The objects among ``before`` that other tables may need too, such as types.
    makes: tuple[SchemaObject, ...] = ()
    #: The statements to execute after the rows.
    after: tuple[str, ...] = ()
    #: The statements that write rows, for display.
    write: tuple[str, ...] = ()
    #: Why chunks have to be written one at a time, in order; None if they need not.
    ordered: str | None = None
    #: Where rejected rows go, for display.
    rejected_to: str | None = None
    #: Columns that keep the destination's value in rows that exist, although the strategy would replace it.
    kept: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Intent:
    """What the job asks of a destination: the part of the plan that it needs in order to examine and to write."""

    source: Table
    #: As it is now, or as it will be once created.
    target: Table
    fields: tuple[Field, ...]
    #: True if this run creates the table.
    create: bool
    #: Columns that this run adds to an existing table.
    add: tuple[Column, ...]
    #: Columns whose types this run widens, as they will be.
    widen: tuple[Column, ...] = ()
    conflict: Conflict
    #: The conflict target; None if there is none.
    key: Key | None
    #: True if the source cannot hold two rows with the same key.
    distinct: bool
    format: Format = ROWS
    #: True if the resumed run created the table, so that whatever the table still lacks is added at the end.
    resumed: bool = False
    #: Where rejected rows go; None if a rejected row ends the run.
    quarantine: Quarantine | None = None
    #: Columns that keep the destination's value in rows that exist, although the strategy would replace it.
    kept: frozenset[str] = frozenset()
    #: Columns of the destination whose values must not be shown.
    mask: frozenset[str] = frozenset()
    #: The objects to create with the table that this run creates, in dependency order.
    objects: tuple[SchemaObject, ...] = ()
    #: The groups of objects that the job asks for.
    groups: frozenset[ObjectGroup] = frozenset()
    #: The job's name and the run's id, for the quarantine; empty if unknown.
    job: str = ""
    run: str = ""
    #: True if the destination is to hold exactly the source's rows (``mode: mirror``).
    mirror: bool = False

    @property
    def idempotent(self) -> bool:
        """True if running the job again changes nothing: no row is inserted twice, and no value is added twice."""
        return self.mirror or (self.key is not None and self.conflict.idempotent)


@attrs.frozen(kw_only=True)
class Rejection:
    """A row that was quarantined."""

    #: The row alone.
    row: Batch
    error: DataError
    chunk: int
    #: Where the row is in the source, for display.
    position: str


@attrs.frozen(kw_only=True)
class Rejected:
    """A row in the quarantine."""

    #: Identifies it; later rows have larger numbers.
    id: int
    #: The row alone, in the format ``ROWS``; None if it does not fit this job.
    row: RowBatch | None
    #: Why ``row`` is None.
    trouble: str | None = None
    #: Where the row is in the source, for display.
    position: str = ""
