"""Where the ledger may stand, what is there, and what the role may do about it."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

import attrs

import portl
from portl import LedgerConfig
from portl_postgres.catalog.tables import shown, statement
from portl_postgres.ledger.locks import lock_key
from portl_postgres.session.session import Session
from portl_postgres.sql.text import Expression, bound, literal, quoted

logger = logging.getLogger("portl.postgres")

#: The layout that this version of portl writes: there is a file ``sql/ledger_<n>.sql`` for each step to it.
LAYOUT = 4
#: The schema that the ledger has for itself, where it may.
SCHEMA = "portl"

_MARK = re.compile(r"portl's ledger, layout (\d+)")
_NAME = re.compile(r':"(schema|migrations|chunks)"')


@attrs.frozen(kw_only=True)
class Place:
    """A place where a ledger may be, and what the role may do there."""

    schema: str
    migrations: str
    chunks: str
    #: The layout of what stands there; None if nothing does.
    layout: int | None
    readable: bool
    writable: bool
    #: True if the role may upgrade it.
    owned: bool
    #: None if it can be made; else what the role lacks for that.
    lacking: str | None
    #: True if the schema has to be made too.
    schema_missing: bool

    @property
    def usable(self) -> bool:
        """True if runs can be written down here."""
        if self.layout is None:
            return self.lacking is None
        return self.readable and self.writable and (self.layout == LAYOUT or self.owned)

    @property
    def obstacle(self) -> tuple[str, str]:
        """What keeps it from being used, and the GRANT that would help."""
        tables = f"{self.of_migrations}, {self.of_chunks}"
        if self.layout is None:
            grant = "ON DATABASE …" if self.schema_missing else f"ON SCHEMA {quoted(self.schema)}"
            what = "CREATE" if self.schema_missing else "CREATE, USAGE"
            return self.lacking or "", f"GRANT {what} {grant} TO the role"
        if not (self.readable and self.writable):
            return (
                f"the role may not use {self.shown}",
                f"GRANT USAGE ON SCHEMA {quoted(self.schema)} TO the role;"
                f" GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO the role",
            )
        return (
            f"{self.shown} has the layout {self.layout} of an older portl, and only its owner can upgrade it",
            "run the job once as its owner",
        )

    @property
    def shown(self) -> str:
        """The first table, for people."""
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
    """Return schema and names of the tables for each place, the preferred first."""
    schemas = [wanted.schema] if wanted.schema is not None else [SCHEMA, schema]
    prefix = {SCHEMA: ""}
    named = {name: prefix.get(name, "portl_") for name in schemas}
    return [(name, f"{before}migrations", f"{before}chunks") for name, before in named.items()]


def place_of(names: tuple[str, str, str], row: tuple[Any, ...]) -> Place:
    """Return a place from a row of ``sql/ledger_places.sql``."""
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
    return Place(
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
    """Return the layout of what stands at a place, None if nothing does."""
    if kind is None and other is None:
        return None
    schema, migrations, chunks = names
    name = shown(schema, migrations)
    mark = _MARK.fullmatch(comment or "") if kind == "r" and other == "r" else None
    if mark is None:
        raise portl.LedgerError(
            f"{name} or {shown(schema, chunks)} is there, and the two are not a ledger of portl's",
            hint="name another schema in `ledger.schema`, or rename what is there; if it is a ledger that was restored"
            f" in part, restore both tables with the comment on {name}",
        )
    layout = int(mark[1])
    if layout > LAYOUT:
        raise portl.LedgerError(
            f"{name} has the layout {layout} of a newer portl; this one, {portl.__version__}, knows layouts up to"
            f" {LAYOUT}",
            hint="upgrade portl here, or name another schema in `ledger.schema`",
        )
    return layout


def step(number: int, place: Place) -> str:
    """Return the statements of one step of the layout for a place."""
    names = {"schema": place.schema, "migrations": place.migrations, "chunks": place.chunks}
    return _NAME.sub(lambda match: quoted(names[match[1]]), statement(f"ledger_{number}"))


class Locations:
    """The places where the ledger of one session may be, as they were seen last.

    Args:
        session: the destination's.
        candidates: schema and names of the tables for each place, the preferred first.
    """

    def __init__(self, session: Session, candidates: Sequence[tuple[str, str, str]]) -> None:
        self._session = session
        self._candidates = list(candidates)
        self._places: list[Place] = []

    @property
    def known(self) -> list[Place]:
        """The places as they were seen last; they are looked at if they were not yet."""
        return self._places or self.look()

    def look(self) -> list[Place]:
        """Return the places as they are.

        Raises:
            LedgerError: if something else stands there, or the ledger of a newer portl.
        """
        (rows,) = self._session.queries([self.query], what="the ledger")
        return self.seen(rows).known

    @property
    def query(self) -> str:
        """The query of what stands at each place."""
        names = (Expression(f"ARRAY[{', '.join(map(literal, of))}]") for of in zip(*self._candidates, strict=True))
        return bound(statement("ledger_places"), *names)

    def seen(self, rows: Sequence[tuple[Any, ...]]) -> Locations:
        """Take note of the answer to ``query``."""
        self._places = [place_of(names, row) for names, row in zip(self._candidates, rows, strict=True)]
        return self

    def readable(self, *, look: bool = False) -> list[Place]:
        """Return the places with runs that can be read; ``look``: as they are now."""
        places = self.look() if look else self.known
        return [place for place in places if place.layout is not None and place.readable]

    def hidden(self) -> tuple[str, str] | None:
        """Return where runs stand that the role may not read, and what would help; None: nowhere."""
        for place in self.known:
            if place.layout is not None and not place.readable:
                grant = f"GRANT USAGE ON SCHEMA {quoted(place.schema)} TO the role; GRANT SELECT ON"
                return (
                    f"the role may not read the runs in {place.shown}",
                    f"{grant} {place.of_migrations}, {place.of_chunks} TO the role; or, if none of them is this job's,"
                    " name the schema of the ledger to use in `ledger.schema`",
                )
        return None

    def chosen(self, *, look: bool = False) -> Place:
        """Return where a new run is written down; ``look``: as the places are now.

        Raises:
            LedgerError: if there is none.
        """
        places = self.look() if look else self.known
        for place in places:
            if place.usable:
                return place
        whys, grants = zip(*(place.obstacle for place in places), strict=True)
        raise portl.LedgerError(
            f"{self._session.label}: none can be kept: {'; '.join(whys)}", hint="; or ".join(grants)
        )

    def ready(self, place: Place) -> Place:
        """Create or upgrade what stands at a place, as the only one who does."""
        if place.layout == LAYOUT:
            return place
        self._session.query(
            "SELECT pg_catalog.pg_advisory_xact_lock($1::int8)", lock_key("ledger", ""), what="the ledger"
        )
        place = next(p for p in self.look() if p.schema == place.schema)
        if not place.usable:
            why, grant = place.obstacle
            raise portl.LedgerError(f"{self._session.label}: {why}", hint=grant)
        if place.layout is None and place.schema_missing:
            self._session.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(place.schema)}", what="making the ledger")
        elif place.layout is not None and place.layout < LAYOUT:
            tables = f"{place.of_migrations}, {place.of_chunks}"
            self._session.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE", what="upgrading the ledger")
        for number in range((place.layout or 0) + 1, LAYOUT + 1):
            logger.debug("%s: %s gets the layout %d", self._session.label, place.shown, number)
            self._session.execute(step(number, place), what="making the ledger")
        return attrs.evolve(place, layout=LAYOUT)
