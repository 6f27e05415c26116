"""Choose the tables of a job by name, by pattern or all of them, and derive the job of each.

A name without a schema matches in all schemas. ``*`` matches any characters, ``?`` one character; a name in double
quotes is literal. For a table that is named exactly, its own entry takes precedence over matching patterns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import attrs

from portl.config.models import MigrationConfig, TableChoice, Tables
from portl.connectors.side import TableEntry
from portl.values.findings import Finding, problem, warning
from portl.values.text import nearest

#: The kinds of relations that patterns match; others must be named.
_KINDS = ("table", "partitioned table")
_PART = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')


@attrs.frozen(kw_only=True)
class Chosen:
    """A table of the job."""

    #: As listed by the source; None for a query.
    entry: TableEntry | None
    #: The job of this table alone.
    config: MigrationConfig
    #: True if an entry names it exactly.
    named: bool = False

    @property
    def as_it_is(self) -> bool:
        """True if the destination's table is to equal the source's, except for its schema and its rows."""
        config = self.config
        source, own = config.source, config.destination
        plain = not (config.schema_mapping or config.types or source.exclude_columns) and source.columns is None
        if self.entry is None or not plain:
            return False
        wanted = {**self.entry.writing, "schema": getattr(own, "schema", None)}
        other = attrs.fields_dict(type(own))
        return all(getattr(own, name) == value for name, value in wanted.items() if name in other) and not any(
            getattr(own, name, None) for name in ("primary_key", "compression", "unlogged")
        )


def choose(config: MigrationConfig, entries: Sequence[TableEntry]) -> tuple[list[Chosen], list[Finding]]:
    """Return the tables of a job, in the order of its entries, and problems with the choice.

    Args:
        config: the job.
        entries: the tables that the source lists.
    """
    choices = (TableChoice(table="*"),) if isinstance(config.tables, Tables) else config.tables or ()
    found: dict[str, Chosen] = {}
    queries: list[Chosen] = []
    findings: list[Finding] = []
    excluded = [_matcher(pattern) for pattern in config.exclude]
    for number, choice in enumerate(choices):
        where = f"tables[{number}]" if not isinstance(config.tables, Tables) else "tables"
        if choice.table is None:
            queries.append(Chosen(entry=None, config=_job(config, choice, None), named=True))
            continue
        matched, finding = _matched(choice, entries, excluded, where)
        findings += [finding] if finding is not None else []
        for entry in matched:
            seen = found.get(entry.name)
            named = not choice.pattern
            if seen is not None and seen.named and named:
                findings.append(problem(where, f"{entry.name} is named twice", "remove one of the entries"))
            if seen is None or (named and not seen.named):
                found[entry.name] = Chosen(entry=entry, config=_job(config, choice, entry), named=named)
    findings += _unused(config, entries)
    return [*found.values(), *queries], findings


def _matched(
    choice: TableChoice, entries: Sequence[TableEntry], excluded: Sequence[Callable[[str], bool]], where: str
) -> tuple[list[TableEntry], Finding | None]:
    matches = _matcher(choice.table or "")
    kept = [entry for entry in entries if not any(leaves(entry.name) for leaves in excluded)]
    if choice.pattern:
        found = [entry for entry in kept if entry.kind in _KINDS and matches(entry.name)]
        if found:
            return found, None
        return [], problem(where, f"no table matches {choice.table!r}", "`portl init` lists the tables there are")
    found = [entry for entry in kept if matches(entry.name)]
    if len(found) == 1:
        return found, None
    if found:
        names = ", ".join(entry.name for entry in found)
        return [], problem(where, f"{choice.table!r} is in several schemas: {names}", "name one with its schema")
    spelled = {_parts(entry.name)[-1][0]: entry.name for entry in kept} | {entry.name: entry.name for entry in kept}
    near = spelled.get(nearest(choice.table or "", spelled) or "")
    remedy = f"did you mean {near!r}?" if near else "`portl init` lists the tables there are"
    return [], problem(where, f"there is no table {choice.table!r}", remedy)


def _unused(config: MigrationConfig, entries: Sequence[TableEntry]) -> Iterator[Finding]:
    """Yield warnings for exclusions and renames that match nothing."""
    for pattern in config.exclude:
        if not any(map(_matcher(pattern), (entry.name for entry in entries))):
            yield warning("exclude", f"no table matches {pattern!r}")
    schemas = {entry.reading.get("schema") for entry in entries}
    for schema in config.schemas or {}:
        if schema not in schemas:
            yield warning("schemas", f"there is no table in a schema {schema!r}")


def _job(config: MigrationConfig, choice: TableChoice, entry: TableEntry | None) -> MigrationConfig:
    """Return the job of one table."""
    job = attrs.evolve(choice.job or config, tables=None, **_DEFAULTS)
    if entry is None:
        return job
    source, destination = job.source, job.destination
    target: dict[str, Any] = dict(entry.writing)
    if config.schemas and "schema" in target:
        target["schema"] = config.schemas.get(target["schema"], target["schema"])
    if destination.lacks is None:  # the entry names the destination's table
        target.pop("table", None)
        if getattr(destination, "schema", None) != getattr(config.destination, "schema", None):
            target.pop("schema", None)
    return attrs.evolve(
        job,
        source=attrs.evolve(source, **_known(source, entry.reading)),
        destination=attrs.evolve(destination, **_known(destination, target)),
    )


_DEFAULTS: Mapping[str, Any] = {
    name: attrs.fields_dict(MigrationConfig)[name].default
    for name in ("exclude", "schemas", "objects", "foreign_keys", "on_table_error")
}


def _known(config: Any, keys: Mapping[str, Any]) -> dict[str, Any]:
    fields = attrs.fields_dict(type(config))
    return {name: value for name, value in keys.items() if name in fields}


@cache
def _matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that tells whether a table's name, qualified and quoted as needed, matches a pattern."""
    parts = _parts(pattern)
    texts = [_regex(text, exact=quoted) for text, quoted in parts]
    if len(texts) == 1:
        texts.insert(0, ".*")
    expression = re.compile("\0".join(texts[-2:]), re.DOTALL)
    # A database without schemas has names of one part.
    return lambda name: expression.fullmatch("\0".join(["", *(text for text, _ in _parts(name))][-2:])) is not None


@cache
def _parts(name: str) -> list[tuple[str, bool]]:
    """Return the parts of a name or pattern, without quotes, and whether each was quoted."""
    return [(m[1].replace('""', '"'), True) if m[1] else (m[2], False) for m in _PART.finditer(name)]


def _regex(text: str, *, exact: bool) -> str:
    escaped = re.escape(text)
    return escaped if exact else escaped.replace(r"\*", ".*").replace(r"\?", ".")
