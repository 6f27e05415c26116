"""When key values are equal without being identical, and which operator decides.

A unique index compares by the equality of its operator class and collation. ``1.0`` equals ``1.00``, ``-0`` equals
``0``, and ``'ABC'`` equals ``'Abc'`` in a ``citext`` column or under a nondeterministic collation. So a row found by
its key may contain that key in a different form.
"""

from __future__ import annotations

from collections.abc import Collection

from portl import Kind, Type
from portl_postgres.catalog.types import PgType, is_text
from portl_postgres.session.session import Session
from portl_postgres.sql.text import bound, quoted

#: Built-in types whose equal values are identical, bit by bit.
_EXACT = {
    "bool", "int2", "int4", "int8", "oid", "xid8", "pg_lsn", "money", "bytea", "bit", "varbit", "uuid",
    "date", "time", "timetz", "timestamp", "timestamptz", "inet", "cidr", "macaddr", "macaddr8",
}  # fmt: skip

_OPERATORS = """
SELECT a.attname::text, n.nspname::text, o.oprname::text
  FROM pg_catalog.pg_index AS i
 CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) AS x(num, class)
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = x.num
  JOIN pg_catalog.pg_opclass AS c ON c.oid = x.class
  JOIN pg_catalog.pg_amop AS m ON m.amopfamily = c.opcfamily AND m.amoplefttype = c.opcintype
       AND m.amoprighttype = c.opcintype AND m.amopstrategy = 3
  JOIN pg_catalog.pg_operator AS o ON o.oid = m.amopopr
  JOIN pg_catalog.pg_namespace AS n ON n.oid = o.oprnamespace
 WHERE i.indrelid = $1::regclass AND i.indisunique AND n.nspname <> 'pg_catalog'
"""


def exact(pg: PgType, type: Type, *, deterministic: bool = True) -> bool:
    """Return whether equal values of a column are identical.

    Args:
        pg: its type.
        type: its generic type, which has the modifier.
        deterministic: False if its collation treats different texts as equal.
    """
    root = pg.root
    if root.kind == "A" and root.element is not None and type.kind is Kind.ARRAY and type.element is not None:
        return exact(root.element, type.element, deterministic=deterministic)
    if root.kind in ("r", "m") and root.subtype is not None:
        return exact(root.subtype, Type(kind=Kind.TEXT), deterministic=deterministic)
    if root.kind == "e":
        return True
    if not root.builtin:
        return False
    if root.name == "numeric":
        return type.scale is not None
    if root.name == "bpchar":
        return deterministic and type.length is not None  # without a length, trailing spaces are kept but ignored
    return root.name in _EXACT or (is_text(root) and deterministic)


def look(table: str) -> list[str]:
    """Return what ``key_operators`` asks ``Session.looking`` for."""
    return [bound(_OPERATORS, table)]


def key_operators(session: Session, table: str, key: Collection[str]) -> dict[str, str]:
    """Return the equality operators of an index on a key's columns, if they belong to an extension.

    If the extension's schema is not in the search path, ``=`` would be a different operator, or none.

    Args:
        session: the destination's.
        table: quoted.
        key: its columns.
    """
    (rows,) = session.looking(look(table), what="looking at the key")
    return {column: f"OPERATOR({quoted(schema)}.{operator})" for column, schema, operator in rows if column in key}
