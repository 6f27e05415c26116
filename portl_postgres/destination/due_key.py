"""Record in a table itself what remains to be done to it: its primary key, and the objects that go with it.

Building a key and indexes after the rows takes half the time. But a process killed in between leaves committed rows
without a key, and the next run of the job could not match its rows with them. So, from the transaction that creates the
table to the one that builds the key, a comment on the table says what is due. The next run finds the comment, does what
it says, and treats the table like any other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import attrs

from portl import Intent, Key, SchemaObject, Stage, Table
from portl_postgres.catalog.tables import Due, table_details
from portl_postgres.sql.text import listed, literal, quoted

_MARK = "portl is filling this table: "


def due(intent: Intent, *, key: bool) -> Due:
    """Return what is due after the rows of a table that a job creates.

    Args:
        intent: the job.
        key: True if its primary key is due.
    """
    found = intent.target.primary_key if key else None
    objects = tuple(_kept(made, intent.objects) for made in intent.objects if made.stage is not Stage.BEFORE)
    return Due(key=found.columns if found else (), objects=objects)


def _kept(made: SchemaObject, objects: Sequence[SchemaObject]) -> tuple[str, str, tuple[str, ...]]:
    """Return the record of an object; a comment takes the group of the object that it is on."""
    behind = [objects[need] for need in sorted(made.needs)] if made.property else []
    groups = sorted({o.group.value for o in (made, *behind) if o.group is not None})
    return " ".join(groups), made.label, made.statements


def mark(table: Table, due: Due) -> str:
    """Return the statement that records what is due, and the comment that the table gets in the end."""
    note = {"primary key": due.key, "comment": table.comment, "objects": due.objects}
    return f"COMMENT ON TABLE {_name(table)} IS {literal(_MARK + json.dumps(note, ensure_ascii=False))}"


def marked(table: Table) -> str:
    """Return a query that tells whether something is due, and whether the table has a primary key."""
    relation = f"{literal(_name(table))}::regclass"
    comment = f"pg_catalog.obj_description({relation}, 'pg_class')"
    return (
        f"SELECT coalesce({comment} LIKE '{_MARK}%', false),"
        f" EXISTS (SELECT FROM pg_catalog.pg_index WHERE indrelid = {relation} AND indisprimary)"
    )


def build_key(table: Table) -> str:
    """Return the statement that builds the key that is due."""
    key = table.primary_key
    return f"ALTER TABLE {_name(table)} ADD PRIMARY KEY ({listed(key.columns if key else ())})"


def make_objects(due: Due, intent: Intent) -> list[str]:
    """Return the statements that create a table's objects, as far as the job still asks for them."""
    asked = {group.value for group in intent.groups}
    return [text for groups, _, statements in due.objects if asked.issuperset(groups.split()) for text in statements]


def unmark(table: Table) -> str:
    """Return the statement that replaces the record with the table's own comment."""
    comment = "NULL" if table.comment is None else literal(table.comment)
    return f"COMMENT ON TABLE {_name(table)} IS {comment}"


def as_it_will_be(table: Table) -> Table:
    """Return a table with the key that is due; unchanged if none is."""
    if table.comment is None or not table.comment.startswith(_MARK):
        return table
    try:
        note = json.loads(table.comment.removeprefix(_MARK))
        columns, comment = tuple(note["primary key"]), note["comment"]
        objects = tuple((group, label, tuple(texts)) for group, label, texts in note.get("objects", ()))
    except (ValueError, KeyError, TypeError):
        return table  # not portl's comment
    if not set(columns) <= set(table.by_name) or not (columns or objects):
        return table
    keys = table.keys
    if table.primary_key is not None:
        columns = ()
    elif columns:
        keys = (Key(name=f"{table_details(table).name}_pkey", columns=columns, primary=True), *keys)
    details = attrs.evolve(table_details(table), due=Due(key=columns, objects=objects))
    return attrs.evolve(table, comment=comment, keys=keys, details=details)


def _name(table: Table) -> str:
    found = table_details(table)
    return quoted(found.schema, found.name)
