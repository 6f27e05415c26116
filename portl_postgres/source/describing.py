"""Describe what a job reads: a table or view by name, or a query."""

from __future__ import annotations

import portl
from portl import Table
from portl_postgres.catalog import tables
from portl_postgres.catalog.tables import shown
from portl_postgres.config import PostgresSourceConfig
from portl_postgres.session.session import Session
from portl_postgres.source.checks import SEE_ALL
from portl_postgres.source.queries import INSUFFICIENT_PRIVILEGE, Describer
from portl_postgres.source.selection import Selection, origin


def selected(session: Session, config: PostgresSourceConfig, describer: Describer) -> Selection:
    """Return the rows of a job.

    Raises:
        SchemaError: there is no such table.
        QueryError: the query is refused.
    """
    if config.table is None:
        return Selection(config, *_query(session, config.query or "", describer))
    table = tables.read_table(session, config.schema, config.table, alone=config.only)
    if table is None:
        near = tables.near_names(session, config.schema, config.table)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise portl.SchemaError(
            f"{session.label}: there is no table or view {shown(config.schema, config.table)}",
            hint=f"{hint}the key `table` holds the name alone, and `schema` its schema (here {config.schema!r})",
        )
    return Selection(config, table, origin(config))


def _query(session: Session, query: str, describer: Describer) -> tuple[Table, str]:
    try:
        with session.scope():
            return describer.query(query)
    except portl.Error as error:
        if error.sqlstate != INSUFFICIENT_PRIVILEGE:
            raise
        try:
            session.looking(["SET LOCAL row_security = on", f"EXPLAIN {query}"], what="looking at the query")
        except portl.Error:
            raise error from None
        error.hint = SEE_ALL  # row security was what refused the role
        raise
