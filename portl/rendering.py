"""Show plans and results to people: lines of text, each with a style that a terminal may colour."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

import attrs

from portl.config import DEFAULT_BATCH_ROWS
from portl.delivery import Delivery
from portl.events import Severity
from portl.history import Status, standing
from portl.ledger import ChunkState, Run
from portl.schema import Verdict

if TYPE_CHECKING:
    from portl.connectors import Finding
    from portl.plans import Plan, TableTask
    from portl.result import Result, TableResult
    from portl.verification import TableVerification

WIDTH = 80
#: A value in the preview is cut at this many characters.
VALUE_WIDTH = 60
#: Runs of a ledger that are shown.
MOST_RUNS = 10

_HEADS = {Severity.PROBLEM: "problems", Severity.WARNING: "warnings", Severity.NOTE: "notes"}


@attrs.frozen
class Line:
    """A line of text and how it should look: title, head, problem, warning, note, good, dim, or plain."""

    text: str = ""
    style: str = "plain"


def printable(text: str) -> str:
    """Return text with control characters written out, so that a value cannot drive the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def render_plan(plan: Plan, width: int = WIDTH, *, sql: bool = False) -> list[Line]:
    """Return the plan as lines of at most ``width`` characters, statements excepted.

    Args:
        plan: what to show.
        width: in characters.
        sql: also show the statements that will be executed.
    """
    lines = [Line(f"plan {printable(plan.config.name)}", "title")]
    for task in plan.tables:
        stops = [finding for finding in task.findings if finding.severity is Severity.PROBLEM]
        lines += _findings(stops, width)
        lines += [Line()] if stops else []
        lines += _ends(plan, task, width)
        lines += [] if sql else _changes(task, width)
        lines += _findings([finding for finding in task.findings if finding not in stops], width)
        lines += _columns(task, width)
        statements = [
            ("before the rows", task.examination.before),
            ("reading", [task.read] if task.read else []),
            ("writing", task.examination.write),
            ("after the rows", task.examination.after),
        ]
        if sql:
            for head, texts in statements:
                lines += _statements(head, texts)
        lines += _preview(task, width)
    count = len(plan.problems)
    verdict = f"{count} problem{'s' if count != 1 else ''}: this plan does not run" if count else "ready to run"
    return [*lines, Line(), Line(verdict, "problem" if count else "good")]


def _ends(plan: Plan, task: TableTask, width: int) -> Iterator[Line]:
    intent = task.intent
    created = " (new)" if intent.create else f" ({task.destination.kind})"
    facts = [
        ("from", f"{task.source.name} ({task.source.kind}), {plan.source}"),
        ("to", f"{task.destination.name}{created}, {plan.destination}"),
        ("rows", _count(task)),
        ("route", f"{task.route}: {intent.format.reason}"),
        ("conflict", _conflict(task)),
        ("batch", _batch(plan)),
        ("chunks", _chunks(plan, task)),
        ("ledger", task.ledger or "none"),
    ]
    if task.rejected_to is not None:
        facts.append(("rejected", f"rows that are refused go to {task.rejected_to}"))
    for label, text in facts:
        yield from wrapped(f"  {label:<10}", printable(text), width)


def _count(task: TableTask) -> str:
    if task.count is None:
        return "not known"
    return f"{task.count.rows:,}" if task.count.exact else f"about {task.count.rows:,} (an estimate)"


def _conflict(task: TableTask) -> str:
    intent = task.intent
    key = f" on ({', '.join(intent.key.columns)})" if intent.key else ""
    return f"{intent.conflict.strategy.value}{key}"


def _batch(plan: Plan) -> str:
    size = plan.config.batch_size
    return f"{size:,} rows" if size else "1,000 rows, fewer where they are wide"


def _chunks(plan: Plan, task: TableTask) -> str:
    if task.delivery is Delivery.WHOLE:
        why = "the job asks for it" if plan.config.atomic else task.split.reason
        return f"one transaction for everything: {why}"
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
    for field in task.fields:
        verdict = field.conversion.verdict
        rows.append((field.source.name, field.sent.native, field.target.name, field.target.native, verdict.value))
        styles.append({Verdict.LOSSLESS: "plain", Verdict.LOSSY: "warning"}.get(verdict, "problem"))
    for text, style in zip(_table(rows, width - 2), styles, strict=True):
        yield Line(f"  {text}", style)
    for name, reason in task.ignored:
        yield from wrapped("  ", printable(f"{name}: not copied, {reason}"), width, "dim")


