"""Render a plan of many tables: totals, problems, the largest tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import attrs

from portl.connectors.objects import SchemaObject, Stage
from portl.planning.tasks import TableTask
from portl.planning.text import SCREEN, verdict
from portl.values.findings import Finding, Severity
from portl.values.text import Line, aligned, counted_kind, printable, wrapped

#: How many tables are shown by name, the largest first.
SHOWN = 12
#: How many tables a finding names, if many share it.
NAMED = 4

#: Kinds that are parts of other objects.
_SILENT = ("owned by", "default", "partition")

_HEADS = {Severity.PROBLEM: "problems", Severity.WARNING: "warnings", Severity.NOTE: "notes"}
_STAGES = {
    Stage.BEFORE: "before the rows",
    Stage.INDEXES: "as soon as a table has its rows",
    Stage.CONSTRAINTS: "once all tables have theirs",
    Stage.VALIDATION: "then, several at a time",
    Stage.AFTER: "at the end",
}


def render_tables(
    name: str,
    sides: tuple[str, str],
    tables: Sequence[TableTask],
    objects: Sequence[SchemaObject],
    findings: Sequence[Finding],
    width: int,
    *,
    sql: bool,
) -> list[Line]:
    """Return a plan of many tables as lines of at most ``width`` characters, statements excepted.

    Args:
        name: the job's name.
        sides: the labels of source and destination.
        tables: the tasks.
        objects: the objects to create.
        findings: those that concern no single table.
        width: in characters.
        sql: True to include the statements that create objects.
    """
    lines = [Line(f"plan {printable(name)}", "title")]
    grouped = _grouped(tables, findings)
    lines += _findings(grouped, (Severity.PROBLEM,), width)
    if len(lines) > 1:
        lines.append(Line())
    for label, text in _facts(sides, tables, objects):
        lines += wrapped(f"  {label:<10}", printable(text), width)
    lines += _findings(grouped, (Severity.WARNING, Severity.NOTE), width)
    lines += _largest(tables, width)
    if sql:
        lines += _sql(objects)
    count = sum(len(names) or 1 for finding, names in grouped.items() if finding.severity is Severity.PROBLEM)
    problems = [finding for finding in grouped if finding.severity is Severity.PROBLEM]
    return [*lines, *verdict(count, problems if len(lines) > SCREEN else (), width)]


def _facts(
    sides: tuple[str, str], tables: Sequence[TableTask], objects: Sequence[SchemaObject]
) -> Iterator[tuple[str, str]]:
    new = sum(task.made or task.intent.create for task in tables)
    rows = sum(task.count.rows for task in tables if task.count is not None)
    chunks = sum(len(task.split.chunks) for task in tables)
    yield "from", sides[0]
    yield "to", sides[1]
    yield "tables", f"{len(tables):,}: {new:,} new, {len(tables) - new:,} there already"
    yield "rows", f"about {rows:,}, in {chunks:,} chunk{'s' if chunks != 1 else ''}"
    kinds = Counter(found.kind for found in objects if not found.property and found.kind not in _SILENT)
    made = ", ".join(counted_kind(count, kind) for kind, count in kinds.items())
    yield "creates", made or "nothing"
    ledger = next((task.ledger for task in tables if task.ledger is not None), None)
    yield "ledger", ledger or "none"


def gathered(tables: Sequence[TableTask], findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings of a plan, listing those shared by many tables once, with the names of some."""
    return [
        attrs.evolve(finding, message=f"{finding.message} ({_some(names)})") if names else finding
        for finding, names in _grouped(tables, findings).items()
    ]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")


def _grouped(tables: Sequence[TableTask], findings: Sequence[Finding]) -> dict[Finding, list[str]]:
    """Return each finding once, with the tables that share it, leaving the tables' own names out of the text."""
    found: dict[Finding, list[str]] = {finding: [] for finding in findings}
    for task in tables:
        for finding in task.findings:
            found.setdefault(_general(finding, task), []).append(task.destination.name)
    return found


def _general(finding: Finding, task: TableTask) -> Finding:
    """Return a finding without the name of its table."""
    message = finding.message
    for name in (task.destination.name, task.source.name):
        message = message.replace(name, "the table")
    return Finding(severity=finding.severity, where=finding.where, message=message, remedy=finding.remedy)


def _findings(grouped: dict[Finding, list[str]], wanted: Sequence[Severity], width: int) -> Iterator[Line]:
    for severity in wanted:
        chosen = [(finding, names) for finding, names in grouped.items() if finding.severity is severity]
        if not chosen:
            continue
        yield Line()
        yield Line(f"{_HEADS[severity]} ({len(chosen)})", "head")
        for finding, names in chosen:
            text = printable(f"{finding.where}: {finding.message}")
            yield from wrapped("  - ", text, width, severity.value)
            if names:
                yield from wrapped("    in ", printable(_some(names)), width)
            if finding.remedy:
                yield from wrapped("    -> ", printable(finding.remedy), width)


def _largest(tables: Sequence[TableTask], width: int) -> Iterator[Line]:
    if not tables:
        return
    by_size = sorted(tables, key=lambda task: -(task.count.rows if task.count is not None else 0))
    rows: list[tuple[str, ...]] = [("table", "rows, about", "chunks", "route", "conflict")]
    for task in by_size[:SHOWN]:
        count = f"{task.count.rows:,}" if task.count is not None else "unknown"
        how = "new" if task.made or task.intent.create else task.conflict
        rows.append((_moved(task), count, f"{len(task.split.chunks):,}", task.route, how))
    yield Line()
    yield Line("tables" if len(tables) <= SHOWN else f"tables (the {SHOWN} largest of {len(tables):,})", "head")
    for number, text in enumerate(aligned(rows, width - 2)):
        yield Line(f"  {text}", "plain" if number else "dim")


def _moved(task: TableTask) -> str:
    source, target = printable(task.source.name), printable(task.destination.name)
    return target if source == target or task.source.kind == "query" else f"{source} -> {target}"


def _sql(objects: Sequence[SchemaObject]) -> Iterator[Line]:
    for stage, head in _STAGES.items():
        texts = [text for found in objects if found.stage is stage for text in found.statements]
        if texts:
            yield Line()
            yield Line(head, "head")
            for text in texts:
                for line in f"{text};".splitlines():
                    yield Line(f"  {printable(line)}", "dim")
