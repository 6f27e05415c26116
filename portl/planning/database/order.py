"""The order in which existing tables with foreign keys get their rows, and what is done about cycles.

A table waits for those that its foreign keys reference. A cycle has no such order: its foreign keys are dropped for the
run, if the job says so, and re-created after the rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import attrs

from portl.config.objects import ForeignKeys
from portl.connectors.objects import ForeignKey
from portl.planning.tasks import TableTask
from portl.values.findings import Finding, problem, warning
from portl.values.runs import DroppedKey

_RECREATE = "`foreign_keys: recreate` drops them for the run, then creates them again and validates them"


@attrs.frozen(kw_only=True)
class Order:
    """The order in which existing tables get their rows."""

    tasks: tuple[TableTask, ...]
    #: Foreign keys that are dropped before the rows.
    dropped: tuple[DroppedKey, ...] = ()
    findings: tuple[Finding, ...] = ()


def in_order(
    tasks: Sequence[TableTask], keys: Sequence[ForeignKey], wanted: ForeignKeys, taken: Collection[DroppedKey]
) -> Order:
    """Return the tasks with the tables that each waits for, and the foreign keys to drop.

    Args:
        tasks: those of all tables.
        keys: the destination's foreign keys.
        wanted: what the job says about them.
        taken: those dropped already, by the resumed run or by an abandoned one.
    """
    names = {task.destination.name for task in tasks if not task.made and not task.intent.create}
    gone = {key.name for key in taken}
    inner = [k for k in keys if {k.key.table, k.key.refers} <= names and k.key.name not in gone]
    waits: dict[str, set[str]] = {name: set() for name in names}
    own = [k for k in inner if k.key.table == k.key.refers]
    inner = [k for k in inner if k.key.table != k.key.refers]
    for found in inner:
        waits[found.key.table].add(found.key.refers)
    cycles = {name: number for number, cycle in enumerate(_cycles(waits)) for name in cycle}
    within = [k for k in inner if k.key.table in cycles and cycles[k.key.table] == cycles.get(k.key.refers)]
    dropped = list(taken)
    findings: list[Finding] = []
    if wanted is ForeignKeys.RECREATE:
        within += own
        dropped += [k.key for k in within]
        findings += _recreated(dropped, within)
    elif within:
        tables = ", ".join(sorted(cycles))
        said = f"foreign keys between these tables form a cycle: {tables} ({_names([k.key for k in within])})"
        findings.append(problem("foreign_keys", f"{said}; a row may reference one that is not there yet", _RECREATE))
    ordered = (
        attrs.evolve(
            task,
            waits_for=frozenset(
                name
                for name in waits.get(task.destination.name, ())
                if name not in cycles or cycles[name] != cycles.get(task.destination.name)
            ),
        )
        for task in tasks
    )
    return Order(tasks=tuple(ordered), dropped=tuple(dropped), findings=tuple(findings))


def _recreated(dropped: Sequence[DroppedKey], found: Sequence[ForeignKey]) -> Iterator[Finding]:
    """Yield what the user should know about the dropped foreign keys, and what prevents re-creating them."""
    if dropped:
        said = f"foreign keys are dropped for the run, then created again and validated: {_names(dropped)}"
        yield warning("foreign_keys", said)
    for key in found:
        if key.obstacle is not None:
            yield problem("foreign_keys", f"{key.key.name} cannot be dropped and created again: {key.obstacle}")


def _names(keys: Sequence[DroppedKey]) -> str:
    more = f" and {len(keys) - 5:,} more" if len(keys) > 5 else ""
    return ", ".join(key.name for key in keys[:5]) + more


def _cycles(waits: Mapping[str, Collection[str]]) -> list[set[str]]:
    """Return the strongly connected components of two or more names."""
    waited: dict[str, set[str]] = {name: set() for name in waits}
    for name, others in waits.items():
        for other in others:
            waited[other].add(name)
    # Repeatedly remove names that wait for none, or that none waits for: they are in no cycle, and few names remain.
    left = {name for name in waits if waits[name] and waited[name]}
    while drop := {name for name in left if not (left & set(waits[name]) and left & waited[name])}:
        left -= drop
    cycles: list[set[str]] = []
    while left:
        name = min(left)
        cycle = _reached(name, waits, left) & _reached(name, waited, left)
        if len(cycle) > 1:
            cycles.append(cycle)
        left -= cycle or {name}
    return cycles


def _reached(name: str, waits: Mapping[str, Collection[str]], among: Collection[str]) -> set[str]:
    """Return the names reachable from a name, including itself."""
    seen, todo = {name}, [name]
    while todo:
        new = {other for other in waits[todo.pop()] if other in among} - seen
        seen |= new
        todo += new
    return seen
