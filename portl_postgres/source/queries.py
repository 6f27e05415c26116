"""Describe a query without executing it: the server parses it and describes its columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import psycopg
from psycopg import pq

import portl
from portl import Column, Kind, Table, Type
from portl_postgres.catalog import tables as catalog
from portl_postgres.session.errors import translate, words
from portl_postgres.session.session import Session
from portl_postgres.sql.text import QUERY_WORDS, Unbalanced, check_expression, first_word, quoted, without_end
from portl_postgres.wire.copy import flush, unfinished, wait_result

READ_ONLY_VIOLATION = "25006"
INSUFFICIENT_PRIVILEGE = "42501"
#: SQLSTATE classes of errors in the text of a query: feature, cardinality, data, schema, syntax.
_FAULT_CLASSES = ("0A", "21", "22", "3D", "3F", "42", "54")


class Describer:
    """Has the source's server describe queries and expressions.

    Args:
        session: inside the reading transaction.
        token: checked while waiting.
        label: which side this is, for messages.
    """

    def __init__(self, session: Session, token: portl.CancelToken, label: str) -> None:
        self._session = session
        self._token = token
        self._label = label

    def query(self, query: str) -> tuple[Table, str]:
        """Return the columns of a user's query, and what follows FROM to read it.

        Raises:
            QueryError: it is refused, or is not a query.
        """
        # Parse it alone first: the extended protocol accepts only a single, complete statement. Only such a statement
        # can safely be put into parentheses.
        self.statement(query)
        try:
            inner, word = without_end(query), first_word(query)
        except Unbalanced as error:
            raise self._query_error(str(error)) from None
        if word.upper() not in QUERY_WORDS:
            raise self._query_error(f"it begins with {word!r}")
        from_ = f"(\n{inner}\n) AS portl_query"
        described = self.statement(f"SELECT * FROM {from_}")
        names = [name for name, _, _ in described]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise self._query_error(f"it returns two columns called {twice[0]!r}; give one another name with AS")
        table = Table(
            name="query",
            columns=catalog.described_columns(self._session, described),
            dialect=catalog.DIALECT,
            kind="query",
        )
        return table, from_

    def statement(self, statement: str) -> list[tuple[str, int, int]]:
        """Return name, type and modifier of a statement's result columns, without executing it."""
        pgconn = self._session.pgconn
        self._answered(lambda: pgconn.send_prepare(b"portl_probe", statement.encode()))
        result = self._answered(lambda: pgconn.send_describe_prepared(b"portl_probe"))
        names = [(result.fname(i) or b"").decode() for i in range(result.nfields)]
        found = [(name, result.ftype(i), result.fmod(i)) for i, name in enumerate(names)]
        self._session.execute("DEALLOCATE portl_probe")
        if not found:
            raise self._query_error("it returns no columns: expected one SELECT, WITH, VALUES or TABLE")
        return found

    def _answered(self, send: Callable[[], None]) -> pq.abc.PGresult:
        """Send a message; return the answer. Non-blocking, as the server may wait for a lock on a table it names."""
        session, token = self._session, self._token
        session.check()
        with session.translated("describing the query"), unfinished(session):
            send()
            flush(session, token)
            result = wait_result(session)
            while wait_result(session) is not None:
                pass
        if result is None or result.status != pq.ExecStatus.COMMAND_OK:
            raise self._description_refused(result)
        return result

    def _description_refused(self, result: pq.abc.PGresult | None) -> portl.Error:
        """Return the error for a statement that could not be described."""
        session = self._session
        if result is None or session.broken:
            lost = psycopg.OperationalError(session.pgconn.get_error_message())
            return session.failure(lost, "describing the query")
        error = psycopg.errors.error_from_result(result)
        state = error.sqlstate or ""
        if state[:2] not in _FAULT_CLASSES and state != INSUFFICIENT_PRIVILEGE:
            return translate(error, f"{self._label}, describing the query", session.secrets)
        return self._query_error(session.scrubbed(words(error)), state)

    def _query_error(self, text: str, state: str | None = None) -> portl.QueryError:
        code = f" (SQLSTATE {state})" if state else ""
        return portl.QueryError(
            f"{self._label}: source.query is refused: {text}{code}",
            hint="expected one SELECT, WITH, VALUES or TABLE that reads only; try it in psql",
            sqlstate=state,
        )

    def column(self, statement: str) -> Column | str:
        """Return the single column of a statement, or why the server refuses it."""
        self._session.begin()
        try:
            return catalog.described_columns(self._session, self.statement(statement))[0]
        except portl.QueryError as error:
            refusal = error.message.split("refused: ", 1)[-1]
        finally:
            self._session.rollback()
        return refusal

    def cast(self, origin: str, column: Column, to: str, using: str | None) -> Column:
        """Return a column as it leaves the source after conversion.

        Args:
            origin: what follows FROM.
            column: the column before conversion.
            to: the type; values of a type unknown here leave as text, for the destination to parse.
            using: the user's expression; None for the column itself.

        Raises:
            SchemaError: the conversion is impossible.
        """
        try:
            check_expression(using or "")
            check_expression(to)
        except Unbalanced as error:
            raise portl.SchemaError(f"the conversion to {to!r} cannot be read: {error}") from None
        expression = f"({using})" if using else quoted(column.name)
        with_cast = f"SELECT CAST({expression} AS {to}) FROM {origin}"
        plain = f"SELECT {expression} FROM {origin}"
        for statement in (with_cast, plain):
            found = self.column(statement)
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


@contextmanager
def only_reading() -> Iterator[None]:
    """Explain a refused attempt to write: portl's transaction is read-only on purpose."""
    try:
        yield
    except portl.OperationError as error:
        if error.sqlstate != READ_ONLY_VIOLATION:
            raise
        raise portl.QueryError(
            error.message,
            hint="the source is only read: remove whatever writes or locks rows from the query",
            sqlstate=error.sqlstate,
        ) from None
