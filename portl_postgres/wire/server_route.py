"""The route ``server``: both sides are the same database of one running server, and rows do not leave it.

Each side identifies its database by the system identifier and the database's oid, so the name or address used to
connect does not matter. A standby, or a clone made from the files, shares both with its primary, so the server's start
time is compared too.

The statement runs in the destination's session: in its transaction, as its role, under its settings. Three things
follow.

* Under REPEATABLE READ with the source's snapshot it would not see the lines of the ledger, rows that others have added
  to the destination since, or rows that a foreign key refers to. So it reads, as any INSERT … SELECT does, the state at
  its own beginning: one statement, one state, and therefore one chunk.
* SQL of the user's (a query, a condition, a conversion, a view) could mean something else there: it takes this route
  only if role, settings and search path are the same on both sides, and if it calls nothing that could write, which
  the source's own transaction would not allow.
* The server does not say which row of a SELECT it refused. Such a chunk is rolled back and copied by COPY.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

import portl
from portl import Field, Format, Intent, Table
from portl_postgres.catalog.tables import table_details
from portl_postgres.config import PostgresSourceConfig
from portl_postgres.session.session import Session
from portl_postgres.sql.text import Expression, bound, literal
from portl_postgres.wire import select_list

#: Settings that decide what an expression means or how a value prints, besides those that portl fixes on both sides.
_SETTINGS = (
    "TimeZone",
    "DateStyle",
    "timezone_abbreviations",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "default_text_search_config",
    "xmlbinary",
    "standard_conforming_strings",
    "backslash_quote",
    "transform_null_equals",
    "session_replication_role",
)

_DATABASE = (
    "SELECT d.oid::text, d.datname::text,"
    " (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint::text,"
    " pg_catalog.pg_is_in_recovery()"
    " FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()"
)
_SYSTEM = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()"
_FACTS = (
    "SELECT current_user::text, session_user::text, pg_catalog.current_schemas(false)::text[],"
    " EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.relnamespace = pg_catalog.pg_my_temp_schema()),"
    " ARRAY(SELECT n || ' = ' || coalesce(pg_catalog.current_setting(n, true), 'none')"
    " FROM unnest($1::text[]) WITH ORDINALITY AS s(n, i) ORDER BY i)"
)

#: What stands before a parenthesis in a plan; some of it is the name of a function.
_CALL = re.compile(r'(?:"((?:[^"]|"")+)"|([^\x00-@\[-^`{-\x7f][\w$]*))\s*\(')


@attrs.define(kw_only=True)
class ServerBatch(portl.Batch):
    """All rows of a chunk, as the query that yields them; the writer finds out how many they are."""

    #: Yields the rows under the destination's names, in the order of the fields.
    select: str
    #: Yields as many rows, without their values.
    count: str

    def take(self, start: int, stop: int) -> ServerBatch:
        """Refuse ``Batch.take``: rows without an order have no first or last part."""
        raise portl.OperationError("rows that stay inside the server cannot be divided")

    def values(self, row: int, fields: Sequence[Field]) -> dict[str, str | None]:
        """Refuse ``Batch.values``: the rows are not here."""
        raise portl.OperationError("rows that stay inside the server cannot be shown")


@attrs.frozen(kw_only=True)
class Database:
    """Which database a session is in, however it was reached."""

    #: The system identifier, which a standby shares with its primary; None: the role may not look at it.
    system: str | None
    oid: str
    name: str
    #: When the server was started: microseconds since 1970.
    started: str
    recovering: bool

    @property
    def server(self) -> str:
        """What tells the server and its standbys from others.

        A role may be kept from looking at the identifier; the database's oid and name are then all that there is.
        """
        return self.system if self.system is not None else f"unknown, database {self.oid}"

    @property
    def format(self) -> str | None:
        """The name of the format in which rows stay inside it; None: they cannot."""
        if self.recovering or self.system is None:
            return None
        return f"postgres-server {self.system} {self.started} {self.oid}"


@attrs.frozen(kw_only=True)
class Place:
    """What decides the meaning of an expression in a session."""

    role: str
    #: The role that has connected.
    login: str
    path: tuple[str, ...]
    #: True if it has temporary tables, which may stand before others of their name.
    temporary: bool
    #: ``name = value`` each.
    settings: tuple[str, ...]


@attrs.frozen(kw_only=True)
class ServerFormat(Format):
    """The format of the route ``server``: its name says which database it is."""

    place: Place
    #: True if the query holds SQL of the user's, or a view's.
    own_sql: bool
    #: True if a column is converted.
    converts: bool
    #: The whole query.
    select: str


#: What ``database`` asks ``Session.looking`` for, and what ``place`` does.
DATABASE_LOOK = (_DATABASE, _SYSTEM)
PLACE_LOOK = (bound(_FACTS, Expression(f"ARRAY[{', '.join(map(literal, _SETTINGS))}]")),)


def database(session: Session) -> Database:
    """Find out which database a session is in."""
    try:
        (facts,), ((system,),) = session.looking(DATABASE_LOOK, what="looking which database this is")
    except portl.PermissionDenied:
        ((facts,),) = session.looking([_DATABASE], what="looking which database this is")
        system = None
    oid, name, started, recovering = facts
    return Database(system=system, oid=oid, name=name, started=started, recovering=recovering)


def place(session: Session) -> Place:
    """Return what decides the meaning of an expression in a session."""
    (((role, login, path, temporary, settings),),) = session.looking(PLACE_LOOK, what="looking at the session")
    return Place(role=role, login=login, path=tuple(path), temporary=temporary, settings=tuple(settings))


def carried(format: Format) -> Format:
    """Return the format in which rows travel where they leave the server."""
    return format.then or format


def obstacle(session: Session, intent: Intent) -> str | None:
    """Return what keeps the rows of a job from staying inside the server, seen from the destination's session."""
    format = intent.format
    if not isinstance(format, ServerFormat):
        return None
    return (
        _of_session(session)
        or _of_target(intent)
        or _of_place(format, place(session))
        or select_list.text_obstacle(intent.fields)
        or _of_reading(session, format)
    )


