"""Slices of a table as plain data: what ranges are defined on, and the conditions for their bounds.

Bounds are texts in the source's own form, compared only at the source, under the column's own collation and with its
type's default operators: comparing text keys under two collations would lose rows. A range includes its lower bound
but not its upper one; the first is open below and the last open above, so every row is in exactly one, even rows
inserted later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from portl import SchemaError, Table
from portl_postgres.catalog.tables import details, table_details
from portl_postgres.session.session import Session
from portl_postgres.sql.text import bound, literal, quoted, statement

KEY, BLOCK, VALUE = "key", "block", "value"

#: Less, not less, not more.
_OPERATORS = ("OPERATOR(pg_catalog.<)", "OPERATOR(pg_catalog.>=)", "OPERATOR(pg_catalog.<=)")

#: Before the first row of a table.
FIRST_TID = "(0,0)"


@attrs.frozen(kw_only=True)
class Order:
    """What ranges are defined on."""

    #: ``key``: a unique key; ``block``: the physical position; ``value``: a column whose values may repeat.
    by: str
    columns: tuple[str, ...] = ()
    #: Each as written in a query, qualified: a bare name in ORDER BY may mean an output column.
    expressions: tuple[str, ...]
    #: The types of literals.
    types: tuple[str, ...]
    #: The types with their collations: if these change, bounds change their meaning.
    fingerprint: tuple[str, ...]
    operators: tuple[str, str, str] = _OPERATORS

    def bounds(self, start: Sequence[str] | None, end: Sequence[str] | None) -> dict[str, Any]:
        """Return the bounds of the rows from ``start`` up to, not including, ``end``; None is open."""
        found: dict[str, Any] = {"by": self.by}
        if self.by != BLOCK:
            found |= {"columns": list(self.columns), "types": list(self.fingerprint)}
        return found | {"from": list(start) if start else None, "to": list(end) if end else None}

    def condition(self, bounds: Mapping[str, Any]) -> str:
        """Return the condition for bounds; empty if they include every row."""
        if bounds.get("nulls"):
            return f"{self.expressions[0]} IS NULL"
        start, end = bounds["from"], bounds["to"]
        if self.by == BLOCK and start is None:
            # A condition on ctid rules out an index-only scan, whose order would differ.
            start = [FIRST_TID]
        less, not_less, not_more = self.operators
        found = []
        if start is not None:
            found.append(f"({', '.join(self.expressions)}) {not_less} ({self._literals(start)})")
        if end is not None:
            found.append(f"({', '.join(self.expressions)}) {less} ({self._literals(end)})")
        if len(self.expressions) > 1 and start is not None and end is not None:
            # Redundant, but the planner overestimates a pair of row comparisons.
            first = self.expressions[0]
            found.append(f"{first} {not_less} {self._literals(start[:1])}")
            found.append(f"{first} {not_more} {self._literals(end[:1])}")
        return " AND ".join(found)

    def _literals(self, texts: Sequence[str]) -> str:
        types = self.types[: len(texts)]
        return ", ".join(f"{literal(text)}::{type_}" for text, type_ in zip(texts, types, strict=True))

    @property
    def sorting(self) -> str:
        """What follows ORDER BY."""
        return ", ".join(self.expressions)


def block_order(relation: str) -> Order:
    """Return the physical order of a table's rows (manual, 5.5, ``ctid``)."""
    tid = ("pg_catalog.tid",)
    return Order(by=BLOCK, expressions=(f"{relation}.ctid",), types=tid, fingerprint=tid)


def column_order(session: Session, table: Table, relation: str, by: str, columns: Sequence[str]) -> Order | None:
    """Return the order of some columns; None if they are not all compared by the same operators.

    Raises:
        SchemaError: a column does not exist.
    """
    known = table.by_name
    missing = next((name for name in columns if name not in known), None)
    if missing is not None:
        raise SchemaError(f"{table.name} has no column {missing!r}, which its chunks are ranges of")
    found = [(known[name], details(known[name])) for name in columns]
    roots = [pg.pg.root for _, pg in found if pg is not None]
    (rows,) = session.bare([bound(statement("orders"), [root.oid for root in roots])], what="looking at orders")
    own = {oid: (less, not_less, not_more) for oid, less, not_less, not_more in rows}
    operators = {own.get(root.oid, _OPERATORS) for root in roots}
    if len(operators) != 1:
        return None
    return Order(
        by=by,
        columns=tuple(columns),
        expressions=tuple(f"{relation}.{quoted(name)}" for name in columns),
        types=tuple(root.spelled for root in roots),
        fingerprint=tuple(
            root.spelled + (f" COLLATE {column.collation}" if column.collation else "")
            for root, (column, _) in zip(roots, found, strict=True)
        ),
        operators=operators.pop(),
    )


def relation_of(table: Table) -> str:
    """Return the qualifier of the source's columns in a query over it."""
    return "portl_query" if table.kind == "query" else quoted(table_details(table).name)
