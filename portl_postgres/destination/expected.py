"""The expected form of a table that a run creates with the source's objects, before it exists."""

from __future__ import annotations

import attrs

from portl import Column, Table
from portl_postgres.catalog.tables import TableDetails, details, shown
from portl_postgres.catalog.types import PgType
from portl_postgres.config import PostgresDestinationConfig

#: Oids from here on belong to one database (FirstNormalObjectId in transam.h), and differ at the destination.
_OWN_OIDS = 16384


def expected(table: Table, config: PostgresDestinationConfig) -> Table:
    """Return the source's table as it will be at the destination while rows are written.

    Keys are created after the rows, and sequences are set by separate statements, so the table has neither.
    """
    return attrs.evolve(
        table,
        name=shown(config.schema, config.table),
        columns=tuple(map(_column, table.columns)),
        keys=(),
        unfit_keys=(),
        details=TableDetails(schema=config.schema, name=config.table),
    )


def _column(column: Column) -> Column:
    found = details(column)
    if found is not None:
        found = attrs.evolve(found, pg=_elsewhere(found.pg), sequence=None)
    return attrs.evolve(column, default=None, identity=None, details=found)


def _elsewhere(pg: PgType) -> PgType:
    return attrs.evolve(pg, oid=0) if pg.oid >= _OWN_OIDS else pg
