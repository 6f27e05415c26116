"""Check ``conflict.columns`` and ``conflict.newest_by`` before any row is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from portl import MERGE_WORDS, Column, Intent
from portl_postgres.destination.writing.conflicts import NEW, TARGET, Merge, pg_type
from portl_postgres.sql.text import Unbalanced, check_expression, quoted


def check_merge(intent: Intent) -> list[tuple[str, str]]:
    """Return the problems with ``conflict.columns`` and ``newest_by``, each with its place."""
    wrong: list[tuple[str, str]] = []
    conflict = intent.conflict
    known = intent.target.by_name
    filled = {field.target.name for field in intent.fields}
    for name, how in conflict.columns.items():
        where = f"conflict.columns.{name}"
        if name not in known:
            wrong.append((where, f"the destination has no column {name!r}; it has: {', '.join(known)}"))
        elif intent.key and name in intent.key.columns:
            wrong.append((where, "the key itself is not merged"))
        elif how != "keep" and not known[name].writable:
            wrong.append((where, f"the destination generates {name!r} itself"))
        elif how != "keep" and known[name].identity == "always":
            wrong.append((where, f"{name!r} is GENERATED ALWAYS AS IDENTITY, which no update changes"))
        else:
            wrong += [(where, text) for text in _unfit(known[name], how, name in filled)]
    if conflict.newest_by is not None and conflict.newest_by not in filled:
        wrong.append(("conflict.newest_by", f"no column of the source goes to {conflict.newest_by!r}"))
    return wrong


def _unfit(column: Column, how: str, filled: bool) -> Sequence[str]:
    if how not in MERGE_WORDS:
        try:
            check_expression(how)
        except Unbalanced as error:
            return [str(error)]
        return []
    if not filled and how != "keep":
        return [f"`{how}` needs a value, and no column of the source goes there"]
    found = pg_type(column)
    kind, name = (found.kind, found.name) if found else ("", "")
    if how == "union" and kind != "A":
        return [f"`union` is for arrays, and {column.name!r} is {column.native}"]
    if how == "json" and name not in ("json", "jsonb"):
        return [f"`json` is for json and jsonb, and {column.name!r} is {column.native}"]
    if how == "append" and kind != "A" and name not in ("text", "varchar", "bpchar", "jsonb", "bytea", "citext"):
        return [f"`append` is for texts and arrays, and {column.name!r} is {column.native}"]
    return []


def trials(intent: Intent) -> Iterator[tuple[str, str]]:
    """Yield the place and a trial query for each rule that only the server can check."""
    conflict = intent.conflict
    merge = Merge(intent)
    there = ", ".join(_nothing(column) for column in intent.target.columns)
    fresh = ", ".join(_nothing(field.target) for field in intent.fields)
    rows = f"(SELECT {there}) AS {TARGET}, (SELECT {fresh}) AS {NEW}"
    for name, how in conflict.columns.items():
        if how in ("keep", "replace", "coalesce", "json"):
            continue
        column = intent.target.by_name[name]
        value = f"CAST({merge.merged(column, how, NEW)} AS {column.native})"
        yield f"conflict.columns.{name}", f"SELECT {value} FROM {rows}"
    if conflict.newest_by is not None:
        name = quoted(conflict.newest_by)
        yield "conflict.newest_by", f"SELECT {NEW}.{name} > {TARGET}.{name} FROM {rows}"


def _nothing(column: Column) -> str:
    return f"CAST(NULL AS {column.native}) AS {quoted(column.name)}"
