"""Choose the conflict target, and determine whether two source rows can share a key."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from portl.config.models import Conflict, Strategy
from portl.connectors.exchange import Field
from portl.schema.tables import Key, Table
from portl.schema.types import Kind
from portl.values.findings import Finding, note, problem, warning

_NUMBERS = {Kind.DECIMAL, Kind.FLOAT, Kind.DOUBLE}


def choose_key(
    conflict: Conflict, strategies: Collection[Strategy], target: Table, *, created: bool
) -> tuple[Key | None, list[Finding]]:
    """Return the key, and findings about it or about its absence.

    Args:
        conflict: as given in the job.
        strategies: those that the destination supports.
        target: the destination's table as it will be.
        created: True if the job creates it.
    """
    strategy = conflict.strategy.value
    if conflict.strategy not in strategies:
        able = ", ".join(sorted(strategies))
        return None, [problem("conflict", f"the destination does not support {strategy}", f"it supports: {able}")]
    unique = "; ".join(", ".join(key.columns) for key in target.keys)
    unfit = "".join(f"; {key} {key.unfit}" for key in target.unfit_keys)
    if conflict.key is not None:
        for key in target.keys:
            if set(key.columns) == set(conflict.key):
                return key, []
        message = f"{target.name} has no unique constraint or index over exactly ({', '.join(conflict.key)}){unfit}"
        remedy = f"create one, or choose one of those that are there: {unique or 'none'}"
        return None, [problem("conflict.key", message, remedy)]
    if target.primary_key is not None:
        return target.primary_key, []
    if created:
        message = f"{target.name} is created without a key: another run would add the rows a second time or stop"
        return None, [warning("destination", message, "name its columns in `destination.primary_key`")]
    if conflict.strategy is Strategy.FAIL:
        return None, []
    lacking = "has no primary key"
    if any(key.primary for key in target.unfit_keys):
        lacking = "has a primary key by which rows cannot be matched"
    remedy = "add a primary key or a unique constraint there, or use `conflict: fail`"
    if target.unfit_keys:
        remedy = "add a unique constraint over plain columns that applies to all rows, or use `conflict: fail`"
    return None, [
        problem(
            "conflict",
            f"`{strategy}` needs a key, and {target.name} {lacking}{unfit}",
            f"name a unique key in `conflict.key`: {unique}" if unique else remedy,
        )
    ]


def report_nulls(key: Key | None, conflict: Conflict, source: Table, fields: Sequence[Field]) -> Iterator[Finding]:
    """Yield findings if the key can hold NULLs, which are never equal, so that rows of the last run are not matched.

    Args:
        key: the chosen key.
        conflict: as given in the job.
        source: the source's table.
        fields: the job's fields.
    """
    if key is None or key.nulls_equal or conflict.strategy is Strategy.FAIL:
        return
    for field in fields:
        if field.target.name not in key.columns or not (field.target.nullable and field.sent.nullable):
            continue
        name = field.target.name
        message = f"rows with NULL in {name!r} are added again by each run, because NULLs are not equal in {key}"
        if source.kind != "table" or field.using:
            yield note("conflict.key", message)  # unknown whether there can be any
        else:
            remedy = "declare it NOT NULL or the key NULLS NOT DISTINCT, or leave such rows out with `source.where`"
            yield warning("conflict.key", message, remedy)


def distinct(source: Table, fields: Sequence[Field], key: Key | None) -> bool:
    """Return whether a source key, passed on unchanged, ensures that no two rows share the destination's key.

    Equality of text depends on the server and the collation; equality of numbers does not.
    """
    if key is None:
        return False
    arriving = {
        f.source.name: f.target.name
        for f in fields
        if f.sent.native == f.target.native and not f.using and (f.target.exact or f.target.type.kind in _NUMBERS)
    }
    return any(
        not k.nulls_equal
        and all(name in arriving for name in k.columns)
        and {arriving[name] for name in k.columns} <= set(key.columns)
        and all(not source.by_name[name].nullable for name in k.columns)
        for k in source.keys
        if not k.deferrable
    )
