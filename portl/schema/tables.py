"""Columns, keys and tables, as a connector describes them. No connector's own types appear here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from portl.schema.types import Type


@attrs.frozen(kw_only=True)
class Column:
    """A column of a table, or of what a query returns."""

    name: str
    type: Type
    #: The type as the connector's own system spells it, modifiers included: ``numeric(12,2)``.
    native: str
    nullable: bool = True
    #: The default as an expression in the connector's own language.
    default: str | None = None
    #: ``always`` or ``by default`` for an identity column.
    identity: str | None = None
    #: The expression of a generated column. Nobody writes to such a column.
    generated: str | None = None
    collation: str | None = None
    comment: str | None = None
    #: What the connector wants to remember; the core does not look at it.
    details: Any = attrs.field(default=None, repr=False)

    @property
    def writable(self) -> bool:
        """False for a generated column."""
        return self.generated is None

    @property
    def optional(self) -> bool:
        """True if a row may leave the column out."""
        return self.nullable or self.default is not None or self.identity is not None or self.generated is not None


@attrs.frozen(kw_only=True)
class Key:
    """A set of columns whose values the table holds at most once."""

    name: str
    columns: tuple[str, ...]
    primary: bool = False
    #: True if the check may wait until the transaction ends.
    deferrable: bool = False
    #: True if two NULLs count as equal.
    nulls_equal: bool = False


@attrs.frozen(kw_only=True)
class Table:
    """A table, a view or a query, as a connector sees it."""

    #: As a person would write it, schema included.
    name: str
    columns: tuple[Column, ...]
    keys: tuple[Key, ...] = ()
    comment: str | None = None
    #: The language of ``native`` types, defaults and expressions: equal at both sides if they understand each other.
    dialect: str | None = None
    #: table, view, query, partitioned table, …
    kind: str = "table"
    #: What the connector wants to remember; the core does not look at it.
    details: Any = attrs.field(default=None, repr=False)

    @property
    def primary_key(self) -> Key | None:
        """The primary key, if there is one."""
        return next((key for key in self.keys if key.primary), None)

    @property
    def by_name(self) -> Mapping[str, Column]:
        """The columns by their names."""
        return {column.name: column for column in self.columns}
