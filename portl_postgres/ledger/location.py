"""The possible locations of a ledger: what exists there, and what the role may do with it."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

import attrs

import portl
from portl import LedgerConfig
from portl_postgres.catalog.tables import shown
from portl_postgres.ledger.locks import lock_key
from portl_postgres.session.session import Session
from portl_postgres.sql.text import Expression, bound, literal, quoted, statement

logger = logging.getLogger("portl.postgres")

#: The layout of the tables in ``sql/ledger.sql``, recorded in the comment on the table of runs.
LAYOUT = 1
#: The ledger's own schema, which is preferred.
SCHEMA = "portl"

_MARK = re.compile(r"portl's ledger, layout (\d+)")
_NAME = re.compile(r':"(schema|migrations|chunks)"')


@attrs.frozen(kw_only=True)
class Location:
    """The tables of a ledger, existing or not, and what the role may do with them."""

    schema: str
    migrations: str
    chunks: str
    #: True if the tables exist.
    exists: bool
    readable: bool
    writable: bool
    #: Why the role cannot create it; None if it can.
    lacking: str | None
    #: True if the schema does not exist either.
    schema_missing: bool

    @property
    def usable(self) -> bool:
        """True if runs can be recorded here."""
        return self.readable and self.writable if self.exists else self.lacking is None

    def same(self, other: Location) -> bool:
        """Return whether two looks found the same tables."""
        return (self.schema, self.migrations, self.exists) == (other.schema, other.migrations, other.exists)

    @property
    def obstacle(self) -> tuple[str, str]:
        """Why it cannot be used, and a remedy."""
        tables = f"{self.of_migrations}, {self.of_chunks}"
        if not self.exists:
            grant = "ON DATABASE …" if self.schema_missing else f"ON SCHEMA {quoted(self.schema)}"
            what = "CREATE" if self.schema_missing else "CREATE, USAGE"
            return self.lacking or "", f"GRANT {what} {grant} TO the role"
        return (
            f"the role may not read and write {self.shown}",
            f"GRANT USAGE ON SCHEMA {quoted(self.schema)} TO the role;"
            f" GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO the role",
        )

    @property
    def shown(self) -> str:
        """The name of the table of runs, for messages."""
        return shown(self.schema, self.migrations)

    @property
    def of_migrations(self) -> str:
        """The table of runs, quoted."""
        return quoted(self.schema, self.migrations)

    @property
    def of_chunks(self) -> str:
        """The table of chunk lines, quoted."""
        return quoted(self.schema, self.chunks)


def candidates(wanted: LedgerConfig, schema: str) -> list[tuple[str, str, str]]:
    """Return the schema and the names of both tables for each possible location, the preferred one first."""
    schemas = [wanted.schema] if wanted.schema is not None else [SCHEMA, schema]
    prefix = {SCHEMA: ""}
    named = {name: prefix.get(name, "portl_") for name in schemas}
    return [(name, f"{before}migrations", f"{before}chunks") for name, before in named.items()]


def look(candidates: Sequence[tuple[str, str, str]]) -> str:
    """Return the query that looks at possible locations; ``location_of`` reads its rows."""
    names = (Expression(f"ARRAY[{', '.join(map(literal, of))}]") for of in zip(*candidates, strict=True))
    return bound(statement("ledger_locations"), *names)


def location_of(names: tuple[str, str, str], row: tuple[Any, ...]) -> Location:
    """Return a location from its names and its row of ``sql/ledger_locations.sql``."""
    schema, migrations, chunks = names
    exists, usage, create, create_schema, kind, comment, kind_of_chunks, readable, writable = row
    found = _exists(names, kind, comment, kind_of_chunks)
    lacking = None
    if exists and not (usage and create):
        lacking = f"the role may not create tables in schema {schema!r}"
    elif not exists and not create_schema:
        lacking = f"the role may not create the schema {schema!r}"
    elif not exists and schema.startswith("pg_"):
        lacking = f"a schema's name must not begin with pg_ as {schema!r} does"
    return Location(
        schema=schema,
        migrations=migrations,
        chunks=chunks,
        exists=found,
        readable=usage and readable,
        writable=usage and writable,
        lacking=lacking,
        schema_missing=not exists,
    )


def _exists(names: tuple[str, str, str], kind: str | None, comment: str | None, other: str | None) -> bool:
    """Return whether there is a ledger at a location.

    Raises:
        LedgerError: other tables have these names, or the ledger has another layout.
    """
    if kind is None and other is None:
        return False
    schema, migrations, chunks = names
    name = shown(schema, migrations)
    mark = _MARK.fullmatch(comment or "") if kind == "r" and other == "r" else None
    if mark is None:
        raise portl.LedgerError(
            f"{name} or {shown(schema, chunks)} exists, and the two are not a ledger of portl",
            hint="name another schema in `ledger.schema`, or rename the table; if a ledger was restored in part,"
            f" restore both tables and the comment on {name}",
        )
    if int(mark[1]) != LAYOUT:
        raise portl.LedgerError(
            f"{name} has the layout {mark[1]} of another version of portl; this one, {portl.__version__}, supports"
            f" layout {LAYOUT}",
            hint="use the version of portl that wrote it, or name another schema in `ledger.schema`",
        )
    return True


def _creation(location: Location) -> str:
    """Return the statements of ``sql/ledger.sql`` for a location."""
    names = {"schema": location.schema, "migrations": location.migrations, "chunks": location.chunks}
    return _NAME.sub(lambda match: quoted(names[match[1]]), statement("ledger"))


class Locations:
    """The possible locations of one session's ledger, as of the last look.

    Args:
        session: that of the destination.
        candidates: see ``candidates``.
    """

    def __init__(self, session: Session, candidates: Sequence[tuple[str, str, str]]) -> None:
        self._session = session
        self._candidates = list(candidates)
        self._locations: list[Location] = []

    @property
    def known(self) -> list[Location]:
        """The locations as of the last look; looks on first access."""
        return self._locations or self.look()

    def look(self) -> list[Location]:
        """Look again, and return the locations.

        Raises:
            LedgerError: other tables have these names, or the ledger has another layout.
        """
        (rows,) = self._session.looking([self.query], what="the ledger")
        return self.seen(rows).known

    @property
    def query(self) -> str:
        """The query whose rows ``seen`` reads."""
        return look(self._candidates)

    def seen(self, rows: Sequence[tuple[Any, ...]]) -> Locations:
        """Store the answer to ``query``."""
        self._locations = [location_of(names, row) for names, row in zip(self._candidates, rows, strict=True)]
        return self

    def readable(self, *, look: bool = False) -> list[Location]:
        """Return the locations with runs that the role may read; ``look``: look again first."""
        locations = self.look() if look else self.known
        return [location for location in locations if location.exists and location.readable]

    def hidden(self) -> tuple[str, str] | None:
        """Return where there may be runs that the role may not read, and a remedy; None if there are none."""
        for location in self.known:
            if location.exists and not location.readable:
                schema, tables = quoted(location.schema), f"{location.of_migrations}, {location.of_chunks}"
                return (
                    f"the role may not read the runs in {location.shown}",
                    f"GRANT USAGE ON SCHEMA {schema} TO the role; GRANT SELECT ON {tables} TO the role; or, if none of"
                    " them is this job's, name the schema of the ledger to use in `ledger.schema`",
                )
        return None

    def chosen(self, *, look: bool = False) -> Location:
        """Return where a new run is recorded; ``look``: look again first.

        Raises:
            LedgerError: no location is usable.
        """
        locations = self.look() if look else self.known
        for location in locations:
            if location.usable:
                return location
        whys, grants = zip(*(location.obstacle for location in locations), strict=True)
        raise portl.LedgerError(
            f"{self._session.label}: there is no place for the ledger: {'; '.join(whys)}", hint="; or ".join(grants)
        )

    def ready(self, location: Location) -> Location:
        """Create the ledger at a location, under a lock, unless it exists."""
        if location.exists:
            return location
        self._session.query(
            "SELECT pg_catalog.pg_advisory_xact_lock($1::int8)", lock_key("ledger", ""), what="the ledger"
        )
        location = next(p for p in self.look() if p.schema == location.schema)
        if not location.usable:
            why, grant = location.obstacle
            raise portl.LedgerError(f"{self._session.label}: {why}", hint=grant)
        if location.exists:
            return location
        if location.schema_missing:
            self._session.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(location.schema)}", what="creating the ledger")
        self._session.execute(_creation(location), what="creating the ledger")
        return attrs.evolve(location, exists=True)
