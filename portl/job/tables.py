"""Structure the entries of ``tables``: each becomes a job, made of the file's keys and the entry's own.

An entry may have any key of a job of one table. Keys of the source and of the job are written side by side, and are
told apart by their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from portl.config.models import MigrationConfig, TableChoice, Tables
from portl.job.document import Path as KeyPath
from portl.job.document import Written
from portl.job.scalars import Mismatch, as_text, but

#: Keys that apply to the whole job.
_WHOLE = frozenset(
    {"name", "source", "tables", "exclude", "schemas", "objects", "foreign_keys", "on_table_error"}
    | {"retry", "parallel", "atomic", "run_id", "resume", "ledger"}
)
_OWN = frozenset(field.name for field in attrs.fields(MigrationConfig)) - _WHOLE

Problems = list[tuple[KeyPath, str]]
Structure = Callable[[Mapping[str, Any]], tuple[MigrationConfig | None, Problems]]


def choices(value: Any) -> Tables | tuple[TableChoice, ...]:
    """Return the entries, still without their jobs.

    Raises:
        Mismatch: the value is neither the word ``all`` nor a list.
    """
    text = value.text if isinstance(value, Written) else value
    if isinstance(text, str) and text.strip() == Tables.ALL.value:
        return Tables.ALL
    if not isinstance(value, (list, tuple)):
        raise Mismatch(f"expected the word all or a list, {but(value)}")
    if not value:
        raise Mismatch("expected at least one table, found an empty list")
    return tuple(item if isinstance(item, TableChoice) else TableChoice(table=_name(item)) for item in value)


def _name(item: Any) -> str | None:
    found = item.get("table") if isinstance(item, Mapping) else item
    return None if isinstance(item, Mapping) and found is None else as_text(found)


def with_jobs(
    config: MigrationConfig, data: Mapping[str, Any], structure: Structure
) -> tuple[MigrationConfig, Problems]:
    """Return the job with the jobs of its entries, and the problems of these.

    Args:
        config: the job.
        data: the job as plain data.
        structure: turns plain data into a job.
    """
    if config.tables is None or isinstance(config.tables, Tables):
        return config, []
    top = {key: value for key, value in data.items() if key not in _WHOLE - {"source"}}
    found: list[TableChoice] = []
    problems: Problems = []
    for number, (choice, item) in enumerate(zip(config.tables, data["tables"], strict=True)):
        made, wrong = _entry(choice, item, top, config, structure)
        found.append(made)
        problems += [(("tables", number, *path), text) for path, text in wrong]
    return attrs.evolve(config, tables=tuple(found)), problems


def _entry(
    choice: TableChoice, item: Any, top: Mapping[str, Any], config: MigrationConfig, structure: Structure
) -> tuple[TableChoice, Problems]:
    if not isinstance(item, Mapping):
        return choice, []
    problems: Problems = [((key,), "holds for the whole job: write it at the top") for key in item if key in _WHOLE]
    problems += _connecting(item, config)
    if (choice.table is None) == ("query" not in item):
        found = "neither" if choice.table is None else "both"
        problems.append(((), f"expected either `table` or `query`, found {found}"))
    own = {key: value for key, value in item.items() if key in _OWN}
    reading = {key: value for key, value in item.items() if key not in _OWN and key not in _WHOLE and key != "table"}
    if problems or not (own or reading):
        return choice, problems
    job = {**top, **own, "source": {**top["source"], **reading}}
    if isinstance(own.get("destination"), Mapping):
        job["destination"] = {**top["destination"], **own["destination"]}
    made, wrong = structure(job)
    mine = [(path, text) for path, text in wrong if _in_entry(path, item, reading)]
    problems += [(path[1:] if path[:1] == ("source",) else path, text) for path, text in mine]
    return attrs.evolve(choice, job=made), problems


def _connecting(item: Mapping[str, Any], config: MigrationConfig) -> Problems:
    """Return a problem for each key that says how to connect: all tables share the connections of the job."""
    target = item.get("destination")
    said = "holds for all tables: write it under `{}` at the top"
    found: Problems = [((key,), said.format("source")) for key in item if key in config.source.CONNECTION]
    keys = target if isinstance(target, Mapping) else ()
    found += [
        (("destination", key), said.format("destination")) for key in keys if key in config.destination.CONNECTION
    ]
    return found


def _in_entry(path: Sequence[str | int], item: Mapping[str, Any], reading: Mapping[str, Any]) -> bool:
    """Return whether a problem is in the entry; problems at the top level are reported there."""
    if path[:1] == ("source",):
        return len(path) < 2 or path[1] in reading
    if path[:1] == ("destination",):
        given = item.get("destination")
        return isinstance(given, Mapping) and (len(path) < 2 or path[1] in given)
    return bool(path) and path[0] in item
