"""Record in a table itself that its primary key is still to be built.

Building a key after the rows takes half the time. A process killed in between leaves a table with committed rows and no
key, and the next run of the job could not match its rows with those. So a comment on the table says which key is due,
from the transaction that creates the table to the one that builds the key. The next run finds the comment, builds the
key, and treats the table like any other that exists.
"""

from __future__ import annotations

import json

import attrs

from portl import Key, Table
from portl_postgres.catalog.tables import table_details
from portl_postgres.sql.text import listed, literal, quoted

_MARK = "portl is filling this table: "


def mark(table: Table) -> str:
    """Return the statement that records which key is due, and the comment that the table is to have in the end."""
    key = table.primary_key
    note = json.dumps({"primary key": key.columns if key else [], "comment": table.comment}, ensure_ascii=False)
    return f"COMMENT ON TABLE {_name(table)} IS {literal(_MARK + note)}"


def build_key(table: Table) -> str:
    """Return the statement that builds the key that is due."""
    key = table.primary_key
    return f"ALTER TABLE {_name(table)} ADD PRIMARY KEY ({listed(key.columns if key else ())})"


def unmark(table: Table) -> str:
    """Return the statement that replaces the record by the table's own comment."""
    comment = "NULL" if table.comment is None else literal(table.comment)
    return f"COMMENT ON TABLE {_name(table)} IS {comment}"


def as_it_will_be(table: Table) -> Table:
    """Return a table with the key that is due in it; unchanged if there is none."""
    if table.comment is None or not table.comment.startswith(_MARK) or table.primary_key is not None:
        return table
    try:
        note = json.loads(table.comment.removeprefix(_MARK))
        columns, comment = tuple(note["primary key"]), note["comment"]
    except (ValueError, KeyError, TypeError):
        return table  # not portl's comment
    if not columns or not set(columns) <= set(table.by_name):
        return table
    key = Key(name=f"{table_details(table).name}_pkey", columns=columns, primary=True)
    details = attrs.evolve(table_details(table), unfinished=True)
    return attrs.evolve(table, comment=comment, keys=(key, *table.keys), details=details)


def _name(table: Table) -> str:
    found = table_details(table)
    return quoted(found.schema, found.name)
