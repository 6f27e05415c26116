"""Named queries, quoting, and just enough scanning of a user's SQL to embed it: where it ends, whether it is balanced.

The lexical rules are those of the manual, 4.1: quoted strings, E'' strings, dollar quotes, quoted names, and both kinds
of comments, the second kind nested.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files

from psycopg import sql

# The first and later characters of a name: letters, _ and everything beyond ASCII. The classes are negated because a
# range up to the last code point takes Python's regex compiler milliseconds.
_INITIAL = r"[^\x00-@\[-^`{-\x7f]"
_FURTHER = r"[^\x00-/:-@\[-^`{-\x7f]"
_TOKEN = re.compile(
    rf"""
      (?P<space>\s+)
    | (?P<line>--[^\n\r]*)
    | (?P<block>/\*)
    | (?P<escaped>[eE]'(?:[^'\\]|''|\\.)*')
    | (?P<string>'(?:[^']|'')*')
    | (?P<name>"(?:[^"]|"")*")
    | (?P<dollar>\$(?:{_INITIAL}{_FURTHER}*)?\$)
    | (?P<word>{_INITIAL}(?:{_FURTHER}|\$)*)
    | (?P<number>[0-9][0-9A-Za-z_.]*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_PARAMETER = re.compile(r"\$(\d+)")
_COMMENT_EDGE = re.compile(r"/\*|\*/")


@cache
def statement(name: str) -> str:
    """Return the text of ``sql/<name>.sql``."""
    return files("portl_postgres").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


class Expression(str):
    """An SQL expression, for ``bound``, which treats any other str as a constant."""


class Unbalanced(ValueError):
    """A quote, comment or parenthesis is not closed."""


def tokens(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield kind, start and end of each token except spaces and comments."""
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        assert match is not None  # the last alternative matches any character
        kind, end = match.lastgroup or "other", match.end()
        if kind == "block":
            end = _block_end(text, end)
        elif kind == "dollar":
            close = text.find(match[0], end)
            if close < 0:
                raise Unbalanced("a dollar-quoted string is not closed")
            end = close + len(match[0])
        elif kind == "other" and match[0] in "'\"":
            raise Unbalanced(f"a {match[0]} is not closed")
        elif kind == "word" and match[0] in "eE" and text.startswith("'", end):
            raise Unbalanced("a ' is not closed")
        if kind not in ("space", "line", "block"):
            yield kind, position, end
        position = end


def _block_end(text: str, position: int) -> int:
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(text, position)
        if edge is None:
            raise Unbalanced("a comment /* is not closed")
        depth += 1 if edge[0] == "/*" else -1
        position = edge.end()
    return position


def without_end(query: str) -> str:
    """Return a query without trailing semicolons, spaces and comments."""
    end = 0
    for kind, start, stop in tokens(query):
        if not (kind == "other" and query[start:stop] == ";"):
            end = stop
    return query[:end]


#: The first words of queries that return rows and change nothing.
QUERY_WORDS = ("SELECT", "WITH", "VALUES", "TABLE")


def first_word(query: str) -> str:
    """Return the first word of a statement, after any parentheses and comments."""
    for kind, start, stop in tokens(query):
        if kind == "word":
            return query[start:stop]
        if query[start:stop] != "(":
            break
    return ""


def check_expression(text: str) -> None:
    """Refuse an expression that could close the parentheses it is embedded in.

    Raises:
        Unbalanced: a quote or parenthesis is not closed, or closed too early, or there is a semicolon.
    """
    depth = 0
    for kind, start, stop in tokens(text):
        if kind != "other":
            continue
        character = text[start:stop]
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            raise Unbalanced("a ) has no (")
        if character == ";":
            raise Unbalanced("a ; has no place in an expression")
    if depth:
        raise Unbalanced("a ( is not closed")


def quoted(*names: str) -> str:
    """Return a quoted name, qualified if several parts are given."""
    return sql.Identifier(*names).as_string(None)


def literal(value: str) -> str:
    """Return a string constant."""
    return sql.Literal(value).as_string(None)


def bound(statement: str, *values: str | int | Sequence[int]) -> str:
    """Return a catalog query with its parameters replaced by constants, or by expressions in parentheses.

    Its leading comment is dropped. Anywhere else, strings and comments must not mention parameters.
    """
    lines = statement.split("\n")
    first = next(number for number, line in enumerate(lines) if not line.startswith("--"))
    texts = [_constant(value) for value in values]
    return _PARAMETER.sub(lambda match: texts[int(match[1]) - 1], "\n".join(lines[first:]))


def _constant(value: str | int | Sequence[int]) -> str:
    if isinstance(value, Expression):
        return f"({value})"
    if isinstance(value, str):
        return literal(value)
    return str(value) if isinstance(value, int) else "'{" + ",".join(map(str, value)) + "}'"


def with_columns(table: str, names: Iterable[str]) -> str:
    """Return a quoted table name followed by columns in parentheses, or alone if there are none: () is not SQL."""
    columns = listed(names)
    return f"{table} ({columns})" if columns else table


def listed(names: Iterable[str]) -> str:
    """Return quoted names separated by commas."""
    return ", ".join(quoted(name) for name in names)
