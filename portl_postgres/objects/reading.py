"""Read all objects of a database from its catalogs, in one round trip."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import attrs

import portl
from portl import Changes, Finding, Placement, SchemaObject
from portl_postgres.catalog.tables import shown, table_details
from portl_postgres.objects.graph import Address, Found, Graph
from portl_postgres.objects.kinds import RELATIONS
from portl_postgres.objects.placing import RELATION, Fitted, Use, fitted
from portl_postgres.objects.renaming import renamed
from portl_postgres.session.session import Session
from portl_postgres.sql.text import Expression, bound, literal

#: The most sequences that one statement reads.
_SEQUENCES = 200
#: The queries, which return class, oid, kind, schema, name, relation and statements.
_QUERIES = (
    "schemas",
    "extensions",
    "collations",
    "types",
    "functions",
    "operators",
    "searches",
    "sequences",
    "tables",
    "attached",
    "defaults",
    "constraints",
    "indexes",
    "statistics",
    "views",
    "triggers",
    "rules",
    "policies",
    "comments",
)


@attrs.frozen(kw_only=True)
class DatabaseObjects:
    """The objects of a database."""

    #: In dependency order.
    objects: tuple[SchemaObject, ...]
    #: Labels of objects in a dependency cycle, none of which can be first.
    circle: tuple[str, ...]
    #: Labels of objects that are not carried over.
    others: tuple[str, ...]
    #: Functions whose bodies, which are left unchanged, mention a renamed schema.
    bodies: tuple[str, ...]
    #: Findings for those that do not fit tables created in another form.
    left: tuple[Finding, ...] = ()

    @property
    def findings(self) -> list[Finding]:
        """What the user should know about them."""
        found = [*self.left]
        if self.circle:
            found.append(portl.problem("objects", f"these need each other: {', '.join(self.circle)}"))
        if self.bodies:
            names = ", ".join(self.bodies)
            said = f"the bodies of functions are not changed, and these name a schema that is renamed: {names}"
            found.append(portl.warning("schemas", said, "change them at the destination"))
        if self.others:
            found.append(portl.note("objects", f"portl does not create these: {', '.join(self.others)}"))
        return found


@cache
def query(name: str) -> str:
    """Return the text of ``sql/objects/<name>.sql``, without its leading comment."""
    return bound(text_of(name))


@cache
def text_of(name: str) -> str:
    """Return the text of ``sql/objects/<name>.sql``."""
    return files("portl_postgres").joinpath("sql", "objects", f"{name}.sql").read_text(encoding="utf-8")


def found_objects(rows: Iterable[tuple[Any, ...]]) -> list[Found]:
    """Return the objects in the rows of the queries."""
    return [
        Found(
            address=(int(row[0]), int(row[1])),
            kind=row[2],
            schema=row[3],
            name=row[4],
            relation=int(row[5]),
            statements=tuple(row[6]),
        )
        for row in rows
    ]


@attrs.frozen(kw_only=True)
class Catalogs:
    """The objects of a database as read from the catalogs, not ordered yet."""

    objects: tuple[Found, ...]
    #: As for ``Graph``.
    depends: tuple[tuple[Address, Address, Address], ...]
    #: The names of tables, views and sequences, by oid.
    tables: Mapping[int, str]
    #: Labels of objects that are not carried over.
    others: tuple[str, ...]


def catalogs(session: Session) -> Catalogs:
    """Read the catalogs, in one round trip except for the positions of sequences."""
    found = session.looking(
        ["SET LOCAL search_path = ''", *map(query, (*_QUERIES, "positions", "others", "dependencies"))],
        what="reading the objects of the database",
    )
    *rows, positions, others, depends = found[1:]
    rows.append(_positions(session, positions))
    objects = found_objects(row for each in rows for row in each)
    numbers = (tuple(map(int, row)) for row in depends)
    return Catalogs(
        objects=tuple(objects),
        depends=tuple(((a, b), (c, d), (e, f)) for a, b, c, d, e, f in numbers),
        tables={o.relation: shown(o.schema, o.name) for o in objects if o.kind in RELATIONS},
        others=tuple(f"{row[2]} {row[3]}.{row[4]}" if row[3] else f"{row[2]} {row[4]}" for row in others),
    )


def read(
    session: Session,
    schemas: Mapping[str, str] | None = None,
    changes: Changes | None = None,
) -> DatabaseObjects:
    """Return the objects of a session's database. Names in their statements are qualified.

    Args:
        session: connected to the database.
        schemas: schemas whose names differ at the destination.
        changes: tables that are created in another form.
    """
    found = catalogs(session)
    fits = Fitted(others=[*found.objects])
    if changes is not None:
        fits = _placed(session, found, changes.placements, schemas or {})
    objects, bodies = renamed(fits.others, schemas or {})
    ordered, circle = Graph([*objects, *fits.fitting], found.depends, found.tables).ordered()
    left = tuple(_left_out(fits, found.tables, changes)) if changes is not None else ()
    return DatabaseObjects(objects=ordered, circle=circle, others=found.others, bodies=bodies, left=left)


def _left_out(fits: Fitted, tables: Mapping[int, str], changes: Changes) -> Iterator[Finding]:
    """Yield a warning for each object that the job asks for but that does not fit."""
    mine = {*changes.created, *(placement.source.name for placement in changes.placements)}
    for o, said in fits.left:
        free = o.kind in RELATIONS or o.relation not in tables
        if (free or tables[o.relation] in mine) and o.asked(changes.groups):
            yield portl.warning("objects", said)


def _placed(session: Session, found: Catalogs, placements: Sequence[Placement], schemas: Mapping[str, str]) -> Fitted:
    """Return how the objects fit tables created in another form."""
    tables = ", ".join(str(table_details(placement.source).oid) for placement in placements)
    behind = f"refclassid = {RELATION} AND refobjid IN ({tables})"
    users = Expression(f"SELECT DISTINCT classid AS class, objid AS oid FROM pg_catalog.pg_depend WHERE {behind}")
    alone = f"SELECT * FROM ({query('alone')}) AS o(class, oid, kind, schema, name, relation, statements)"
    _, used, own = session.looking(
        ["SET LOCAL search_path = ''", bound(text_of("uses"), users), f"{alone} WHERE relation IN ({tables})"],
        what="reading the objects of tables that change",
    )
    uses: defaultdict[Address, list[Use]] = defaultdict(list)
    for row in used:
        uses[int(row[0]), int(row[1])].append(Use(address=(int(row[2]), int(row[3])), column=row[4]))
    placed = {(RELATION, table_details(placement.source).oid) for placement in placements}
    for part, _, needed in found.depends:
        if needed in placed:  # a view, through its rule
            uses[part].append(Use(address=needed, column=""))
    constraints = {o.key: o for o in found_objects(own)}
    rest = (o for o in found.objects if o.key not in constraints)
    return fitted([*rest, *constraints.values()], uses, placements, schemas)


def _positions(session: Session, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return rows of ``sql/objects/positions.sql`` with the statement that sets a sequence to its current position.

    A sequence that was used at the destination is not moved back.
    """
    reads = [
        f"SELECT {n}, p.last_value, p.is_called, s.seqincrement > 0 FROM {row[6][0]} AS p,"
        f" pg_catalog.pg_sequence AS s WHERE s.seqrelid = p.tableoid"
        for n, row in enumerate(rows)
    ]
    found: list[tuple[Any, ...]] = []
    for start in range(0, len(reads), _SEQUENCES):
        # ``looking`` rolls back and releases its locks, whose number is limited.
        (some,) = session.looking([" UNION ALL ".join(reads[start : start + _SEQUENCES])], what="reading sequences")
        found += some
    statements = {}
    for number, last, called, ascending in found:
        name = rows[number][6][0]
        behind = f"last_value {'<' if ascending else '>'} {last}"
        statements[number] = (
            f"SELECT pg_catalog.setval({literal(name)}::regclass, {last}, {'true' if called else 'false'})"
            f" FROM {name} WHERE NOT is_called OR {behind}"
        )
    return [(*row[:6], (statements[number],)) for number, row in enumerate(rows)]
