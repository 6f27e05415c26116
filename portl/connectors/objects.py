"""What a database holds beside its rows: indexes, constraints, views, functions and whatever else is around tables."""

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
    #: Once all tables have theirs: foreign keys.
    CONSTRAINTS = 3
    #: Then: foreign keys are validated, several at a time.
    VALIDATION = 4
    #: At the end: what reacts to rows, or shows them.
    AFTER = 5


@attrs.frozen(kw_only=True)
class SchemaObject:
    """An object of a database, or a property of one that a statement of its own sets."""

    #: table, index, foreign key, …
    kind: str
    #: As messages name it: with its schema, or with the table that it belongs to.
    name: str
    #: None: a table, or a property of one, which comes with it whatever the job asks for.
    group: ObjectGroup | None
    #: The table, view or sequence that it is or belongs to, as ``Table.name`` has it; None: it stands alone.
    table: str | None
    stage: Stage
    #: What creates it, in this order, in the language of the connector.
    statements: tuple[str, ...]
    #: The positions in the same list of the objects that have to exist before it, all of them smaller than its own.
    needs: frozenset[int] = frozenset()
    #: True if executing the statements a second time changes nothing: then portl does not check whether it exists.
    repeatable: bool = False
    #: True for a property of another object, such as a comment: it comes only where that object does.
    property: bool = False

    @classmethod
    def of_key(cls, key: DroppedKey, stage: Stage, statements: tuple[str, ...]) -> SchemaObject:
        """Return a foreign key of the destination, for statements that drop it, make it again or validate it."""
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
        """Its kind and its name, by which it is recognised at the destination, too."""
        return f"{self.kind} {self.name}"


@attrs.frozen(kw_only=True)
class ForeignKey:
    """A foreign key of the destination."""

    #: Its name, the tables' names, and the statements that drop it and make it again.
    key: DroppedKey
    #: False if there may be rows that violate it (NOT VALID).
    valid: bool = True
    #: Why the role cannot drop it and make it again; None: it can.
    obstacle: str | None = None


@attrs.frozen(kw_only=True)
class Placement:
    """A table that a run creates in another form than the source's: under another name, or with other columns."""

    source: Table
    target: Table
    #: Source column to destination column, for those whose values and types stay as they are.
    columns: Mapping[str, str]
    #: For the other columns of the source, what becomes of them, as the rest of a sentence.
    changed: Mapping[str, str]


@attrs.frozen(kw_only=True)
class Changes:
    """What a job of many tables creates in another form than the source has it."""

    #: The tables that are created in another form.
    placements: tuple[Placement, ...] = ()
    #: The source's names of the tables that are created as they are.
    created: frozenset[str] = frozenset()
    #: The groups of objects that the job asks for.
    groups: frozenset[ObjectGroup] = frozenset()


@attrs.frozen(kw_only=True)
class Building:
    """How far an object is that a session creates."""

    #: What it is doing, in the server's words: ``scanning table``.
    phase: str
    #: Of this phase, from 0 to 1; None: unknown.
    share: float | None = None


@attrs.frozen(kw_only=True)
class Standing:
    """Which of the objects to create with a table a destination has, and which it cannot create."""

    #: The labels of those that it has.
    there: frozenset[str] = frozenset()
    #: By label, why some cannot be created, as the rest of a sentence.
    refused: Mapping[str, str] = attrs.field(factory=dict)
