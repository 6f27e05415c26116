"""The locations of a ledger: what exists there, and what the role may do with it."""

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

#: The layout that this version of portl writes: there is a file ``sql/ledger_<n>.sql`` for each step to it.
LAYOUT = 6
#: The schema of the ledger's own, which is preferred.
SCHEMA = "portl"

_MARK = re.compile(r"portl's ledger, layout (\d+)")
_NAME = re.compile(r':"(schema|migrations|chunks)"')


@attrs.frozen(kw_only=True)
class Location:
    """The tables of a ledger, existing or not, and what the role may do with them."""

    schema: str
    migrations: str
    chunks: str
    #: The layout of the ledger there; None if there is none.
    layout: int | None
    readable: bool
    writable: bool
    #: True if the role may upgrade it.
    owned: bool
    #: Why the role cannot create it; None if it can.
    lacking: str | None
    #: True if the schema does not exist either.
    schema_missing: bool

    @property
    def usable(self) -> bool:
        """True if runs can be recorded here."""
        if self.layout is None:
            return self.lacking is None
        return self.readable and self.writable and (self.layout == LAYOUT or self.owned)

    @property
    def ready(self) -> bool:
        """True if its tables stand there as this version of portl writes them."""
        return self.layout == LAYOUT

    def same(self, other: Location) -> bool:
        """Return whether two looks have found the same tables."""
        return (self.schema, self.migrations, self.layout) == (other.schema, other.migrations, other.layout)

    @property
    def obstacle(self) -> tuple[str, str]:
        """Why it cannot be used, and what would help."""
        tables = f"{self.of_migrations}, {self.of_chunks}"
        if self.layout is None:
            grant = "ON DATABASE …" if self.schema_missing else f"ON SCHEMA {quoted(self.schema)}"
            what = "CREATE" if self.schema_missing else "CREATE, USAGE"
            return self.lacking or "", f"GRANT {what} {grant} TO the role"
        if not (self.readable and self.writable):
            return (
                f"the role may not read and write {self.shown}",
                f"GRANT USAGE ON SCHEMA {quoted(self.schema)} TO the role;"
                f" GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO the role",
            )
        return (
            f"{self.shown} has the layout {self.layout} of an older portl, which only its owner can upgrade",
            "run the job once as the owner",
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
    """Return the query for what stands at possible locations; ``location_of`` reads its rows."""
    names = (Expression(f"ARRAY[{', '.join(map(literal, of))}]") for of in zip(*candidates, strict=True))
    return bound(statement("ledger_locations"), *names)


def location_of(names: tuple[str, str, str], row: tuple[Any, ...]) -> Location:
    """Return a location from its names and its row of ``sql/ledger_locations.sql``."""
    schema, migrations, chunks = names
    exists, usage, create, create_schema, kind, comment, kind_of_chunks, readable, writable, owned = row
    layout = _layout(names, kind, comment, kind_of_chunks)
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
        layout=layout,
        readable=usage and readable,
        writable=usage and writable,
        owned=owned,
        lacking=lacking,
        schema_missing=not exists,
    )


def _layout(names: tuple[str, str, str], kind: str | None, comment: str | None, other: str | None) -> int | None:
    """Return the layout of the ledger at a location; None if there is none.

    Raises:
        LedgerError: other tables have these names, or the layout is newer than this portl.
    """
    if kind is None and other is None:
        return None
    schema, migrations, chunks = names
    name = shown(schema, migrations)
    mark = _MARK.fullmatch(comment or "") if kind == "r" and other == "r" else None
    if mark is None:
        raise portl.LedgerError(
            f"{name} or {shown(schema, chunks)} exists, and the two are not a ledger of portl",
            hint="name another schema in `ledger.schema`, or rename the table; if a ledger was restored in part,"
            f" restore both tables and the comment on {name}",
        )
    layout = int(mark[1])
    if layout > LAYOUT:
        raise portl.LedgerError(
            f"{name} has the layout {layout} of a newer portl; this one, {portl.__version__}, supports layouts up to"
            f" {LAYOUT}",
            hint="upgrade portl here, or name another schema in `ledger.schema`",
        )
    return layout


def step(number: int, location: Location) -> str:
    """Return the statements of one step of the layout, ``sql/ledger_<number>.sql``, for a location."""
    names = {"schema": location.schema, "migrations": location.migrations, "chunks": location.chunks}
    return _NAME.sub(lambda match: quoted(names[match[1]]), statement(f"ledger_{number}"))


class Locations:
    """The possible locations of one session's ledger, as of the last look.

    Args:
        session: the destination's.
        candidates: see ``candidates``.
    """

    def __init__(self, session: Session, candidates: Sequence[tuple[str, str, str]]) -> None:
        self._session = session
        self._candidates = list(candidates)
        self._locations: list[Location] = []

    @property
    def known(self) -> list[Location]:
        """The locations as of the last look; the first access looks."""
        return self._locations or self.look()

    def look(self) -> list[Location]:
        """Return the locations as they are now.

        Raises:
            LedgerError: other tables have these names, or the ledger is that of a newer portl.
        """
        (rows,) = self._session.looking([self.query], what="the ledger")
        return self.seen(rows).known

    @property
    def query(self) -> str:
        """The query whose rows ``seen`` reads."""
        return look(self._candidates)

    def seen(self, rows: Sequence[tuple[Any, ...]]) -> Locations:
        """Remember the answer to ``query``."""
        self._locations = [location_of(names, row) for names, row in zip(self._candidates, rows, strict=True)]
        return self

    def readable(self, *, look: bool = False) -> list[Location]:
        """Return the locations with runs that the role may read; ``look``: as of now."""
        locations = self.look() if look else self.known
        return [location for location in locations if location.layout is not None and location.readable]

    def hidden(self) -> tuple[str, str] | None:
        """Return why there may be runs that the role may not read, and what would help; None if there are none."""
        for location in self.known:
            if location.layout is not None and not location.readable:
                schema, tables = quoted(location.schema), f"{location.of_migrations}, {location.of_chunks}"
                return (
                    f"the role may not read the runs in {location.shown}",
                    f"GRANT USAGE ON SCHEMA {schema} TO the role; GRANT SELECT ON {tables} TO the role; or, if none of"
                    " them is this job's, name the schema of the ledger to use in `ledger.schema`",
                )
        return None

    def chosen(self, *, look: bool = False) -> Location:
        """Return where a new run is recorded; ``look``: as of now.

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
        """Create or upgrade the ledger at a location, under a lock."""
        if location.layout == LAYOUT:
            return location
        self._session.query(
            "SELECT pg_catalog.pg_advisory_xact_lock($1::int8)", lock_key("ledger", ""), what="the ledger"
        )
        location = next(p for p in self.look() if p.schema == location.schema)
        if not location.usable:
            why, grant = location.obstacle
            raise portl.LedgerError(f"{self._session.label}: {why}", hint=grant)
        if location.layout is None and location.schema_missing:
            self._session.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(location.schema)}", what="creating the ledger")
        elif location.layout is not None and location.layout < LAYOUT:
            tables = f"{location.of_migrations}, {location.of_chunks}"
            self._session.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE", what="upgrading the ledger")
        for number in range((location.layout or 0) + 1, LAYOUT + 1):
            logger.debug("%s: %s is brought to layout %d", self._session.label, location.shown, number)
            self._session.execute(step(number, location), what="creating the ledger")
        return attrs.evolve(location, layout=LAYOUT)
