"""Remember, in a table itself, that its primary key is still to be built.

A key is built after the rows, in half the time. A process that is killed in between leaves a table with committed rows
and no key, and the next run of the same job would not know its rows again. So the table bears a comment that says which
key is due, from the transaction that creates it to the one that builds the key. The next run finds it, builds the key
before anything else, and goes on as with any table that is there.
"""

from __future__ import annotations

import json

import attrs

from portl import Key, Table
from portl_postgres.catalog.tables import table_details
from portl_postgres.sql.text import listed, literal, quoted

_MARK = "portl is filling this table: "


def mark(table: Table) -> str:
    """Return the statement that writes down which key is due, and the comment that the table shall have."""
    key = table.primary_key
    note = json.dumps({"primary key": key.columns if key else [], "comment": table.comment}, ensure_ascii=False)
    return f"COMMENT ON TABLE {_name(table)} IS {literal(_MARK + note)}"


def build_key(table: Table) -> str:
    """Return the statement that builds the key that is due."""
    key = table.primary_key
    return f"ALTER TABLE {_name(table)} ADD PRIMARY KEY ({listed(key.columns if key else ())})"


def unmark(table: Table) -> str:
    """Return the statement that puts the table's own comment in place of the mark."""
    comment = "NULL" if table.comment is None else literal(table.comment)
    return f"COMMENT ON TABLE {_name(table)} IS {comment}"


def as_it_will_be(table: Table) -> Table:
    """Return an unfinished table with the key that is due; any other as it is."""
    if table.comment is None or not table.comment.startswith(_MARK) or table.primary_key is not None:
        return table
    try:
        note = json.loads(table.comment.removeprefix(_MARK))
        columns, comment = tuple(note["primary key"]), note["comment"]
    except (ValueError, KeyError, TypeError):
        return table  # somebody has written this comment himself
    if not columns or not set(columns) <= set(table.by_name):
        return table
    key = Key(name=f"{table_details(table).name}_pkey", columns=columns, primary=True)
    details = attrs.evolve(table_details(table), unfinished=True)
    return attrs.evolve(table, comment=comment, keys=(key, *table.keys), details=details)


def _name(table: Table) -> str:
    found = table_details(table)
    return quoted(found.schema, found.name)
