"""The statements that write chunk lines; they match nothing if the writing attempt has been superseded."""

from __future__ import annotations

from portl import ChunkState, RunState
from portl_postgres.ledger.location import Location
from portl_postgres.ledger.rows import COUNTS


def one_line(place: Location, *, shared: bool) -> str:
    """Return the statement that writes one line: $1 run, $2 attempt, $3 number, $4 bounds, $5 state, then the counts.

    Args:
        place: the location of the run.
        shared: True if several processes of one attempt may work on the chunk; the attempt, state and rows of the line
            that this one began with then follow as parameters.
    """
    first = 6 + len(COUNTS)
    running = f" AND state = '{RunState.RUNNING.value}'" if shared else ""
    began = f"(c.attempt, c.state, c.rows) = (${first}, ${first + 1}, ${first + 2})"
    unwritten = f" AND (c.attempt <> $2 OR {began})" if shared else ""
    counts = ", ".join(f"{name} = ${n}" for n, name in enumerate(COUNTS, 6))
    return (
        f"{_held(place, running)}"
        f" UPDATE {place.of_chunks} AS c SET attempt = $2, bounds = $4::json, state = $5, {counts},"
        " written = pg_catalog.clock_timestamp(),"
        " finished = CASE WHEN $5 = 'done' THEN pg_catalog.clock_timestamp() END"
        f" FROM held WHERE c.run = held.id AND c.number = $3{unwritten} RETURNING 1"
    )


def all_done(place: Location) -> str:
    """Return the statement for the lines of finished chunks: $1 run, $2 attempt, then arrays: numbers, counts."""
    counts = ", ".join(f"{name} = u.{name}" for name in COUNTS)
    arrays = ", ".join(f"${n}::int8[]" for n in range(4, 4 + len(COUNTS)))
    return (
        f"{_held(place, '')}"
        f" UPDATE {place.of_chunks} AS c SET attempt = $2, state = '{ChunkState.DONE.value}', {counts},"
        " written = pg_catalog.clock_timestamp(), finished = pg_catalog.clock_timestamp()"
        f" FROM held, unnest($3::int4[], {arrays}) AS u(number, {', '.join(COUNTS)})"
        " WHERE c.run = held.id AND c.number = u.number RETURNING 1"
    )


def _held(place: Location, condition: str) -> str:
    return (
        f"WITH held AS (SELECT id FROM {place.of_migrations} WHERE id = $1::uuid AND attempt = $2{condition} FOR SHARE)"
    )
