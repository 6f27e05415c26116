"""What a job may say of objects that come with tables: indexes, constraints, foreign keys and the like."""

from __future__ import annotations

import enum


class ObjectGroup(enum.StrEnum):
    """Objects that come with the tables that a run creates."""

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
    """Takes the place of a list of groups of objects."""

    ALL = "all"
    NONE = "none"


class ForeignKeys(enum.StrEnum):
    """What happens to foreign keys of tables that exist at the destination."""

    KEEP = "keep"
    RECREATE = "recreate"


#: What comes with the tables that a run creates, if the job does not say.
DEFAULT_OBJECTS = (
    ObjectGroup.TYPES,
    ObjectGroup.INDEXES,
    ObjectGroup.CONSTRAINTS,
    ObjectGroup.FOREIGN_KEYS,
    ObjectGroup.SEQUENCES,
    ObjectGroup.COMMENTS,
    ObjectGroup.STATISTICS,
)
