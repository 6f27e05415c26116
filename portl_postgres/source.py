"""Read a table, a view or a query: one REPEATABLE READ, READ ONLY transaction from the first look to the last row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import attrs
import psycopg
from psycopg import pq

import portl
from portl import Column, Field, Finding, Format, Kind, Reading, RowBatch, RowCount, Table, Type
from portl_postgres import catalog, expressions
from portl_postgres.catalog import details, shown
from portl_postgres.config import PostgresSourceConfig
from portl_postgres.connection import Database, Session
from portl_postgres.copying import BINARY, TEXT, CopyOut
from portl_postgres.rowtext import row_loader
from portl_postgres.sqltext import Unbalanced, check_expression, quoted, without_end

#: A table or query of more rows than this (as the planner of the server guesses) is not counted, but estimated.
COUNT_ROWS = 5_000_000
TEXT_TYPE_OID = 25

_TRANSACTION = "ISOLATION LEVEL REPEATABLE READ, READ ONLY"


class PostgresSource(portl.Source[PostgresSourceConfig]):
    """A table, a view or a query of PostgreSQL's."""

    def __init__(self, config: PostgresSourceConfig, handle: object | None = None) -> None:
        super().__init__(config, handle)
        self._database = Database(config, handle, "source")
        self._stack = ExitStack()
        self._session_: Session | None = None
        self._table: Table | None = None
        self._from = ""

    @property
    def _session(self) -> Session:
        assert self._session_ is not None, "open() comes first"
        return self._session_

    def open(self, context: portl.Context) -> None:
        """See ``Source.open``."""
        super().open(context)
        self._session_ = self._stack.enter_context(
            self._database.session(context, {"row_security": "off", "default_transaction_read_only": "on"})
        )
        self._stack.callback(self._end)
        self._session.begin(_TRANSACTION)
        if self._session.nested:
            self._session.execute("SET LOCAL transaction_read_only = on")
        (path,) = self._session.query("SELECT current_setting('search_path')")[0]
        own = quoted(self.config.schema)
        self._session.execute(f"SET LOCAL search_path = {', '.join(part for part in (own, path) if part)}")

    def _end(self) -> None:
        if self._session_ is not None:
            self._session_.rollback()

    def close(self) -> None:
        """See ``Source.close``."""
        try:
            self._stack.close()
        finally:
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
        query = self.config.query or ""
        # Parse alone first: the extended protocol takes one statement, and none that is not whole in itself. Only
        # then can it be put into parentheses without getting out of them.
        self._describe_statement(query)
        try:
            inner = without_end(query)
        except Unbalanced as error:
            raise self._query_error(str(error)) from None
        self._from = f"(\n{inner}\n) AS portl_query"
        described = self._describe_statement(f"SELECT * FROM {self._from}")
        names = [name for name, _, _ in described]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise self._query_error(f"it returns two columns called {twice[0]!r}; give one another name with AS")
        return Table(
            name="query",
            columns=catalog.described_columns(self._session, described),
            dialect=catalog.DIALECT,
            kind="query",
        )

    def _describe_statement(self, statement: str) -> list[tuple[str, int, int]]:
        """Return name, type and modifier of the columns that a statement returns, without executing it."""
        pgconn = self._session.pgconn
        for result in (pgconn.prepare(b"portl_probe", statement.encode()), pgconn.describe_prepared(b"portl_probe")):
            if result.status != pq.ExecStatus.COMMAND_OK:
                error = psycopg.errors.error_from_result(result)
                text = error.diag.message_primary or str(error)
                raise self._query_error(self._session.scrubbed(text), error.sqlstate)
        names = [(result.fname(i) or b"").decode() for i in range(result.nfields)]
        found = [(name, result.ftype(i), result.fmod(i)) for i, name in enumerate(names)]
        self._session.execute("DEALLOCATE portl_probe")
        if not found:
            raise self._query_error("it returns no columns: expected one SELECT, WITH, VALUES or TABLE")
        return found

    def _query_error(self, text: str, state: str | None = None) -> portl.QueryError:
        code = f" (SQLSTATE {state})" if state else ""
        return portl.QueryError(
            f"{self.label()}: source.query is refused: {text}{code}",
            hint="expected one SELECT, WITH, VALUES or TABLE that reads only; try it in psql",
            sqlstate=state,
        )

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
            found = self._try_described(statement)
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

    def _try_described(self, statement: str) -> Column | str:
        """Return the one column of a statement, or why the server refuses it."""
        self._session.begin()
        try:
            return catalog.described_columns(self._session, self._describe_statement(statement))[0]
        except portl.QueryError as error:
            refusal = error.message.split("refused: ", 1)[-1]
        finally:
            self._session.rollback()
        return refusal

    def examine(self, fields: Sequence[Field]) -> list[Finding]:
        """See ``Source.examine``."""
        table = self.describe()
        findings: list[Finding] = []
        if self.config.where is not None:
            findings += self._examine_where()
        if table.kind == "query":
            if self._is_superuser():
                findings.append(
                    portl.warning(
                        "source",
                        "the query runs as a superuser, who can reach the server's files even in a read-only transaction",
                        "use a role that may only read",
                    )
                )
            return findings
        found = catalog.table_details(table)
        unread = [f.source.name for f in fields if f.source.details and not f.source.details.may_select]
        if unread:
            findings.append(
                portl.problem(
                    "source",
                    f"the role may not read {table.name}" + ("" if not found.may_select else f" ({', '.join(unread)})"),
                    f"GRANT SELECT ON {quoted(found.schema, found.name)} TO the role",
                )
            )
        if found.row_security:
            findings.append(
                portl.problem(
                    "source",
                    f"row security on {table.name} would hide rows from this role without a word",
                    "use its owner or a role with BYPASSRLS, or write a query that says which rows are meant",
                )
            )
        if found.has_children:
            findings.append(portl.note("source", f"{table.name} has child tables; their rows are read with it"))
        return findings

    def _examine_where(self) -> list[Finding]:
        try:
            check_expression(self.config.where or "")
        except Unbalanced as error:
            return [portl.problem("source.where", str(error), "write one condition, without the word WHERE")]
        refusal = self._try_described(f"SELECT 1 AS one FROM {self._source()}")
        if isinstance(refusal, str):
            return [portl.problem("source.where", refusal, "write one condition, without the word WHERE")]
        return []

    def _is_superuser(self) -> bool:
        rows = self._session.query("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user")
        return bool(rows and rows[0][0])

    def formats(self, fields: Sequence[Field]) -> Sequence[Format]:
        """See ``Source.formats``: binary where it means the same at the other end, text otherwise."""
        if any(details(field.target) is None for field in fields):
            return (portl.ROWS,)
        obstacle = expressions.binary_obstacle(fields)
        text = Format(name=TEXT, route="relay", reason=f"COPY text passed through: {obstacle}")
        if obstacle is not None:
            return (text, portl.ROWS)
        binary = Format(name=BINARY, route="relay", reason="COPY binary passed through undecoded")
        return (binary, attrs.evolve(text, reason="COPY text passed through"), portl.ROWS)

    def statement(self, fields: Sequence[Field], format: Format) -> str | None:
        """See ``Source.statement``."""
        return self._copy(fields, format)

    def _select(self, fields: Sequence[Field]) -> str:
        columns = ", ".join(expressions.select_item(field) for field in fields)
        return f"SELECT {columns} FROM {self._source()}"

    def _source(self) -> str:
        """Return what follows FROM."""
        self.describe()
        where = f" WHERE (\n{self.config.where}\n)" if self.config.where is not None else ""
        limit = f" LIMIT {self.config.limit}" if self.config.limit is not None else ""
        return f"{self._from}{where}{limit}"

    def _copy(self, fields: Sequence[Field], format: Format) -> str:
        options = "FORMAT binary" if format.name == BINARY else "FORMAT text, ENCODING 'UTF8'"
        return f"COPY ({self._select(fields)}) TO STDOUT ({options})"

    def count(self, *, exact: bool) -> RowCount | None:
        """See ``Source.count``."""
        estimate = self._estimate()
        if not exact or estimate > COUNT_ROWS:
            return RowCount(rows=estimate, exact=False)
        rows = self._session.query(
            f"SELECT count(*) FROM (SELECT 1 FROM {self._source()}) AS portl_rows", what="counting the rows"
        )
        return RowCount(rows=rows[0][0], exact=True)

    def _estimate(self) -> int:
        """Return what the server's planner expects."""
        rows = self._session.query(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {self._source()}", what="estimating the rows")
        return max(0, int(rows[0][0][0]["Plan"]["Plan Rows"]))

    def preview(self, fields: Sequence[Field], rows: int) -> list[tuple[str | None, ...]]:
        """See ``Source.preview``."""
        columns = ", ".join(
            f"({expressions.select_item(field, named=False)})::text AS c{number}" for number, field in enumerate(fields)
        )
        statement = f"SELECT {columns} FROM {self._source()}"
        found = self._session.query(f"SELECT * FROM ({statement}) AS portl_preview LIMIT {rows}", what="the preview")
        return list(found)

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
        copy = CopyOut(self._session, self._copy(reading.fields, reading.format), self.context.token, "reading")
        binary = reading.format.name == BINARY
        batches = copy.batches(binary=binary, rows=reading.batch_rows, size=reading.batch_bytes)
        if reading.format.name != portl.ROWS.name:
            yield from batches
            return
        load = row_loader([_sent_type(field) for field in reading.fields])
        for batch in batches:
            data = [load(bytes(line[:-1])) for line in batch.split()]
            yield RowBatch(number=batch.number, first_row=batch.first_row, rows=batch.rows, size=batch.size, data=data)


def _sent_type(field: Field) -> Type:
    found = details(field.sent)
    if found is None or not expressions.keeps_type(field):
        return Type(kind=Kind.TEXT)
    return field.sent.type
