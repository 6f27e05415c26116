"""What a database holds besides rows: indexes, constraints, views, functions and so on."""

from __future__ import annotations

import builtins
import enum
from collections.abc import Mapping

import attrs

from portl.config.objects import ObjectGroup
from portl.schema.tables import Table
from portl.values.runs import DroppedKey


class Stage(enum.IntEnum):
    """When an object is created, relative to the rows."""

    #: Before the rows: the tables, and what they are made of.
    BEFORE = 1
    #: As soon as its table has its rows: keys and indexes.
    INDEXES = 2
    #: Once all tables have their rows: foreign keys.
    CONSTRAINTS = 3
    #: After that: validation of foreign keys, several at a time.
    VALIDATION = 4
    #: Last: whatever reacts to rows or shows them, such as triggers and views.
    AFTER = 5


@attrs.frozen(kw_only=True)
class SchemaObject:
    """A database object, or a property of one that is set by a separate statement."""

    #: table, index, foreign key, …
    kind: str
    #: Its name in messages: with its schema, or with the table that it belongs to.
    name: str
    #: None for a table, or a property that comes with it whatever the job asks for.
    group: ObjectGroup | None
    #: The table, view or sequence that it is or belongs to, as in ``Table.name``; None if it stands alone.
    table: str | None
    stage: Stage
    #: The statements that create it, in order, in the connector's language.
    statements: tuple[str, ...]
    #: The positions, in the same list, of the objects that must exist before it; all are smaller than its own.
    needs: frozenset[int] = frozenset()
    #: True if the statements are idempotent, so that portl need not check whether it exists.
    repeatable: bool = False
    #: True for a property of another object, such as a comment: it is created only if that object is.
    property: bool = False

    @classmethod
    def of_key(cls, key: DroppedKey, stage: Stage, statements: tuple[str, ...]) -> SchemaObject:
        """Return a foreign key of the destination with statements that drop, re-create or validate it."""
        return cls(kind="foreign key", name=key.name, group=None, table=key.table, stage=stage, statements=statements)

    def to_dict(self) -> dict[str, object]:
        """Return plain data, ready for JSON."""
        return {
            "kind": self.kind,
            "name": self.name,
            "table": self.table,
            "stage": self.stage.name.lower(),
            "statements": list(self.statements),
        }

    @builtins.property
    def label(self) -> str:
        """Its kind and name, which also identify it at the destination."""
        return f"{self.kind} {self.name}"


@attrs.frozen(kw_only=True)
class ForeignKey:
    """A foreign key of the destination."""

    #: Its name, the tables' names, and the statements that drop and re-create it.
    key: DroppedKey
    #: False if rows may violate it (NOT VALID).
    valid: bool = True
    #: Why the role cannot drop and re-create it; None if it can.
    obstacle: str | None = None


@attrs.frozen(kw_only=True)
class Placement:
    """A table that a run creates in a form that differs from the source: another name, or other columns."""

    source: Table
    target: Table
    #: Source column to destination column, for those whose values and types stay as they are.
    columns: Mapping[str, str]
    #: For the source's other columns, what becomes of them, as the end of a sentence.
    changed: Mapping[str, str]


@attrs.frozen(kw_only=True)
class Changes:
    """The tables that a job of many creates in a form that differs from the source."""

    #: The tables that are created in another form.
    placements: tuple[Placement, ...] = ()
    #: The source's names of the tables that are created as they are.
    created: frozenset[str] = frozenset()
    #: The groups of objects that the job asks for.
    groups: frozenset[ObjectGroup] = frozenset()


@attrs.frozen(kw_only=True)
class Building:
    """The progress of an object that a session is creating."""

    #: What it is doing, in the server's words: ``scanning table``.
    phase: str
    #: Of this phase, from 0 to 1; None: unknown.
    share: float | None = None


@attrs.frozen(kw_only=True)
class Standing:
    """Which of the objects to create with a table a destination has, and which it cannot create."""

    #: The labels of those that it has.
    there: frozenset[str] = frozenset()
    #: By label, why others cannot be created, as the end of a sentence.
    refused: Mapping[str, str] = attrs.field(factory=dict)
