"""Read tables, columns, keys and types from the system catalogs. The queries are in ``sql/``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from portl import Column, Key, SchemaError, Table
from portl_postgres.catalog.equality import exact
from portl_postgres.catalog.sequences import PgSequence, each_sequence
from portl_postgres.catalog.types import Domain, PgType, generic
from portl_postgres.session.session import Session
from portl_postgres.sql.text import Expression, bound, literal, quoted, statement

DIALECT = "postgres"

KINDS = {
    "r": "table",
    "p": "partitioned table",
    "v": "view",
    "m": "materialized view",
    "f": "foreign table",
}


@attrs.frozen(kw_only=True)
class ColumnDetails:
    """Facts about a column beyond ``portl.Column``."""

    pg: PgType
    modifier: int = -1
    #: The major version of the server where the column is, or will be.
    version: int
    #: The settings of the describing session that decide how text becomes a date or time.
    settings: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    #: The kinds of objects that the default depends on, except built-in ones: function, relation, type, other.
    default_needs: tuple[str, ...] = ()
    #: The columns that a generated column is computed from.
    made_of: tuple[str, ...] = ()
    #: ``s`` stored, ``v`` virtual, for a generated column.
    generated_kind: str = ""
    #: The sequence behind a serial or identity column, or behind a default that calls nextval().
    sequence: PgSequence | None = None
    may_select: bool = True
    may_insert: bool = True
    may_update: bool = True


@attrs.frozen(kw_only=True)
class Due:
    """What remains to be done to a table after the last rows of the run that created it."""

    #: The columns of its primary key; empty if it already exists, or if there is to be none.
    key: tuple[str, ...] = ()
    #: The objects that go with it: the groups, the label and the statements of each.
    objects: tuple[tuple[str, str, tuple[str, ...]], ...] = ()


@attrs.frozen(kw_only=True)
class TableDetails:
    """Facts about a relation beyond ``portl.Table``."""

    schema: str
    name: str
    oid: int = 0
    kind: str = "r"
    #: True if a policy may hide rows from this role.
    row_security: bool = False
    #: The number of rows as of the last ANALYZE; negative if there was none.
    estimate: float = -1.0
    may_select: bool = True
    #: The tables that inherit from it, qualified and quoted; not the partitions of a partitioned table.
    children: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    foreign_keys: int = 0
    #: What an interrupted run left to be done to the table; None if nothing.
    due: Due | None = None

    @property
    def keyless(self) -> bool:
        """True if a run was interrupted before it built the table's key."""
        return self.due is not None and bool(self.due.key)


def read_table(session: Session, schema: str, name: str, *, alone: bool = False) -> Table | None:
    """Return a table, view or foreign table from the catalogs, or None if there is none of that name.

    Args:
        session: connected to the database.
        schema: the exact name.
        name: the exact name.
        alone: True to ignore inheritance children.
    """
    return read_tables(session, [(schema, name)], alone=alone).get((schema, name))


def read_tables(
    session: Session, names: Sequence[tuple[str, str]], *, alone: bool = False
) -> dict[tuple[str, str], Table]:
    """Return several tables as ``read_table`` does, by schema and name, in one round trip."""
    relation_rows, columns, types, keys, sequences = session.bare(
        looks(names),
        what=f"looking at {quoted(*names[0])}" + (f" and {len(names) - 1:,} more" if len(names) > 1 else ""),
    )
    by_type = _types(types)
    of_columns, of_keys = _grouped(columns), _grouped(keys)
    positions: dict[int, dict[str, PgSequence]] = {}
    found = each_sequence(session, [row[1:] for row in sequences])
    for (oid, column, *_), sequence in zip(sequences, found, strict=True):
        positions.setdefault(oid, {})[column] = sequence
    made = {}
    for schema, name, *row in relation_rows:
        oid = row[0]
        row[6] = [] if alone else row[6]
        parts = of_columns.get(oid, []), of_keys.get(oid, []), by_type, positions.get(oid, {})
        made[schema, name] = _table(schema, name, row, *parts, session)
    return made


