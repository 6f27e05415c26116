"""Detect that a table was altered between the plan and the rows.

Binary COPY silently reads an integer as a real of the same width. So the planned table is compared with the current one
while the transaction's own lock prevents others from altering it.
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
  LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
       AND a.attname::text = ANY($2::text[])
 WHERE c.oid = pg_catalog.to_regclass($1)
 ORDER BY a.attnum
"""


@attrs.frozen
class ColumnMark:
    """What identifies a column besides its name."""

    type: int
    modifier: int
    #: Its type, for messages.
    shown: str = attrs.field(eq=False)
    #: Its ``attnum``; None if unknown.
    number: int | None = attrs.field(default=None, eq=False)


@attrs.frozen(kw_only=True)
class Fingerprint:
    """The columns of a table at one point in time, as far as rows depend on them."""

    #: The relation's oid; 0 if it does not exist or is unknown.
    oid: int
    columns: Mapping[str, ColumnMark]
    #: Its constraints that are initially deferred, quoted.
    deferred: tuple[str, ...] = ()


def statement(table: str, columns: Sequence[str]) -> str:
    """Return the query whose rows ``of`` reads.

    Args:
        table: its quoted name.
        columns: those that the job fills.
    """
    return bound(_QUERY, table, Expression(f"ARRAY[{', '.join(map(literal, columns))}]"))


def of(rows: Sequence[tuple[Any, ...]]) -> Fingerprint:
    """Return the fingerprint of a table from the rows of ``statement``."""
    return Fingerprint(
        oid=rows[0][0] if rows else 0,
        columns={name: ColumnMark(type, mod, shown, number) for _, name, number, type, mod, shown, _ in rows if name},
        deferred=tuple(rows[0][6]) if rows else (),
    )


def planned(intent: Intent) -> Fingerprint:
    """Return the planned fingerprint of a table, without what this run itself creates."""
    if intent.create:
        return Fingerprint(oid=0, columns={})
    added = {column.name for column in (*intent.add, *intent.widen)}
    known = {
        field.target.name: ColumnMark(found.pg.oid, found.modifier, field.target.native)
        for field in intent.fields
        if field.target.name not in added and (found := details(field.target)) is not None and found.pg.oid
    }
    return Fingerprint(oid=table_details(intent.target).oid, columns=known)


def insist(name: str, before: Fingerprint, now: Fingerprint) -> None:
    """Refuse a table that was altered.

    Args:
        name: the table's name, for messages.
        before: the earlier fingerprint, which may know less than ``now``.
        now: the current fingerprint.

    Raises:
        SchemaError: the table was altered; names the changes.
    """
    changes = _changes(before, now)
    if changes:
        raise SchemaError(
            f"{name} was altered since the run began: {'; '.join(changes)}",
            hint="the rows of this transaction were rolled back; check that the table is as you want it, and run the"
            " job again",
        )


def _changes(before: Fingerprint, now: Fingerprint) -> list[str]:
    if before.oid and not now.oid:
        return ["the table is gone"]
    if before.oid and now.oid != before.oid:
        return ["it was dropped and created again"]
    found = []
    for name, was in before.columns.items():
        there = now.columns.get(name)
        if there is None:
            found.append(f"column {name!r} is gone")
        elif there != was:
            found.append(f"column {name!r} was {was.shown} and is {there.shown}")
        elif was.number is not None and there.number != was.number:
            found.append(f"column {name!r} was dropped and created again")
    return found
