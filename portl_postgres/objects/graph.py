"""The order in which objects are created: dependencies first (manual, 53.18, pg_depend)."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

import attrs

from portl import ObjectGroup, SchemaObject, Stage
from portl_postgres.catalog.tables import shown
from portl_postgres.objects.kinds import KINDS, OF_TABLES, PROPERTIES, RANKS, RELATIONS, REPEATABLE

#: Class and oid, as in pg_depend.
Address = tuple[int, int]


@attrs.frozen(kw_only=True)
class Found:
    """An object as read from the catalogs."""

    #: The object's address; a property has that of its owner.
    address: Address
    kind: str
    schema: str
    name: str
    #: The oid of the table, sequence or view that it belongs to, or is; 0 if none.
    relation: int
    statements: tuple[str, ...]

    @property
    def key(self) -> Key:
        """What identifies it among all others."""
        return self.address, self.kind, self.name

    def asked(self, groups: Collection[ObjectGroup]) -> bool:
        """Return whether a job that asks for these groups asks for it."""
        group = KINDS[self.kind][1]
        return group is None or group in groups


Key = tuple[Address, str, str]


class Graph:
    """Objects and their dependencies.

    Args:
        objects: all objects to create.
        depends: addresses of the dependent, of what it is part of, and of the dependency. Addresses that are not among
            the objects are ignored.
        tables: the source's names of tables, views and sequences, by oid.
    """

    def __init__(
        self,
        objects: Iterable[Found],
        depends: Iterable[tuple[Address, Address, Address]],
        tables: Mapping[int, str],
    ) -> None:
        found = list(objects)
        self._tables = tables
        self._owners = {o.address: o.key for o in found if o.kind not in PROPERTIES}
        # If an object is not carried over, neither is its comment.
        self._relations = {o.relation: o.key for o in found if o.kind in RELATIONS}
        self._objects = {
            o.key: o
            for o in found
            if o.kind not in PROPERTIES - OF_TABLES or o.address in self._owners or o.relation in self._relations
        }
        self._needs: defaultdict[Key, set[Key]] = defaultdict(set)
        for part, whole, needed in depends:
            needing = self._owners.get(part) or self._owners.get(whole)
            if needing is not None and needed in self._owners and needing != self._owners[needed]:
                self._needs[needing].add(self._owners[needed])
        for key, o in self._objects.items():
            owners = {self._owners.get(o.address), self._relations.get(o.relation)}
            self._needs[key] |= {owner for owner in owners if owner is not None and owner != key}
        self._refreshes()

    def _refreshes(self) -> None:
        """Make materialized views be refreshed after those that they read."""
        refreshes = {o.address: key for key, o in self._objects.items() if o.kind == "refresh"}
        for address, key in refreshes.items():
            read = {other[0] for other in self._behind(self._owners[address])}
            self._needs[key] |= {refreshes[other] for other in read & refreshes.keys() if other != address}

    def _behind(self, key: Key) -> set[Key]:
        """Return the direct and indirect dependencies of an object."""
        seen: set[Key] = set()
        todo = [key]
        while todo:
            for other in self._needs.get(todo.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        return seen

    def ordered(self) -> tuple[tuple[SchemaObject, ...], tuple[str, ...]]:
        """Return the objects in the order in which they are created, and the names of those in a cycle."""
        stages = self._stages()
        waiting = {key: len(self._needs[key]) for key in self._objects}
        needed_by: defaultdict[Key, list[Key]] = defaultdict(list)
        for key in self._objects:
            for other in self._needs[key]:
                needed_by[other].append(key)

        def rank(key: Key) -> tuple[int, int, str, str, Key]:
            o = self._objects[key]
            return stages[key], RANKS[o.kind], o.schema, o.name, key

        ready = [rank(key) for key, count in waiting.items() if not count]
        heapq.heapify(ready)
        done: dict[Key, int] = {}
        result: list[SchemaObject] = []
        while ready:
            key = heapq.heappop(ready)[-1]
            needs = frozenset(done[other] for other in self._needs[key])
            done[key] = len(result)
            result.append(self._made(self._objects[key], stages[key], needs))
            for other in needed_by[key]:
                waiting[other] -= 1
                if not waiting[other]:
                    heapq.heappush(ready, rank(other))
        circle = tuple(f"{o.kind} {_name(o)}" for key, o in self._objects.items() if key not in done)
        return tuple(result), circle

    def _stages(self) -> Mapping[Key, Stage]:
        """Return the stage of each object: that of its kind, or an earlier one if something needs it there."""
        stages = {key: KINDS[o.kind][0] for key, o in self._objects.items()}
        todo = sorted(stages, key=lambda key: stages[key])
        while todo:
            key = todo.pop()
            for other in self._needs[key]:
                if stages[other] > stages[key]:
                    stages[other] = stages[key]
                    todo.append(other)
        return stages

    def _made(self, found: Found, stage: Stage, needs: frozenset[int]) -> SchemaObject:
        owner = self._owners.get(found.address)
        relation = found.relation or (self._objects[owner].relation if owner is not None else 0)
        return SchemaObject(
            kind=found.kind,
            name=_name(found),
            group=KINDS[found.kind][1],
            table=self._tables.get(relation),
            stage=stage,
            statements=found.statements,
            needs=needs,
            repeatable=found.kind in REPEATABLE,
            property=found.kind in PROPERTIES - {"partition", "owned by"},
        )


def _name(found: Found) -> str:
    if found.kind in RELATIONS or found.kind in PROPERTIES - {"comment", "validation"}:
        return shown(found.schema, found.name)
    return f"{found.schema}.{found.name}" if found.schema and found.kind != "schema" else found.name
