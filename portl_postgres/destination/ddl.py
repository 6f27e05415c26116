"""The SQL that creates schemas, types, tables and columns, in execution order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from portl import Column, Intent, ObjectGroup, SchemaError, SchemaObject, Stage, Table
from portl_postgres.catalog.tables import Due, details, table_details
from portl_postgres.catalog.types import PgType
from portl_postgres.config import PostgresDestinationConfig
from portl_postgres.destination import due_key
from portl_postgres.destination.new_table import Proposal
from portl_postgres.sql.text import listed, literal, quoted

_COMPRESSIBLE = {"text", "varchar", "bpchar", "json", "jsonb", "bytea"}


def around_rows(
    intent: Intent, config: PostgresDestinationConfig, proposal: Proposal | None, *, schema_exists: bool
) -> tuple[list[str], list[str]]:
    """Return the statements executed before the first rows, in their transaction, and those after the last rows."""
    own = [*makes(intent, config, proposal, schema_exists=schema_exists)]
    before = [text for made in own for text in made.statements]
    if not intent.create:
        first, after = _due_key(intent, config)
        added = [*before, add_columns(intent.add, config)] if intent.add else []
        widened = [widen_columns(intent.widen, config)] if intent.widen else []
        return [*first, *added, *widened], after
    labels = {made.label for made in own}
    objects = [o for o in intent.objects if o.stage is Stage.BEFORE and o.label not in labels]
    before += [text for made in objects for text in made.statements]
    # A key that the source guarantees is built after the rows, in half the time; any other must be enforced row by row.
    key_first = not intent.distinct
    before.append(create_table(intent.target, config, key=key_first))
    due = due_key.due(intent, key=not key_first)
    if key_first and not due.objects:
        return [*before, *comments(intent.target, config)], [_analyze(config)]
    without_comment = attrs.evolve(intent.target, comment=None)
    before += [*comments(without_comment, config), due_key.mark(intent.target, due)]
    build = [] if key_first else [due_key.build_key(intent.target)]
    return before, [*build, *_finish(intent, due, config)]


def makes(
    intent: Intent, config: PostgresDestinationConfig, proposal: Proposal | None, *, schema_exists: bool
) -> Iterator[SchemaObject]:
    """Yield the statements that create the table's schema and the types of its columns."""

    def before(kind: str, name: str, statement: str) -> SchemaObject:
        stage, group = Stage.BEFORE, ObjectGroup.TYPES
        return SchemaObject(kind=kind, name=name, group=group, table=None, stage=stage, statements=(statement,))

    if intent.create and not schema_exists:
        yield before("schema", config.schema, f"CREATE SCHEMA {quoted(config.schema)}")
    for pg in proposal.resolver.needed(created_columns(intent)) if proposal is not None else ():
        yield before("type", f"{pg.schema}.{pg.name}", create_type(pg))


def created_columns(intent: Intent) -> tuple[Column, ...]:
    """Return the columns that a job creates, in a new table or an existing one."""
    return intent.target.columns if intent.create else intent.add


def _due_key(intent: Intent, config: PostgresDestinationConfig) -> tuple[list[str], list[str]]:
    """Return the statements that build the key that an interrupted run has not built yet.

    If that run is resumed, the key is built after its last rows; otherwise first, because the new rows have to be
    matched with existing ones.
    """
    due = table_details(intent.target).due
    if due is None:
        return [], []
    build, finish = [due_key.build_key(intent.target)] if due.key else [], _finish(intent, due, config)
    return ([], [*build, *finish]) if intent.resumed else (build, finish)


def _finish(intent: Intent, due: Due, config: PostgresDestinationConfig) -> list[str]:
    """Return the statements executed after the rows and the key."""
    return [*due_key.make_objects(due, intent), due_key.unmark(intent.target), _analyze(config)]


def _analyze(config: PostgresDestinationConfig) -> str:
    return f"ANALYZE {quoted(config.schema, config.table)}"


def create_type(made: PgType) -> str:
    """Return the statement that creates a type."""
    if made.kind == "e":
        return f"CREATE TYPE {made.spelled} AS ENUM ({', '.join(literal(label) for label in made.labels)})"
    if made.kind == "c":
        attributes = ", ".join(f"{quoted(name)} {native}" for name, _, native in made.attributes)
        return f"CREATE TYPE {made.spelled} AS ({attributes})"
    domain = made.domain
    if domain is None:
        raise SchemaError(f"portl does not create types like {made.spelled}")
    parts = [f"CREATE DOMAIN {made.spelled} AS {domain.native}"]
    if domain.default is not None:
        parts.append(f"DEFAULT {domain.default}")
    if domain.not_null:
        parts.append("NOT NULL")
    return " ".join([*parts, *domain.checks])


def create_table(table: Table, config: PostgresDestinationConfig, *, key: bool) -> str:
    """Return CREATE TABLE, with the primary key if ``key``."""
    name = quoted(config.schema, config.table)
    lines = [_definition(column, config) for column in table.columns]
    if key:
        lines += [f"PRIMARY KEY ({listed(k.columns)})" for k in table.keys if k.primary]
    unlogged = "UNLOGGED " if config.unlogged else ""
    body = "\n    " + ",\n    ".join(lines) + "\n" if lines else ""
    return f"CREATE {unlogged}TABLE {name} ({body})"


def _definition(column: Column, config: PostgresDestinationConfig) -> str:
    parts = [quoted(column.name), column.native]
    found = details(column)
    if config.compression is not None and found is not None and found.pg.root.name in _COMPRESSIBLE:
        parts.append(f"COMPRESSION {config.compression.value}")
    if column.collation is not None:
        parts.append(f"COLLATE {column.collation}")
    if column.generated is not None:
        kind = "VIRTUAL" if found is not None and found.generated_kind == "v" else "STORED"
        parts.append(f"GENERATED ALWAYS AS ({column.generated}) {kind}")
    elif column.identity is not None:
        sequence = found.sequence if found is not None else None
        options = sequence.options.clause(column.type.kind) if sequence is not None else ""
        parts.append(f"GENERATED {column.identity.upper()} AS IDENTITY{f' ({options})' if options else ''}")
    elif column.default is not None:
        parts.append(f"DEFAULT {column.default}")
    if not column.nullable:
        parts.append("NOT NULL")
    return " ".join(parts)


def comments(table: Table, config: PostgresDestinationConfig) -> Iterator[str]:
    """Yield the statements that set the comments of a table and its columns."""
    name = quoted(config.schema, config.table)
    if table.comment is not None:
        yield f"COMMENT ON TABLE {name} IS {literal(table.comment)}"
    for column in table.columns:
        if column.comment is not None:
            yield f"COMMENT ON COLUMN {name}.{quoted(column.name)} IS {literal(column.comment)}"


def add_columns(added: Sequence[Column], config: PostgresDestinationConfig) -> str:
    """Return the statement that adds columns to an existing table."""
    name = quoted(config.schema, config.table)
    return f"ALTER TABLE {name} " + ", ".join(f"ADD COLUMN {_definition(column, config)}" for column in added)


def widen_columns(columns: Sequence[Column], config: PostgresDestinationConfig) -> str:
    """Return the statement that gives columns of an existing table wider types."""
    name = quoted(config.schema, config.table)
    return f"ALTER TABLE {name} " + ", ".join(f"ALTER COLUMN {quoted(c.name)} TYPE {c.native}" for c in columns)
