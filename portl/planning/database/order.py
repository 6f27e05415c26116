"""The order in which tables get their rows where they have foreign keys already, and what is done about cycles.

A table waits for those that its foreign keys refer to. In a cycle of tables there is no such order: then its foreign
keys are dropped for the run, if the job says so, and made again after the rows.
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
    """How tables that are there already get their rows."""

    tasks: tuple[TableTask, ...]
    #: Foreign keys that are dropped before the rows.
    dropped: tuple[DroppedKey, ...] = ()
    findings: tuple[Finding, ...] = ()


def in_order(
    tasks: Sequence[TableTask], keys: Sequence[ForeignKey], wanted: ForeignKeys, taken: Collection[DroppedKey]
) -> Order:
    """Return the tasks with what each waits for, and the foreign keys that stand in the way.

    Args:
        tasks: of all tables.
        keys: the destination's foreign keys.
        wanted: what the job says of them.
        taken: those that are dropped in any case: the run that is resumed, or one that was given up, has dropped them.
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
    """Yield what the user should know of the foreign keys that are dropped, and what keeps them from coming back."""
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
    """Return the sets of two or more names each of which waits for all others of its set, however indirectly."""
    waited: dict[str, set[str]] = {name: set() for name in waits}
    for name, others in waits.items():
        for other in others:
            waited[other].add(name)
    # What waits for nobody, or is waited for by nobody, again and again, is in no cycle: few names are left.
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
    """Return what can be reached from a name, itself included."""
    seen, todo = {name}, [name]
    while todo:
        new = {other for other in waits[todo.pop()] if other in among} - seen
        seen |= new
        todo += new
    return seen
