"""Plan a mirror or a replacement: what it does to the destination's rows, and what it cannot be combined with.

``replace`` is a mirror in one transaction. So the table keeps its oid, grants, views, triggers and references to it,
and readers are not blocked: they see the old rows until the COMMIT and the new ones after it. The alternatives fall
short: TRUNCATE blocks readers, and transactions that began before it see no rows; a new table swapped in has a
different oid, and views and foreign keys stay with the old one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from portl.config.models import (
    Conflict,
    Deletes,
    DestinationConfig,
    MigrationConfig,
    MirrorConfig,
    Mode,
    SourceConfig,
    Strategy,
)
from portl.connectors.destination import Destination
from portl.connectors.exchange import ROWS, Intent
from portl.connectors.mirroring import Mirroring
from portl.connectors.source import Source
from portl.planning.tasks import TableTask
from portl.schema.tables import Table
from portl.schema.types import Kind
from portl.values.findings import Finding, note, problem, warning

#: Rows in a part, moved in one transaction, unless the job says otherwise.
PART_ROWS = 20_000
#: Types of columns that can mark a row as deleted.
_MARKS = (Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.DATE, Kind.BOOLEAN)


@attrs.frozen
class DeleteLimit:
    """How many rows a mirror may remove: a number, or a share of the destination's rows."""

    #: As given in the job.
    text: str = "all"
    number: int | None = None
    share: float | None = None

    @classmethod
    def of(cls, job: MigrationConfig) -> DeleteLimit:
        """Return the limit of a job; there is none for ``replace``."""
        config = job.mirror
        if job.mode is Mode.REPLACE:
            return cls()
        if isinstance(config.max_deletes, int):
            return cls(f"{config.max_deletes:,}", number=config.max_deletes)
        return cls(config.max_deletes, share=float(config.max_deletes.rstrip(" %")) / 100)

    def allows(self, removed: int, rows: int) -> bool:
        """Return whether ``removed`` of the destination's rows may be removed."""
        if self.number is not None:
            return removed <= self.number
        return self.share is None or removed <= self.share * rows


def mirroring(config: MigrationConfig, source: Source[SourceConfig]) -> Mirroring:
    """Return how a job's table is mirrored."""
    return Mirroring(
        deletes=config.mirror.deletes,
        column=config.mirror.column,
        where=source.condition(),
        part_rows=config.chunk_rows or PART_ROWS,
    )


def digest_kind(source: Source[SourceConfig], destination: Destination[DestinationConfig]) -> str | None:
    """Return the kind of digest used to compare two sides, or None if they have none in common."""
    return next((kind for kind in source.digests if kind in destination.digests), None)


def mirrors(config: MigrationConfig) -> bool:
    """Return whether a job makes its destination equal its source."""
    return config.mode in (Mode.MIRROR, Mode.REPLACE)


def modes(config: MigrationConfig, tables: Sequence[MigrationConfig]) -> Iterator[Finding]:
    """Yield problems with the modes of a job of many tables.

    Args:
        config: the job.
        tables: the job of each table.
    """
    if config.mode not in (Mode.FULL, Mode.MIRROR, Mode.INCREMENTAL):
        yield problem("mode", f"`mode: {config.mode.value}` is for one table", "write a job for each table")
    if any(table.mode is not config.mode for table in tables):
        yield problem(
            "tables", "all tables of a job have one mode", "write `mode` at the top, and a job for the others"
        )


def missing(tasks: Sequence[TableTask]) -> Iterator[Finding]:
    """Yield a problem for each table that does not exist, as a mirror of many tables creates none."""
    for task in tasks:
        if task.intent.create:
            said = f"there is no table {task.destination.name}: a mirror of many tables creates none"
            yield problem("destination", said, "copy it first, with `mode: full`")


def conflict(config: MigrationConfig, target: Table, *, created: bool) -> Conflict:
    """Return how conflicts are resolved: without a key, rows are only inserted and deleted, never overwritten."""
    wanted = config.conflict
    keyless = wanted.key is None and target.primary_key is None and not created
    return Conflict(strategy=Strategy.FAIL) if keyless and wanted.strategy is Strategy.OVERWRITE else wanted


