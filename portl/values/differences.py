"""What ``portl.verify`` returns: the differences between source and destination, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

MISSING, EXTRA, DIFFERENT = "missing", "extra", "different"


@attrs.frozen(kw_only=True)
class RowDifference:
    """A row that is not the same on both sides. Values of masked columns are hidden."""

    #: ``missing``, ``extra`` or ``different``.
    kind: str
    #: The key, by the destination's column names; the whole row where there is no key. None is NULL.
    key: Mapping[str, str | None]
    #: For a ``different`` row: maps a column to its value as text at the source and at the destination.
    columns: Mapping[str, tuple[str | None, str | None]] = attrs.field(factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        columns = {name: {"source": left, "destination": right} for name, (left, right) in self.columns.items()}
        return {"kind": self.kind, "key": dict(self.key), "columns": columns}


@attrs.frozen(kw_only=True)
class TableVerification:
    """The result of comparing one table."""

    source: str
    destination: str
    #: ``count``, ``checksum`` or ``full``.
    mode: str
    #: The destination's columns that rows are matched by; empty where whole rows are compared.
    key: tuple[str, ...]
    #: Source rows, including those that share a key.
    rows_source: int
    rows_destination: int
    #: Rows that the destination lacks.
    missing: int = 0
    #: Rows at the destination that the source does not have.
    extra: int = 0
    #: Rows on both sides whose columns differ.
    different: int = 0
    #: Source rows that were not compared, because another row with the same key takes precedence.
    repeated: int = 0
    #: The first rows that differ.
    rows: tuple[RowDifference, ...] = ()
    #: True if the destination holds what this job should have put there.
    equal: bool
    #: What limits the answer, for display.
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        found = {field.name: getattr(self, field.name) for field in attrs.fields(type(self))}
        return {
            **found,
            "key": list(self.key),
            "rows": [row.to_dict() for row in self.rows],
            "notes": list(self.notes),
        }


@attrs.frozen(kw_only=True)
class Verification:
    """The result of comparing both sides, in total and for each table."""

    name: str
    tables: tuple[TableVerification, ...]
    #: Rows that were copied again before this comparison.
    repaired: int = 0
    seconds: float

    @property
    def equal(self) -> bool:
        """True if every table holds what the job should have put there."""
        return all(table.equal for table in self.tables)

    def summary(self) -> str:
        """Return what was found in one line."""
        compared = sum(table.rows_source for table in self.tables)
        parts = [f"{compared:,} rows of the source"]
        for name in (MISSING, DIFFERENT, EXTRA):
            count = sum(getattr(table, name) for table in self.tables)
            if count:
                parts.append(f"{count:,} {name}")
        if self.repaired:
            parts.append(f"{self.repaired:,} copied again")
        return f"{'equal' if self.equal else 'not equal'}: {', '.join(parts)}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "name": self.name,
            "equal": self.equal,
            "repaired": self.repaired,
            "seconds": self.seconds,
            "tables": [table.to_dict() for table in self.tables],
        }
