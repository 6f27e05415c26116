"""What a run did."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex, overload

import attrs

from portl.values.differences import TableVerification
from portl.values.history import History
from portl.values.text import WIDTH, Line, aligned, as_html, human_bytes, printable, wrapped


@attrs.frozen(kw_only=True)
class TableResult:
    """What a run did with one table's rows."""

    source: str
    destination: str
    #: ``server``, ``relay`` or ``rows``.
    route: str
    rows_read: int = 0
    rows_inserted: int = 0
    #: Rows whose key existed and whose other columns changed; also source rows replaced within the run by a later
    #: one with the same key.
    rows_updated: int = 0
    #: Rows that the strategy skipped because their key existed already.
    rows_skipped: int = 0
    #: Rows of the destination that the source no longer has: deleted, or marked as deleted (``mode: mirror``).
    rows_deleted: int = 0
    #: Rows that were identical already, and were not rewritten.
    rows_unchanged: int = 0
    #: Of all these, rows that kept their own value in a column that could not be set, as the plan warned.
    rows_kept: int = 0
    rows_rejected: int = 0
    #: Where rejected rows went, for display; None if a rejected row ends the run.
    rejected_to: str | None = None
    #: Bytes sent to the destination.
    bytes: int = 0
    batches: int = 0
    seconds: float = 0.0
    chunks: int = 1
    #: Which attempt at the run this was, from 1. The counts are those of all attempts.
    attempt: int = 1
    #: Chunks that were retried.
    retries: int = 0
    #: Rows of ``rows_read`` that earlier attempts copied.
    rows_before: int = 0
    #: Chunks that an earlier attempt read from an older state of the source.
    older_chunks: tuple[int, ...] = ()
    #: What the source is: table, view, query, …; empty if no plan was made.
    source_kind: str = ""
    #: The kind of relation at the destination; ``new`` if it did not exist before.
    destination_kind: str = ""
    #: The strategy and the key, for display.
    conflict: str = ""
    #: Rows in a batch, at most.
    batch_rows: int = 0
    #: How it was split into chunks, for display: ``key ranges of id``; None if everything was one transaction.
    chunks_by: str | None = None
    #: Where the ledger is; None if there is none.
    ledger: str | None = None
    #: The run's id in the ledger; empty if no plan was made.
    run: str = ""
    #: In ``mode: incremental``: how far this run read, and how far the one before it had read, as the cursor's value
    #: in text or the time of the state that was read. None if nothing was read, or in another mode.
    watermark: str | None = None
    watermark_before: str | None = None
    #: Why the table failed, if the others went on without it (``on_table_error: continue``).
    error: str | None = None
    #: The same without values from rows.
    error_without_values: str | None = None
    #: How the table compares on both sides, in a job of many tables that asks for verification.
    verification: TableVerification | None = None

    @property
    def rows_per_second(self) -> float:
        """Rows per second that this attempt moved."""
        return (self.rows_read - self.rows_before) / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return attrs.asdict(self)


#: How many tables a result lists by name, the largest first.
LARGEST = 12


class TableResults(tuple[TableResult, ...]):
    """The results of tables, by position or by the table's name at the destination or at the source."""

    __slots__ = ()

    @overload
    def __getitem__(self, key: SupportsIndex | str) -> TableResult: ...

    @overload
    def __getitem__(self, key: slice) -> tuple[TableResult, ...]: ...

    def __getitem__(self, key: SupportsIndex | str | slice) -> TableResult | tuple[TableResult, ...]:
        if not isinstance(key, str):
            return super().__getitem__(key)
        for name in ("destination", "source"):
            for table in self:
                if getattr(table, name) == key:
                    return table
        raise KeyError(key)


