"""Notice that a table was altered while rows were on their way to it.

COPY in the binary format takes an integer for a real of the same width without a word. So what the plan has seen is
compared with what is there while the transaction's own lock keeps others from altering it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from portl import Intent, SchemaError
from portl_postgres.catalog.tables import details, table_details
from portl_postgres.sql.text import Expression, bound, literal

_QUERY = """
SELECT c.oid::bigint, a.attname::text, a.attnum, a.atttypid::bigint, a.atttypmod,
       pg_catalog.format_type(a.atttypid, a.atttypmod),
       ARRAY(SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(k.conname)
               FROM pg_catalog.pg_constraint AS k
               JOIN pg_catalog.pg_namespace AS n ON n.oid = k.connamespace
              WHERE k.condeferred AND pg_catalog.to_regclass($1) IN (k.conrelid, k.confrelid))
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.oid = pg_catalog.to_regclass($1) AND a.attname::text = ANY($2::text[])
 ORDER BY a.attnum
"""


@attrs.frozen
class ColumnMark:
    """What tells a column from another of its name."""

    type: int
    modifier: int
    #: Its type, for people.
    shown: str = attrs.field(eq=False)
    #: Its number in the table; None where that is not known.
    number: int | None = attrs.field(default=None, eq=False)


@attrs.frozen(kw_only=True)
class Fingerprint:
    """What a table looked like."""

    #: The relation's oid; 0 if it is gone, or not known.
    oid: int
    columns: Mapping[str, ColumnMark]
    #: Its constraints that are checked at the end of a transaction, quoted.
    deferred: tuple[str, ...] = ()


def statement(table: str, columns: Sequence[str]) -> str:
    """Return the query of what a table looks like.

    Args:
        table: quoted.
        columns: those that are filled.
    """
    return bound(_QUERY, table, Expression(f"ARRAY[{', '.join(map(literal, columns))}]"))


def of(rows: Sequence[tuple[Any, ...]]) -> Fingerprint:
    """Return what a table looks like by the rows of that query."""
    return Fingerprint(
        oid=rows[0][0] if rows else 0,
        columns={name: ColumnMark(type, mod, shown, number) for _, name, number, type, mod, shown, _ in rows},
        deferred=tuple(rows[0][6]) if rows else (),
    )


def planned(intent: Intent) -> Fingerprint:
    """Return what the plan knows of a table; nothing of what this run makes."""
    if intent.create:
        return Fingerprint(oid=0, columns={})
    added = {column.name for column in intent.add}
    known = {
        field.target.name: ColumnMark(found.pg.oid, found.modifier, field.target.native)
        for field in intent.fields
        if field.target.name not in added and (found := details(field.target)) is not None and found.pg.oid
    }
    return Fingerprint(oid=table_details(intent.target).oid, columns=known)


def insist(name: str, before: Fingerprint, now: Fingerprint) -> None:
    """Refuse a table that is not what it was.

    Args:
        name: the table's, for people.
        before: may know less than ``now``.
        now: as it is.

    Raises:
        SchemaError: says what has changed.
    """
    changes = _changes(before, now)
    if changes:
        raise SchemaError(
            f"{name} was altered since the run began: {'; '.join(changes)}",
            hint="rows that were on their way are rolled back; see whether the table is as you want it, and run the"
            " job again",
        )


def _changes(before: Fingerprint, now: Fingerprint) -> list[str]:
    if before.oid and not now.oid:
        return ["the table, or every column of it that is filled, is gone"]
    if before.oid and now.oid != before.oid:
        return ["it was dropped and made again"]
    found = []
    for name, was in before.columns.items():
        there = now.columns.get(name)
        if there is None:
            found.append(f"column {name!r} is gone")
        elif there != was:
            found.append(f"column {name!r} was {was.shown} and is {there.shown}")
        elif was.number is not None and there.number != was.number:
            found.append(f"column {name!r} was dropped and made again")
    return found