def _table(rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Yield rows as aligned lines; columns that are too wide together are cut, the widest first."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > 8:
        widths[widths.index(max(widths))] -= 1
    for row in cells:
        yield "  ".join(_cut(cell, size).ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 3)] + "..."


def _changes(task: TableTask, width: int) -> Iterator[Line]:
    """Yield what kinds of statements change the destination before and after the rows."""
    told = [
        f"{', '.join(dict.fromkeys(_kind(text) for text in texts))} {when}"
        for when, texts in (("before the rows", task.examination.before), ("after them", task.examination.after))
        if texts
    ]
    if told or task.read:
        yield from wrapped("  sql       ", printable(f"{'; '.join([*told, '--sql shows all'])}"), width)


def _kind(statement: str) -> str:
    """Return what kind of statement it is: its first words, as long as they are keywords."""
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
    label = min(24, max(len(name) for name in names))
    for number, row in enumerate(task.preview, 1):
        yield Line(f"  row {number}", "dim")
        for name, value in zip(names, row, strict=True):
            text = "NULL" if value is None else printable(value)
            room = max(8, min(VALUE_WIDTH, width - label - 6))
            yield Line(f"    {_cut(printable(name), label):<{label}}  {_cut(text, room)}", "plain" if value else "dim")


def render_result(result: Result, width: int = WIDTH) -> list[Line]:
    """Return what a run has done as lines: the plan's frame with what came of it, or a table where there is no plan."""
    lines = list(_frames(result, result.plan, width) if result.plan is not None else _totals(result, width))
    lines += _attempts(result, width)
    for place in sorted({table.rejected_to for table in result.tables if table.rejected_to and table.rows_rejected}):
        said = f"rejected rows are in {place}, each with its reason; mend the cause, then run `portl retry-rejected`"
        lines += wrapped("", said, width, "warning")
    done = f"{printable(result.name)}: {result.summary()}, {human_bytes(result.bytes)} in {result.seconds:.2f} s"
    return [*lines, *wrapped("", done, width, "good")]


def _frames(result: Result, plan: Plan, width: int) -> Iterator[Line]:
    """Yield what became of each table, with the labels of the plan."""
    yield Line(f"done {printable(result.name)}", "title")
    for task, table in zip(plan.tables, result.tables, strict=False):
        created = f" ({'new' if task.intent.create else task.destination.kind})"
        moved = table.rows_read - table.rows_before
        rate = f", {moved / table.seconds:,.0f} rows/s" if table.seconds else ""
        chunks = f"{table.chunks:,} by {task.split.by}" if table.chunks > 1 else "one"
        tried = f", {table.retries:,} of them tried again" if table.retries else ""
        facts = [
            ("from", f"{task.source.name} ({task.source.kind}), {plan.source}"),
            ("to", f"{task.destination.name}{created}, {plan.destination}"),
            ("rows", ", ".join(f"{getattr(table, name):,} {head}" for head, name in _told([table]))),
            ("route", f"{task.route}: {human_bytes(table.bytes)} in {table.seconds:.2f} s{rate}"),
            ("conflict", _conflict(task)),
            ("batch", f"{table.batches:,} of at most {plan.config.batch_size or DEFAULT_BATCH_ROWS:,} rows"),
            ("chunks", "one transaction for everything" if task.delivery is Delivery.WHOLE else f"{chunks}{tried}"),
            ("ledger", task.ledger or "none"),
        ]
        if table.rows_rejected:
            facts.append(("rejected", f"{table.rows_rejected:,} rows, in {table.rejected_to}"))
        if result.verification is not None:
            facts.append(("verified", _verified(result.verification)))
        for label, text in facts:
            yield from wrapped(f"  {label:<10}", printable(text), width, "warning" if label == "rejected" else "plain")
    yield Line()


def _verified(checked: TableVerification) -> str:
    right = checked.rows_source - checked.missing
    missing = f", the {checked.missing:,} that were put aside excepted" if checked.missing else ""
    return f"by {checked.mode}: {right:,} rows are as they should be{missing}"


#: How the counts of rows are called, and their names in a result.
_COUNTS = (
    ("read", "rows_read"),
    ("new", "rows_inserted"),
    ("changed", "rows_updated"),
    ("same", "rows_unchanged"),
    ("skipped", "rows_skipped"),
    ("rejected", "rows_rejected"),
)