@attrs.frozen(kw_only=True)
class Result:
    """What a run did, in total and for each table. The totals are the sums over ``tables``.

    ``print(result)`` shows it as the command line does.
    """

    name: str
    #: ``tables[0]``, or ``tables["sales.orders"]``.
    tables: TableResults = attrs.field(converter=TableResults)
    #: From the beginning of planning to the end.
    seconds: float
    #: How both sides compare, if the job asks for verification.
    verification: TableVerification | None = None
    #: Where rows came from and went to, for display; empty if no plan was made.
    source: str = ""
    destination: str = ""
    #: True if an earlier call did this, and this one moved nothing.
    reported: bool = False
    #: What happened, and when; ``report`` shows it, ``to_dict`` leaves it out. None if it was not recorded.
    history: History | None = attrs.field(default=None, repr=False, eq=False)

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write the result as a self-contained HTML page. It contains no values from rows.

        Raises:
            ImportError: the extra ``report`` is not installed.
            OSError: the file cannot be written.
        """
        from portl.values.report import page  # most programs never need it

        sides = {"source": self.source, "destination": self.destination}
        page.write(path, {**self.to_dict(), **sides}, self.history)

    def __str__(self) -> str:
        return "\n".join(line.text for line in self.lines())

    def _repr_html_(self) -> str:
        """Return the result as a notebook shows it."""
        return as_html(self.lines())

    @property
    def rows_read(self) -> int:
        """Rows that the source sent."""
        return sum(table.rows_read for table in self.tables)

    @property
    def rows_inserted(self) -> int:
        """Rows that are new at the destination."""
        return sum(table.rows_inserted for table in self.tables)

    @property
    def rows_updated(self) -> int:
        """Rows that existed and changed."""
        return sum(table.rows_updated for table in self.tables)

    @property
    def rows_skipped(self) -> int:
        """Rows that the strategy skipped."""
        return sum(table.rows_skipped for table in self.tables)

    @property
    def rows_deleted(self) -> int:
        """Rows of the destination that the source no longer has."""
        return sum(table.rows_deleted for table in self.tables)

    @property
    def rows_unchanged(self) -> int:
        """Rows that were identical already."""
        return sum(table.rows_unchanged for table in self.tables)

    @property
    def rows_kept(self) -> int:
        """Rows that kept their own value in a column that could not be set."""
        return sum(table.rows_kept for table in self.tables)

    @property
    def rows_rejected(self) -> int:
        """Rows that were quarantined."""
        return sum(table.rows_rejected for table in self.tables)

    @property
    def bytes(self) -> int:
        """Bytes sent to the destination."""
        return sum(table.bytes for table in self.tables)

    def summary(self) -> str:
        """Return the counts in one line."""
        parts = [f"{self.rows_read:,} rows read"]
        for label in ("inserted", "updated", "deleted", "unchanged", "skipped", "rejected"):
            count = getattr(self, f"rows_{label}")
            if count:
                parts.append(f"{count:,} {label}")
        if self.rows_kept:
            parts.append(f"{self.rows_kept:,} that keep their own value")
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        names = (
            "rows_read",
            "rows_inserted",
            "rows_updated",
            "rows_skipped",
            "rows_deleted",
            "rows_unchanged",
            "rows_kept",
            "rows_rejected",
            "bytes",
        )
        return {
            "name": self.name,
            **{name: getattr(self, name) for name in names},
            "seconds": self.seconds,
            "reported": self.reported,
            "verification": self.verification.to_dict() if self.verification else None,
            "tables": [table.to_dict() for table in self.tables],
        }

    def lines(self, width: int = WIDTH) -> list[Line]:
        """Return the result as lines of text: each table under the plan's labels, or all as rows of one table."""
        if self.source:
            lines = list(self._facts(width) if len(self.tables) == 1 else self._overview(width))
        else:
            lines = list(_totals(self.tables, width))
        for table in self.tables:
            if table.error is not None:
                lines += wrapped(f"{printable(table.destination)} failed: ", printable(table.error), width, "problem")
        for table in () if self.source and len(self.tables) > 1 else self.tables:
            lines += _attempts(table, width)
        for place in sorted({table.rejected_to for table in self.tables if table.rejected_to and table.rows_rejected}):
            text = f"rejected rows are in {place}, each with its reason; fix the cause, then run `portl retry-rejected`"
            lines += wrapped("", text, width, "warning")
        done = f"{printable(self.name)}: {self.summary()}, {human_bytes(self.bytes)} in {self.seconds:.2f} s"
        return [*lines, *wrapped("", done, width, "good")]

    def _overview(self, width: int) -> Iterator[Line]:
        """Yield the result of a job of many tables: totals, and the largest."""
        tables = self.tables
        new = sum(table.destination_kind == "new" for table in tables)
        counts = ", ".join(f"{sum(getattr(t, name) for t in tables):,} {head}" for head, name in _shown(tables))
        moved = self.rows_read - sum(table.rows_before for table in tables)
        rate = f", {moved / self.seconds:,.0f} rows/s" if self.seconds else ""
        facts = [
            ("from", self.source),
            ("to", self.destination),
            ("tables", f"{len(tables):,}: {new:,} new, {len(tables) - new:,} there already"),
            ("rows", counts),
            ("moved", f"{human_bytes(self.bytes)} in {self.seconds:.2f} s{rate}"),
            ("ledger", next((table.ledger for table in tables if table.ledger), "none")),
        ]
        before = sum(table.rows_before for table in tables)
        if before:
            attempt = max(table.attempt for table in tables)
            facts.append(("attempt", f"{attempt}: {before:,} rows were copied by earlier attempts"))
        checked = [table.verification for table in tables if table.verification is not None]
        if checked:
            facts.append(("verified", f"by {checked[0].mode}: {len(checked):,} tables are as they should be"))
        yield Line(f"done {printable(self.name)}", "title")
        for label, text in facts:
            yield from wrapped(f"  {label:<10}", printable(text), width)
        largest = sorted(tables, key=lambda table: -table.rows_read)[:LARGEST]
        yield Line()
        yield Line("tables" if len(tables) <= LARGEST else f"tables (the {LARGEST} largest of {len(tables):,})", "head")
        for line in _totals(largest, width - 2, rates=False):
            yield Line(f"  {line.text}", line.style)
        yield Line()

    def _facts(self, width: int) -> Iterator[Line]:
        """Yield the result of each table, with the labels of the plan."""
        yield Line(f"done {printable(self.name)}", "title")
        for table in self.tables:
            facts = _facts(table, self.source, self.destination)
            if self.verification is not None:
                facts.append(("verified", _verified(self.verification)))
            for label, text in facts:
                style = "warning" if label == "rejected" else "plain"
                yield from wrapped(f"  {label:<10}", printable(text), width, style)
        yield Line()