def looks(names: Sequence[tuple[str, str]]) -> list[str]:
    """Return the queries of ``read_tables`` for ``Session.bare``."""
    wanted = ", ".join(f"({literal(schema)}, {literal(name)})" for schema, name in names)
    relations = (
        "SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class AS c"
        " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
        f" WHERE (n.nspname, c.relname) IN ({wanted}) AND c.relkind = ANY ('{{r,p,v,m,f}}')"
    )
    its_types = Expression(
        f"ARRAY(SELECT DISTINCT a.atttypid FROM pg_catalog.pg_attribute AS a JOIN ({relations}) AS c"
        " ON c.oid = a.attrelid WHERE a.attnum > 0 AND NOT a.attisdropped)"
    )

    def each(query: str, values: str = "oid", first: str = "r.oid") -> str:
        inner = bound(statement(query), *(Expression(f"portl_r.{value}") for value in values.split()))
        first = first.replace("r.", "portl_r.")
        return f"SELECT {first}, portl_x.* FROM ({relations}) AS portl_r CROSS JOIN LATERAL ({inner}) AS portl_x"

    return [
        each("relation", "nspname relname", "r.nspname::text, r.relname::text"),
        each("columns"),
        bound(statement("types"), its_types),
        each("keys"),
        each("sequences"),
    ]


def _grouped(rows: Sequence[tuple[Any, ...]]) -> dict[int, list[tuple[Any, ...]]]:
    """Group rows by their first column, which is removed."""
    found: dict[int, list[tuple[Any, ...]]] = {}
    for first, *rest in rows:
        found.setdefault(first, []).append(tuple(rest))
    return found


def _table(
    schema: str,
    name: str,
    found: Sequence[Any],
    columns: Sequence[tuple[Any, ...]],
    keys: Sequence[tuple[Any, ...]],
    types: dict[int, PgType],
    sequences: dict[str, PgSequence],
    session: Session,
) -> Table:
    oid, kind, hidden, estimate, comment, may_select, children, triggers, rules, foreign_keys = found
    details = TableDetails(
        schema=schema,
        name=name,
        oid=oid,
        kind=kind,
        row_security=hidden,
        estimate=estimate,
        may_select=may_select,
        children=tuple(children),
        triggers=tuple(triggers),
        rules=tuple(rules),
        foreign_keys=foreign_keys,
    )
    all_keys = [_key(row, details.children) for row in keys]
    return Table(
        name=shown(schema, name),
        columns=tuple(_columns(columns, types, sequences, session)),
        keys=tuple(key for key in all_keys if key.unfit is None),
        unfit_keys=tuple(key for key in all_keys if key.unfit is not None),
        comment=comment,
        dialect=DIALECT,
        kind=KINDS[kind],
        details=details,
    )


def shown(schema: str, name: str) -> str:
    """Return a qualified name for messages, quoted only where necessary."""
    return ".".join(part if part.isidentifier() and part.islower() else quoted(part) for part in (schema, name))


def near_names(session: Session, schema: str, name: str) -> list[str]:
    """Return up to three qualified names of relations that may have been meant."""
    rows = session.query(
        "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class AS c"
        " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^(pg_|information_schema)'"
        " AND (n.nspname = $1 OR c.relname = $2 OR n.nspname || '.' || c.relname = $2)"
        " ORDER BY lower(c.relname) = lower($2) DESC, 1, 2 LIMIT 200",
        schema,
        name,
        what="looking for tables",
    )
    spelled = {f"{s}.{n}": (s, n) for s, n in rows}
    exact = [full for full, (s, n) in spelled.items() if name in (n, full) or n.lower() == name.lower()]
    close = difflib.get_close_matches(f"{schema}.{name}", spelled, n=3, cutoff=0.7)
    return list(dict.fromkeys([*exact, *close]))[:3]


def _columns(
    rows: Sequence[tuple[Any, ...]], types: dict[int, PgType], sequences: dict[str, PgSequence], session: Session
) -> Iterable[Column]:
    return (_column(row, types[row[1]], sequences.get(row[0]), session) for row in rows)


def _column(row: tuple[Any, ...], pg: PgType, sequence: PgSequence | None, session: Session) -> Column:
    (name, _, modifier, native, not_null, default, identity, generated, collation, comment, needs, made_of,
     may_select, may_insert, may_update, deterministic) = row  # fmt: skip
    type = generic(pg, modifier)
    return Column(
        name=name,
        type=type,
        native=native,
        nullable=not (not_null or (pg.domain is not None and pg.domain.not_null)),
        default=None if generated else default,
        identity={"a": "always", "d": "by default"}.get(identity or ""),
        generated=default if generated else None,
        collation=collation,
        exact=exact(pg, type, deterministic=deterministic),
        comment=comment,
        details=ColumnDetails(
            pg=pg,
            modifier=modifier,
            version=session.version,
            settings=_clock_settings(session),
            default_needs=tuple(needs),
            made_of=tuple(made_of),
            generated_kind=generated,
            sequence=sequence,
            may_select=may_select,
            may_insert=may_insert,
            may_update=may_update,
        ),
    )


