"""Where the ledger may stand, what is there, and what the role may do about it."""

from __future__ import annotations

import re
from typing import Any

import attrs

import portl
from portl import LedgerConfig
from portl_postgres.catalog.tables import shown, statement
from portl_postgres.sql.text import quoted

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
