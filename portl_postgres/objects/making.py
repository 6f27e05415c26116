"""Create objects at a destination, in separate transactions, and find which of them exist."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import portl
from portl import Finding, SchemaObject
from portl_postgres.objects.reading import read
from portl_postgres.session.session import Session
from portl_postgres.sql.text import quoted, statement

#: Objects created in one transaction: each takes locks, whose number on a server is limited (manual, 20.12,
#: max_locks_per_transaction).
GROUP = 200
#: Names are qualified, and functions may refer to objects that do not exist yet (the settings of pg_dump).
_SETTINGS = ("SET LOCAL search_path = ''", "SET LOCAL check_function_bodies = off")
#: Syntax that older servers do not know, with the version that introduced it (release notes).
_SINCE = (
    (re.compile(r"\bGENERATED ALWAYS AS \(.*\) VIRTUAL\b"), 18, "virtual generated columns"),
    (re.compile(r"\bWITHOUT OVERLAPS\b|, PERIOD "), 18, "keys WITHOUT OVERLAPS"),
    (re.compile(r"\bNOT ENFORCED\b"), 18, "constraints that are NOT ENFORCED"),
    (re.compile(r"\bNOT NULL NO INHERIT\b"), 18, "NOT NULL constraints with NO INHERIT"),
    (re.compile(r"\bNULLS NOT DISTINCT\b"), 15, "NULLS NOT DISTINCT"),
    (re.compile(r"^CREATE UNLOGGED SEQUENCE\b"), 15, "unlogged sequences"),
    (re.compile(r"\bsecurity_invoker\b"), 15, "views with security_invoker"),
    (re.compile(r"\bBEGIN ATOMIC\b"), 14, "functions with a body of SQL statements"),
)


def existing(session: Session) -> frozenset[str]:
    """Return the labels of a database's objects."""
    return frozenset(o.label for o in read(session).objects)


def unfit(session: Session, objects: Sequence[SchemaObject]) -> list[Finding]:
    """Return what prevents objects from being created: the server, the role, or the version."""
    ((recovering, read_only, may_create),) = session.query(
        "SELECT pg_catalog.pg_is_in_recovery(), current_setting('transaction_read_only')::boolean,"
        " has_database_privilege(current_database(), 'CREATE')",
        what="looking at privileges",
    )
    if recovering or read_only:
        said = "the server is a standby" if recovering else "default_transaction_read_only is on for this role"
        return [portl.problem("destination", f"{said}: nothing can be created", "connect to a server to write to")]
    if objects and session.nested:
        said = "objects are created in several transactions, and the caller has one open"
        return [portl.problem("destination", said, "hand in a connection without an open transaction")]
    schemas = [made.name for made in objects if made.kind == "schema"]
    if schemas and not may_create:
        said = f"the role may not create the schemas {_some(schemas)}"
        return [portl.problem("destination", said, "GRANT CREATE ON DATABASE TO the role, or create them")]
    return [*_unknown(session, objects), *_lacking(session, objects, schemas)]


def _lacking(session: Session, objects: Sequence[SchemaObject], made: Sequence[str]) -> list[Finding]:
    """Return problems for schemas in which the role may not create anything."""
    wanted = {made.name.rpartition(".")[0] for made in objects if made.kind == "table"}
    rows = session.query(
        "SELECT n.nspname::text FROM pg_catalog.pg_namespace AS n WHERE NOT has_schema_privilege(n.oid, 'CREATE')"
        " AND quote_ident(n.nspname) = ANY ($1::text[])",
        sorted(wanted - set(made)),
        what="looking at privileges",
    )
    return [
        portl.problem(
            "destination",
            f"the role may not create tables in the schema {name!r}",
            f"GRANT CREATE ON SCHEMA {quoted(name)} TO the role",
        )
        for (name,) in rows
    ]


def newer(session: Session, made: SchemaObject) -> Iterator[str]:
    """Yield the features of an object that a server's version lacks."""
    text = "\n".join(made.statements)
    for pattern, since, what in _SINCE:
        if session.version < since and pattern.search(text):
            yield f"{what} (from version {since} on)"


def _unknown(session: Session, objects: Sequence[SchemaObject]) -> list[Finding]:
    """Return problems for objects that a server's version does not support."""
    found: dict[str, list[str]] = {}
    for made in objects:
        for what in newer(session, made):
            found.setdefault(what, []).append(made.label)
    return [
        portl.problem(
            "objects",
            f"the destination's version {session.version} has no {what}: {_some(labels)}",
            "leave these tables or objects out, or use a newer server",
        )
        for what, labels in found.items()
    ]


def _some(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - 5:,} more" if len(labels) > 5 else ""
    return f"{', '.join(labels[:5])}{more}"


def make(session: Session, objects: Sequence[SchemaObject], first: Callable[[], None] | None = None) -> None:
    """Create objects, in the given order, in transactions of up to ``GROUP`` objects.

    Args:
        session: outside a transaction.
        objects: each either does not exist or is repeatable.
        first: called in the first transaction.

    Raises:
        portl.Error: one of them cannot be created; those of earlier transactions stay.
    """
    for group in _groups(objects) if objects else [()]:
        session.begin(then=_SETTINGS, what="creating objects")
        try:
            if first is not None:
                first()
            _execute(session, group)
            session.commit()
        except BaseException:
            if session.open and not session.broken:
                session.rollback()
            raise
        first = None


def _groups(objects: Sequence[SchemaObject]) -> Iterator[Sequence[SchemaObject]]:
    for start in range(0, len(objects), GROUP):
        yield objects[start : start + GROUP]


def _execute(session: Session, objects: Sequence[SchemaObject]) -> None:
    if not objects:
        return
    what = objects[0].label if len(objects) == 1 else f"{objects[0].label} and {len(objects) - 1} more"
    try:
        with session.scope():
            session.queries([text for o in objects for text in o.statements], what=f"creating {what}")
    except portl.ConnectionFailed:
        raise
    except portl.Error as error:
        if len(objects) == 1 or error.transient:
            raise
        # Again, in halves, so that the message names the refused one.
        half = len(objects) // 2
        _execute(session, objects[:half])
        _execute(session, objects[half:])


def building(session: Session, processes: Sequence[int]) -> list[portl.Building | None]:
    """Return the progress of the indexes that backends are building; None for a backend that is building none."""
    rows = session.query(statement("building"), [*processes], what="looking at indexes that are built")
    found = {process: portl.Building(phase=phase, share=share) for process, phase, share in rows}
    return [found.get(process) for process in processes]
