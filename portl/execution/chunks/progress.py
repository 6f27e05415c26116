"""Progress and counts of a chunk, and the errors that depend on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from portl.connectors.exchange import Batch, Counts
from portl.connectors.ledger import Ledger
from portl.planning.tasks import TableTask
from portl.values.errors import CommitInDoubt, Error, OperationError
from portl.values.runs import ChunkLine, Run


@attrs.frozen(kw_only=True)
class Progress:
    """Rows were committed, or were written and checked within a larger transaction."""

    line: ChunkLine
    first_batch: int
    last_batch: int
    rows: int
    bytes: int
    rejected: int
    #: The first of the rejected rows and the reason, for display.
    example: str | None = None
    #: Each reason, without values from rows, and how many rows were refused for it.
    reasons: Mapping[str, int] = attrs.field(factory=dict)
    #: True if the transaction is not committed yet.
    provisional: bool = False

    @classmethod
    def of_done(cls, line: ChunkLine) -> Progress:
        """Return the report for a chunk that turns out to be done."""
        return cls(line=line, first_batch=1, last_batch=line.batches, rows=line.rows, bytes=line.bytes, rejected=0)


@attrs.define
class Tally:
    """Counts of what has been checked in the open transaction."""

    rows: int = 0
    bytes: int = 0
    rows_told: int = 0
    bytes_told: int = 0
    counts: Counts = attrs.field(factory=Counts)
    batches: set[int] = attrs.field(factory=set)

    def add(self, batches: Sequence[Batch], counts: Counts, sent: int = 0) -> None:
        """Add checked batches, and ``sent`` bytes."""
        self.bytes += sent
        self.rows += sum(batch.rows for batch in batches)
        self.batches.update(batch.number for batch in batches)
        self.counts += counts


def in_doubt(error: Error, task: TableTask, ledger: Ledger | None, run: Run, number: int) -> Error:
    """Return the error for a connection that was lost during COMMIT.

    With a ledger the outcome can be looked up; a job that may be repeated need not know it.
    """
    if ledger is not None:
        found = CommitInDoubt(f"the connection was lost during COMMIT: {error.message}", hint=error.hint)
        found.run, found.number = run, number
        return found
    if task.repeatable:
        return error
    return OperationError(
        "the connection was lost during COMMIT, and without a ledger there is no telling whether it was committed: "
        f"{error.message}",
        hint="check whether the rows are there before you run the job again; with a ledger, portl would know",
    )


def too_many(limit: int, place: str, last: str | None = None) -> Error:
    """Return the error for more rejected rows than the job allows."""
    found = f"; the last: {last}" if last else ""
    general = f"more than {limit:,} row{'s' if limit != 1 else ''} rejected (see {place})"
    error = OperationError(f"{general}{found}", hint="fix what they have in common, or raise `quarantine.limit`")
    error.general = general
    return error


def plus(line: ChunkLine, counts: Counts) -> ChunkLine:
    """Return a chunk's line with the counts of further rows added."""
    return attrs.evolve(
        line,
        inserted=line.inserted + counts.inserted,
        updated=line.updated + counts.updated,
        unchanged=line.unchanged + counts.unchanged,
        skipped=line.skipped + counts.skipped,
        deleted=line.deleted + counts.deleted,
        kept=line.kept + counts.kept,
    )
