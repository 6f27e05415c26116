"""The job's choices for objects that belong to tables: indexes, constraints, foreign keys and so on."""

from __future__ import annotations

import enum


class ObjectGroup(enum.StrEnum):
    """A group of objects that can be created along with tables."""

    TYPES = "types"
    EXTENSIONS = "extensions"
    SEQUENCES = "sequences"
    FUNCTIONS = "functions"
    INDEXES = "indexes"
    CONSTRAINTS = "constraints"
    FOREIGN_KEYS = "foreign_keys"
    COMMENTS = "comments"
    STATISTICS = "statistics"
    TRIGGERS = "triggers"
    RULES = "rules"
    POLICIES = "policies"
    VIEWS = "views"


class Objects(enum.StrEnum):
    """Stands for a list of groups of objects."""

    ALL = "all"
    NONE = "none"


class ForeignKeys(enum.StrEnum):
    """What happens to foreign keys of tables that exist at the destination."""

    KEEP = "keep"
    RECREATE = "recreate"


#: What is created along with tables, unless the job says otherwise.
DEFAULT_OBJECTS = (
    ObjectGroup.TYPES,
    ObjectGroup.INDEXES,
    ObjectGroup.CONSTRAINTS,
    ObjectGroup.FOREIGN_KEYS,
    ObjectGroup.SEQUENCES,
    ObjectGroup.COMMENTS,
    ObjectGroup.STATISTICS,
)
