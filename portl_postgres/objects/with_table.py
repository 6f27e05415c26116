"""Read the objects of one table in two round trips, and those of the whole database only if they depend on others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

import attrs

from portl import Finding, ObjectGroup, Placement, SchemaObject, warning
from portl_postgres.catalog.tables import shown, table_details
from portl_postgres.objects.graph import Address, Found, Graph
from portl_postgres.objects.placing import CONSTRAINT, RELATION, Use, fitted
from portl_postgres.objects.reading import catalogs, found_objects, query, text_of
from portl_postgres.session.session import Session
from portl_postgres.sql.text import Expression, bound

#: The queries of ``sql/objects`` for a table's objects, and the groups for which each is needed.
_QUERIES = (
    ("constraints", {ObjectGroup.CONSTRAINTS, ObjectGroup.FOREIGN_KEYS}),
    ("alone", {ObjectGroup.CONSTRAINTS, ObjectGroup.FOREIGN_KEYS}),
    ("indexes", {ObjectGroup.INDEXES}),
    ("statistics", {ObjectGroup.STATISTICS}),
    ("triggers", {ObjectGroup.TRIGGERS}),
    ("rules", {ObjectGroup.RULES}),
    ("policies", {ObjectGroup.POLICIES, ObjectGroup.INDEXES}),
)
Uses = Mapping[Address, Sequence[Use]]


def objects_with(
    session: Session, placement: Placement, groups: Collection[ObjectGroup]
) -> tuple[tuple[SchemaObject, ...], list[Finding]]:
    """Return the objects of a table that fit the table to be created, with their dependencies first.

    Tables that foreign keys reference are included, without statements.

    Args:
        session: that of the source.
        placement: the table, and the form it is created in.
        groups: the groups of objects that the job asks for.
    """
    relation = table_details(placement.source).oid
    own = _belonging(session, relation, groups)
    if not own:
        return (), []
    own, uses, names = _around(session, own, comments=ObjectGroup.COMMENTS in groups)
    fits = fitted(own, uses, [placement])
    kept = fits.fitting
    findings = [warning("objects", said) for o, said in fits.left if o.asked(groups)]
    addresses = {o.address for o in own} | {(RELATION, relation)}
    referred = {
        u.address for o in kept if o.kind == "foreign key" for u in uses.get(o.address, ()) if u.address in names
    }
    beyond = {u.address for o in kept for u in uses.get(o.address, ())} - addresses - referred
    if beyond:
        return _with_all(session, relation, kept, uses), findings
    stand_ins = [
        Found(address=address, kind="table", schema=schema, name=name, relation=address[1], statements=())
        for address, (schema, name) in names.items()
        if address in referred - addresses
    ]
    tables = {relation: placement.source.name, **{o.relation: shown(o.schema, o.name) for o in stand_ins}}
    return Graph([*stand_ins, *kept], _depends(kept, uses), tables).ordered()[0], findings


def _belonging(session: Session, relation: int, groups: Collection[ObjectGroup]) -> list[Found]:
    """Return the objects of a table that the job asks for."""
    names = [name for name, of in _QUERIES if of & set(groups)]
    if not names:
        return []
    columns = "class, oid, kind, schema, name, relation, statements"
    of_it = (f"SELECT * FROM ({query(name)}) AS o({columns}) WHERE relation = {relation}" for name in names)
    _, *rows = session.looking(["SET LOCAL search_path = ''", *of_it], what="reading the objects of the table")
    found = {o.key: o for o in found_objects(row for each in rows for row in each)}
    return [*found.values()]


def _around(
    session: Session, own: Sequence[Found], *, comments: bool
) -> tuple[list[Found], Uses, dict[Address, tuple[str, str]]]:
    """Return objects with their comments, what they use, and the names of the tables they use."""
    addresses = {o.address for o in own} - {(RELATION, own[0].relation)}
    if not addresses:
        return [*own], {}, {}
    listed = ", ".join(f"({a}::oid, {b}::oid)" for a, b in sorted(addresses))
    pairs = Expression(f"SELECT * FROM (VALUES {listed}) AS v(class, oid)")
    told = f"SELECT * FROM ({query('comments')}) AS o WHERE (class, oid) IN ({pairs})"
    asked = ["SET LOCAL search_path = ''", bound(text_of("uses"), pairs), *([told] if comments else [])]
    _, used, *said = session.looking(asked, what="reading the objects of the table")
    uses: defaultdict[Address, list[Use]] = defaultdict(list)
    keys = {o.address for o in own if o.kind == "foreign key"}
    for row in used:
        address, needed = (int(row[0]), int(row[1])), (int(row[2]), int(row[3]))
        # The key that a foreign key needs comes with the referenced table.
        if address not in keys or row[5] or needed[0] not in (CONSTRAINT, RELATION):
            uses[address].append(Use(address=needed, column=row[4]))
    names = {(int(row[2]), int(row[3])): (row[5], row[6]) for row in used if row[5]}
    return [*own, *found_objects(row for each in said for row in each)], uses, names


def _with_all(session: Session, relation: int, kept: Sequence[Found], uses: Uses) -> tuple[SchemaObject, ...]:
    """Return objects with all their dependencies, read from the whole database."""
    found = catalogs(session)
    mine = {o.key for o in kept}
    rest = [o for o in found.objects if o.relation != relation and o.address != (RELATION, relation)]
    rest = [o for o in rest if o.key not in mine]
    ordered, _ = Graph([*rest, *kept], [*found.depends, *_depends(kept, uses)], found.tables).ordered()
    own = {number for number, o in enumerate(ordered) if o.table == found.tables.get(relation)}
    wanted, todo = set(own), [*own]
    while todo:
        new = ordered[todo.pop()].needs - wanted
        wanted |= new
        todo += new
    places = {number: place for place, number in enumerate(sorted(wanted))}
    return tuple(
        attrs.evolve(
            ordered[n],
            needs=frozenset(places[need] for need in ordered[n].needs),
            # Tables must already exist, otherwise whatever needs them is left out.
            statements=() if ordered[n].kind == "table" else ordered[n].statements,
        )
        for n in places
    )


def _depends(kept: Sequence[Found], uses: Uses) -> list[tuple[Address, Address, Address]]:
    return [(o.address, o.address, address) for o, address in _used(kept, uses)]


def _used(kept: Sequence[Found], uses: Uses) -> Iterator[tuple[Found, Address]]:
    for o in kept:
        for use in uses.get(o.address, ()):
            yield o, use.address
