"""Find which objects of a table a destination has, and which it cannot have, without reading all its objects."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from portl import SchemaObject, Standing
from portl_postgres.objects.making import existing, newer
from portl_postgres.session.session import Session

#: Kinds that share a namespace with a schema's relations.
_NAMED = frozenset({"index", "unique", "exclusion"})
#: Kinds that belong to a table that is created: they cannot exist yet, but their names may be taken by other relations.
_OF_TABLE = _NAMED | {"check", "statistics", "foreign key", "index option", "replica identity", "comment", "validation"}
_OF_TABLE |= {"trigger", "rule", "policy", "row security"}
_IDENT = r'(?:"(?:[^"]|"")+"|[^\s".,()]+)'
_FOREIGN = re.compile(
    rf"ALTER TABLE (?:ONLY )?(?P<own>{_IDENT}\.{_IDENT}) ADD CONSTRAINT .*? FOREIGN KEY .*? "
    rf"REFERENCES (?P<table>{_IDENT}\.{_IDENT})\((?P<columns>{_IDENT}(?:, {_IDENT})*)\)",
    re.DOTALL,
)
_PART = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')


def standing(session: Session, objects: Sequence[SchemaObject]) -> Standing:
    """Return which objects exist, and which cannot be created; see ``Destination.standing``."""
    tables = [made for made in objects if made.kind == "table"]
    if any(made.kind not in _OF_TABLE for made in objects if made not in tables):
        there = existing(session)
    else:
        names = _relations(session, [_plain(made.name) for made in tables])
        there = frozenset(made.label for made in tables if _plain(made.name) in names)
    refused = dict(_versions(session, objects))
    refused |= _taken(session, [made for made in objects if made.kind in _NAMED])
    refused |= dict(_foreign_keys(session, [made for made in objects if made.kind == "foreign key"]))
    return Standing(there=there, refused=refused)


def _versions(session: Session, objects: Sequence[SchemaObject]) -> Iterator[tuple[str, str]]:
    for made in objects:
        for what in newer(session, made):
            yield made.label, f"the destination's version {session.version} has no {what}"


def _relations(session: Session, names: Sequence[str]) -> set[str]:
    """Return which relations exist, of these qualified names."""
    if not names:
        return set()
    rows = session.query(
        "SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class AS c"
        " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname || '.' || c.relname = ANY ($1)",
        sorted(set(names)),
        what="looking for objects",
    )
    return {name for (name,) in rows}


def _taken(session: Session, objects: Sequence[SchemaObject]) -> dict[str, str]:
    """Return the objects whose names are taken by other relations."""
    names = {made.label: _plain(made.name.rpartition(" on ")[0] or made.name) for made in objects}
    there = _relations(session, [*names.values()])
    return {label: f"the destination has another {name}" for label, name in names.items() if name in there}


def _foreign_keys(session: Session, objects: Sequence[SchemaObject]) -> Iterator[tuple[str, str]]:
    """Yield the foreign keys that the referenced tables do not allow."""
    asked: list[tuple[str, str, list[str]]] = []
    for made in objects:
        match = next((found for text in made.statements if (found := _FOREIGN.search(text))), None)
        if match is not None and match["own"] != match["table"]:
            columns = [_unquoted(name) for name in re.findall(_IDENT, match["columns"])]
            asked.append((made.label, match["table"], columns))
    for label, table, columns in asked:
        ((there, may, unique),) = _referred(session, table, columns)
        if there and not unique:
            yield label, f"{table} has no unique key ({', '.join(columns)}) at the destination"
        elif there and not may:
            yield label, f"the role lacks REFERENCES on {table}"


def _referred(session: Session, table: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    return session.query(
        "SELECT r.oid IS NOT NULL, coalesce(has_table_privilege(r.oid, 'REFERENCES'), false), EXISTS ("
        "SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = r.oid AND i.indisunique AND i.indimmediate"
        " AND i.indpred IS NULL AND (SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_catalog.pg_attribute"
        " AS a WHERE a.attrelid = r.oid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))"
        " = (SELECT array_agg(c::text ORDER BY c) FROM unnest($2::name[]) AS c))"
        " FROM (SELECT pg_catalog.to_regclass($1)::oid AS oid) AS r",
        table,
        list(columns),
        what="looking at what foreign keys refer to",
    )


def _plain(name: str) -> str:
    """Return a qualified name without quotes."""
    return ".".join(match[1].replace('""', '"') if match[1] else match[2] for match in _PART.finditer(name))


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