def _clock_settings(session: Session) -> Mapping[str, str]:
    """Return settings that the server reports unasked (manual, 32.2, ``PQparameterStatus``)."""
    info = session.connection.info
    return {name: info.parameter_status(name) or "" for name in ("DateStyle", "TimeZone")}


def _key(row: tuple[Any, ...], children: Sequence[str]) -> Key:
    """Return a key; those of a parent do not apply to the rows of its child tables (manual, 5.11.1)."""
    name, primary, deferrable, nulls_equal, columns, unfit = row
    if unfit is None and children:
        unfit = f"does not apply to the rows of its child tables ({', '.join(children)})"
    return Key(
        name=name,
        columns=tuple(columns),
        primary=primary,
        deferrable=deferrable,
        nulls_equal=nulls_equal,
        unfit=unfit,
    )


def read_types(session: Session, oids: Sequence[int]) -> dict[int, PgType]:
    """Return types by oid, with all their component types."""
    if not oids:
        return {}
    (rows,) = session.bare([bound(statement("types"), sorted(set(oids)))], what="looking at types")
    return _types(rows)


def _types(rows: Sequence[tuple[Any, ...]]) -> dict[int, PgType]:
    by_oid = {row[0]: row for row in rows}
    made: dict[int, PgType] = {}

    def make(oid: int) -> PgType | None:
        if oid and oid not in made:
            made[oid] = _type(by_oid[oid], make)
        return made.get(oid)

    for oid in by_oid:
        make(oid)
    return made


def _type(row: tuple[Any, ...], make: Callable[[int], PgType | None]) -> PgType:
    (oid, schema, name, spelled, kind, element, base, base_modifier, subtype, sendable, labels, names, types,
     base_native, natives, not_null, default, checks, extension, delimiter) = row  # fmt: skip
    base_type = make(base)
    domain = None
    if base_type is not None:
        domain = Domain(
            base=base_type,
            modifier=base_modifier,
            native=base_native,
            not_null=not_null,
            default=default,
            checks=tuple(checks),
        )
    attributes = ((n, make(t), native) for n, t, native in zip(names, types, natives, strict=True))
    return PgType(
        oid=oid,
        schema=schema,
        name=name,
        spelled=spelled,
        kind=kind,
        element=make(element),
        domain=domain,
        subtype=make(subtype),
        sendable=sendable,
        labels=tuple(labels),
        attributes=tuple((n, t, native) for n, t, native in attributes if t is not None),
        extension=extension,
        delimiter=delimiter,
    )


def described_columns(session: Session, described: Sequence[tuple[str, int, int]]) -> tuple[Column, ...]:
    """Return the columns of a query's result, from the names, type oids and modifiers that the server describes."""
    oids, modifiers = [oid for _, oid, _ in described], [modifier for _, _, modifier in described]
    naming = "SELECT format_type(t, m) FROM unnest($1::oid[], $2::int4[]) WITH ORDINALITY AS x(t, m, n) ORDER BY n"
    rows, spelled = session.bare(
        [bound(statement("types"), sorted(set(oids))), bound(naming, oids, modifiers)], what="looking at types"
    )
    types = _types(rows)
    return tuple(
        Column(
            name=name,
            type=generic(types[oid], modifier),
            native=native,
            details=ColumnDetails(
                pg=types[oid], modifier=modifier, version=session.version, settings=_clock_settings(session)
            ),
        )
        for (name, oid, modifier), (native,) in zip(described, spelled, strict=True)
    )


def details(column: Column) -> ColumnDetails | None:
    """Return the details of a column, or None for another connector's column."""
    return column.details if isinstance(column.details, ColumnDetails) else None


def table_details(table: Table) -> TableDetails:
    """Return the details of a table.

    Raises:
        SchemaError: it is another connector's table.
    """
    if not isinstance(table.details, TableDetails):
        raise SchemaError(f"{table.name} is not a PostgreSQL table")
    return table.details
