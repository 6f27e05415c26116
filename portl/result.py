"""What a run has done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from portl.plans import Plan
    from portl.verification import TableVerification


@attrs.frozen(kw_only=True)
class TableResult:
    """What became of one table's rows."""

    source: str
    destination: str
    #: ``server``, ``relay`` or ``rows``.
    route: str
    rows_read: int = 0
    rows_inserted: int = 0
    #: Rows whose key was there and whose other columns changed; a source row that a later one with the same key
    #: replaced in the same run counts here too.
    rows_updated: int = 0
    #: Rows that the strategy left out because their key was there already.
    rows_skipped: int = 0
    #: Rows that stood there exactly so already; they are not rewritten.
    rows_unchanged: int = 0
    rows_rejected: int = 0
    #: Where rejected rows go, for people; None where they end the run.
    rejected_to: str | None = None
    #: Bytes sent to the destination.
    bytes: int = 0
    batches: int = 0
    seconds: float = 0.0
    chunks: int = 1
    #: Which attempt at the run this was, counted from 1. The counts are those of all attempts.
    attempt: int = 1
    #: Chunks that were tried again.
    retries: int = 0
    #: Rows of ``rows_read`` that earlier attempts have brought.
    rows_before: int = 0
    #: Chunks that an earlier attempt has read from an older state of the source.
    older_chunks: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return attrs.asdict(self)


@attrs.frozen(kw_only=True)
class Result:
    """What a run has done, in all and table by table. The totals are the sums over ``tables``.

    ``print(result)`` shows it as the command line does.
    """

    name: str
    tables: tuple[TableResult, ...]
    #: From the first look at the plan to the end.
    seconds: float
    #: What a comparison of both ends has found, where the job asks for one.
    verification: TableVerification | None = None
    #: What was carried out, without the means to execute it again; None where no plan was made.
    plan: Plan | None = attrs.field(default=None, repr=False, eq=False)

    def __str__(self) -> str:
        from portl.rendering import render_result

        return "\n".join(line.text for line in render_result(self))

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
        """Rows that were there and changed."""
        return sum(table.rows_updated for table in self.tables)

    @property
    def rows_skipped(self) -> int:
        """Rows that the strategy left out."""
        return sum(table.rows_skipped for table in self.tables)

    @property
    def rows_unchanged(self) -> int:
        """Rows that stood there exactly so already."""
        return sum(table.rows_unchanged for table in self.tables)

    @property
    def rows_rejected(self) -> int:
        """Rows that were put aside."""
        return sum(table.rows_rejected for table in self.tables)

    @property
    def bytes(self) -> int:
        """Bytes sent to the destination."""
        return sum(table.bytes for table in self.tables)

    def summary(self) -> str:
        """Return the counts in one line."""
        parts = [f"{self.rows_read:,} rows read"]
        for label in ("inserted", "updated", "unchanged", "skipped", "rejected"):
            count = getattr(self, f"rows_{label}")
            if count:
                parts.append(f"{count:,} {label}")
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        names = (
            "rows_read",
            "rows_inserted",
            "rows_updated",
            "rows_skipped",
            "rows_unchanged",
            "rows_rejected",
            "bytes",
        )
        return {
            "name": self.name,
            **{name: getattr(self, name) for name in names},
            "seconds": self.seconds,
            "verification": self.verification.to_dict() if self.verification else None,
            "tables": [table.to_dict() for table in self.tables],
        }
