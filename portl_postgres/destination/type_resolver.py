"""Find the destination's counterpart of each source type, or plan to create it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import attrs

import portl
from portl import Column, Finding, problem
from portl_postgres.catalog import tables, types
from portl_postgres.catalog.tables import ColumnDetails, details
from portl_postgres.catalog.types import FIRST_USER_OID, PgType
from portl_postgres.config import PostgresDestinationConfig
from portl_postgres.session.session import Session
from portl_postgres.sql.text import quoted


def type_oid(session: Session, spelled: str, schema: str) -> int | None:
    """Return the oid of a type by its spelling, looked up in ``schema`` first; None if there is none."""
    try:
        with session.scope():
            ((oid,),) = session.query(
                "SELECT coalesce(to_regtype(quote_ident($1) || '.' || $2), to_regtype($2))::oid", schema, spelled
            )
    except portl.Error:
        return None  # a syntax error: not a type name
    return int(oid) if oid is not None else None


def known_here(session: Session, column: Column, schema: str) -> Column:
    """Return a column whose type the source does not know, with the destination's type of that name, if any."""
    if details(column) is not None:
        return column
    oid = type_oid(session, column.native, schema)
    if oid is None:
        return column
    pg = tables.read_types(session, [oid])[oid]
    found = ColumnDetails(pg=pg, version=session.version)
    return attrs.evolve(column, native=pg.spelled, type=types.generic(pg, -1), details=found)


def same_named_types(session: Session, columns: Collection[Column]) -> dict[tuple[str, str], PgType]:
    """Return the destination's user-defined types that have the names of those used at the source."""
    found = [d.pg for column in columns if (d := details(column)) is not None]
    names = {part.name for pg in found for part in pg.parts() if not part.builtin}
    if not names:
        return {}
    rows = session.query(
        "SELECT oid FROM pg_catalog.pg_type WHERE typname = ANY($1) AND oid >= $2",
        sorted(names),
        FIRST_USER_OID,
        what="looking for types",
    )
    made = tables.read_types(session, [oid for (oid,) in rows]).values()
    return {(t.schema, t.name): t for t in made if not t.builtin}


class TypeResolver:
    """Maps the source's types to those of the destination.

    Args:
        known: the destination's user-defined types by schema and name.
        config: says whether and where missing types are created.
    """

    def __init__(self, known: Mapping[tuple[str, str], PgType], config: PostgresDestinationConfig) -> None:
        self._known = known
        self._schema = config.schema
        self._may_create = config.create_types
        #: The types to create, by name, in order, each with its oid at the source.
        self._missing: dict[str, tuple[int, PgType]] = {}
        self._problems: dict[str, Finding] = {}

    def needed(self, columns: Iterable[Column]) -> Iterator[PgType]:
        """Yield the types to create for these columns, in order."""
        names = _type_names(columns)
        return (made for name, (_, made) in self._missing.items() if name in names)

    def problems(self, columns: Iterable[Column]) -> list[Finding]:
        """Return problems with the types of these columns."""
        names = _type_names(columns)
        return [finding for name, finding in self._problems.items() if name in names]

    def resolve(self, wanted: PgType) -> PgType:
        """Return the type at the destination."""
        if wanted.builtin:
            if wanted.kind == "p" or (wanted.element is not None and wanted.element.kind == "p"):
                self._refuse(
                    wanted, "no column can have this type", "convert it in a query or with `types`, for example to text"
                )
            return wanted
        if wanted.kind == "A" and wanted.element is not None:
            element = self.resolve(wanted.element)
            return attrs.evolve(wanted, element=element, spelled=f"{element.spelled}[]", schema=element.schema)
        found = self._find(wanted)
        if found is not None:
            return found
        if wanted.name not in self._missing:
            return self._create(wanted)
        oid, made = self._missing[wanted.name]
        if oid != wanted.oid:
            self._refuse(
                wanted,
                f"another type of this name is to be created in schema {self._schema!r} too",
                "create both there, in the schemas that they have at the source, or convert one with `types`",
            )
        return made

    def native(self, spelled: str, wanted: PgType) -> str:
        """Return the destination's spelling of a type, with the modifier of the source's spelling."""
        inner = wanted
        while inner.kind == "A" and inner.element is not None:
            inner = inner.element
        if inner.builtin:
            return spelled
        return spelled.replace(inner.spelled, self.resolve(inner).spelled, 1)

    def _refuse(self, wanted: PgType, message: str, remedy: str) -> None:
        self._problems[wanted.name] = problem(f"type {wanted.spelled}", message, remedy)

    def _find(self, wanted: PgType) -> PgType | None:
        for schema in (self._schema, wanted.schema):
            found = self._known.get((schema, wanted.name))
            if found is not None and found.kind == wanted.kind:
                return found
        if wanted.extension is None:
            return None
        same = (t for t in self._known.values() if t.name == wanted.name and t.extension == wanted.extension)
        return next(same, None)

    def _create(self, wanted: PgType) -> PgType:
        made = attrs.evolve(wanted, oid=FIRST_USER_OID, schema=self._schema, spelled=quoted(self._schema, wanted.name))
        lacking = "the destination does not have it"
        if wanted.extension is not None:
            extension = wanted.extension
            self._refuse(
                wanted,
                f"the destination does not have the extension {extension!r}",
                f"CREATE EXTENSION {quoted(extension)}",
            )
        elif wanted.kind not in ("e", "d", "c"):
            self._refuse(wanted, lacking, "create it there, as pg_dump prints it")
        elif not self._may_create:
            self._refuse(wanted, lacking, "create it there, or remove `create_types: false`")
        else:
            made = self._with_resolved_parts(made)
            self._missing[wanted.name] = wanted.oid, made
        return made

    def _with_resolved_parts(self, made: PgType) -> PgType:
        domain = made.domain
        if domain is not None:
            base, native = self.resolve(domain.base), self.native(domain.native, domain.base)
            domain = attrs.evolve(domain, base=base, native=native)
        attributes = tuple((name, self.resolve(t), self.native(native, t)) for name, t, native in made.attributes)
        return attrs.evolve(made, domain=domain, attributes=attributes)


def _type_names(columns: Iterable[Column]) -> set[str]:
    found = (details(column) for column in columns)
    return {part.name for d in found if d is not None for part in d.pg.parts()}
