"""Choose a session's ledger, or explain why there is none."""

from __future__ import annotations

import portl
from portl import Finding, LedgerConfig, LedgerMode
from portl_postgres.config import check_name
from portl_postgres.ledger.ledger import PostgresLedger
from portl_postgres.ledger.location import candidates
from portl_postgres.session.session import Session


def ledger_of(
    session: Session, wanted: LedgerConfig, schema: str, token: portl.CancelToken
) -> PostgresLedger | Finding:
    """Return a session's ledger, or why there is none. Creates nothing.

    Args:
        session: that of the destination.
        wanted: the job's settings.
        schema: the destination's schema.
        token: the run's cancel token.

    Raises:
        LedgerError: the ledger cannot be read by this version of portl.
    """
    over = "a run that is interrupted starts over"
    if wanted.mode is LedgerMode.OFF:
        return portl.note("ledger", f"`ledger.mode` is off: {over}")
    required = wanted.mode is LedgerMode.REQUIRED
    if session.nested:
        if required:
            remedy = "hand in a connection without an open transaction, or leave `ledger.mode` at auto"
            return portl.problem("ledger", "there is none inside a transaction of the caller's", remedy)
        return portl.note("ledger", f"there is none inside a transaction of the caller's: {over}")
    if wanted.schema is not None:
        try:
            check_name("ledger.schema", wanted.schema)
        except portl.FieldError as error:
            return portl.problem("ledger.schema", error.text)
    found = PostgresLedger(session, candidates(wanted, schema), token)
    places = found.locations.look()
    if any(place.usable for place in places):
        return found
    whys, grants = zip(*(place.obstacle for place in places), strict=True)
    if (hidden := found.hidden()) is not None and not required:
        where, remedy = hidden
        said = f"{where}: if one of this job was interrupted, its rows would come twice"
        return portl.problem("ledger", said, f"{remedy}; or, to do without, set `ledger.mode` to off")
    if required:
        return portl.problem("ledger", f"none can be kept: {'; '.join(whys)}", "; or ".join(grants))
    return portl.note("ledger", f"there is none, and {over}: {'; '.join(whys)} ({'; or '.join(grants)})")