def _facts(table: TableResult, source: str, destination: str) -> list[tuple[str, str]]:
    rate = f", {table.rows_per_second:,.0f} rows/s" if table.seconds else ""
    retried = f", {table.retries:,} of them retried" if table.retries else ""
    chunks = f"{f'{table.chunks:,} by {table.chunks_by}' if table.chunks > 1 else 'one'}{retried}"
    facts = [
        ("from", f"{table.source} ({table.source_kind}), {source}"),
        ("to", f"{table.destination} ({table.destination_kind}), {destination}"),
        ("rows", ", ".join(f"{getattr(table, name):,} {head}" for head, name in _shown([table]))),
        ("route", f"{table.route}: {human_bytes(table.bytes)} in {table.seconds:.2f} s{rate}"),
        ("conflict", table.conflict),
        ("batch", f"{table.batches:,} of at most {table.batch_rows:,} rows"),
        ("chunks", "one transaction for everything" if table.chunks_by is None else chunks),
        ("ledger", table.ledger or "none"),
    ]
    if table.watermark is not None:
        since = f"since {table.watermark_before}" if table.watermark_before is not None else "everything"
        facts.insert(3, ("watermark", f"{table.watermark} ({since})"))
    if table.rows_rejected:
        facts.append(("rejected", f"{table.rows_rejected:,} rows, in {table.rejected_to}"))
    return facts


def _verified(checked: TableVerification) -> str:
    right = checked.rows_source - checked.missing
    missing = f", and {checked.missing:,} are quarantined" if checked.missing else ""
    return f"by {checked.mode}: {right:,} rows are as they should be{missing}"


#: The counts of rows: their headings when shown, and their attributes in a result.
_COUNTS = (
    ("read", "rows_read"),
    ("new", "rows_inserted"),
    ("changed", "rows_updated"),
    ("deleted", "rows_deleted"),
    ("same", "rows_unchanged"),
    ("skipped", "rows_skipped"),
    ("own value", "rows_kept"),
    ("rejected", "rows_rejected"),
)


def _shown(tables: Sequence[TableResult]) -> list[tuple[str, str]]:
    """Return the counts to show, without those that are zero everywhere, so that the rest fits."""
    return [(head, name) for head, name in _COUNTS if name == "rows_read" or any(getattr(t, name) for t in tables)]


def _totals(tables: Sequence[TableResult], width: int, *, rates: bool = True) -> Iterator[Line]:
    """Yield the results of several tables, which may come from several plans, as one table.

    Args:
        tables: their results.
        width: in characters.
        rates: False if tables were moved concurrently.
    """
    shown = _shown(tables)
    rows: list[tuple[str, ...]] = [("table", "route", *(head for head, _ in shown), *(["rows/s"] if rates else []))]
    for table in tables:
        numbers = (f"{getattr(table, name):,}" for _, name in shown)
        rate = [f"{table.rows_per_second:,.0f}"] if rates else []
        rows.append((table.destination, table.route, *numbers, *rate))
    for number, text in enumerate(aligned(rows, width)):
        yield Line(text, "plain" if number else "dim")


def _attempts(table: TableResult, width: int) -> Iterator[Line]:
    """Yield how earlier, interrupted attempts contributed to the result."""
    if table.attempt > 1:
        text = f"attempt {table.attempt}: {table.rows_before:,} rows were copied by earlier attempts"
        yield from wrapped("", text, width)
    if table.older_chunks:
        verb = "come" if len(table.older_chunks) > 1 else "comes"
        text = (
            f"{_numbers(table.older_chunks)} of {table.chunks} {verb} from an older state of the source; "
            "`resume: recopy` copies such chunks again"
        )
        yield from wrapped("", text, width, "warning")


def _numbers(numbers: Sequence[int]) -> str:
    """Return chunk numbers as ranges: ``chunks 1-4, 7``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
    return f"chunk{'s' if len(numbers) > 1 else ''} {', '.join(texts)}"
