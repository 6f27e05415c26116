"""What is read, as SQL: the relation or query, the job's conditions, and the bounds of a chunk."""

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
    #: What stands behind FROM: a quoted name, or the query in parentheses.
    origin: str
    #: What bounds are bounds of, by kind and columns, as far as it was looked at.
    _orders: dict[str, Order] = attrs.field(factory=dict)
    #: Where the rows are that a mirror fetches; workers share it.
    places: Places | None = None
    #: What an incremental run reads of them; None: it is none.
    increment: Increment | None = None

    def select(
        self,
        session: Session,
        fields: Sequence[Field],
        bounds: Mapping[str, Any] | None = None,
        *,
        ordered: bool = True,
    ) -> str:
        """Return the SELECT of some fields. The other arguments are those of ``rows``."""
        columns = ", ".join(select_list.select_item(field) for field in fields)
        return f"SELECT {columns} FROM {self.rows(session, bounds, ordered=ordered)}"

    def rows(self, session: Session, bounds: Mapping[str, Any] | None = None, *, ordered: bool = True) -> str:
        """Return what follows FROM.

        Args:
            session: the source's.
            bounds: those of a chunk; None: all rows.
            ordered: whether a chunk's rows come in their order; all rows come as they do.
        """
        conditions = self._conditions
        tail = f" LIMIT {self.config.limit}" if self.config.limit is not None else ""
        if bounds is not None and bounds["by"] == portl.PLACES:
            assert self.places is not None, "the source has been aimed at them"
            conditions.insert(0, self.places.condition(bounds["part"]))
        elif bounds is not None:
            order = self.order(session, bounds)
            conditions.insert(0, order.condition(bounds))
            # A scan of blocks alone is in their order; with another condition an index may come before them.
            if ordered and (order.by == KEY or (order.by == BLOCK and self.where is not None)):
                tail = f" ORDER BY {order.sorting}{tail}"
        given = " AND ".join(filter(None, conditions))
        return f"{self.origin}{' WHERE ' + given if given else ''}{tail}"

    @property
    def _conditions(self) -> list[str]:
        return [f"(\n{self.where}\n)"] if self.where is not None else []

    @property
    def where(self) -> str | None:
        """The condition on the rows; None: all are read."""
        given, read = self.config.where, self.increment.condition if self.increment is not None else None
        return f"(\n{given}\n) AND {read}" if given is not None and read is not None else given or read

    def order(self, session: Session, bounds: Mapping[str, Any]) -> Order:
        """Return what bounds are bounds of.

        Raises:
            SchemaError: if they do not fit the source any more.
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
        """Return what is left of a chunk after its first ``rows`` rows; None if nothing is."""
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
        """Which rows these are, as plain data, but for the database that they are in."""
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
    """Return what stands behind FROM for a table."""
    return ("ONLY " if config.only else "") + quoted(config.schema, config.table or "")


def search_path(config: PostgresSourceConfig) -> str:
    """Return an expression for the search path with the schema of the job before all others."""
    own = f"quote_ident({literal(config.schema)})"
    path = "current_setting('search_path')"
    # An empty path is printed as the name without a letter.
    return f"{own} || CASE WHEN btrim({path}) NOT IN ('', '\"\"') THEN ', ' || {path} ELSE '' END"