def _of_session(session: Session) -> str | None:
    return "the destination's connection is inside a transaction of the caller's" if session.nested else None


def _of_target(intent: Intent) -> str | None:
    if intent.create:
        return None
    found = table_details(intent.target)
    name = intent.target.name
    reasons = {
        "is no table": found.kind not in ("r", "p"),
        "is also what is read": intent.source.kind != "query" and table_details(intent.source).oid == found.oid,
        "has row security": found.row_security,
        f"has triggers ({', '.join(found.triggers)}), which may leave rows out": bool(found.triggers),
        f"has rules ({', '.join(found.rules)}), which COPY ignores": bool(found.rules),
    }
    return next((f"{name} {reason}" for reason, there in reasons.items() if there), None)


def _of_place(format: ServerFormat, here: Place) -> str | None:
    """Compare what the two sessions see."""
    there = format.place
    if format.own_sql and (there.role, there.login) != (here.role, here.login):
        return f"what is read may depend on the role, and the destination's is {here.role!r}, not {there.role!r}"
    if format.own_sql and there.path != here.path:
        return "names in the query are looked up in other schemas at the destination"
    if format.own_sql and (there.temporary or here.temporary):
        return "a caller-supplied session has temporary tables, which names in the query may refer to"
    if format.own_sql or format.converts:
        other = next((name for a, b, name in zip(there.settings, here.settings, _SETTINGS, strict=True) if a != b), "")
        return f"the setting {other} differs between the two sides" if other else None
    return None


def _of_reading(session: Session, format: ServerFormat) -> str | None:
    """Have the server plan the reading as the destination's role: it checks privileges and row security."""
    try:
        with session.scope():
            session.begin()
            try:
                session.execute("SET LOCAL row_security = off")
                rows = session.query(f"EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) {format.select}")
            finally:
                session.rollback()
    except (portl.ConnectionFailed, portl.Cancelled):
        raise
    except portl.Error as error:
        return f"the destination's role may not read it: {error.message}"
    return _of_plan(session, rows[0][0]) if format.own_sql else None


def _of_plan(session: Session, plan: Any) -> str | None:
    """Return what the source's read-only transaction would refuse."""
    plan = json.loads(plan) if isinstance(plan, str) else plan
    texts = list(_texts(plan))
    if "LockRows" in texts:
        return "the query locks rows"
    names = {(name.replace('""', '"') or word) for text in texts for name, word in _CALL.findall(text)}
    found = session.query(
        "SELECT proname::text FROM pg_catalog.pg_proc WHERE provolatile = 'v' AND proname::text = ANY($1::text[])"
        " ORDER BY 1 LIMIT 1",
        sorted(names | set(texts)),
        what="looking at functions",
    )
    return f"the function {found[0][0]} is volatile, and a source is only read" if found else None


def _texts(plan: Any) -> Iterator[str]:
    """Yield all texts in a plan."""
    if isinstance(plan, str):
        yield plan
    elif isinstance(plan, dict):
        for value in plan.values():
            yield from _texts(value)
    elif isinstance(plan, list):
        for value in plan:
            yield from _texts(value)


def own_sql(config: PostgresSourceConfig, table: Table, fields: Sequence[Field]) -> bool:
    """Return whether what is read holds SQL of the user's, or a view's."""
    plain = table.kind in ("table", "partitioned table", "materialized view")
    return not plain or config.where is not None or any(field.using for field in fields)
