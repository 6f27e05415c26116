"""What the engine and the connectors hand to each other: findings, columns on their way, chunks, batches of rows.

Plain values. What is done with them is the contract of ``portl.connectors``.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from portl.config.models import Conflict, Quarantine
from portl.schema.conversions import Conversion
from portl.schema.tables import Column, Key, Table
from portl.values.errors import DataError
from portl.values.findings import Finding


@attrs.frozen(kw_only=True)
class Format:
    """One way for rows to travel. Two sides that name the same format understand each other's batches."""

    name: str
    #: ``rows``, ``relay`` or ``server``.
    route: str
    #: Why the source offers it, for the plan.
    reason: str
    #: Why the source cannot use it for this job after all; None: it can.
    obstacle: str | None = None
    #: True if each chunk is read in a state of its own, not in the source's snapshot: all rows have to be one chunk.
    own_state: bool = False
    #: What takes a chunk of which a row was refused, where this format cannot tell which row; None: it can.
    then: Format | None = None


ROWS = Format(name="rows", route="rows", reason="decoded Python rows, which every connector understands")


@attrs.frozen(kw_only=True)
class Field:
    """One column on its way from the source to the destination."""

    #: As the source has it.
    source: Column
    #: As it leaves the source: equal to ``source`` unless the job's ``types`` ask for a conversion.
    sent: Column
    #: As the destination has it, or will have it.
    target: Column
    conversion: Conversion
    #: The conversion the user asked for, an expression in the source's language.
    using: str | None = None


@attrs.frozen(kw_only=True)
class RowCount:
    """How many rows the source holds."""

    rows: int
    exact: bool


@attrs.frozen(kw_only=True)
class Chunk:
    """A slice of the source that can be read by itself."""

    #: Counted from 1.
    number: int = 1
    #: Plain data, as JSON has it, that belongs to the source and is kept in the ledger; None is the whole.
    bounds: Mapping[str, Any] | None = None
    #: About how many rows it holds; None where that is unknown.
    rows: int | None = None


@attrs.frozen(kw_only=True)
class Splitting:
    """What the engine asks of a source that is to be cut into chunks."""

    fields: tuple[Field, ...]
    #: Rows in a chunk, if the job says so.
    chunk_rows: int | None = None
    #: Bytes in a chunk to aim at where it does not.
    chunk_bytes: int
    #: False if rows must arrive in the order in which the source has them: later ones win over earlier ones.
    any_order: bool = True


@attrs.frozen(kw_only=True)
class Split:
    """How a source is cut into chunks. Every row is in exactly one of them."""

    #: In the order in which they are to be read.
    chunks: tuple[Chunk, ...] = (Chunk(),)
    #: For people: ``the whole``, ``key ranges of id``, ``block ranges``.
    by: str = "the whole"
    #: For people: why so.
    reason: str = "the source cannot be read in slices"
    #: True if a chunk can be read again, in the same order, also by a later run, as long as its rows do not change.
    resumable: bool = False
    #: True if ``Source.rest`` can tell what is left of a chunk of which some rows are done.
    divisible: bool = False


@attrs.frozen(kw_only=True)
class Counts:
    """What became of rows at the destination."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            inserted=self.inserted + other.inserted,
            updated=self.updated + other.updated,
            unchanged=self.unchanged + other.unchanged,
            skipped=self.skipped + other.skipped,
        )


@attrs.define(kw_only=True)
class Batch(abc.ABC):
    """Consecutive rows that succeed or fail together."""

    #: Counted from 1 within a table.
    number: int
    #: The position of the first row in what the source sends, counted from 1.
    first_row: int
    #: How many rows there are. A batch that stands for rows it does not hold has 0 until ``Writer.write`` sets it.
    rows: int
    #: How much memory they hold, in bytes; an estimate is enough.
    size: int

    @abc.abstractmethod
    def take(self, start: int, stop: int) -> Batch:
        """Return the rows from ``start`` up to ``stop`` (counted from 0) as a batch of the same number."""

    def release(self) -> None:
        """Let go of what can be made again. Called after ``Writer.write``: the batch may be kept for another try."""

    @abc.abstractmethod
    def values(self, row: int, fields: Sequence[Field]) -> dict[str, str | None]:
        """Return row ``row`` (counted from 0) as texts under the destination's column names, for an error message."""


@attrs.define(kw_only=True)
class RowBatch(Batch):
    """A batch of the format ``ROWS``."""

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
    """What the engine asks of a source."""

    fields: tuple[Field, ...]
    format: Format
    chunk: Chunk
    #: Rows in a batch.
    batch_rows: int
    #: A batch ends early when it holds this many bytes; None: never.
    batch_bytes: int | None = None


@attrs.frozen(kw_only=True)
class Examination:
    """What a destination says of a job before it is run."""

    findings: tuple[Finding, ...] = ()
    #: What will be executed before the rows, in order.
    before: tuple[str, ...] = ()
    #: What will be executed after the rows.
    after: tuple[str, ...] = ()
    #: How rows are written, for people: one or more statements.
    write: tuple[str, ...] = ()
    #: Why chunks have to come one after the other, in their order; None: they need not.
    ordered: str | None = None
    #: Where rejected rows go, for people.
    rejected_to: str | None = None


@attrs.frozen(kw_only=True)
class Intent:
    """What the job wants of a destination: the part of the plan that it needs to examine and to write."""

    source: Table
    #: As it is, or as it will be.
    target: Table
    fields: tuple[Field, ...]
    #: True if this run makes the table.
    create: bool
    #: Columns that this run adds to an existing table.
    add: tuple[Column, ...]
    conflict: Conflict
    #: The columns that decide what a conflict is; None if there are none.
    key: Key | None
    #: True if the source cannot hold two rows with one such key.
    distinct: bool
    format: Format = ROWS
    #: True if the ledger says that this table was made by the run that is resumed: what it lacks is due at the end.
    resumed: bool = False
    #: Where rows that are refused go; None: they end the run.
    quarantine: Quarantine | None = None
    #: Columns of the destination whose values must not be shown.
    mask: frozenset[str] = frozenset()
    #: The job's name and the run's id, for what is written down of them; empty where they are not known.
    job: str = ""
    run: str = ""

    @property
    def idempotent(self) -> bool:
        """True if doing the job once more leaves the destination the same: no row comes twice, nothing adds up."""
        return self.key is not None and self.conflict.idempotent


@attrs.frozen(kw_only=True)
class Rejection:
    """A row that was quarantined."""

    #: The row alone.
    row: Batch
    error: DataError
    chunk: int
    #: For people: where the row stands in the source.
    position: str


@attrs.frozen(kw_only=True)
class Rejected:
    """A row that was quarantined earlier, as the quarantine has it now."""

    #: Tells it from the others; later ones have larger numbers.
    id: int
    #: The row alone, in the format ``ROWS``; None if what stands there is no row of this job.
    row: RowBatch | None
    #: Why ``row`` is None.
    trouble: str | None = None
    #: For people: where the row stands in the source.
    position: str = ""
