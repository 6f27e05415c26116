"""Read the foreign keys of a destination, with the statements that drop and re-create them."""

from __future__ import annotations

from typing import Any

import portl
from portl_postgres.catalog.tables import shown
from portl_postgres.session.session import Session
from portl_postgres.sql.text import bound, literal, quoted, statement


def read(session: Session) -> list[portl.ForeignKey]:
    """Return the foreign keys of the session's database."""
    (rows,) = session.bare([bound(statement("foreign_keys"))], what="looking at foreign keys")
    return [_key(*row) for row in rows]


def _key(
    schema: str,
    name: str,
    other_schema: str,
    other: str,
    constraint: str,
    definition: str,
    comment: str | None,
    valid: bool,
    apart: bool,
    owns: bool,
    may_refer: bool,
    *_: Any,
) -> portl.ForeignKey:
    table, refers, quoted_name = shown(schema, name), shown(other_schema, other), quoted(constraint)
    alter = f"ALTER TABLE {quoted(schema, name)}"
    later = valid and apart
    make = [f"{alter} ADD CONSTRAINT {quoted_name} {definition}{' NOT VALID' if later else ''}"]
    if comment is not None:
        make.append(f"COMMENT ON CONSTRAINT {quoted_name} ON {quoted(schema, name)} IS {literal(comment)}")
    obstacle = None if owns else f"the role does not own {table}"
    if owns and not may_refer:
        obstacle = f"the role lacks REFERENCES on {refers}"
    return portl.ForeignKey(
        key=portl.DroppedKey(
            name=f"{constraint} on {table}",
            table=table,
            refers=refers,
            drop=(f"{alter} DROP CONSTRAINT IF EXISTS {quoted_name}",),
            make=tuple(make),
            validate=(f"{alter} VALIDATE CONSTRAINT {quoted_name}",) if later else (),
        ),
        valid=valid,
        obstacle=obstacle,
    )
