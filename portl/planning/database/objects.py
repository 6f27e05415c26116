"""Choose the objects to create with the tables that a run creates.

Existing tables are left alone. An object's dependencies are created with it, whatever the job asks for; if one cannot
be, the object is left out, and the plan says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import attrs

from portl.config.models import MigrationConfig, Tables
from portl.config.objects import ObjectGroup, Objects
from portl.connectors.objects import SchemaObject
from portl.values.findings import Finding, note, warning
from portl.values.text import counted_kind

#: Groups whose properties depend on the rows: contents of materialized views, positions of sequences.
_CURRENT = (ObjectGroup.VIEWS, ObjectGroup.SEQUENCES)


@attrs.frozen(kw_only=True)
class ChosenObjects:
    """The objects to create."""

    #: In dependency order.
    objects: tuple[SchemaObject, ...] = ()
    findings: tuple[Finding, ...] = ()


def choose(
    config: MigrationConfig,
    objects: Sequence[SchemaObject],
    there: Collection[str],
    created: Collection[str],
    *,
    placed: Collection[str] = (),
    resumed: bool = False,
) -> ChosenObjects:
    """Return the objects that a run creates.

    Args:
        config: the job.
        objects: those of the source, tables included, in dependency order.
        there: labels of those that exist at the destination.
        created: the source's names of the tables that the run creates unchanged.
        placed: those of the tables that it creates in another form; ``objects`` has the objects that fit them, but not
            the tables themselves.
        resumed: True if an earlier attempt may have created objects without getting to their properties.
    """
    return _Choice(config, objects, there, created, placed, resumed=resumed).chosen()


class _Choice:
    def __init__(
        self,
        config: MigrationConfig,
        objects: Sequence[SchemaObject],
        there: Collection[str],
        created: Collection[str],
        placed: Collection[str],
        *,
        resumed: bool,
    ) -> None:
        self._placed = frozenset(placed)
        self._resumed = resumed
        self._groups = config.groups
        self._all = config.objects is Objects.ALL
        self._every = config.tables is Tables.ALL
        self._whole = self._all and self._every
        self._objects = objects
        self._there = there
        self._tables = _with_parts(objects, created)
        self._inside: set[int] = set()
        #: The tables, views and sequences chosen so far.
        self._owners: set[str] = {*self._tables, *self._placed}
        #: By the label of a missing dependency, the objects left out because of it.
        self._left: dict[str, list[str]] = {}

    def chosen(self) -> ChosenObjects:
        for position, found in enumerate(self._objects):
            if self._wanted(found):
                self._add(position, found)
        inside = (self._objects[n] for n in sorted(self._inside))
        made = tuple(found for found in inside if found.repeatable or found.label not in self._there)
        return ChosenObjects(objects=_renumbered(made, self._objects), findings=tuple(self._findings()))

    def _wanted(self, found: SchemaObject) -> bool:
        """Return whether the job asks for an object."""
        if found.kind == "table":
            return found.table in self._tables
        if found.group is not None and found.group not in self._groups:
            return False
        if found.property:
            new = self._resumed or found.group in _CURRENT or any(self._new(need) for need in found.needs)
            new = new or (found.table in self._placed and not found.needs)
            return new and all(need in self._inside for need in found.needs)
        if found.table in self._owners:
            return True
        free = found.table is None or found.group in (ObjectGroup.VIEWS, ObjectGroup.SEQUENCES)
        return free and (self._all or found.group in (ObjectGroup.VIEWS, ObjectGroup.EXTENSIONS))

    def _new(self, position: int) -> bool:
        """Return whether an object does not exist at the destination yet."""
        return self._objects[position].label not in self._there

    def _add(self, position: int, found: SchemaObject) -> None:
        """Add an object and its dependencies, unless they include a table that the job does not create."""
        new: set[int] = set()
        todo = [position]
        while todo:
            number = todo.pop()
            needed = self._objects[number]
            if number in new or number in self._inside or (needed.label in self._there and number != position):
                continue
            if number != position and needed.table is not None and not self._may_come(needed):
                if self._whole or found.table in self._tables | self._placed:
                    self._left.setdefault(f"table {needed.table}", []).append(found.label)
                return
            new.add(number)
            todo += needed.needs
        self._inside |= new
        self._owners |= {table for n in new if (table := self._objects[n].table) is not None}

    def _may_come(self, needed: SchemaObject) -> bool:
        """Return whether an object may be created just because another needs it: not other tables and their objects."""
        return needed.table in self._owners or needed.group in (ObjectGroup.VIEWS, ObjectGroup.SEQUENCES)

    def _findings(self) -> Iterator[Finding]:
        """Yield a finding for each missing dependency."""
        for need, labels in self._left.items():
            verb = "is" if len(labels) == 1 else "are"
            said = f"{_some(labels)} {verb} left out: the destination has no {need}, and the job does not create it"
            yield warning("objects", said, "add the table to `tables`")
        if unasked := self._unasked():
            listed = ", ".join(counted_kind(count, kind) for kind, count in unasked.items())
            yield note("objects", f"not created, because `objects` does not ask for them: {listed}")

    def _unasked(self) -> Counter[str]:
        """Count, by kind, the source's objects around the created tables that the job does not ask for."""
        if not self._tables or not self._groups:
            return Counter()
        return Counter(
            found.kind
            for position, found in enumerate(self._objects)
            if found.group is not None
            and found.group not in self._groups
            and not found.property
            and position not in self._inside
            and found.label not in self._there
            and (found.table in self._tables or (self._every and (found.table is None or found.group in _CURRENT)))
        )


def _with_parts(objects: Sequence[SchemaObject], created: Collection[str]) -> set[str]:
    """Return the tables that are created, with their partitions at any depth."""
    tables = set(created)
    partitions = {found.table for found in objects if found.kind == "partition"}
    for found in objects:  # partitions come after their parents
        parents = {objects[need].table for need in found.needs if objects[need].kind == "table"}
        if found.kind == "table" and found.table in partitions and parents & tables:
            tables.add(str(found.table))
    return tables


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:4]) + (f" and {len(labels) - 4:,} more" if len(labels) > 4 else "")


def _renumbered(made: Sequence[SchemaObject], objects: Sequence[SchemaObject]) -> tuple[SchemaObject, ...]:
    """Return objects with ``needs`` renumbered to positions in the new list."""
    new = {id(found): number for number, found in enumerate(made)}
    return tuple(
        attrs.evolve(found, needs=frozenset(new[id(objects[n])] for n in found.needs if id(objects[n]) in new))
        for found in made
    )
