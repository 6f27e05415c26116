"""Fit objects to tables created in a form that differs from the source: other names, fewer or other columns.

A table's name is replaced wherever the server's text qualifies it. Column names are not qualified and so cannot be
identified; a statement that uses a renamed column is instead executed while the columns have the source's names, and
they are renamed back in the same transaction. Objects that use a column that is not copied, or whose type differs, are
left out, and so is anything that reads the table by name, such as a view.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from portl import Placement, Table
from portl_postgres.catalog.tables import table_details
from portl_postgres.objects.graph import Address, Found
from portl_postgres.objects.renaming import rename
from portl_postgres.sql.text import quoted

#: Kinds that a table gets from its columns, as decided by the job, and from its own key.
OWN = frozenset({"table", "partition", "owned by", "default", "primary key", "sequence", "position", "index partition"})
#: Kinds whose statements name columns without the table, and nothing else of the table.
_FITTING = frozenset(
    {"unique", "exclusion", "index", "index option", "replica identity", "check", "statistics", "foreign key"}
    | {"validation", "trigger", "policy", "row security", "comment"}
)
#: Kinds that name columns: without a known column, they use the whole row.
_OF_COLUMNS = frozenset({"unique", "exclusion", "index", "check", "statistics", "foreign key"})
#: Kinds that name no column.
_NAMELESS = frozenset({"validation", "comment"})
_SUBQUERY = re.compile(r"\bSELECT\b")
#: Classes in pg_depend: the oids of pg_class and pg_constraint.
RELATION, CONSTRAINT = 1259, 2606
#: A name that a statement may qualify: schema and name.
Name = tuple[str, str]


@attrs.frozen(kw_only=True)
class Use:
    """A database object that another object uses."""

    address: Address
    #: The column of a table; empty if it is not a column.
    column: str


@attrs.define(kw_only=True)
class Fitted:
    """How objects fit the tables to be created."""

    #: Objects unrelated to these tables.
    others: list[Found] = attrs.field(factory=list)
    #: Objects of these tables, in the form in which they are created; schemas have their new names.
    fitting: list[Found] = attrs.field(factory=list)
    #: Objects that are left out, with the reasons.
    left: list[tuple[Found, str]] = attrs.field(factory=list)


def fitted(
    found: Iterable[Found],
    uses: Mapping[Address, Sequence[Use]],
    placements: Sequence[Placement],
    schemas: Mapping[str, str] | None = None,
) -> Fitted:
    """Fit objects to the tables to be created.

    Args:
        found: objects of any table.
        uses: what each object uses.
        placements: the tables created in another form.
        schemas: schemas whose names differ at the destination.
    """
    objects = list(found)
    return _Fitting(objects, uses, placements, schemas or {}).fit(objects)


class _Fitting:
    def __init__(
        self,
        objects: Sequence[Found],
        uses: Mapping[Address, Sequence[Use]],
        placements: Sequence[Placement],
        schemas: Mapping[str, str],
    ) -> None:
        self._uses = uses
        self._schemas = schemas
        self._placed = {table_details(p.source).oid: p for p in placements}
        self._tables = {(RELATION, oid) for oid in self._placed}
        self._pairs: dict[Name, Name] = {}
        for placement in placements:
            old, new = _name(placement.source), _name(placement.target)
            self._pairs[old] = new
        for o in objects:  # what is in its table's schema stays with the table
            if o.relation in self._placed and o.kind in {"index", "unique", "exclusion", "statistics"}:
                placement = self._placed[o.relation]
                if o.schema == _name(placement.source)[0]:
                    self._pairs[o.schema, self._bare(o)] = _name(placement.target)[0], self._bare(o)

    def _bare(self, o: Found) -> str:
        """Return the name of an object without the table that it is on."""
        return o.name.removesuffix(f" on {_name(self._placed[o.relation].source)[1]}")

    def fit(self, objects: Sequence[Found]) -> Fitted:
        result = Fitted()
        gone: set[Address] = set()
        for o in objects:
            uses = self._uses.get(o.address, ())
            touched = {o.relation, *(use.address[1] for use in uses)} & self._placed.keys()
            if o.relation in self._placed and o.kind in OWN:
                continue
            if o.kind == "comment" and o.address in self._tables:
                continue  # the table has its own instead
            if o.address in gone:
                continue  # a property of an object that is left out
            if not touched:
                result.others.append(o)
            elif why := self._unfit(o, uses, touched):
                gone.add(o.address)
                result.left.append((o, f"{o.kind} {self._shown(o)} is left out: {why}"))
            else:
                result.fitting.append(self._fitted(o, uses, touched))
        return result

    def _unfit(self, o: Found, uses: Sequence[Use], touched: set[int]) -> str | None:
        """Return why an object does not fit, or None if it does."""
        for relation in sorted(touched):
            placement = self._placed[relation]
            columns = {use.column for use in uses if use.address[1] == relation and use.column}
            for name in sorted(columns & placement.changed.keys()):
                return f"the column {name!r} of {placement.source.name} {placement.changed[name]}"
            other = placement.changed or any(a != b for a, b in placement.columns.items())
            if not columns and other and relation == o.relation and o.kind in _OF_COLUMNS:
                return f"it uses rows of {placement.source.name} as a whole, and its columns change"
        names = ", ".join(
            f"{self._placed[r].source.name} goes to {self._placed[r].target.name}" for r in sorted(touched)
        )
        if o.kind not in _FITTING or (o.kind == "policy" and any(_SUBQUERY.search(text) for text in o.statements)):
            return f"it reads tables by name, and {names}"
        return None

    def _fitted(self, o: Found, uses: Sequence[Use], touched: set[int]) -> Found:
        schema, name = o.schema, o.name
        if o.kind == "comment":
            name = rename(name, self._schemas, self._pairs)
        elif o.relation not in self._placed:
            schema = self._schemas.get(schema, schema)
        elif self._bare(o) != name:
            new = _name(self._placed[o.relation].target)
            schema, name = new[0], f"{self._bare(o)} on {new[1]}"
        else:
            schema, name = self._pairs.get((schema, name), (self._schemas.get(schema, schema), name))
        statements = [rename(text, self._schemas, self._pairs) for text in o.statements]
        for relation in sorted(touched) if o.kind not in _NAMELESS else ():
            used = {use.column for use in uses if use.address[1] == relation}
            placement = self._placed[relation]
            if any(placement.columns.get(column, column) != column for column in used):
                to, back = _renames(placement)
                statements = [*to, *statements, *back]
        return attrs.evolve(o, schema=schema, name=name, statements=tuple(statements))

    def _shown(self, o: Found) -> str:
        return f"{o.schema}.{o.name}" if o.schema else o.name


def _renames(placement: Placement) -> tuple[list[str], list[str]]:
    """Return the statements that give a table's columns the source's names, and those that rename them back."""
    pairs = [(new, old) for old, new in placement.columns.items() if old != new]
    crossing = {new for new, _ in pairs} & {old for _, old in pairs}
    return [*_renaming(placement, pairs, crossing)], [*_renaming(placement, [(b, a) for a, b in pairs], crossing)]


def _renaming(placement: Placement, pairs: Sequence[tuple[str, str]], crossing: set[str]) -> Iterator[str]:
    table = quoted(*_name(placement.target))
    if crossing:  # names are swapped, by way of names that no column has
        for number, (before, _) in enumerate(pairs):
            yield f"ALTER TABLE {table} RENAME COLUMN {quoted(before)} TO {quoted(f'portl {number}')}"
        pairs = [(f"portl {number}", after) for number, (_, after) in enumerate(pairs)]
    for before, after in pairs:
        yield f"ALTER TABLE {table} RENAME COLUMN {quoted(before)} TO {quoted(after)}"


def _name(table: Table) -> Name:
    found = table_details(table)
    return found.schema, found.name
