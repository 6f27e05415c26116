"""Text for the user: styled lines, tables, counts, and suggestions for misspelled names."""

from __future__ import annotations

import difflib
import html
import textwrap
from collections.abc import Iterable, Iterator, Sequence

import attrs

WIDTH = 80


@attrs.frozen
class Line:
    """A line of text and how it should look: title, head, problem, warning, note, good, dim, or plain."""

    text: str = ""
    style: str = "plain"


def printable(text: str) -> str:
    """Return text with control characters escaped, so that a value cannot control the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def aligned(rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Yield rows as aligned lines; if they are too wide, columns are cut, the widest first."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > 8:
        widths[widths.index(max(widths))] -= 1
    for row in cells:
        yield "  ".join(cut(cell, size).ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()


def cut(text: str, width: int) -> str:
    """Return the text, cut to at most ``width`` characters."""
    return text if len(text) <= width else text[: max(0, width - 3)] + "..."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``name`` is probably a misspelling of; None if none comes close."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def counted_tables(count: int, one: str = "", many: str = "") -> str:
    """Return a number of tables with the words that go with it: ``1 table is new``, ``2 tables are new``."""
    return f"1 table{one and ' ' + one}" if count == 1 else f"{count:,} tables{many and ' ' + many}"


def counted_rows(count: int) -> str:
    """Return a number of rows in words."""
    return f"{count:,} row{'s' if count != 1 else ''}"


def counted_kind(count: int, kind: str) -> str:
    """Return a number of objects of a kind in words: ``1 index``, ``2 indexes``, ``3 foreign keys``."""
    plural = {"index": "indexes", "policy": "policies", "statistics": "statistics"}.get(kind, f"{kind}s")
    return f"{count:,} {kind if count == 1 else plural}"


def human_bytes(count: int) -> str:
    """Return a number of bytes with a binary unit."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def wrapped(prefix: str, text: str, width: int = WIDTH, style: str = "plain") -> Iterator[Line]:
    """Yield wrapped text behind a prefix, with later lines indented to match."""
    room = max(20, width - len(prefix))
    for number, line in enumerate(textwrap.wrap(text, room, break_on_hyphens=False) or [""]):
        yield Line(f"{prefix if number == 0 else ' ' * len(prefix)}{line}".rstrip(), style)


#: How a style looks on a page, light or dark.
_CSS = {
    "title": "font-weight: bold",
    "head": "font-weight: bold; color: #0e7490",
    "problem": "font-weight: bold; color: #dc2626",
    "warning": "color: #b45309",
    "good": "color: #15803d",
    "dim": "opacity: 0.6",
}


def as_html(lines: Iterable[Line]) -> str:
    """Return lines as an HTML fragment, for a notebook."""
    texts = (
        f'<span style="{_CSS[line.style]}">{html.escape(line.text)}</span>'
        if line.style in _CSS and line.text
        else html.escape(line.text)
        for line in lines
    )
    return '<pre style="line-height: 1.3">' + "\n".join(texts) + "</pre>"