def examine(
    config: MigrationConfig,
    intent: Intent,
    source: Source[SourceConfig],
    destination: Destination[DestinationConfig],
) -> Iterator[Finding]:
    """Yield what a mirror does to the destination's rows, and what prevents the job from being one."""
    target, mirror = intent.target, config.mirror
    kind = digest_kind(source, destination)
    if kind is None:
        said = (
            f"{source.label()} and {destination.label()} have no kind of digest in common to find the rows that differ"
        )
        yield problem("mode", said, "use another `mode`")
        return
    if config.source.limit is not None:
        said = f"`mode: {config.mode.value}` takes all rows: those left out would be deleted"
        yield problem("source.limit", said, "remove `limit`")
    if config.conflict.strategy is not Strategy.OVERWRITE:
        said = f"`mode: {config.mode.value}` makes rows the source's, `{config.conflict.strategy.value}` does not"
        yield problem("conflict", said, "remove `strategy`, or use another `mode`")
    nullable = [name for name in intent.key.columns if target.by_name[name].nullable] if intent.key else []
    if intent.key is not None and nullable and not intent.key.nulls_equal:
        said = f"{nullable[0]!r} may be NULL, and NULLs are not equal in {intent.key}: such rows cannot be matched"
        yield problem("conflict.key", said, "declare it NOT NULL or the key NULLS NOT DISTINCT")
    if intent.key is not None and (missing := set(intent.key.columns) - {f.target.name for f in intent.fields}):
        yield problem("conflict.key", f"the key column {min(missing)!r} is not copied", "copy it")
    if mirror.deletes is Deletes.SOFT:
        yield from _examine_mark(mirror, intent)
    if kind == ROWS.name:
        yield from _examine_rows(config, intent, source)
    if intent.create:
        return
    if kind != ROWS.name:
        yield from destination.examine_mirror(intent, mirroring(config, source))
    gone = {
        Deletes.DELETE: "rows that the source does not have are deleted",
        Deletes.SOFT: f"rows that the source does not have are marked in {mirror.column!r}",
        Deletes.KEEP: "rows that the source does not have stay",
    }[mirror.deletes]
    changed = "rows that differ are overwritten" if intent.key is not None else "there is no key: each row counts"
    becomes = f"becomes a mirror of {intent.source.name}" if config.mode is Mode.MIRROR else "gets other rows"
    yield warning("mode", f"{target.name} {becomes}: {changed}, {gone}")
    if config.mode is Mode.REPLACE:
        said = (
            "both sides are compared, and what differs is written in one transaction: readers are not locked out, and"
        )
        yield note("mode", f"{said} see the old rows until it commits; what another table refers to cannot be deleted")
    elif mirror.deletes is not Deletes.KEEP:
        most = DeleteLimit.of(config).text
        yield note("mirror.max_deletes", f"if it were more than {most} of the rows there, nothing is changed")


def _examine_rows(config: MigrationConfig, intent: Intent, source: Source[SourceConfig]) -> Iterator[Finding]:
    """Yield the limitations of a mirror whose digests are computed from rows, not by servers."""
    yield note("mode", "the servers have no digest in common: all rows of both are read, and compared here")
    arrays = [n for n in (intent.key.columns if intent.key else ()) if intent.target.by_name[n].type.kind is Kind.ARRAY]
    if intent.key is None or arrays:
        yield problem("mode", "rows are compared by a key of plain values", "name one in `conflict.key`")
    if config.mirror.deletes is Deletes.SOFT:
        yield problem("mirror.deletes", "between these two, rows cannot be marked as deleted", "use delete or keep")
    if source.condition() is not None:
        yield problem("source.where", "between these two, a mirror is of a whole table", "remove `where`")
    if intent.add:
        yield problem("mode", f"{intent.target.name} lacks {intent.add[0].name!r}", "add the column, then mirror")


def _examine_mark(mirror: MirrorConfig, intent: Intent) -> Iterator[Finding]:
    """Yield what prevents the column from marking rows as deleted."""
    assert mirror.column is not None, "the job names it"
    column = intent.target.by_name.get(mirror.column)
    if column is None:
        said = f"{intent.target.name} has no column {mirror.column!r}"
        yield problem("mirror.column", said, "add it there: a timestamp, or a boolean")
    elif column.type.kind not in _MARKS:
        said = f"{mirror.column!r} is {column.native}: expected a timestamp, a date or a boolean"
        yield problem("mirror.column", said)
    elif any(field.target.name == mirror.column for field in intent.fields):
        said = f"{mirror.column!r} is copied from the source, which would clear it"
        yield problem("mirror.column", said, "leave it out with `source.exclude_columns`")
    elif intent.key is None:
        yield problem("mirror.deletes", "without a key, a row that returns cannot be recognized", "use delete or keep")
