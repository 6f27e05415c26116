"""The SQL that reads: the relation or query, the job's conditions, and the bounds of a chunk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

import portl
from portl import Chunk, Field, Format, Reading, Table
from portl_postgres.config import PostgresSourceConfig
from portl_postgres.session.session import Session
from portl_postgres.source.increments import Increment
from portl_postgres.source.ranges import BLOCK, KEY, Order, block_order, column_order, relation_of
from portl_postgres.sql.text import literal, quoted
from portl_postgres.verification.places import Places
from portl_postgres.wire import select_list
from portl_postgres.wire.batches import BINARY
from portl_postgres.wire.copy import text_options


@attrs.define
class Selection:
    """The rows of a job."""

    config: PostgresSourceConfig
    #: As it was described.
    table: Table
    #: What follows FROM: a quoted name, or the query in parentheses.
    origin: str
    #: The orders that bounds are defined on, by kind and columns, as far as determined.
    _orders: dict[str, Order] = attrs.field(factory=dict)
    #: The places of the rows that a mirror fetches; shared with workers.
    places: Places | None = None
    #: The part that an incremental run reads; None for any other run.
    increment: Increment | None = None

    def select(
        self,
        session: Session,
        fields: Sequence[Field],
        bounds: Mapping[str, Any] | None = None,
        *,
        ordered: bool = True,
    ) -> str:
        """Return the SELECT of some fields. Also takes the arguments of ``rows``."""
        columns = ", ".join(select_list.select_item(field) for field in fields)
        return f"SELECT {columns} FROM {self.rows(session, bounds, ordered=ordered)}"

    def rows(self, session: Session, bounds: Mapping[str, Any] | None = None, *, ordered: bool = True) -> str:
        """Return what follows FROM.

        Args:
            session: that of the source.
            bounds: those of a chunk; None for all rows.
            ordered: True if a chunk's rows must be in order; all rows are read unordered.
        """
        conditions = self._conditions
        tail = f" LIMIT {self.config.limit}" if self.config.limit is not None else ""
        if bounds is not None and bounds["by"] == portl.PLACES:
            assert self.places is not None, "the source has been aimed at them"
            conditions.insert(0, self.places.condition(bounds["part"]))
        elif bounds is not None:
            order = self.order(session, bounds)
            conditions.insert(0, order.condition(bounds))
            # A plain block range scan is in order; with another condition, an index may be used instead.
            if ordered and (order.by == KEY or (order.by == BLOCK and self.where is not None)):
                tail = f" ORDER BY {order.sorting}{tail}"
        given = " AND ".join(filter(None, conditions))
        return f"{self.origin}{' WHERE ' + given if given else ''}{tail}"

    @property
    def _conditions(self) -> list[str]:
        return [f"(\n{self.where}\n)"] if self.where is not None else []

    @property
    def where(self) -> str | None:
        """The condition on the rows; None to read all."""
        given, read = self.config.where, self.increment.condition if self.increment is not None else None
        return f"(\n{given}\n) AND {read}" if given is not None and read is not None else given or read

    def order(self, session: Session, bounds: Mapping[str, Any]) -> Order:
        """Return the order that bounds are defined on.

        Raises:
            SchemaError: they no longer fit the source.
        """
        by = bounds["by"]
        if by == BLOCK:
            return block_order(relation_of(self.table))
        columns = bounds["columns"]
        name = json.dumps([by, columns])
        if name not in self._orders:
            found = column_order(session, self.table, relation_of(self.table), by, columns)
            if found is None or list(found.fingerprint) != bounds["types"]:
                now = ", ".join(found.fingerprint) if found else "none that can be compared"
                raise portl.SchemaError(
                    f"{session.label}: the run was cut into ranges of {', '.join(columns)} as "
                    f"{', '.join(bounds['types'])}, and the type is {now} by now",
                    hint="run the job with `--restart` to begin again",
                )
            self._orders[name] = found
        return self._orders[name]

    def copy(
        self, session: Session, fields: Sequence[Field], format: Format, bounds: Mapping[str, Any] | None = None
    ) -> str:
        """Return the COPY that reads some fields."""
        options = "FORMAT binary" if format.name == BINARY else text_options(session)
        return f"COPY ({self.select(session, fields, bounds)}) TO STDOUT ({options})"

    def rest(self, session: Session, reading: Reading, rows: int) -> Chunk | None:
        """Return the remainder of a chunk after its first ``rows`` rows; None if nothing is left."""
        chunk = reading.chunk
        assert chunk.bounds is not None, "only what has bounds is divisible"
        order = self.order(session, chunk.bounds)
        texts = ", ".join(f"pg_catalog.format('%s', {expression})" for expression in order.expressions)
        conditions = filter(None, [order.condition(chunk.bounds), *self._conditions])
        found = session.query(
            f"SELECT {texts} FROM {self.origin} WHERE {' AND '.join(conditions) or 'true'}"
            f" ORDER BY {order.sorting} OFFSET {rows} LIMIT 1",
            what="looking for the rest of a chunk",
        )
        if not found:
            return None
        left = None if chunk.rows is None else max(0, chunk.rows - rows)
        return attrs.evolve(chunk, bounds={**chunk.bounds, "from": list(found[0])}, rows=left)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What identifies the rows, except for their database, as plain data."""
        config = self.config
        chosen = None if config.columns is None else list(config.columns)
        return {
            "schema": config.schema,
            "table": config.table,
            "query": config.query,
            "where": config.where,
            "columns": chosen,
            "exclude_columns": list(config.exclude_columns),
            "limit": config.limit,
            **({"only": True} if config.only else {}),
            "split_by": config.split_by,
            "row_security": config.row_security.value,
        }


def origin(config: PostgresSourceConfig) -> str:
    """Return what follows FROM for a table."""
    return ("ONLY " if config.only else "") + quoted(config.schema, config.table or "")


def search_path(config: PostgresSourceConfig) -> str:
    """Return an expression for the search path with the job's schema first."""
    own = f"quote_ident({literal(config.schema)})"
    path = "current_setting('search_path')"
    # An empty path is printed as an empty quoted name.
    return f"{own} || CASE WHEN btrim({path}) NOT IN ('', '\"\"') THEN ', ' || {path} ELSE '' END"
