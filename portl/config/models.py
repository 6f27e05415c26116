"""The models of a job.

A connector adds its own config class for each side, a subclass of ``SourceConfig`` or ``DestinationConfig``: a
keyword-only attrs class. The ``#:`` comment above each field is its documentation.
"""

from __future__ import annotations

import enum
import re
from typing import Any, ClassVar

import attrs

from portl.config.incremental import IncrementalConfig
from portl.config.objects import DEFAULT_OBJECTS, ForeignKeys, ObjectGroup, Objects
from portl.config.validators import FieldError, not_empty, not_negative, once, positive, some_once, to_different_columns


class Strategy(enum.StrEnum):
    """What to do with a row whose key already exists at the destination."""

    OVERWRITE = "overwrite"
    SKIP = "skip"
    FAIL = "fail"
    MERGE = "merge"


#: The rules that ``conflict.columns`` may name under ``merge``; anything else is an SQL expression.
MERGE_WORDS = ("keep", "replace", "coalesce", "greatest", "least", "sum", "append", "union", "json")


_IDEMPOTENT_RULES = frozenset(MERGE_WORDS) - {"sum", "append"}


def _for_merge(instance: Conflict, attribute: attrs.Attribute[Any], value: object) -> None:
    if value and instance.strategy is not Strategy.MERGE:
        raise FieldError(attribute.name, f"needs `strategy: merge`, found `strategy: {instance.strategy.value}`")


