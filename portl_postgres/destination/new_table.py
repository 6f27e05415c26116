"""Design the tables that portl creates: columns, types, defaults, key."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import attrs

from portl import Column, Finding, Key, Kind, Table, Type, note, problem, warning
from portl_postgres.catalog.equality import exact
from portl_postgres.catalog.sequences import RANGES, PgSequence
from portl_postgres.catalog.spellings import spelled
from portl_postgres.catalog.tables import DIALECT, ColumnDetails, TableDetails, details, shown
from portl_postgres.catalog.types import KINDS, PgType, generic
from portl_postgres.config import PostgresDestinationConfig
from portl_postgres.destination.type_resolver import TypeResolver, known_here, same_named_types
from portl_postgres.session.session import Session

# A constant of a user-defined type, as pg_get_expr prints it.
_TYPED_CONSTANT = re.compile(r"(E?'(?:[^'\\]|''|\\.)*')::(.+)", re.DOTALL)


@attrs.frozen(kw_only=True, eq=False)
class Proposal:
    """A table to be created, or whose columns are to be added to an existing one."""

    table: Table
    resolver: TypeResolver
    #: Findings about columns, by their names at the destination.
    remarks: tuple[tuple[str, Finding], ...]

    def findings(self, columns: Collection[Column]) -> list[Finding]:
        """Return the findings about these columns and their types."""
        names = {column.name for column in columns}
        return [*self.resolver.problems(columns), *(finding for name, finding in self.remarks if name in names)]


def propose(
    session: Session, source: Table, columns: Mapping[str, Column], config: PostgresDestinationConfig
) -> Proposal:
    """Return the table that would be created for a source.

    Args:
        session: that of the destination.
        source: the source's table.
        columns: maps a source column's name to the column as it leaves the source, under the destination's name.
        config: that of the destination.
    """
    remarks: list[tuple[str, Finding]] = []
    with session.scope():
        if source.dialect == DIALECT:
            columns = {name: known_here(session, column, config.schema) for name, column in columns.items()}
            unknown = [column for column in columns.values() if details(column) is None]
            remarks += [(column.name, unknown_type(column.name, column.native)) for column in unknown]
        resolver = TypeResolver(same_named_types(session, columns.values()), config)
        collations = _collations(session) if any(column.collation for column in columns.values()) else set()
    keys = _keys(source, columns, config)
    required = {name for key in keys for name in key.columns}
    made = []
    for name, column in columns.items():
        proposed = _column(source, column, columns, resolver, session.version)
        remarks += [(column.name, finding) for finding in _unread_sequence(name, proposed)]
        kept = proposed.default is not None or proposed.identity is not None
        if details(column) is not None and column.default is not None and not kept:
            remarks.append((column.name, _lost_default(name, column.default)))
        if proposed.collation is not None and proposed.collation not in collations:
            text = f"the destination has no collation {proposed.collation}; its default is used"
            remarks.append((column.name, warning(f"column {name!r}", text)))
            proposed = attrs.evolve(proposed, collation=None)
        made.append(attrs.evolve(proposed, nullable=proposed.nullable and proposed.name not in required))
    table = Table(
        name=shown(config.schema, config.table),
        columns=tuple(made),
        keys=keys,
        comment=source.comment,
        dialect=DIALECT,
        details=TableDetails(schema=config.schema, name=config.table),
    )
    return Proposal(table=table, resolver=resolver, remarks=tuple(remarks))


def unknown_type(column: str, native: str) -> Finding:
    """Return the problem of a column whose type neither side has."""
    return problem(f"column {column!r}", f"neither side has the type {native!r}", "use one that exists in `types`")


def check_key(source: Table, table: Table, config: PostgresDestinationConfig) -> list[Finding]:
    """Return problems with the key of a new table, and how it differs from the source's."""
    names = table.by_name
    findings = [
        problem("destination.primary_key", f"no column is called {name!r}", f"the columns are: {', '.join(names)}")
        for name in config.primary_key or ()
        if name not in names
    ]
    key = _unfit_primary_key(source)
    if key is not None and config.primary_key is None and table.primary_key is not None:
        text = f"the new table has a plain key over all its rows; the source's {key} {key.unfit}"
        findings.append(warning("destination", text))
    return findings


def _unfit_primary_key(source: Table) -> Key | None:
    return next((key for key in source.unfit_keys if key.primary), None)


