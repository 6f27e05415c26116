"""What portl creates: schemas, types, tables, columns, keys. Pure functions from what was found to SQL."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from portl import Column, Finding, Key, Kind, Table, Type, problem, warning
from portl_postgres.catalog.tables import ColumnDetails, TableDetails, details
from portl_postgres.catalog.types import FIRST_USER_OID, PgType, PostgresTypeMapper, generic
from portl_postgres.config import PostgresDestinationConfig
from portl_postgres.sql.text import listed, literal, quoted

_COMPRESSIBLE = {"text", "varchar", "bpchar", "json", "jsonb", "bytea"}


@attrs.define
class TypeResolver:
    """Finds the destination's counterpart of each of the source's types, or plans to create it.

    Args:
        known: the destination's own user-made types by schema and name.
        schema: where missing ones are created.
        may_create: False: a missing one is a problem.
    """

    known: Mapping[tuple[str, str], PgType]
    schema: str
    may_create: bool
    #: The types to create, by name, in order; with the oid that each has at the source.
    missing: dict[str, tuple[int, PgType]] = attrs.Factory(dict)
    #: What is wrong with types, by their names.
    problems: dict[str, Finding] = attrs.Factory(dict)
    #: What is to be said of columns, by their new names.
    remarks: list[tuple[str, Finding]] = attrs.Factory(list)

    def needed(self, columns: Iterable[Column]) -> Iterator[PgType]:
        """Yield the types to create for these columns, in order."""
        names = self._names(columns)
        return (made for name, (_, made) in self.missing.items() if name in names)

    def findings_of(self, columns: Iterable[Column]) -> list[Finding]:
        """Return what was found about these columns and their types."""
        columns = tuple(columns)
        types, names = self._names(columns), {column.name for column in columns}
        wrong = [finding for name, finding in self.problems.items() if name in types]
        return [*wrong, *(finding for name, finding in self.remarks if name in names)]

    def _names(self, columns: Iterable[Column]) -> set[str]:
        found = (details(column) for column in columns)
        return {part.name for d in found if d is not None for part in d.pg.parts()}

    def resolve(self, wanted: PgType) -> PgType:
        """Return the type at the destination."""
        if wanted.builtin:
            if wanted.kind == "p" or (wanted.element is not None and wanted.element.kind == "p"):
                self._refuse(wanted, "no column can have it", "convert it in a query, or with `types`: to text, say")
            return wanted
        if wanted.kind == "A" and wanted.element is not None:
            element = self.resolve(wanted.element)
            return attrs.evolve(wanted, element=element, spelled=f"{element.spelled}[]", schema=element.schema)
        found = self._find(wanted)
        if found is not None:
            return found
        if wanted.name in self.missing:
            oid, made = self.missing[wanted.name]
            if oid != wanted.oid:
                self._refuse(
                    wanted,
                    f"another type of this name is to be created in schema {self.schema!r} too",
                    "create both there, in the schemas that they have, or convert one with `types`",
                )
            return made
        return self._create(wanted)

    def _refuse(self, wanted: PgType, message: str, remedy: str) -> None:
        self.problems[wanted.name] = problem(f"type {wanted.spelled}", message, remedy)

    def _find(self, wanted: PgType) -> PgType | None:
        for schema in (self.schema, wanted.schema):
            found = self.known.get((schema, wanted.name))
            if found is not None and found.kind == wanted.kind:
                return found
        if wanted.extension is None:
            return None
        same = (t for t in self.known.values() if t.name == wanted.name and t.extension == wanted.extension)
        return next(same, None)

    def _create(self, wanted: PgType) -> PgType:
        spelled = quoted(self.schema, wanted.name)
        made = attrs.evolve(wanted, oid=FIRST_USER_OID, schema=self.schema, spelled=spelled)
        if wanted.extension is not None:
            extension = wanted.extension
            self._refuse(
                wanted, f"the destination lacks the extension {extension!r}", f"CREATE EXTENSION {quoted(extension)}"
            )
        elif wanted.kind not in ("e", "d", "c"):
            self._refuse(wanted, "the destination lacks it", "create it there, with pg_dump's words")
        elif not self.may_create:
            self._refuse(wanted, "the destination lacks it", "create it there, or leave `create_types: false` out")
        else:
            made = attrs.evolve(
                made,
                base=self.resolve(wanted.base) if wanted.base else None,
                attributes=tuple(
                    (name, self.resolve(t), self.native(native, t)) for name, t, native in wanted.attributes
                ),
                base_native=self.native(wanted.base_native, wanted.base)
                if wanted.base and wanted.base_native
                else None,
            )
            self.missing[wanted.name] = wanted.oid, made
        return made

    def native(self, spelled: str, wanted: PgType) -> str:
        """Return the destination's spelling of a type, with the modifier that the source's spelling has."""
        inner = wanted
        while inner.kind == "A" and inner.element is not None:
            inner = inner.element
        if inner.builtin:
            return spelled
        return spelled.replace(inner.spelled, self.resolve(inner).spelled, 1)


def create_type(made: PgType) -> str:
    """Return the statement that creates a type."""
    if made.kind == "e":
        return f"CREATE TYPE {made.spelled} AS ENUM ({', '.join(literal(label) for label in made.labels)})"
    if made.kind == "c":
        attributes = ", ".join(f"{quoted(name)} {native}" for name, _, native in made.attributes)
        return f"CREATE TYPE {made.spelled} AS ({attributes})"
    parts = [f"CREATE DOMAIN {made.spelled} AS {made.base_native}"]
    if made.default is not None:
        parts.append(f"DEFAULT {made.default}")
    if made.not_null:
        parts.append("NOT NULL")
    return " ".join([*parts, *made.checks])


def propose_table(
    source: Table,
    columns: Mapping[str, Column],
    config: PostgresDestinationConfig,
    resolver: TypeResolver,
    version: int,
    collations: Iterable[str],
) -> Table:
    """Return the table that would be created. ``columns`` is source name to the column under its new name."""
    known = set(collations)
    keys = _keys(source, columns, config)
    required = {name for key in keys for name in key.columns}
    made = []
    for name, column in columns.items():
        proposed = _column(source, name, column, columns, resolver, version)
        if proposed.collation is not None and proposed.collation not in known:
            text = f"the destination has no collation {proposed.collation}; its default is used"
            resolver.remarks.append((proposed.name, warning(f"column {name!r}", text)))
            proposed = attrs.evolve(proposed, collation=None)
        made.append(attrs.evolve(proposed, nullable=proposed.nullable and proposed.name not in required))
    from portl_postgres.catalog.tables import DIALECT, shown

    return Table(
        name=shown(config.schema, config.table),
        columns=tuple(made),
        keys=keys,
        comment=source.comment,
        dialect=DIALECT,
        details=TableDetails(schema=config.schema, name=config.table),
    )


def unknown_keys(table: Table, config: PostgresDestinationConfig) -> list[Finding]:
    """Return a problem for each column of ``primary_key`` that the table to be created does not have."""
    names = table.by_name
    return [
        problem("destination.primary_key", f"no column is called {name!r}", f"there are: {', '.join(names)}")
        for name in config.primary_key or ()
        if name not in names
    ]


def _keys(source: Table, columns: Mapping[str, Column], config: PostgresDestinationConfig) -> tuple[Key, ...]:
    names = {column.name for column in columns.values()}
    if config.primary_key is not None:
        if not set(config.primary_key) <= names:
            return ()
        return (Key(name=f"{config.table}_pkey", columns=config.primary_key, primary=True),)
    key = source.primary_key
    if key is None or not all(name in columns for name in key.columns):
        return ()
    renamed = tuple(columns[name].name for name in key.columns)
    return (Key(name=f"{config.table}_pkey", columns=renamed, primary=True),)


def _column(
    source: Table, name: str, column: Column, columns: Mapping[str, Column], resolver: TypeResolver, version: int
) -> Column:
    found = details(column)
    if found is None:
        return _foreign_column(column, version)
    pg = resolver.resolve(found.pg)
    modifier = found.modifier
    default, identity, remark = _default(column, found, pg)
    if remark is not None:
        resolver.remarks.append((column.name, warning(f"column {name!r}", *remark)))
    generated = column.generated if _can_generate(source, found, columns, version) else None
    return attrs.evolve(
        column,
        type=generic(pg, modifier),
        native=resolver.native(column.native, found.pg),
        default=default,
        identity=identity,
        generated=generated,
        details=ColumnDetails(
            pg=pg, modifier=modifier, version=version, generated_kind=found.generated_kind if generated else ""
        ),
    )


def _foreign_column(column: Column, version: int) -> Column:
    """Return a column for one of another connector's."""
    native = PostgresTypeMapper().native(column.type)
    return Column(
        name=column.name,
        type=column.type,
        native=native,
        nullable=column.nullable,
        comment=column.comment,
        details=ColumnDetails(pg=_builtin(column.type), version=version),
    )


