"""The formats that a source offers, best first."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from portl import Field, Format
from portl_postgres.config import PostgresSourceConfig, RowSecurity
from portl_postgres.session.session import Session
from portl_postgres.source.selection import Selection
from portl_postgres.wire import select_list, server_route
from portl_postgres.wire.batches import BINARY, TEXT


@attrs.frozen
class Offer:
    """What one source can offer to another PostgreSQL."""

    session: Session
    config: PostgresSourceConfig
    selection: Selection
    #: What identifies the database; None if rows cannot stay inside it.
    database: server_route.Database | None

    def formats(self, fields: Sequence[Field]) -> Sequence[Format]:
        """Return the formats for some fields, if the destination is PostgreSQL too."""
        relays = _relays(fields)
        server = self._server(fields, relays[0])
        return (*([server] if server is not None else []), *relays)

    def _server(self, fields: Sequence[Field], then: Format) -> Format | None:
        """Return the format for a destination in the same database, or None if that cannot be written to."""
        name = self.database.format if self.database is not None else None
        if name is None:
            return None
        return server_route.ServerFormat(
            name=name,
            route="server",
            reason="both sides are one database, and rows stay inside the server",
            obstacle=self._obstacle(),
            own_state=True,
            then=then,
            place=server_route.place(self.session),
            own_sql=server_route.own_sql(self.config, self.selection.table, fields),
            converts=not all(select_list.keeps_value(field) for field in fields),
            select=self.selection.select(self.session, fields),
        )

    def _obstacle(self) -> str | None:
        if self.session.nested:
            return "the source's connection is inside a transaction of the caller's"
        if self.config.row_security is RowSecurity.ON:
            return "the policies of the source's role apply"
        return None


def _relays(fields: Sequence[Field]) -> Sequence[Format]:
    obstacle = select_list.binary_obstacle(fields)
    text = Format(name=TEXT, route="relay", reason=f"COPY text passed through: {obstacle}")
    if obstacle is not None:
        return (text,)
    binary = Format(name=BINARY, route="relay", reason="COPY binary passed through undecoded")
    return (binary, attrs.evolve(text, reason="COPY text passed through"))
