"""Read a table, a view or a query: one REPEATABLE READ, READ ONLY transaction from the first look to the last row."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import attrs
import psycopg
from psycopg import pq

import portl
from portl import (
    Chunk,
    ChunkLine,
    Column,
    Field,
    Finding,
    Format,
    Kind,
    Reading,
    RowBatch,
    RowCount,
    Run,
    Split,
    Splitting,
    Table,
    Type,
)
from portl_postgres.catalog import tables as catalog
from portl_postgres.catalog.tables import details, shown
from portl_postgres.config import PostgresSourceConfig
from portl_postgres.session import worker_sessions
from portl_postgres.session.database import Database
from portl_postgres.session.session import Session
from portl_postgres.source import snapshot as snapshots
from portl_postgres.source.checks import SourceExaminer, expected_rows
from portl_postgres.source.chunks import Splitter
from portl_postgres.source.queries import Describer
from portl_postgres.source.ranges import BLOCK, KEY, Order, block_order, column_order, relation_of
from portl_postgres.sql.text import Unbalanced, check_expression, literal, quoted
from portl_postgres.wire import select_list as expressions
from portl_postgres.wire import server_route as inside
from portl_postgres.wire.batches import BINARY, TEXT, CopyBatch
from portl_postgres.wire.column_codecs import CopiedRows, rows_loader
from portl_postgres.wire.copy import CopyOut
from portl_postgres.wire.messages import ended

#: A table or query of more rows than this (as the planner of the server guesses) is not counted, but estimated.
COUNT_ROWS = 5_000_000

READ_ONLY_VIOLATION = "25006"
logger = logging.getLogger("portl.postgres")

_TRANSACTION = "ISOLATION LEVEL REPEATABLE READ, READ ONLY"

#: Parallel workers, and scans that join others halfway, return rows in another order each time.
_IN_ORDER = ("SET LOCAL max_parallel_workers_per_gather = 0", "SET LOCAL synchronize_seqscans = off")

#: How versions answer to a snapshot that is gone: no such file, no such object, its process has ended.
_SNAPSHOT_GONE = ("22023", "42704", "55000")
SNAPSHOT_LOST = "22023"


class PostgresSource(portl.Source[PostgresSourceConfig]):
    """A table, a view or a query of PostgreSQL's."""

    def __init__(self, config: PostgresSourceConfig, handle: object | None = None) -> None:
        super().__init__(config, handle)
        self._database = Database(config, handle, "source")
        self._owns_database = True
        self._stack = ExitStack()
        self._session_: Session | None = None
        self._table: Table | None = None
        self._from = ""
        self._copying: CopyOut | None = None
        self._batches: Generator[CopyBatch, None, None] | None = None
        self._orders: dict[str, Order] = {}
        self._exported: str | None = None
        #: How many rows the server's planner expects; None: it was not asked.
        self._expected: int | None = None
        #: The snapshot that this worker session reads; None for a source that takes its own.
        self._snapshot: str | None = None
        #: Marks the connections of worker sessions in other processes.
        self._mark = worker_sessions.new_mark()
        #: True for what came out of a pickle.
        self._travelled = False
        self._lost = False
        self._database_here: inside.Database | None = None

    @property
    def _session(self) -> Session:
        assert self._session_ is not None, "open() comes first"
        return self._session_

    @classmethod
    def tables(cls, keys: Mapping[str, Any], context: portl.Context) -> Sequence[portl.TableEntry]:
        """See ``Source.tables``."""
        from portl_postgres.catalog import addresses

        return addresses.tables(keys, context, "source")

    def connect(self, context: portl.Context) -> None:
        """See ``Source.connect``."""
        self._database.begin(context)

    def open(self, context: portl.Context) -> None:
        """See ``Source.open``."""
        super().open(context)
        self._session_ = self._stack.enter_context(
            self._database.session(context, {"row_security": "off", "default_transaction_read_only": "on"})
        )
        if self._travelled:
            worker_sessions.wear(self._session, self._mark)
        self._stack.callback(self._end)
        settings = [*_IN_ORDER, f"SELECT set_config('search_path', {self._path()}, true)"]
        if self._session.nested:
            settings.insert(0, "SET LOCAL transaction_read_only = on")
        if self._snapshot is None:
            self._session.begin(_TRANSACTION, settings)
        else:
            self._session.begin(_TRANSACTION)
            self._take_over(self._snapshot)
            self._session.queries(settings)

    def _path(self) -> str:
        """Return an expression for the search path with the schema of the job before all others."""
        own = f"quote_ident({literal(self.config.schema)})"
        path = "current_setting('search_path')"
        # An empty path is printed as the name without a letter.
        return f"{own} || CASE WHEN btrim({path}) NOT IN ('', '\"\"') THEN ', ' || {path} ELSE '' END"

    def _take_over(self, snapshot: str) -> None:
        """Read what the source reads that this is a worker session of (manual, 9.27.5)."""
        try:
            self._session.execute(f"SET TRANSACTION SNAPSHOT {literal(snapshot)}", what="taking over the snapshot")
        except portl.Error as error:
            if error.sqlstate not in _SNAPSHOT_GONE:
                raise
            self._lost = True
            raise portl.ConnectionFailed(
                f"{self.label()}: the snapshot is lost that all connections read, for the one that took it has ended: "
                f"{error.message}",
                hint="what is copied stays; the same job, run again, goes on with a new snapshot",
                sqlstate=SNAPSHOT_LOST,
                transient=True,
            ) from None

    def _end(self) -> None:
        if self._session_ is None:
            return
        if self._session_.broken:
            return  # the server has rolled back
        try:
            if self._copying is not None:
                self._copying.read_out = False  # nothing is read after this
            if self._batches is not None:
                self._batches.close()  # ends a COPY that was left in the middle
            self._session_.rollback()
        except portl.Error as error:
            logger.warning("%s: ending the reading transaction failed: %s", self.label(), error.message)

    def close(self) -> None:
        """See ``Source.close``."""
        try:
            self._stack.close()
        finally:
            if self._owns_database:
                self._database.close()

    def label(self) -> str:
        """See ``Source.label``."""
        return self._database.label

    def describe(self) -> Table:
        """See ``Source.describe``."""
        if self._table is None:
            self._table = self._describe_table() if self.config.table is not None else self._describe_query()
        return self._table

    def _describe_table(self) -> Table:
        schema, name = self.config.schema, self.config.table or ""
        table = catalog.read_table(self._session, schema, name)
        if table is None:
            near = catalog.near_names(self._session, schema, name)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise portl.SchemaError(
                f"{self.label()}: there is no table or view {shown(schema, name)}",
                hint=f"{hint}the key `table` holds the name alone, and `schema` its schema (here {schema!r})",
            )
        self._from = quoted(schema, name)
        return table

    def _describe_query(self) -> Table:
        table, self._from = self._describer.query(self.config.query or "")
        return table

    @property
    def _describer(self) -> Describer:
        return Describer(self._session, self.context.token, self.label())

    def cast(self, column: Column, to: str, using: str | None) -> Column:
        """See ``Source.cast``. A type that is not known here leaves as text, for the destination to read."""
        try:
            check_expression(using or "")
            check_expression(to)
        except Unbalanced as error:
            raise portl.SchemaError(f"the conversion to {to!r} cannot be read: {error}") from None
        self.describe()
        expression = f"({using})" if using else quoted(column.name)
        with_cast = f"SELECT CAST({expression} AS {to}) FROM {self._from}"
        plain = f"SELECT {expression} FROM {self._from}"
        for statement in (with_cast, plain):
            found = self._describer.column(statement)
            if isinstance(found, Column):
                known = statement is with_cast
                return attrs.evolve(
                    column,
                    type=found.type if known else Type(kind=Kind.TEXT),
                    native=found.native if known else to,
                    details=found.details if known else None,
                    default=None,
                    identity=None,
                    generated=None,
                    collation=None,
                )
        raise portl.SchemaError(
            f"cannot convert to {to!r}{f' using {using!r}' if using else ''}: {found}",
            hint="name a type of PostgreSQL's, and in `using` an expression over the source's columns",
        )

    def examine(self, fields: Sequence[Field]) -> list[Finding]:
        """See ``Source.examine``."""
        looked = SourceExaminer(self._session, self.config, self.describe(), self._describer)
        select = self._select(fields) if fields else None
        found = looked.examine(fields, origin=self._from, rows=self._source(), select=select)
        if looked.expected is not None:
            self._expected = looked.expected
        return found

    def formats(self, fields: Sequence[Field]) -> Sequence[Format]:
        """See ``Source.formats``: binary where it means the same at the other side, text otherwise."""
        if any(details(field.target) is None for field in fields):
            return (portl.ROWS,)
        relays = self._relays(fields)
        server = self._server(fields, relays[0])
        return (*([server] if server is not None else []), *relays, portl.ROWS)

    def _server(self, fields: Sequence[Field], then: Format) -> Format | None:
        """Return the format for a destination in this very database; None if this is none that can be written to."""
        name = self._where.format
        if name is None or not fields:
            return None
        return inside.ServerFormat(
            name=name,
            route="server",
            reason="both sides are one database, and rows stay inside the server",
            obstacle="the source's connection is inside a transaction of the caller's"
            if self._session.nested
            else None,
            own_state=True,
            then=then,
            place=inside.place(self._session),
            own_sql=inside.own_sql(self.config, self.describe(), fields),
            converts=not all(expressions.keeps_value(field) for field in fields),
            select=self._select(fields),
        )

    @property
    def _where(self) -> inside.Database:
        """Which database this is."""
        if self._database_here is None:
            self._database_here = inside.database(self._session)
        return self._database_here

    @staticmethod
    def _relays(fields: Sequence[Field]) -> Sequence[Format]:
        obstacle = expressions.binary_obstacle(fields)
        text = Format(name=TEXT, route="relay", reason=f"COPY text passed through: {obstacle}")
        if obstacle is not None:
            return (text,)
        binary = Format(name=BINARY, route="relay", reason="COPY binary passed through undecoded")
        return (binary, attrs.evolve(text, reason="COPY text passed through"))

    def statement(self, fields: Sequence[Field], format: Format) -> str | None:
        """See ``Source.statement``."""
        return format.select if isinstance(format, inside.ServerFormat) else self._copy(fields, format)

    def _select(self, fields: Sequence[Field], bounds: Mapping[str, Any] | None = None, *, ordered: bool = True) -> str:
        columns = ", ".join(expressions.select_item(field) for field in fields)
        return f"SELECT {columns} FROM {self._source(bounds, ordered=ordered)}"

    def _source(self, bounds: Mapping[str, Any] | None = None, *, ordered: bool = True) -> str:
        """Return what follows FROM; ``ordered`` is about what has bounds."""
        self.describe()
        conditions = [f"(\n{self.config.where}\n)"] if self.config.where is not None else []
        tail = f" LIMIT {self.config.limit}" if self.config.limit is not None else ""
        if bounds is not None:
            order = self._order(bounds)
            conditions.insert(0, order.condition(bounds))
            # A scan of blocks alone is in their order; with another condition an index may come before them.
            if ordered and (order.by == KEY or (order.by == BLOCK and self.config.where is not None)):
                tail = f" ORDER BY {order.sorting}{tail}"
        given = " AND ".join(filter(None, conditions))
        return f"{self._from}{' WHERE ' + given if given else ''}{tail}"

    def _order(self, bounds: Mapping[str, Any]) -> Order:
        """Return what bounds are bounds of.

        Raises:
            SchemaError: if they do not fit the source any more.
        """
        table = self.describe()
        by = bounds["by"]
        if by == BLOCK:
            return block_order(relation_of(table))
        columns = bounds["columns"]
        name = json.dumps([by, columns])
        if name not in self._orders:
            found = column_order(self._session, table, relation_of(table), by, columns)
            if found is None or list(found.fingerprint) != bounds["types"]:
                now = ", ".join(found.fingerprint) if found else "none that can be compared"
                raise portl.SchemaError(
                    f"{self.label()}: the run was cut into ranges of {', '.join(columns)} as "
                    f"{', '.join(bounds['types'])}, and the type is {now} by now",
                    hint="run the job with `--restart`: it begins again",
                )
            self._orders[name] = found
        return self._orders[name]

    def _copy(self, fields: Sequence[Field], format: Format, bounds: Mapping[str, Any] | None = None) -> str:
        encoding = "SQL_ASCII" if self._unchecked else "UTF8"
        options = "FORMAT binary" if format.name == BINARY else f"FORMAT text, ENCODING '{encoding}'"
        return f"COPY ({self._select(fields, bounds)}) TO STDOUT ({options})"

    @property
    def _unchecked(self) -> bool:
        """True if this database holds bytes that need not be a text in any encoding."""
        return self._session.connection.info.parameter_status("server_encoding") == "SQL_ASCII"

    @contextmanager
    def _as_they_are(self, binary: bool) -> Iterator[None]:
        """Let bytes pass that are no UTF-8, for the destination to refuse their row, not the source the whole reading.

        Binary COPY has no encoding of its own: it converts to the client's (manual, COPY, ENCODING).
        """
        if not binary or not self._unchecked:
            yield
            return
        self._session.execute("SET LOCAL client_encoding = 'SQL_ASCII'")
        try:
            yield
        finally:
            if self.holds():
                self._session.execute("SET LOCAL client_encoding = 'UTF8'")

    def split(self, splitting: Splitting) -> Split:
        """See ``Source.split``."""
        table = self.describe()
        with self._only_reading():
            select = self._select(splitting.fields)
            return Splitter(self._session, table, self.config, self._from, select, splitting).split()

    def rest(self, reading: Reading, rows: int) -> Chunk | None:
        """See ``Source.rest``."""
        chunk = reading.chunk
        assert chunk.bounds is not None, "only what has bounds is divisible"
        order = self._order(chunk.bounds)
        texts = ", ".join(f"pg_catalog.format('%s', {expression})" for expression in order.expressions)
        conditions = [order.condition(chunk.bounds)]
        if self.config.where is not None:
            conditions.append(f"(\n{self.config.where}\n)")
        found = self._session.query(
            f"SELECT {texts} FROM {self._from} WHERE {' AND '.join(filter(None, conditions)) or 'true'}"
            f" ORDER BY {order.sorting} OFFSET {rows} LIMIT 1",
            what="looking for the rest of a chunk",
        )
        if not found:
            return None
        left = None if chunk.rows is None else max(0, chunk.rows - rows)
        return attrs.evolve(chunk, bounds={**chunk.bounds, "from": list(found[0])}, rows=left)

    def identity(self) -> Mapping[str, Any]:
        """See ``Source.identity``: which rows of which database, however it is reached."""
        config = self.config
        chosen = None if config.columns is None else list(config.columns)
        return {
            "system": self._system(),
            "database": self._where.name,
            "schema": config.schema,
            "table": config.table,
            "query": config.query,
            "where": config.where,
            "columns": chosen,
            "exclude_columns": list(config.exclude_columns),
            "limit": config.limit,
            "split_by": config.split_by,
        }

    def _system(self) -> str:
        """Return what tells this server and its standbys from others.

        A role may be kept from looking at the identifier; the database's oid and name are then all that there is.
        """
        found = self._where
        return found.system if found.system is not None else f"unknown, database {found.oid}"

    def snapshot(self) -> Mapping[str, Any]:
        """See ``Source.snapshot``."""
        return snapshots.taken(self._session, self.describe())

    def resumable(self, lines: Sequence[ChunkLine], run: Run, *, repeatable: bool) -> list[Finding]:
        """See ``Source.resumable``."""
        table = self.describe()
        return snapshots.findings(self._session, table, self._from, lines, run, repeatable=repeatable)

    @property
    def near(self) -> bool:
        """See ``Source.near``."""
        return self._session.near

    def room(self) -> int | None:
        """See ``Source.room``: the pool's connections but the one that is in use already."""
        most = self._database.most
        return most - 1 if most else None  # a pool's 0 is no limit

    def for_worker(self) -> PostgresSource | None:
        """See ``Source.for_worker``: it takes over the snapshot, and the table as it was described."""
        if isinstance(self.handle, psycopg.Connection) or self._session.nested:
            return None
        self.describe()
        if self._exported is None:
            # A worker session hands on the snapshot that it was given: both read the same.
            self._exported = (
                self._snapshot
                or self._session.query("SELECT pg_catalog.pg_export_snapshot()", what="exporting the snapshot")[0][0]
            )
        made = PostgresSource(self.config, self.handle)
        made._database, made._owns_database = self._database, False
        made._table, made._from, made._orders = self._table, self._from, dict(self._orders)
        made._snapshot, made._mark = self._exported, self._mark
        return made

    def end_workers(self) -> int:
        """See ``Source.end_workers``."""
        return worker_sessions.end(self._session, self._mark)

    def __getstate__(self) -> dict[str, Any]:
        """Leave connections behind: what comes out of the pickle opens its own."""
        if self.handle is not None:
            raise TypeError("a source on the caller's connection or pool cannot be pickled")
        kept = ("config", "_table", "_from", "_orders", "_snapshot", "_mark")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """See ``__getstate__``."""
        PostgresSource.__init__(self, state["config"])
        self.__dict__.update(state, _travelled=True)

    def holds(self) -> bool:
        """See ``Source.holds``."""
        session = self._session_
        if session is None or self._lost or session.broken:
            return False
        status = session.connection.info.transaction_status
        if status is pq.TransactionStatus.INTRANS:
            return not ended(session)  # not asked: another worker's thread may be about to use it
        return status is pq.TransactionStatus.ACTIVE

    def count(self, *, exact: bool) -> RowCount | None:
        """See ``Source.count``."""
        estimate = self._estimate()
        if not exact or estimate > COUNT_ROWS:
            return RowCount(rows=estimate, exact=False)
        with self._only_reading():
            rows = self._session.query(
                f"SELECT count(*) FROM (SELECT 1 FROM {self._source()}) AS portl_rows", what="counting the rows"
            )
        return RowCount(rows=rows[0][0], exact=True)

    def _estimate(self) -> int:
        """Return what the server's planner expects."""
        if self._expected is None:
            statement = f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {self._source()}"
            self._expected = expected_rows(self._session.query(statement, what="estimating the rows"))
        return self._expected

    def preview(self, fields: Sequence[Field], rows: int) -> list[tuple[str | None, ...]]:
        """See ``Source.preview``."""
        columns = ", ".join(
            f"({expressions.select_item(field, named=False)})::text AS c{number}" for number, field in enumerate(fields)
        )
        statement = f"SELECT {columns} FROM {self._source()}"
        with self._only_reading():
            return self._session.query(f"SELECT * FROM ({statement}) AS portl_preview LIMIT {rows}", what="the preview")

    @contextmanager
    def _only_reading(self) -> Iterator[None]:
        """Say what a refused attempt to write means: the transaction is portl's own, and read-only on purpose."""
        try:
            yield
        except portl.OperationError as error:
            if error.sqlstate != READ_ONLY_VIOLATION:
                raise
            raise portl.QueryError(
                error.message,
                hint="the source is only read: take what writes or locks rows out of the query",
                sqlstate=error.sqlstate,
            ) from None

    def rows(self) -> Iterable[tuple[Any, ...]]:
        """See ``Source.rows``; ``read`` is what the engine uses."""
        fields = [
            portl.Field(source=c, sent=c, target=c, conversion=portl.Conversion.of()) for c in self.describe().columns
        ]
        reading = Reading(fields=tuple(fields), format=portl.ROWS, chunk=portl.Chunk(), batch_rows=1000)
        for batch in self.read(reading):
            assert isinstance(batch, RowBatch)
            yield from batch.data

    def read(self, reading: Reading) -> Iterator[portl.Batch]:
        """See ``Source.read``."""
        bounds = reading.chunk.bounds
        if isinstance(reading.format, inside.ServerFormat):
            select = self._select(reading.fields, bounds, ordered=False)
            count = f"SELECT 1 FROM {self._source(bounds, ordered=False)}"
            yield inside.ServerBatch(number=1, first_row=1, rows=0, size=0, select=select, count=count)
            return
        statement = self._copy(reading.fields, reading.format, bounds)
        copy = CopyOut(self._session, statement, self.context.token, "reading", read_out=bounds is not None)
        binary = reading.format.name == BINARY
        batches = copy.batches(binary=binary, rows=reading.batch_rows, size=reading.batch_bytes)
        self._copying, self._batches = copy, batches
        with self._only_reading(), self._as_they_are(binary), closing(batches):
            if reading.format.name == portl.ROWS.name:
                yield from self._decoded(reading, batches)
            else:
                yield from batches
        snapshots.check_not_rewritten(self._session, self.label())

    @staticmethod
    def _decoded(reading: Reading, batches: Iterable[CopyBatch]) -> Iterator[RowBatch]:
        load = rows_loader([_sent_type(field) for field in reading.fields])
        for batch in batches:
            yield CopiedRows(batch, batch.bare, load)

    def comparer(self, intent: portl.Intent) -> portl.Comparer:
        """See ``Source.comparer``."""
        from portl_postgres.verification import comparer as verifying

        return verifying.SourceComparer(self._session, self.context.token, self._source(), self.label())

    def select(self, reading: Reading, key: Sequence[str], wanted: Mapping[portl.Texts, int]) -> Iterator[portl.Batch]:
        """See ``Source.select``."""
        from portl_postgres.verification import comparer as verifying

        statement = verifying.selection(reading.fields, key, wanted, self._source(), self._session.version)
        binary = reading.format.name == BINARY
        options = "FORMAT binary" if binary else "FORMAT text, ENCODING 'UTF8'"
        copy = CopyOut(self._session, f"COPY ({statement}) TO STDOUT ({options})", self.context.token, "reading")
        batches = copy.batches(binary=binary, rows=reading.batch_rows, size=reading.batch_bytes)
        yield from self._decoded(reading, batches) if reading.format.name == portl.ROWS.name else batches


def _sent_type(field: Field) -> Type:
    found = details(field.sent)
    if found is None or not expressions.keeps_type(field):
        return Type(kind=Kind.TEXT)
    return field.sent.type
