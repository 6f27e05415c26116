"""Check what prevents a job from reading a table or query, and what the user should know beforehand."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import portl
from portl import Field, Finding, Table
from portl_postgres.catalog import tables as catalog
from portl_postgres.config import PostgresSourceConfig, RowSecurity
from portl_postgres.session.first import look_ahead
from portl_postgres.session.session import Session
from portl_postgres.source.queries import INSUFFICIENT_PRIVILEGE, Describer
from portl_postgres.source.ranges import relation_of
from portl_postgres.sql.text import Unbalanced, check_expression, quoted

_HIDES = "would silently hide rows from this role"
SEE_ALL = (
    "use the owner or a role with BYPASSRLS; or, to copy only the rows that the role may see, set "
    "`source.row_security: on`"
)


class SourceExaminer:
    """Examines what a job is about to read.

    Args:
        session: inside the reading transaction.
        config: what to read.
        table: the same, as described by the server.
        describer: asks the server about expressions.
    """

    def __init__(self, session: Session, config: PostgresSourceConfig, table: Table, describer: Describer) -> None:
        self._session = session
        self._config = config
        self._table = table
        self._describer = describer
        #: The server's row estimate; None if not asked for.
        self.expected: int | None = None

    def examine(
        self, fields: Sequence[Field], *, origin: str, rows: str, select: str, next_looks: Sequence[Sequence[str]]
    ) -> list[Finding]:
        """Return the findings.

        Args:
            fields: the fields to read.
            origin: what follows FROM.
            rows: the same with the job's condition.
            select: the statement that reads the rows.
            next_looks: what ``Session.looking`` will be asked for after that.
        """
        findings = self._where(rows) if self._config.where is not None else []
        if self._config.split_by is not None:
            findings += self._split_by(self._config.split_by, origin)
        findings += self._query() if self._is_query else self._relation(fields)
        if not any(finding.severity is portl.Severity.PROBLEM for finding in findings):
            findings += self._reading(select, next_looks)
        return findings

    def _query(self) -> list[Finding]:
        rows = self._session.query("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user")
        if not rows or not rows[0][0]:
            return []
        return [
            portl.warning(
                "source",
                "the query runs as a superuser, who can reach the server's files even in a read-only transaction",
                "use a role that may only read",
            )
        ]

    def _relation(self, fields: Sequence[Field]) -> list[Finding]:
        table = self._table
        found = catalog.table_details(table)
        findings = []
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
            findings.append(self._hidden(f"row security on {table.name}"))
        if found.children:
            findings.append(
                portl.warning(
                    "source",
                    f"the rows of its child tables ({', '.join(found.children)}) are read with {table.name}: a job for"
                    " one of them copies its rows a second time",
                    f"to read it alone, use the query SELECT * FROM ONLY {quoted(found.schema, found.name)}",
                )
            )
        return findings

    def _reading(self, select: str, next_looks: Sequence[Sequence[str]]) -> list[Finding]:
        """Let the server plan the query, which checks privileges and row security of everything behind it."""
        statement = f"EXPLAIN (FORMAT JSON) {select}"
        look_ahead(self._session, [_planning(statement, "off"), *next_looks])
        refusal = self._refusal(statement)
        if refusal is None:
            return []
        if refusal.sqlstate == INSUFFICIENT_PRIVILEGE:
            if self._refusal(statement, row_security="on") is None:
                said = not self._is_query and catalog.table_details(self._table).row_security
                return [] if said else [self._hidden("row security on a table that is read here")]
            return [portl.problem("source", refusal.message, self._schema_remedy() or refusal.hint)]
        return [portl.problem("source", refusal.message, refusal.hint)]

    @property
    def _is_query(self) -> bool:
        return self._table.kind == "query"

    def _hidden(self, what: str) -> Finding:
        """Return the finding for policies that hide rows."""
        if self._config.row_security is RowSecurity.ON:
            return portl.warning("source", f"{what} decides which rows this role sees: no others are copied")
        return portl.problem("source", f"{what} {_HIDES}", SEE_ALL)

    def _schema_remedy(self) -> str | None:
        """Return the remedy if the role may not even use the schema, otherwise None."""
        if self._is_query:
            return None
        schema = catalog.table_details(self._table).schema
        ((usage,),) = self._session.query(
            "SELECT pg_catalog.has_schema_privilege($1, 'USAGE')", schema, what="looking at the schema"
        )
        return None if usage else f"GRANT USAGE ON SCHEMA {quoted(schema)} TO the role"

    def _refusal(self, statement: str, row_security: str = "off") -> portl.Error | None:
        """Execute a statement, undo it, and return the error, if any."""
        try:
            _, plan = self._session.looking(_planning(statement, row_security), what="planning the reading")
            self.expected = expected_rows(plan)
        except (portl.ConnectionFailed, portl.Cancelled):
            raise
        except portl.Error as error:
            return error
        return None

    def _where(self, rows: str) -> list[Finding]:
        remedy = "write one condition, without the word WHERE"
        try:
            check_expression(self._config.where or "")
        except Unbalanced as error:
            return [portl.problem("source.where", str(error), remedy)]
        refusal = self._describer.column(f"SELECT 1 AS one FROM {rows}")
        return [portl.problem("source.where", refusal, remedy)] if isinstance(refusal, str) else []

    def _split_by(self, name: str, origin: str) -> list[Finding]:
        table = self._table
        if name not in table.by_name:
            near = difflib.get_close_matches(name, table.by_name, n=1)
            said = f"{table.name} has no column {name!r}"
            remedy = f"did you mean {near[0]!r}?" if near else f"its columns: {', '.join(table.by_name)}"
            return [portl.problem("source.split_by", said, remedy)]
        column = f"{relation_of(table)}.{quoted(name)}"
        refusal = self._describer.column(f"SELECT 1 AS one FROM {origin} ORDER BY {column}")
        if isinstance(refusal, str):
            return [portl.problem("source.split_by", refusal, "name a column whose values can be sorted")]
        return []


def _planning(statement: str, row_security: str) -> list[str]:
    return [f"SET LOCAL row_security = {row_security}", statement]


def expected_rows(plan: Sequence[tuple[Any, ...]]) -> int:
    """Return the server's row estimate, from EXPLAIN (FORMAT JSON)."""
    return max(0, int(plan[0][0][0]["Plan"]["Plan Rows"]))
