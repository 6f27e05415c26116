"""The kinds of objects: when each is created, and which of the job's groups it belongs to."""

from __future__ import annotations

from portl import ObjectGroup, Stage

#: In the default order of creation, that of pg_dump (pg_dump_sort.c, dbObjectTypePriority).
KINDS: dict[str, tuple[Stage, ObjectGroup | None]] = {
    "schema": (Stage.BEFORE, ObjectGroup.TYPES),
    "extension": (Stage.BEFORE, ObjectGroup.EXTENSIONS),
    "collation": (Stage.BEFORE, ObjectGroup.TYPES),
    "type": (Stage.BEFORE, ObjectGroup.TYPES),
    "function": (Stage.BEFORE, ObjectGroup.FUNCTIONS),
    "aggregate": (Stage.BEFORE, ObjectGroup.FUNCTIONS),
    "operator": (Stage.BEFORE, ObjectGroup.FUNCTIONS),
    "text search dictionary": (Stage.BEFORE, ObjectGroup.FUNCTIONS),
    "text search configuration": (Stage.BEFORE, ObjectGroup.FUNCTIONS),
    "cast": (Stage.BEFORE, ObjectGroup.FUNCTIONS),
    "sequence": (Stage.BEFORE, ObjectGroup.SEQUENCES),
    "table": (Stage.BEFORE, None),
    "partition": (Stage.BEFORE, None),
    "owned by": (Stage.BEFORE, None),
    "default": (Stage.BEFORE, None),
    "primary key": (Stage.INDEXES, None),
    "unique": (Stage.INDEXES, ObjectGroup.CONSTRAINTS),
    "exclusion": (Stage.INDEXES, ObjectGroup.CONSTRAINTS),
    "index": (Stage.INDEXES, ObjectGroup.INDEXES),
    "index partition": (Stage.INDEXES, ObjectGroup.INDEXES),
    "index option": (Stage.INDEXES, ObjectGroup.INDEXES),
    "replica identity": (Stage.INDEXES, ObjectGroup.INDEXES),
    "check": (Stage.CONSTRAINTS, ObjectGroup.CONSTRAINTS),
    "statistics": (Stage.CONSTRAINTS, ObjectGroup.STATISTICS),
    "foreign key": (Stage.CONSTRAINTS, ObjectGroup.FOREIGN_KEYS),
    "validation": (Stage.VALIDATION, ObjectGroup.FOREIGN_KEYS),
    "view": (Stage.AFTER, ObjectGroup.VIEWS),
    "materialized view": (Stage.AFTER, ObjectGroup.VIEWS),
    "refresh": (Stage.AFTER, ObjectGroup.VIEWS),
    "trigger": (Stage.AFTER, ObjectGroup.TRIGGERS),
    "rule": (Stage.AFTER, ObjectGroup.RULES),
    "policy": (Stage.AFTER, ObjectGroup.POLICIES),
    "row security": (Stage.AFTER, ObjectGroup.POLICIES),
    "comment": (Stage.AFTER, ObjectGroup.COMMENTS),
    "position": (Stage.AFTER, ObjectGroup.SEQUENCES),
}
RANKS = {kind: rank for rank, kind in enumerate(KINDS)}

#: Properties of another object, which share its address.
PROPERTIES = frozenset(
    {
        "partition",
        "owned by",
        "index partition",
        "index option",
        "replica identity",
        "validation",
        "refresh",
        "row security",
        "comment",
        "position",
    }
)
#: Properties of a table, which may be created in another form and is then not among the objects.
OF_TABLES = frozenset({"replica identity", "row security"})
#: Kinds whose statements are idempotent; there is nothing to recognise them by.
REPEATABLE = frozenset(
    {"owned by", "default", "index option", "replica identity", "validation", "refresh", "row security", "comment"}
    | {"position"}
)
RELATIONS = frozenset({"table", "view", "materialized view", "sequence"})