def _collations(session: Session) -> set[str]:
    rows = session.query(
        "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.collname) FROM pg_catalog.pg_collation AS c"
        " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.collnamespace",
        what="looking for collations",
    )
    return {name for (name,) in rows}


def _keys(source: Table, columns: Mapping[str, Column], config: PostgresDestinationConfig) -> tuple[Key, ...]:
    """Return the primary key: the configured one, or the source's if all of its columns are copied."""
    wanted = config.primary_key
    if wanted is None:
        key = source.primary_key or _unfit_primary_key(source)
        if key is None or not all(name in columns for name in key.columns):
            return ()
        wanted = tuple(columns[name].name for name in key.columns)
    elif not set(wanted) <= {column.name for column in columns.values()}:
        return ()
    return (Key(name=f"{config.table}_pkey", columns=wanted, primary=True),)


def _column(
    source: Table, column: Column, columns: Mapping[str, Column], resolver: TypeResolver, version: int
) -> Column:
    found = details(column)
    if found is None:
        return _of_other_connector(column, version)
    pg = resolver.resolve(found.pg)
    default, identity = _default(column, found, pg)
    generated = column.generated if _can_generate(source, found, columns, version) else None
    type = generic(pg, found.modifier)
    return attrs.evolve(
        column,
        type=type,
        native=resolver.native(column.native, found.pg),
        default=default,
        identity=identity,
        generated=generated,
        details=ColumnDetails(
            pg=pg,
            modifier=found.modifier,
            version=version,
            generated_kind=found.generated_kind if generated else "",
            sequence=_sequence(found.sequence, type) if identity is not None else None,
        ),
    )


def _sequence(sequence: PgSequence | None, type: Type) -> PgSequence | None:
    """Return the sequence of an identity column: the source's, within the limits of the column's type."""
    if sequence is None or type.kind not in RANGES:
        return None
    return attrs.evolve(sequence, options=sequence.options.limited(type.kind))


def _lost_default(name: str, default: str) -> Finding:
    return warning(
        f"column {name!r}",
        f"its default {default} depends on objects of the source's database; the new column has no default",
        "set one at the destination if inserts there need it",
    )


def _unread_sequence(name: str, proposed: Column) -> list[Finding]:
    found = details(proposed)
    sequence = found.sequence if found is not None else None
    if sequence is None or sequence.last is not None:
        return []
    text = f"the role may not read the source's sequence {sequence.name}"
    return [note(f"column {name!r}", f"{text}: the new one continues after the loaded values")]


def _of_other_connector(column: Column, version: int) -> Column:
    pg = _builtin(column.type)
    return Column(
        name=column.name,
        type=column.type,
        native=spelled(column.type),
        nullable=column.nullable,
        exact=exact(pg, column.type),
        comment=column.comment,
        details=ColumnDetails(pg=pg, version=version),
    )


def _builtin(type: Type) -> PgType:
    """Return a stand-in for the built-in type of a generic one, with only its names."""
    if type.kind is Kind.ARRAY and type.element is not None:
        element = _builtin(type.element)
        return PgType(oid=0, schema="pg_catalog", name=f"_{element.name}", spelled="", kind="A", element=element)
    name = next(name for name, kind in KINDS.items() if kind is type.kind)
    return PgType(oid=0, schema="pg_catalog", name=name, spelled=spelled(type), kind="b")


def _default(column: Column, found: ColumnDetails, pg: PgType) -> tuple[str | None, str | None]:
    """Return the default and identity that are valid at the destination. A serial becomes an identity column."""
    if column.identity is not None or column.default is None:
        return None, column.identity
    serial = found.sequence is not None and found.default_needs == ("relation",)
    if serial and found.pg.kind == "b" and column.type.kind in RANGES and not column.nullable:
        return None, "by default"
    constant = _TYPED_CONSTANT.fullmatch(column.default)
    if constant is not None and constant[2] == found.pg.spelled and set(found.default_needs) == {"type"}:
        return f"{constant[1]}::{pg.spelled}", None
    return (None if found.default_needs else column.default), None


def _can_generate(source: Table, found: ColumnDetails, columns: Mapping[str, Column], version: int) -> bool:
    """Return whether a generated column's expression, which names source columns, is valid at the destination."""
    if found.generated_kind == "v" and version < 18:
        return False
    kept = source.by_name
    return not found.default_needs and all(
        name in columns and columns[name].name == name and columns[name].native == kept[name].native
        for name in found.made_of
    )
