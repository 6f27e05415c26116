"""Read about many tables at once, to save a plan a round trip for each."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from portl import Table
from portl_postgres.catalog.tables import details, read_tables, table_details
from portl_postgres.config import PostgresSourceConfig
from portl_postgres.session.session import Session
from portl_postgres.sql.text import bound

#: A table of at most this many bytes is one chunk, whatever its contents.
SMALL_BYTES = 8 * 1024 * 1024
#: The most tables in one round trip, as the whole answer is held in memory.
AT_ONCE = 1000

_SIZES = (
    "SELECT c.oid::bigint, pg_catalog.pg_table_size(c.oid) FROM pg_catalog.pg_class AS c"
    " WHERE c.oid = ANY ($1::oid[]) AND c.relkind = 'r'"
)


@attrs.frozen(kw_only=True)
class Seen:
    """A table and its size."""

    table: Table
    #: Approximate; None if unknown.
    rows: int | None
    #: True if it is small and the role may read all of its columns and rows.
    plain: bool


def look(session: Session, configs: Sequence[PostgresSourceConfig]) -> dict[tuple[str, str], Seen]:
    """Return the tables of some configs, by schema and name."""
    found: dict[tuple[str, str], Seen] = {}
    for alone in (True, False):
        names = [(config.schema, config.table or "") for config in configs if config.only is alone]
        for start in range(0, len(names), AT_ONCE):
            tables = read_tables(session, names[start : start + AT_ONCE], alone=alone)
            oids = [table_details(table).oid for table in tables.values()]
            sizes: dict[int, int] = dict(session.query(bound(_SIZES, oids), what="looking at sizes")) if oids else {}
            for name, table in tables.items():
                found[name] = _seen(table, sizes.get(table_details(table).oid))
    return found


def _seen(table: Table, size: int | None) -> Seen:
    known = table_details(table)
    small = size is not None and size <= SMALL_BYTES
    readable = known.may_select and not known.row_security and not known.children
    columns = all(found is not None and found.may_select for found in map(details, table.columns))
    rows = round(known.estimate) if known.estimate >= 0 else None
    return Seen(table=table, rows=0 if size == 0 else rows, plain=small and readable and columns)
