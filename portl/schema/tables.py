"""Columns, keys and tables, as connectors describe them, free of any connector's own types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from portl.schema.types import Type


@attrs.frozen(kw_only=True)
class Column:
    """A column of a table or a query's result."""

    name: str
    type: Type
    #: The type as the database spells it, with modifiers: ``numeric(12,2)``.
    native: str
    nullable: bool = True
    #: The default, as an expression in the database's language.
    default: str | None = None
    #: ``always`` or ``by default`` for an identity column.
    identity: str | None = None
    #: The expression of a generated column, which cannot be written to.
    generated: str | None = None
    collation: str | None = None
    #: False if values can be equal without being identical: 1.0 and 1.00, or text under a nondeterministic collation.
    exact: bool = True
    comment: str | None = None
    #: Anything that the connector wants to keep; the core ignores it.
    details: Any = attrs.field(default=None, repr=False)

    @property
    def writable(self) -> bool:
        """False for a generated column."""
        return self.generated is None

    @property
    def optional(self) -> bool:
        """True if a row may omit the column."""
        return self.nullable or self.default is not None or self.identity is not None or self.generated is not None


@attrs.frozen(kw_only=True)
class Key:
    """A set of columns that identifies a row: no two rows share the values."""

    name: str
    columns: tuple[str, ...]
    primary: bool = False
    #: True if the check can be deferred to the end of the transaction.
    deferrable: bool = False
    #: True if NULLs count as equal.
    nulls_equal: bool = False
    #: Why rows cannot be matched by it, as the end of a sentence: ``is partial``; None if they can.
    unfit: str | None = None

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.columns)})"


@attrs.frozen(kw_only=True)
class Table:
    """A table, view or query, as a connector describes it."""

    #: With its schema, as the user would write it.
    name: str
    columns: tuple[Column, ...]
    keys: tuple[Key, ...] = ()
    #: Unique constraints and indexes that rows cannot be matched by, for messages; each says why.
    unfit_keys: tuple[Key, ...] = ()
    comment: str | None = None
    #: The language of native types, defaults and expressions: sides with the same one can exchange them.
    dialect: str | None = None
    #: table, view, query, partitioned table, …
    kind: str = "table"
    #: Anything that the connector wants to keep; the core ignores it.
    details: Any = attrs.field(default=None, repr=False)

    @property
    def primary_key(self) -> Key | None:
        """The primary key, if there is one."""
        return next((key for key in self.keys if key.primary), None)

    @property
    def by_name(self) -> Mapping[str, Column]:
        """The columns by name."""
        return {column.name: column for column in self.columns}
