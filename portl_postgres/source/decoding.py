"""Decode the rows that COPY sends into Python values, for the format ``ROWS``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from portl import Field, Kind, Reading, RowBatch, Type
from portl_postgres.catalog.tables import details
from portl_postgres.wire import select_list
from portl_postgres.wire.batches import CopyBatch
from portl_postgres.wire.column_codecs import CopiedRows, rows_loader


def decoded(reading: Reading, batches: Iterable[CopyBatch]) -> Iterator[RowBatch]:
    """Yield batches whose rows are decoded on demand, and not kept."""
    load = rows_loader([_sent_type(field) for field in reading.fields])

    def rows(batch: CopyBatch) -> RowBatch:
        return CopiedRows(batch, list(batch.bare), load)

    return map(rows, batches)


def _sent_type(field: Field) -> Type:
    found = details(field.sent)
    if found is None or not select_list.keeps_type(field):
        return Type(kind=Kind.TEXT)
    return field.sent.type
