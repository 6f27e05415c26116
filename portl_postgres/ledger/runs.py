"""The statements that record, read and remove runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from psycopg import sql

import portl
from portl_postgres.ledger.location import Location
from portl_postgres.session.session import Session
from portl_postgres.sql.text import Expression, bound, literal

logger = logging.getLogger("portl.postgres")

_SAVED = "portl_ledger"


def new_run(place: Location, *values: str | int | Sequence[int] | Sequence[str | None] | None) -> str:
    """Return the statement that records a new run and its chunks.

    Args:
        place: the location.
        values: the parameters, in the order of the columns below; then the ledger's table, host, process, version,
            idempotency key, the numbers and the bounds of its chunks, and its tables.
    """
    # The run started last must sort last: a clock that was set back must not hide it.
    written = (
        f"WITH run AS (INSERT INTO {place.of_migrations} (id, job, identity, fingerprint, attempt, state,"
        " source, destination, snapshots, resumable, incarnation, ledger, started, taken, host, pid, version,"
        " idempotency_key, tables)"
        " VALUES ($1::uuid, $2, $3::json, $4, $5, $6, $7, $8, $9::json, $10, $11, $12::regclass::oid,"
        " greatest(pg_catalog.statement_timestamp(), (SELECT max(started) + interval '1 microsecond'"
        f" FROM {place.of_migrations} WHERE job = $2)), pg_catalog.statement_timestamp(), $13, $14, $15,"
        " $16, $19::json)"
        " RETURNING id)"
        f" INSERT INTO {place.of_chunks} (run, number, bounds)"
        " SELECT run.id, n, b::json FROM run, unnest($17::int4[], $18::text[]) AS c(n, b)"
    )
    return filled(written, *values)


def filled(statement: str, *values: object) -> str:
    """Return a statement with constants for its parameters."""
    return bound(statement, *(Expression(sql.Literal(value).as_string(None)) for value in values))


def standing(places: Sequence[Location], job: str | None, *, latest: bool, idempotency_key: str | None) -> list[str]:
    """Return two queries for each location: for the rows of runs, and for those of their chunks.

    Args:
        places: the locations.
        job: the runs' job, as stored; None for any.
        latest: True for the latest run only.
        idempotency_key: the runs' key, as stored; None for any.
    """
    wanted = "" if job is None else f" WHERE job = {literal(job)}"
    if idempotency_key is not None:
        wanted += f" AND idempotency_key = {literal(idempotency_key)}"
    order = f"{wanted} ORDER BY started DESC, id{' LIMIT 1' if latest else ''}"
    queries = []
    for place in places:
        queries += [
            f"SELECT pg_catalog.row_to_json(m)::text, m.tableoid::text FROM {place.of_migrations} AS m{order}",
            f"SELECT pg_catalog.row_to_json(c)::text FROM {place.of_chunks} AS c"
            f" WHERE run IN (SELECT id FROM {place.of_migrations} AS m{order}) ORDER BY run, number",
        ]
    return queries


def taken_over(place: Location) -> str:
    """Return the statement for a new attempt: $1 run, $2 attempt, $3 snapshots, $4 state, $5 to $7 process, $8 key."""
    return (
        f"UPDATE {place.of_migrations} SET attempt = $2, snapshots = $3::json, state = $4, ended = NULL,"
        " error = NULL, taken = pg_catalog.clock_timestamp(), host = $5, pid = $6, version = $7,"
        " idempotency_key = $8 WHERE id = $1::uuid"
    )


def closed(place: Location, mark: str | None) -> str:
    """Return the statement that ends an attempt: $1 run, $2 attempt, $3 state, $4 error.

    Args:
        place: where the run stands.
        mark: what the server says if the statement fails because the attempt was superseded; None: it changes nothing.
    """
    written = (
        f"UPDATE {place.of_migrations} AS m SET state = $3, ended = pg_catalog.clock_timestamp(), error = $4,"
        " total_rows = t.rows, total_bytes = t.bytes, total_rejected = t.rejected"
        " FROM (SELECT coalesce(sum(rows), 0)::int8 AS rows, coalesce(sum(bytes), 0)::int8 AS bytes,"
        f" coalesce(sum(rejected), 0)::int8 AS rejected FROM {place.of_chunks} WHERE run = $1::uuid) AS t"
        " WHERE m.id = $1::uuid AND m.attempt = $2"
    )
    if mark is None:
        return written
    # No constant: the planner would evaluate it.
    refusal = f"({literal(mark)} || count(*))::int4"
    return (
        f"WITH written AS ({written} RETURNING 1) SELECT CASE WHEN count(*) = 1 THEN 1 ELSE {refusal} END FROM written"
    )


def forgotten(place: Location) -> str:
    """Return the statement that removes all runs of job $1, and counts them."""
    return (
        f"WITH gone AS (DELETE FROM {place.of_migrations} WHERE job = $1 RETURNING id), lines AS"
        f" (DELETE FROM {place.of_chunks} AS c USING gone WHERE c.run = gone.id)"
        " SELECT count(*) FROM gone"
    )


def attempted(session: Session, statements: Sequence[str]) -> list[list[tuple[Any, ...]]] | None:
    """Execute statements in the open transaction in one round trip; return their rows, or None if one failed."""
    try:
        found = session.queries([f"SAVEPOINT {_SAVED}", *statements, f"RELEASE SAVEPOINT {_SAVED}"], what="the ledger")
    except (portl.ConnectionFailed, portl.Cancelled):
        raise
    except portl.Error as error:
        logger.debug("%s: %s", session.label, error.message)
        session.queries([f"ROLLBACK TO SAVEPOINT {_SAVED}", f"RELEASE SAVEPOINT {_SAVED}"], what="the ledger")
        return None
    return found[1:-1]