def _builtin(type: Type) -> PgType:
    """Return a stand-in for the built-in type of a generic one: enough to say what it is called."""
    from portl_postgres.catalog.types import KINDS

    if type.kind is Kind.ARRAY and type.element is not None:
        element = _builtin(type.element)
        return PgType(oid=0, schema="pg_catalog", name=f"_{element.name}", spelled="", kind="A", element=element)
    name = next(name for name, kind in KINDS.items() if kind is type.kind)
    return PgType(oid=0, schema="pg_catalog", name=name, spelled=PostgresTypeMapper().native(type), kind="b")


# A constant of a user-made type, as pg_get_expr prints it.
_TYPED_CONSTANT = re.compile(r"(E?'(?:[^'\\]|''|\\.)*')::(.+)", re.DOTALL)
_WHOLE = (Kind.SMALLINT, Kind.INT, Kind.BIGINT)


def _default(column: Column, found: ColumnDetails, pg: PgType) -> tuple[str | None, str | None, tuple[str, str] | None]:
    """Return default and identity as they make sense elsewhere, and what to say: a serial becomes an identity."""
    if column.identity is not None or column.default is None:
        return None, column.identity, None
    serial = found.sequence and found.default_needs == ("relation",) and column.type.kind in _WHOLE
    if serial and not column.nullable:
        return None, "by default", None
    constant = _TYPED_CONSTANT.fullmatch(column.default)
    if constant is not None and constant[2] == found.pg.spelled and set(found.default_needs) == {"type"}:
        return f"{constant[1]}::{pg.spelled}", None, None
    if not found.default_needs:
        return column.default, None, None
    return (
        None,
        None,
        (
            f"its default {column.default} needs things of the source's database; the new column has no default",
            "set one at the destination, if inserts there need it",
        ),
    )


