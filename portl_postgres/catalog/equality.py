"""When values of a key are equal and not the same, and which operator says so.

A unique index compares by the equality of its operator class and collation. There ``1.0`` equals ``1.00``, ``-0``
equals ``0``, and ``'ABC'`` equals ``'Abc'`` in a ``citext`` column or under a nondeterministic collation. So a row that
is found by its key may hold that key in another form.
"""

from __future__ import annotations

from collections.abc import Collection

from portl import Kind, Type
from portl_postgres.catalog.types import PgType, is_text
from portl_postgres.session.session import Session
from portl_postgres.sql.text import bound, quoted

#: Built-in types of which two values that are equal are the same, bit by bit.
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
    """Return whether equal values of a column are the same.

    Args:
        pg: its type.
        type: its generic type, which knows the modifier.
        deterministic: False if its collation takes different texts for equal.
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
        return deterministic and type.length is not None  # without a length, spaces at the end stay and do not count
    return root.name in _EXACT or (is_text(root) and deterministic)


def look(table: str) -> list[str]:
    """Return what ``key_operators`` asks ``Session.looking`` for."""
    return [bound(_OPERATORS, table)]


def key_operators(session: Session, table: str, key: Collection[str]) -> dict[str, str]:
    """Return the equality of a key's columns by which the index compares, where it belongs to an extension.

    The extension's schema need not be in the search path; then ``=`` would be another operator, or none.

    Args:
        session: the destination's.
        table: quoted.
        key: its columns.
    """
    (rows,) = session.looking(look(table), what="looking at the key")
    return {column: f"OPERATOR({quoted(schema)}.{operator})" for column, schema, operator in rows if column in key}