def _told(tables: Sequence[TableResult]) -> list[tuple[str, str]]:
    """Return the counts that are worth telling: what is zero everywhere is left out, so that the rest fits."""
    return [(head, name) for head, name in _COUNTS if name == "rows_read" or any(getattr(t, name) for t in tables)]


def _totals(result: Result, width: int) -> Iterator[Line]:
    """Yield a table of what became of several tables, which may come from several plans."""
    shown = _told(result.tables)
    rows: list[tuple[str, ...]] = [("table", "route", *(head for head, _ in shown), "rows/s")]
    for table in result.tables:
        rate = (table.rows_read - table.rows_before) / table.seconds if table.seconds else 0.0
        numbers = (f"{getattr(table, name):,}" for _, name in shown)
        rows.append((table.destination, table.route, *numbers, f"{rate:,.0f}"))
    for number, text in enumerate(_table(rows, width)):
        yield Line(text, "plain" if number else "dim")


def _attempts(result: Result, width: int) -> Iterator[Line]:
    """Say what is not as in a run without interruptions."""
    for table in result.tables:
        if table.attempt > 1:
            said = f"attempt {table.attempt}: {table.rows_before:,} rows were there from earlier attempts"
            yield from wrapped("", said, width)
        if table.older_chunks:
            verb = "come" if len(table.older_chunks) > 1 else "comes"
            said = (
                f"{_numbers(table.older_chunks)} of {table.chunks} {verb} from an older state of the source; "
                "`resume: recopy` copies such chunks again"
            )
            yield from wrapped("", said, width, "warning")


def _numbers(numbers: Sequence[int]) -> str:
    """Return numbers of chunks as ranges: ``chunks 1-4, 7``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
    return f"chunk{'s' if len(numbers) > 1 else ''} {', '.join(texts)}"


def render_status(status: Status, width: int = WIDTH) -> list[Line]:
    """Return the runs that a ledger remembers as lines."""
    lines = [Line(printable(status.job or "all jobs"), "title")]
    lines += wrapped("  ", f"ledger: {status.ledger or f'none: {status.reason}'}", width, "dim")
    if not status.runs:
        return [*lines, Line("  no runs")]
    latest: dict[str, Run] = {}
    for run in status.runs[:MOST_RUNS]:
        lines += _run(run, width, named=status.job is None, latest=run is latest.setdefault(run.job, run))
    if len(status.runs) > MOST_RUNS:
        lines.append(Line(f"  … and {len(status.runs) - MOST_RUNS:,} earlier ones (--json shows all)", "dim"))
    return lines


def _run(run: Run, width: int, *, named: bool, latest: bool) -> Iterator[Line]:
    state = standing(run)
    done = sum(line.state is ChunkState.DONE for line in run.chunks)
    rows = sum(line.rows for line in run.chunks)
    rejected = sum(line.rejected for line in run.chunks)
    facts = f"{done:,} of {len(run.chunks):,} chunks, {rows:,} rows"
    if rejected:
        facts += f", {rejected:,} were rejected"
    if run.attempt > 1:
        facts += f", attempt {run.attempt}"
    style = {"done": "good", "failed": "problem", "interrupted": "warning", "cancelled": "warning"}.get(state, "plain")
    yield from wrapped("  ", f"{run.began}  {state:<11}  {facts}", width, style)
    if named:
        yield from wrapped("    ", printable(run.job), width, "dim")
    if run.holder and run.locked:
        yield from wrapped("    ", f"held by {printable(run.holder)}", width)
    if run.error and state != "done":
        yield from wrapped("    ", printable(run.error), width)
    if latest and state in ("failed", "interrupted", "cancelled"):
        again = "running the job again goes on from there" if run.resumable else "running the job again starts over"
        yield from wrapped("    -> ", again, width)


def human_bytes(count: int) -> str:
    """Return a number of bytes with a binary unit."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def wrapped(prefix: str, text: str, width: int = WIDTH, style: str = "plain") -> Iterator[Line]:
    """Yield text behind a prefix, further lines indented as far."""
    room = max(20, width - len(prefix))
    for number, line in enumerate(textwrap.wrap(text, room) or [""]):
        yield Line(f"{prefix if number == 0 else ' ' * len(prefix)}{line}".rstrip(), style)
