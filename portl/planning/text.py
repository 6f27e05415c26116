"""Render a plan as lines of text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile

from portl.config.models import MigrationConfig, Mode
from portl.planning.delivery import Delivery
from portl.planning.tasks import TableTask
from portl.schema.conversions import Verdict
from portl.values.findings import Finding, Severity
from portl.values.text import WIDTH, Line, aligned, cut, printable, wrapped

#: The most characters of a value in the preview, and the fewest if space is short.
VALUE_WIDTH, LEAST_WIDTH = 60, 12
#: How many columns are listed that keep their name and type.
SAME_COLUMNS = 16
#: A plan of more lines than this repeats its problems above the verdict, where a terminal shows them.
SCREEN = 20
#: How many of them.
REPEATED = 5

#: Type names and shorter synonyms, to save width.
_SHORT = (
    ("character varying", "varchar"),
    ("character", "char"),
    ("bit varying", "varbit"),
    ("double precision", "float8"),
)
#: ``timestamp(3) with time zone``, which is ``timestamptz(3)`` for short.
_TIME = re.compile(r"\b(timestamp|time)(\(\d+\))? (with|without) time zone\b")

_HEADS = {Severity.PROBLEM: "problems", Severity.WARNING: "warnings", Severity.NOTE: "notes"}


def render_plan(
    config: MigrationConfig,
    sides: tuple[str, str],
    tables: Sequence[TableTask],
    width: int = WIDTH,
    *,
    sql: bool = False,
    preview: bool = True,
) -> list[Line]:
    """Return a plan as lines of at most ``width`` characters, statements excepted.

    Args:
        config: the job.
        sides: the labels of source and destination.
        tables: the tasks.
        width: in characters.
        sql: True to include the statements to be executed.
        preview: False to leave out the first rows.
    """
    lines = [Line(f"plan {printable(config.name)}", "title")]
    for task in tables:
        stops = [finding for finding in task.findings if finding.severity is Severity.PROBLEM]
        lines += _findings(stops, width)
        lines += [Line()] if stops else []
        lines += _facts(config, sides, task, width)
        lines += [] if sql else _changes(task, width, hint=preview)
        lines += _findings([finding for finding in task.findings if finding not in stops], width)
        lines += _columns(task, width)
        if sql:
            lines += _sql(task)
        if preview:
            lines += _preview(task, width)
    problems = [found for task in tables for found in task.findings if found.severity is Severity.PROBLEM]
    return [*lines, *verdict(len(problems), problems if len(lines) > SCREEN else (), width)]


def verdict(count: int, problems: Sequence[Finding], width: int) -> Iterator[Line]:
    """Yield the last lines of a plan.

    Args:
        count: the number of problems.
        problems: the problems to repeat.
        width: in characters.
    """
    yield Line()
    for finding in problems[:REPEATED]:
        text = printable(f"{finding.where}: {finding.message}")
        yield from wrapped("  - ", text, width, "problem")
    if len(problems) > REPEATED:
        yield Line(f"  … and {len(problems) - REPEATED:,} more, at the top", "problem")
    said = f"{count} problem{'s' if count != 1 else ''}: this plan does not run" if count else "ready to run"
    yield Line(said, "problem" if count else "good")


def short_type(native: str) -> str:
    """Return the shortest name of a type: ``varchar(5)``, ``timestamptz``."""
    if '"' in native:
        return native  # a user-defined name
    for long, short in _SHORT:
        native = re.sub(rf"\b{long}\b", short, native)
    return _TIME.sub(lambda found: f"{found[1]}{'tz' if found[3] == 'with' else ''}{found[2] or ''}", native)


def _sql(task: TableTask) -> Iterator[Line]:
    yield from _statements("before the rows", task.examination.before)
    yield from _statements("reading", [task.read] if task.read else [])
    yield from _statements("writing", task.examination.write)
    yield from _statements("after the rows", task.examination.after)


def _facts(config: MigrationConfig, sides: tuple[str, str], task: TableTask, width: int) -> Iterator[Line]:
    intent = task.intent
    created = " (new)" if intent.create else f" ({task.destination.kind})"
    facts = [
        ("from", f"{task.source.name} ({task.source.kind}), {sides[0]}"),
        ("to", f"{task.destination.name}{created}, {sides[1]}"),
        ("rows", _count(task)),
        ("route", f"{task.route}: {intent.format.reason}"),
        ("conflict", task.conflict),
        ("batch", _batch(config)),
        ("chunks", _chunks(config, task)),
        ("ledger", task.ledger or "none"),
    ]
    if task.rejected_to is not None:
        facts.append(("rejected", f"rejected rows go to {task.rejected_to}"))
    for label, text in facts:
        yield from wrapped(f"  {label:<10}", printable(text), width)


def _count(task: TableTask) -> str:
    if task.count is None:
        return "unknown"
    return f"{task.count.rows:,}" if task.count.exact else f"about {task.count.rows:,} (an estimate)"


def _batch(config: MigrationConfig) -> str:
    size = config.batch_size
    return f"{size:,} rows" if size else "1,000 rows, fewer if they are wide"


def _chunks(config: MigrationConfig, task: TableTask) -> str:
    if task.delivery is Delivery.WHOLE:
        replaces = "readers see the old rows until it commits" if config.mode is Mode.REPLACE else None
        why = "the job asks for it" if config.atomic else replaces or task.split.reason
        return f"one transaction for everything: {why}"
    if task.compares:
        return "those of the rows that differ, once both sides are compared"
    if task.delivery is Delivery.REPEAT:
        return f"none: {task.split.reason}"
    count = len(task.split.chunks)
    estimated = "about " if task.run is None else ""
    text = f"{estimated}{count:,} by {task.split.by}" if count > 1 else "one"
    return f"{text}, one after the other: {task.ordered}" if task.ordered and count > 1 else text


def _findings(findings: Sequence[Finding], width: int) -> Iterator[Line]:
    for severity, head in _HEADS.items():
        chosen = [finding for finding in findings if finding.severity is severity]
        if not chosen:
            continue
        yield Line()
        yield Line(f"{head} ({len(chosen)})", "head")
        for finding in chosen:
            text = printable(f"{finding.where}: {finding.message}")
            yield from wrapped("  - ", text, width, severity.value)
            if finding.remedy:
                yield from wrapped("    -> ", printable(finding.remedy), width)


def _columns(task: TableTask, width: int) -> Iterator[Line]:
    if not task.fields:
        return
    yield Line()
    yield Line("columns", "head")
    rows = [("source", "type", "destination", "type", "verdict")]
    styles = ["dim"]
    same = 0
    for field in task.fields:
        found, source, target = field.conversion.verdict, field.source, field.target
        if found is Verdict.LOSSLESS and (source.name, field.sent.native) == (target.name, target.native):
            same += 1
            if same > SAME_COLUMNS:
                continue
        rows.append((source.name, short_type(field.sent.native), target.name, short_type(target.native), found.value))
        styles.append({Verdict.LOSSLESS: "plain", Verdict.LOSSY: "warning"}.get(found, "problem"))
    for text, style in zip(aligned(rows, width - 2), styles, strict=True):
        yield Line(f"  {text}", style)
    if same > SAME_COLUMNS:
        more = f"… and {same - SAME_COLUMNS:,} more under the same name and type, lossless (--json shows all)"
        yield from wrapped("  ", more, width, "dim")
    for name, reason in task.ignored:
        yield from wrapped("  ", printable(f"{name}: not copied, {reason}"), width, "dim")


def _changes(task: TableTask, width: int, *, hint: bool) -> Iterator[Line]:
    """Yield the kinds of statements executed before and after the rows, and how to see them in full."""
    kinds = [
        f"{', '.join(dict.fromkeys(_kind(text) for text in texts))} {when}"
        for when, texts in (("before the rows", task.examination.before), ("after them", task.examination.after))
        if texts
    ]
    if kinds or (task.read and hint):
        shown = [*kinds, "--sql shows all"] if hint else kinds
        yield from wrapped("  sql       ", printable("; ".join(shown)), width)


def _kind(statement: str) -> str:
    """Return the kind of a statement: its leading keywords."""
    return " ".join(takewhile(str.isupper, statement.split()[:2]))


def _statements(head: str, statements: Iterable[str]) -> Iterator[Line]:
    texts = list(statements)
    if not texts:
        return
    yield Line()
    yield Line(head, "head")
    for text in texts:
        for line in f"{text};".splitlines():
            yield Line(f"  {printable(line)}", "dim")


def _preview(task: TableTask, width: int) -> Iterator[Line]:
    if not task.preview:
        return
    yield Line()
    yield Line(f"preview (the first {len(task.preview)} rows as they will arrive)", "head")
    names = [field.target.name for field in task.fields]
    rows = [names, *(["NULL" if value is None else value for value in row] for row in task.preview)]
    cells = [[cut(printable(cell), VALUE_WIDTH) for cell in row] for row in rows]
    widths = [min(LEAST_WIDTH, max(len(cell) for cell in column)) for column in zip(*cells, strict=True)]
    ends = [sum(widths[:number]) + 2 * number for number in range(1, len(widths) + 1)]
    fitting = max(1, sum(end <= width for end in ends))
    for number, text in enumerate(aligned([row[:fitting] for row in cells], width - 2)):
        yield Line(f"  {text}", "plain" if number else "dim")
    if fitting < len(names):
        yield from wrapped("  ", f"… and {len(names) - fitting:,} more columns (--json shows all)", width, "dim")
