"""Translate psycopg's errors into portl's: the one boundary that they cross.

Whether an error is transient is decided by its SQLSTATE (manual, appendix A) and by whether the connection is broken,
never by the server's text, which may be in any language. Secrets are removed from the text, and the cause is dropped: a
driver's exception may hold the connection, which knows the password.
"""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

import portl
from portl_postgres.session.connect_errors import HINT_UNREACHABLE

HINT_SILENT = (
    "something between here and the server swallows what is sent, or the server does not run; raise `network_timeout`"
    " if the way to it is that slow"
)
HINT_ENDED = "the server, or somebody with the right to, ended this session: it may be stopping or failing over"
HINT_STARTING = "the server is starting up or shutting down"
HINT_IDLE = (
    "a limit on idle sessions or on transactions ended this one; portl sets those it knows to 0, a pooler may not"
)
HINT_LOCK = "somebody else holds a lock there for longer than `lock_timeout` allows (pg_locks shows who)"

#: The session is gone, and a new one may succeed. Class 08 is of this kind too.
_LOST = {
    "57P01": HINT_ENDED,
    "57P02": HINT_ENDED,
    "57P03": HINT_STARTING,
    "25P03": HINT_IDLE,
    "25P04": HINT_IDLE,
    "57P05": HINT_IDLE,
}
#: The transaction failed, and a repetition may succeed.
_AGAIN = {
    "40001": "another transaction, or on a standby recovery, was in the way: the same again may go through",
    "40P01": "this transaction and another waited for each other, and the server chose this one to end",
    "55P03": HINT_LOCK,
    "57014": "the statement was cancelled, or took longer than `statement_timeout` allows",
    "53300": "the server, database or role has no connection slot left: use fewer connections, or raise the limit",
    "53200": "the server is out of memory: use fewer connections at once, smaller batches, or lower work_mem",
    "25006": "this server, role or transaction is read-only; after a failover, another server accepts writes",
}
#: Someone has to act first.
_REMEDIES = {
    "53100": "the disk is full; what a failed COPY has written stays there until VACUUM: make room, then run it again",
    "57P04": "the database was dropped",
}
#: Codes outside classes 22 and 23 that a single row can cause.
_ROW = {"42501", "44000", "54000", "P0001", "P0004"}
#: Server functions that refuse a row because of a policy, with the code of a missing privilege (execMain.c).
_CHECKS_ROWS = "ExecWithCheckOptions"
#: Server functions that refuse a value of more than 1 GB, with the code of an internal error.
_ALLOCATES = "mcxt.c"
HINT_TOO_LARGE = (
    "the server cannot produce a value of more than 1 GB, and bytea as text takes twice its size: leave the column out"
    " (`exclude_columns`), or use the binary format (`route: relay`)"
)

HINT_PRIVILEGE = (
    "the source's role needs SELECT; the destination's needs INSERT, and UPDATE and SELECT for overwrite and merge, "
    "CREATE on the schema to make a table, CREATE on the database to make a schema"
)
HINT_SCHEMA = "a dry run compares both sides: portl run JOB --dry-run; rename columns with `schema_mapping`"


def is_lost(error: psycopg.Error) -> bool:
    """Return whether the connection is gone."""
    state = error.sqlstate or ""
    if state in _LOST or state.startswith("08"):
        return True
    return not state and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))


def translate(error: psycopg.Error, where: str, secrets: Iterable[portl.Secret] = ()) -> portl.Error:
    """Return portl's error for one of the driver's.

    Args:
        error: what psycopg raised during a statement.
        where: which side, and what was being done.
        secrets: to be removed from the text.
    """
    state = error.sqlstate
    secrets = tuple(secrets)
    text = _scrubbed(words(error), secrets)
    message = f"{where}: {text}" + (f" (SQLSTATE {state})" if state else "")
    if is_lost(error):
        return portl.ConnectionFailed(
            message, hint=_LOST.get(state or "", HINT_UNREACHABLE), sqlstate=state, transient=True
        )
    if state == "42501" and error.diag.source_function != _CHECKS_ROWS:
        return portl.PermissionDenied(message, hint=HINT_PRIVILEGE, sqlstate=state)
    too_large = state == "XX000" and error.diag.source_file == _ALLOCATES
    if state is None or state[:2] in ("22", "23") or state in _ROW or too_large:
        found = _row_error(error, message, state)
        found.hint = HINT_TOO_LARGE if too_large else found.hint
        found.detail = _scrubbed(error.diag.message_detail, secrets)
        return found
    if state in ("42601", "42P18"):
        return portl.QueryError(message, hint="check the SQL in the job file", sqlstate=state)
    if state[:2] in ("42", "3F"):
        return portl.SchemaError(message, hint=HINT_SCHEMA, sqlstate=state)
    hint = _AGAIN.get(state) or _REMEDIES.get(state)
    return portl.OperationError(message, hint=hint, sqlstate=state, transient=state in _AGAIN)


def _scrubbed(text: str | None, secrets: Iterable[portl.Secret]) -> str:
    text = text or ""
    for secret in secrets:
        text = secret.scrub(text)
    return text


def _row_error(error: psycopg.Error, message: str, state: str | None) -> portl.DataError:
    diagnosis = error.diag
    conflict = state in ("23505", "23P01")
    cls = portl.ConflictError if conflict else portl.DataError
    hint = "use `conflict: overwrite`, `skip` or `merge` if such rows are expected" if conflict else None
    return cls(
        message,
        hint=hint,
        sqlstate=state,
        table=diagnosis.table_name,
        column=diagnosis.column_name,
        constraint=diagnosis.constraint_name,
    )


def words(error: psycopg.Error) -> str:
    """Return what the server said, without the position markers and the context."""
    diagnosis = error.diag
    primary = diagnosis.message_primary
    if not primary:
        return " ".join(str(error).split()) or type(error).__name__
    detail = f"; {diagnosis.message_detail}" if diagnosis.message_detail else ""
    advice = f" ({diagnosis.message_hint})" if diagnosis.message_hint else ""
    return f"{primary}{detail}{advice}"
