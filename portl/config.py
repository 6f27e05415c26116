"""The models of a job: what a job file, or the dict in its place, is turned into.

A connector adds its own config class for each end, a subclass of ``SourceConfig`` or ``DestinationConfig``: an attrs
class, keyword-only. The text under each field is its documentation.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any

import attrs


class Strategy(enum.StrEnum):
    """What to do with a row whose key is at the destination already."""

    OVERWRITE = "overwrite"
    SKIP = "skip"
    FAIL = "fail"
    MERGE = "merge"


#: What ``conflict.columns`` may say of a column under ``merge``; anything else is an SQL expression.
MERGE_WORDS = ("keep", "replace", "coalesce", "greatest", "least", "sum", "append", "union", "json")


class FieldError(ValueError):
    """One field of a model is wrong; raised by a validator. ``text`` says what was expected and what was found."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field}: {text}")
        self.field = field
        self.text = text


def _positive(instance: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and value <= 0:
        raise FieldError(attribute.name, f"expected a number greater than zero, found {value!r}")


def _not_negative(instance: object, attribute: attrs.Attribute[Any], value: int | None) -> None:
    if value is not None and value < 0:
        raise FieldError(attribute.name, f"expected a number of at least zero, found {value!r}")


@attrs.frozen(kw_only=True)
class Conflict:
    """How a conflict is resolved. A word alone is the strategy."""

    #: overwrite, skip, fail or merge.
    strategy: Strategy = Strategy.OVERWRITE
    #: The columns of the destination that decide what a conflict is: a unique constraint or index there. By default
    #: its primary key.
    key: tuple[str, ...] | None = None
    #: For merge: destination column to keep, replace, coalesce, greatest, least, sum, append, union, json, or an SQL
    #: expression over source.x and destination.x.
    columns: dict[str, str] = attrs.Factory(dict)
    #: For merge: the column that says which row is newer; the newer row wins as a whole.
    newest_by: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.strategy is not Strategy.MERGE:
            for name, value in (("columns", self.columns), ("newest_by", self.newest_by)):
                if value:
                    raise FieldError(name, f"goes with `strategy: merge`, not with `strategy: {self.strategy.value}`")
        if self.columns and self.newest_by:
            raise FieldError("newest_by", "`columns` and `newest_by` exclude each other: the newer row wins as a whole")
        if self.key is not None and (not self.key or len(set(self.key)) != len(self.key)):
            raise FieldError("key", "must name at least one column, and none twice")


@attrs.frozen(kw_only=True)
class TypeRule:
    """A conversion that the user asks for: of one column, or of every column of one type."""

    #: The column, by its name at the source.
    column: str | None = None
    #: The source's type, as the source spells it.
    type: str | None = None
    #: The destination's type, as the destination spells it.
    to: str
    #: The conversion as an SQL expression over the source's columns; by default a cast.
    using: str | None = None

    def __attrs_post_init__(self) -> None:
        if (self.column is None) == (self.type is None):
            raise ValueError("expected exactly one of `column` and `type`")
        if self.using is not None and self.column is None:
            raise FieldError("using", "goes with `column`, not with `type`")


@attrs.frozen(kw_only=True)
class Retry:
    """How often, and how patiently, a transient failure is tried again."""

    #: Attempts in all; 1 is no retry.
    attempts: int = attrs.field(default=5, validator=_positive)
    #: The longest pause between two attempts, in seconds. Pauses grow from about half a second, with jitter.
    max_delay: float = attrs.field(default=30.0, validator=_positive)


@attrs.frozen(kw_only=True)
class SourceConfig:
    """What every source understands. A connector's own class adds its keys."""

    #: The connector's name.
    type: str
    #: The columns to read; by default all.
    columns: tuple[str, ...] | None = None
    #: Columns not to read.
    exclude_columns: tuple[str, ...] = ()
    #: At most this many rows.
    limit: int | None = attrs.field(default=None, validator=_not_negative)

    def __attrs_post_init__(self) -> None:
        if self.columns is not None and not self.columns:
            raise FieldError("columns", "must name at least one column")
        both = set(self.columns or ()) & set(self.exclude_columns)
        if both:
            raise FieldError("exclude_columns", f"{min(both)!r} stands in `columns` too")


class Route(enum.StrEnum):
    """How rows may travel."""

    AUTO = "auto"
    RELAY = "relay"
    ROWS = "rows"


class CreateTable(enum.StrEnum):
    """Whether a missing table is made."""

    AUTO = "auto"
    NEVER = "never"


@attrs.frozen(kw_only=True)
class DestinationConfig:
    """What every destination understands. A connector's own class adds its keys."""

    #: The connector's name.
    type: str
    #: auto: a missing table is created from the source's columns; never: it is a problem.
    create_table: CreateTable = CreateTable.AUTO
    #: True: columns that the destination's table lacks are added to it.
    add_columns: bool = False


@attrs.frozen(kw_only=True)
class MigrationConfig:
    """One job: a source, a destination, and how rows go from one to the other."""

    #: The job's name in reports; by default the file's name.
    name: str = "migration"
    source: SourceConfig
    destination: DestinationConfig
    #: Source column to destination column. What is not named keeps its name.
    schema_mapping: dict[str, str] = attrs.Factory(dict)
    #: A strategy, or {strategy, key, columns, newest_by}.
    conflict: Conflict = attrs.Factory(Conflict)
    #: Rows that succeed or fail together. By default 1000, fewer where rows are so wide that they would fill memory.
    batch_size: int | None = attrs.field(default=None, validator=_positive)
    #: Conversions: a list of {column or type, to, using}, or a mapping of type to type.
    types: tuple[TypeRule, ...] = ()
    #: auto: the best that both ends know; relay: bytes passed through undecoded; rows: decoded Python rows.
    route: Route = Route.AUTO
    #: How transient failures are tried again: {attempts, max_delay}.
    retry: Retry = attrs.Factory(Retry)

    def __attrs_post_init__(self) -> None:
        seen: dict[str, str] = {}
        for source, target in self.schema_mapping.items():
            if target in seen:
                raise FieldError(
                    "schema_mapping", f"sends {seen[target]!r} and {source!r} to the same column {target!r}"
                )
            seen[target] = source


#: Rows in a batch where the job says nothing.
DEFAULT_BATCH_ROWS = 1000


def field_docs(model: type) -> Mapping[str, str]:
    """Return the documentation of a model's fields, from the comments above them in its source.

    The comments ``#:`` are the one place where a key is explained: the docs and ``portl explain`` read them here.
    """
    import inspect

    docs: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not attrs.has(cls):
            continue
        pending: list[str] = []
        for line in inspect.getsource(cls).splitlines():
            text = line.strip()
            if text.startswith("#:"):
                pending.append(text[2:].strip())
                continue
            if pending and (match := re.match(r"(\w+):", text)):
                docs[match[1]] = " ".join(pending)
            pending = []
    return docs