def _instead_of_columns(instance: Conflict, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and instance.columns:
        raise FieldError(
            attribute.name, "cannot be combined with `columns`: the newer row wins as a whole, not column by column"
        )


@attrs.frozen(kw_only=True)
class Conflict:
    """How conflicts are resolved. A single word is the strategy."""

    #: The key that a word in place of the mapping stands for.
    SHORTHAND: ClassVar[str] = "strategy"

    #: What happens to a row whose key already exists. overwrite: it replaces the existing row, if they differ. skip:
    #: the existing row stays. fail: the row is refused, see `on_error`. merge: the two are combined, see `columns`
    #: and `newest_by`.
    strategy: Strategy = Strategy.OVERWRITE
    #: The destination's columns that rows conflict on: those of a unique constraint or index. By default the primary
    #: key.
    key: tuple[str, ...] | None = attrs.field(default=None, validator=some_once)
    #: For merge: destination column to keep, replace, coalesce, greatest, least, sum, append, union, json, or an SQL
    #: expression over source.x and destination.x.
    columns: dict[str, str] = attrs.field(factory=dict, validator=_for_merge)
    #: For merge: the column that tells which row is newer; the newer row wins as a whole.
    newest_by: str | None = attrs.field(default=None, validator=[_for_merge, _instead_of_columns])

    @property
    def idempotent(self) -> bool:
        """True if rows with a key change nothing when they arrive a second time."""
        if self.strategy is Strategy.MERGE:
            return all(rule in _IDEMPOTENT_RULES for rule in self.columns.values())
        return self.strategy is not Strategy.FAIL


def _column_or_type(instance: TypeRule, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if (value is None) == (instance.type is None):
        found = "neither" if value is None else "both"
        raise FieldError((), f"expected either `column` or `type`, found {found}")


def _for_a_column(instance: TypeRule, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and instance.column is None:
        raise FieldError(attribute.name, "needs `column`, found `type`")


@attrs.frozen(kw_only=True)
class TypeRule:
    """A conversion that the job asks for: of one column, or of every column of one type."""

    #: The column, by its name at the source.
    column: str | None = attrs.field(default=None, validator=_column_or_type)
    #: The source's type, as the source spells it.
    type: str | None = None
    #: The destination's type, as the destination spells it.
    to: str
    #: The conversion as an SQL expression over the source's columns; by default a cast.
    using: str | None = attrs.field(default=None, validator=_for_a_column)


@attrs.frozen(kw_only=True)
class Retry:
    """How often, and with what pauses, a transient failure is retried."""

    #: Attempts in total; 1 means no retry.
    attempts: int = attrs.field(default=5, validator=positive)
    #: The longest pause between two attempts, in seconds. Pauses grow from about half a second. Jitter of up to half a
    #: second is added, but no more than the pause itself.
    max_delay: float = attrs.field(default=30.0, validator=positive)


class Auto(enum.StrEnum):
    """Stands for a number that portl chooses."""

    AUTO = "auto"


class OnError(enum.StrEnum):
    """What happens to a row that the destination refuses."""

    FAIL = "fail"
    QUARANTINE = "quarantine"


class LedgerMode(enum.StrEnum):
    """Whether a job writes a ledger."""

    AUTO = "auto"
    REQUIRED = "required"
    OFF = "off"


class Resume(enum.StrEnum):
    """What happens to chunks that an earlier attempt copied."""

    CONTINUE = "continue"
    RECOPY = "recopy"


class Verify(enum.StrEnum):
    """What is compared after the last row."""

    NONE = "none"
    COUNT = "count"
    CHECKSUM = "checksum"
    FULL = "full"


class Mode(enum.StrEnum):
    """What the destination holds after a run."""

    FULL = "full"
    REPLACE = "replace"
    MIRROR = "mirror"
    INCREMENTAL = "incremental"


class Deletes(enum.StrEnum):
    """What a mirror does with rows that the source does not have."""

    DELETE = "delete"
    SOFT = "soft"
    KEEP = "keep"


def _for_soft(instance: MirrorConfig, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and instance.deletes is not Deletes.SOFT:
        raise FieldError(attribute.name, f"needs `deletes: soft`, found `deletes: {instance.deletes.value}`")
    if value is None and instance.deletes is Deletes.SOFT:
        raise FieldError(attribute.name, "missing; `deletes: soft` needs a column to mark rows in")


def _number_or_share(instance: object, attribute: attrs.Attribute[Any], value: int | str) -> None:
    if isinstance(value, int):
        not_negative(instance, attribute, value)
    elif not SHARE.fullmatch(value):
        raise FieldError(attribute.name, f"expected a number of rows, or a share such as 20%, found {value!r}")


#: A share of all rows, as written in a job.
SHARE = re.compile(r"(\d+(?:\.\d+)?) ?%")


@attrs.frozen(kw_only=True)
class MirrorConfig:
    """How a mirror treats rows that the source does not have."""

    #: What happens to rows of the destination that the source does not have. delete: they are deleted; soft: they stay
    #: and are marked in `column`; keep: they stay.
    deletes: Deletes = Deletes.DELETE
    #: For soft: the destination's column that marks a row as deleted, a timestamp or a boolean. It is cleared when the
    #: row is back at the source.
    column: str | None = attrs.field(default=None, validator=_for_soft)
    #: A run that would delete more rows than this, a number or a share of the destination's, fails and changes nothing.
    max_deletes: int | str = attrs.field(default="20%", validator=_number_or_share)


@attrs.frozen(kw_only=True)
class LedgerConfig:
    """Where the destination remembers which chunks are done."""

    #: The schema of its tables. By default `portl` if it exists or can be created, else the destination's schema.
    schema: str | None = None
    #: auto: a ledger if the role may write one; required: without one, the plan has a problem; off: no ledger.
    mode: LedgerMode = LedgerMode.AUTO


@attrs.frozen(kw_only=True)
class Quarantine:
    """Where rejected rows go."""

    #: The table, in the destination's schema. By default the destination's name with `__rejected` appended.
    table: str | None = None
    #: A file to which rejected rows are written as well, one JSON object per line.
    file: str | None = None
    #: The run fails when more rows than this are rejected.
    limit: int = attrs.field(default=1000, validator=positive)


def _not_chosen(instance: SourceConfig, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    both = [name for name in value if name in (instance.columns or ())]
    if both:
        raise FieldError(attribute.name, f"{both[0]!r} is also in `columns`: name it in only one of the two")


@attrs.frozen(kw_only=True)
class SourceConfig:
    """The keys of every source. A connector's own class adds more."""

    #: The keys that say how to connect; in a job of many tables they apply to all tables.
    CONNECTION: ClassVar[tuple[str, ...]] = ("type",)

    #: The connector's name.
    type: str
    #: The columns to read; by default all.
    columns: tuple[str, ...] | None = attrs.field(default=None, validator=some_once)
    #: Columns not to read.
    exclude_columns: tuple[str, ...] = attrs.field(default=(), validator=[once, _not_chosen])
    #: At most this many rows.
    limit: int | None = attrs.field(default=None, validator=not_negative)

    @property
    def lacks(self) -> FieldError | None:
        """What is missing to read one table, or None. A job of many tables names them in ``tables`` instead."""
        return None


class Route(enum.StrEnum):
    """How rows may travel."""

    AUTO = "auto"
    SERVER = "server"
    RELAY = "relay"
    ROWS = "rows"


class CreateTable(enum.StrEnum):
    """Whether a missing table is created."""

    AUTO = "auto"
    NEVER = "never"


@attrs.frozen(kw_only=True)
class DestinationConfig:
    """The keys of every destination. A connector's own class adds more."""

    #: Keys that a job of one table must set; a job of many names its tables in ``tables`` instead.
    ONE_TABLE: ClassVar[tuple[str, ...]] = ()
    #: See ``SourceConfig.CONNECTION``.
    CONNECTION: ClassVar[tuple[str, ...]] = ("type",)

    #: The connector's name.
    type: str
    #: auto: a missing table is created from the source's columns; never: a missing table is a problem.
    create_table: CreateTable = CreateTable.AUTO
    #: True: columns that the destination's table lacks are added.
    add_columns: bool = False

    @property
    def lacks(self) -> FieldError | None:
        """What is missing to write one table, or None."""
        missing = next((name for name in self.ONE_TABLE if not getattr(self, name)), None)
        return FieldError(missing, "missing; it is required") if missing is not None else None


class Tables(enum.StrEnum):
    """Stands for a list of tables."""

    ALL = "all"


class OnSchemaChange(enum.StrEnum):
    """What happens when the source's columns no longer fit the destination's table."""

    FAIL = "fail"
    ADD_COLUMNS = "add_columns"
    IGNORE = "ignore"


class OnTableError(enum.StrEnum):
    """What happens to the other tables when one fails."""

    STOP = "stop"
    CONTINUE = "continue"


@attrs.frozen(kw_only=True)
class TableChoice:
    """An entry of ``tables``: a name, a pattern or a query, with the keys set for it alone."""

    #: A table's name, or a pattern with * and ?, with or without a schema; None if the entry has a query.
    table: str | None = None
    #: The job as it applies to this entry, without the table; None if nothing is set for it alone.
    job: MigrationConfig | None = attrs.field(default=None, repr=False)

    @property
    def pattern(self) -> bool:
        """True if it may stand for several tables."""
        return self.table is not None and any(letter in self.table for letter in "*?")


def _for_many(instance: MigrationConfig, attribute: attrs.Attribute[Any], value: object) -> None:
    if value != attribute.default and instance.tables is None:
        raise FieldError(attribute.name, "needs `tables`: this job has one table")


def _for_mirror(instance: MigrationConfig, attribute: attrs.Attribute[Any], value: MirrorConfig) -> None:
    if value != MirrorConfig() and instance.mode is not Mode.MIRROR:
        raise FieldError(attribute.name, f"needs `mode: mirror`, found `mode: {instance.mode.value}`")


def _for_incremental(
    instance: MigrationConfig, attribute: attrs.Attribute[Any], value: IncrementalConfig | None
) -> None:
    if value is not None and instance.mode is not Mode.INCREMENTAL:
        raise FieldError(attribute.name, f"needs `mode: incremental`, found `mode: {instance.mode.value}`")
    if value is None and instance.mode is Mode.INCREMENTAL:
        raise FieldError(attribute.name, "missing; `mode: incremental` needs a cursor, or `by: xmin` or `by: auto`")


def _positive_or_auto(instance: object, attribute: attrs.Attribute[Any], value: int | Auto) -> None:
    if not isinstance(value, Auto):
        positive(instance, attribute, value)


@attrs.frozen(kw_only=True)
class MigrationConfig:
    """A job: a source, a destination, and how rows get from one to the other."""

    #: The job's name in reports; by default the file's name.
    name: str = "migration"
    #: Where rows come from: `type` and the keys of that connector.
    source: SourceConfig
    #: Where rows go: `type` and the keys of that connector.
    destination: DestinationConfig
    #: Many tables instead of one: all, or a list of names, patterns with * and ?, or mappings with `table` or `query`
    #: and any keys that apply to it alone. `source` then has neither table nor query.
    tables: Tables | tuple[TableChoice, ...] | None = None
    #: Names and patterns of tables to leave out, with or without a schema.
    exclude: tuple[str, ...] = attrs.field(default=(), validator=_for_many)
    #: Source schema to destination schema. Schemas that are not listed keep their names.
    schemas: dict[str, str] | None = attrs.field(default=None, validator=_for_many)
    #: Objects to create with each table that the run creates: all, none, or a list of types, extensions, sequences,
    #: functions, indexes, constraints, foreign_keys, comments, statistics, triggers, rules, policies, views. Objects
    #: that they depend on are created too.
    objects: Objects | tuple[ObjectGroup, ...] = DEFAULT_OBJECTS
    #: Foreign keys of tables that exist at the destination. keep: they decide the order of the tables. recreate: those
    #: that form a cycle, or reference their own table, are recorded in the ledger, dropped for the run, then re-created
    #: and validated.
    foreign_keys: ForeignKeys = attrs.field(default=ForeignKeys.KEEP, validator=_for_many)
    #: stop: the first table that fails ends the run; continue: the other tables are still copied.
    on_table_error: OnTableError = attrs.field(default=OnTableError.STOP, validator=_for_many)
    #: What happens when the destination's table lacks a column of the source, or has it with a narrower type. fail: a
    #: missing column is a problem of the plan, and a narrower type a warning; add_columns: missing columns are added
    #: and types widened; ignore: missing columns are not copied. Columns that only the destination has keep their
    #: default.
    on_schema_change: OnSchemaChange = OnSchemaChange.FAIL
    #: What the destination holds after a run. full: its own rows and the source's, with conflicts resolved by
    #: `conflict`; mirror: exactly the source's rows, of which only those that differ are copied; replace: the same in
    #: one transaction, so that readers see the old rows or the new ones; incremental: also the rows that changed at the
    #: source since the last run; rows deleted there stay.
    mode: Mode = Mode.FULL
    #: How an incremental run finds what has changed: {cursor, lag, from, nulls}, or {by: xmin} or {by: auto}.
    incremental: IncrementalConfig | None = attrs.field(default=None, validator=_for_incremental)
    #: How a mirror treats rows that the source does not have: {deletes, column, max_deletes}.
    mirror: MirrorConfig = attrs.field(factory=MirrorConfig, validator=_for_mirror)
    #: Source column to destination column. Columns that are not listed keep their names.
    schema_mapping: dict[str, str] = attrs.field(factory=dict, validator=to_different_columns)
    #: What happens to a row whose key already exists: overwrite, skip, fail or merge, as a word or under the key
    #: `strategy`.
    conflict: Conflict = attrs.Factory(Conflict)
    #: Rows that succeed or fail together. By default 1000, or fewer if rows are so wide that they would fill memory.
    batch_size: int | None = attrs.field(default=None, validator=positive)
    #: Conversions: a list of {column or type, to, using}, or a mapping of type to type.
    types: tuple[TypeRule, ...] = ()
    #: How rows travel. auto: the fastest that suits; server: inside the server, if both sides are one database; relay:
    #: bytes passed through undecoded; rows: decoded Python rows.
    route: Route = Route.AUTO
    #: How transient failures are retried: {attempts, max_delay}.
    retry: Retry = attrs.Factory(Retry)
    #: Rows in a chunk, which is read, written and recorded as a unit. By default as many as take about 64 MiB.
    chunk_rows: int | None = attrs.field(default=None, validator=positive)
    #: Chunks that are copied concurrently; auto: as many as help, at most four.
    parallel: int | Auto = attrs.field(default=Auto.AUTO, validator=_positive_or_auto)
    #: True: the whole migration is one transaction at the destination, DDL included.
    atomic: bool = False
    #: An idempotency key, such as `${AIRFLOW_RUN_ID}`: a finished run with this id is reported and never repeated.
    run_id: str | None = attrs.field(default=None, validator=not_empty)
    #: continue: chunks that an earlier attempt copied stay as they are; recopy: they are copied again.
    resume: Resume = Resume.CONTINUE
    #: Where the destination remembers which chunks are done: {schema, mode}.
    ledger: LedgerConfig = attrs.Factory(LedgerConfig)
    #: fail: the first row that the destination refuses ends the run; quarantine: such rows go to a quarantine table.
    on_error: OnError = OnError.FAIL
    #: Where quarantined rows go: {table, file, limit}.
    quarantine: Quarantine = attrs.Factory(Quarantine)
    #: Columns whose values are not shown in errors, logs and reports.
    mask: tuple[str, ...] = attrs.field(default=(), validator=once)
    #: What is compared after the last row: none, count, checksum or full.
    verify: Verify = Verify.NONE

    @property
    def groups(self) -> frozenset[ObjectGroup]:
        """The groups of objects that the job asks for."""
        if isinstance(self.objects, Objects):
            return frozenset(ObjectGroup) if self.objects is Objects.ALL else frozenset()
        return frozenset(self.objects)


#: Rows in a batch, unless the job says otherwise.
DEFAULT_BATCH_ROWS = 1000
