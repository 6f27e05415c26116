"""Rename schemas in the statements that the server prints for its objects.

With an empty search path, the server qualifies every name that is not built in. So a schema is recognised by its name
and the dot after it, outside strings and comments. A string is searched only if it is cast to ``regclass``, as in the
default of a serial column. Function bodies are strings too, and are left unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import attrs

from portl_postgres.objects.graph import Found
from portl_postgres.sql.text import quoted

_TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?\*/)
      | (?P<dollar>\$(?P<tag>[A-Za-z_\x80-\U0010ffff]?[\w\x80-\U0010ffff]*)\$.*?\$(?P=tag)\$)
      | (?P<string>[Ee]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*')(?P<regclass>::regclass)?
      | (?P<before>\.)?(?P<name>"(?:[^"]|"")+"|[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*)(?P<dot>(?=\s*\.))?""",
    re.VERBOSE | re.DOTALL,
)


def renamed(objects: Sequence[Found], schemas: Mapping[str, str]) -> tuple[list[Found], tuple[str, ...]]:
    """Return objects with renamed schemas, and the functions whose bodies mention one of these schemas."""
    if not schemas:
        return list(objects), ()
    made, kept = [], []
    body = re.compile(rf"\b({'|'.join(map(re.escape, schemas))})\b\"?\s*\.")
    for found in objects:
        schema = schemas.get(found.schema, found.schema)
        statements = tuple(rename(text, schemas) for text in found.statements)
        name = found.name
        if found.kind == "schema":
            name, statements = schema, (f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}",)
        elif found.kind == "comment":
            name = rename(name, schemas)
        elif found.kind == "function" and any(body.search(text) for text in statements):
            kept.append(found.name)
        made.append(attrs.evolve(found, schema=schema, name=name, statements=statements))
    return made, tuple(kept)


def rename(
    text: str, schemas: Mapping[str, str], names: Mapping[tuple[str, str], tuple[str, str]] | None = None
) -> str:
    """Return SQL with the schemas of qualified names renamed.

    Args:
        text: as printed by the server.
        schemas: old name to new name.
        names: qualified names that are replaced as a whole, with precedence over ``schemas``.
    """
    #: Replacements for the name after the next dot.
    behind: list[str] = []

    def replaced(match: re.Match[str]) -> str:
        if match["regclass"]:
            inner = rename(match["string"][1:-1].replace("''", "'"), schemas, names).replace("'", "''")
            return f"'{inner}'::regclass"
        if match["before"] and behind:
            return f".{quoted(behind.pop())}"
        if match["name"] is None or match["dot"] is None or match["before"]:
            return match[0]
        plain = _plain(match["name"])
        if names and (follows := _TOKEN.match(text, match.end())) is not None and follows["before"]:
            new = names.get((plain, _plain(follows["name"])))
            if new is not None:
                behind.append(new[1])
                return quoted(new[0])
        return quoted(schemas[plain]) if plain in schemas else match[0]

    return _TOKEN.sub(replaced, text)


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
