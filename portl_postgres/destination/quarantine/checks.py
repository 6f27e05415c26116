"""Check, before a run, whether rejected rows could be quarantined."""

from __future__ import annotations

from collections.abc import Iterator

import portl
from portl import Finding, Intent
from portl_postgres.catalog.tables import shown
from portl_postgres.config import check_name
from portl_postgres.destination.quarantine.file import writable
from portl_postgres.destination.quarantine.table import insist, relation, table_name
from portl_postgres.session.session import Session
from portl_postgres.sql.text import quoted
from portl_postgres.wire.batches import BINARY
from portl_postgres.wire.server_route import carried


def examine(session: Session, intent: Intent) -> list[Finding]:
    """Return what prevents rows from being quarantined. Writes nothing."""
    if intent.quarantine is None:
        return []
    schema, name = table_name(intent)
    try:
        check_name("quarantine.table", name)
    except portl.FieldError as error:
        return [portl.problem("quarantine.table", error.text)]
    findings = list(_reachable(session, schema, name))
    if carried(intent.format).name == BINARY:
        ((may,),) = session.query("SELECT has_database_privilege(current_database(), 'TEMPORARY')")
        if not may:
            findings.append(
                portl.problem(
                    "quarantine",
                    "the role may not create the temporary table by which binary rows are spelled out",
                    "GRANT TEMPORARY ON DATABASE … TO the role, or use `route: rows`",
                )
            )
    return findings + writable(intent.quarantine.file)


def _reachable(session: Session, schema: str, name: str) -> Iterator[Finding]:
    table = quoted(schema, name)
    if relation(session, table):
        try:
            insist(session, schema, name)
        except portl.SchemaError as error:
            yield portl.problem("quarantine.table", error.message, error.hint)
        ((may,),) = session.query("SELECT has_table_privilege($1, 'INSERT')", table)
        if not may:
            text = f"the role may not INSERT into {shown(schema, name)}, where rejected rows go"
            yield portl.problem("quarantine", text, f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO the role")
        return
    rows = session.query("SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = $1", schema)
    if rows and not rows[0][0]:
        text = f"the role may not create the table {shown(schema, name)}, where rejected rows go"
        yield portl.problem("quarantine", text, f"GRANT CREATE ON SCHEMA {quoted(schema)} TO the role")
