"""Choose the indexes, constraints and other objects to create with a table whose form differs from the source's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import attrs

from portl.config.models import Conflict, DestinationConfig, SourceConfig, Strategy
from portl.connectors.destination import Destination
from portl.connectors.exchange import Intent
from portl.connectors.objects import Placement, SchemaObject, Standing
from portl.connectors.source import Source
from portl.schema.tables import Column, Table
from portl.values.findings import Finding, note, warning


def placement(intent: Intent, schemas: Mapping[str, str] | None = None) -> Placement:
    """Return the form in which a job creates its source's table.

    Args:
        intent: the job.
        schemas: schemas of the source that have other names at the destination, with their types.
    """
    made, columns, changed = intent.target.by_name, dict[str, str](), dict[str, str]()
    fields = {field.source.name: field for field in intent.fields}
    for column in intent.source.columns:
        field = fields.get(column.name)
        if field is None:
            target = made.get(column.name)
            if target is not None and target.generated is not None and _same(target, column, schemas or {}):
                columns[column.name] = column.name
            else:
                changed[column.name] = "is not copied"
        elif not _same(field.target, column, schemas or {}):
            changed[column.name] = f"becomes {field.target.native}"
        elif field.using is not None:
            changed[column.name] = "is converted"
        elif _merged(intent.conflict, field.target.name, intent):
            changed[column.name] = "is merged"
        else:
            columns[column.name] = field.target.name
    return Placement(source=intent.source, target=intent.target, columns=columns, changed=changed)


def _same(target: Column, source: Column, schemas: Mapping[str, str]) -> bool:
    """Return whether two columns have the same type, whose name may be spelled with or without quotes."""
    name = source.native.replace('"', "")
    schema, dot, rest = name.partition(".")
    return target.native.replace('"', "") == (f"{schemas.get(schema, schema)}{dot}{rest}")


def _merged(conflict: Conflict, column: str, intent: Intent) -> bool:
    """Return whether a column may receive values that the source does not have."""
    key = intent.key.columns if intent.key is not None else ()
    return conflict.strategy is Strategy.MERGE and not intent.distinct and column not in key


def with_objects(
    intent: Intent, source: Source[SourceConfig], destination: Destination[DestinationConfig]
) -> tuple[Intent, list[Finding]]:
    """Return an intent with the objects to create with its table, and findings for those that are left out.

    Args:
        intent: with the groups that the job asks for.
        source: an open source.
        destination: an open destination.
    """
    table = intent.source
    if not intent.create or not intent.groups or table.dialect is None or table.dialect != intent.target.dialect:
        return intent, []
    if table.kind == "query":
        return intent, [note("objects", "the rows come from a query: no indexes or constraints come with them")]
    objects, findings = source.objects_with(placement(intent), intent.groups)
    standing = destination.standing(objects) if objects else None
    if standing is None:
        return intent, list(findings)
    chosen, left = _chosen(objects, table, intent.groups, standing)
    return attrs.evolve(intent, objects=chosen), [*findings, *left]


def _chosen(
    objects: Sequence[SchemaObject], table: Table, groups: Collection[object], standing: Standing
) -> tuple[tuple[SchemaObject, ...], list[Finding]]:
    """Return the objects to create, and a finding for each that is left out."""
    made: set[int] = set()
    findings: list[Finding] = []
    for number, found in enumerate(objects):
        wanted = found.table == table.name and found.statements and (found.group is None or found.group in groups)
        if not wanted or (found.property and not found.needs <= made):
            continue
        needed, why = _needed(number, objects, table, standing)
        if why is None:
            made |= needed
        else:
            findings.append(warning("objects", f"{found.label} is left out: {why}"))
    places = {number: place for place, number in enumerate(sorted(made))}
    kept = (attrs.evolve(objects[n], needs=frozenset(places[m] for m in objects[n].needs & made)) for n in places)
    return tuple(kept), findings


def _needed(
    number: int, objects: Sequence[SchemaObject], table: Table, standing: Standing
) -> tuple[set[int], str | None]:
    """Return an object with the missing objects it depends on, or why it cannot be created."""
    needed: set[int] = set()
    todo = [number]
    while todo:
        place = todo.pop()
        found = objects[place]
        own = found.table == table.name
        if found.label in standing.refused:
            said = standing.refused[found.label]
            return needed, said if place == number else f"it needs {found.label}, and {said}"
        if found.label in standing.there and not own:
            continue
        if not own and found.table is not None:
            return needed, f"it needs {found.label}, which the destination does not have"
        needed.add(place)
        todo += found.needs - needed
    return needed, None