def _can_generate(source: Table, found: ColumnDetails, columns: Mapping[str, Column], version: int) -> bool:
    """Tell whether a generated column's expression holds at the destination too: it names columns of the source."""
    if found.generated_kind == "v" and version < 18:
        return False
    kept = source.by_name
    return not found.default_needs and all(
        name in columns and columns[name].name == name and columns[name].native == kept[name].native
        for name in found.made_of
    )


def create_table(table: Table, config: PostgresDestinationConfig, *, key: bool) -> str:
    """Return CREATE TABLE, with the primary key if ``key``."""
    name = quoted(config.schema, config.table)
    lines = [_definition(column, config) for column in table.columns]
    if key:
        lines += [f"PRIMARY KEY ({listed(k.columns)})" for k in table.keys if k.primary]
    unlogged = "UNLOGGED " if config.unlogged else ""
    return f"CREATE {unlogged}TABLE {name} (\n    " + ",\n    ".join(lines) + "\n)"


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
        parts.append(f"GENERATED {column.identity.upper()} AS IDENTITY")
    elif column.default is not None:
        parts.append(f"DEFAULT {column.default}")
    if not column.nullable:
        parts.append("NOT NULL")
    return " ".join(parts)


def comments(table: Table, config: PostgresDestinationConfig) -> Iterator[str]:
    """Yield the statements that put the comments there."""
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
