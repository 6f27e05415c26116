"""Tell the state that a run reads from later ones, and whether chunks of an earlier run are still valid.

A block range identifies physical positions, and an UPDATE moves a row: into a chunk that is done, or out of one that is
not. The snapshot of the earlier attempt tells which row versions are newer (manual, 9.27.8), and the table's counters
whether these were inserted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from portl import ChunkLine, ChunkState, Finding, Run, SchemaError, Table, problem, warning
from portl_postgres.catalog.tables import table_details
from portl_postgres.session.session import Session
from portl_postgres.source.ranges import BLOCK
from portl_postgres.sql.text import bound

_SNAPSHOT = (
    "SELECT pg_catalog.txid_current_snapshot()::text,"
    " to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC'"
)
_COUNTERS = (
    "SELECT $1, pg_catalog.pg_relation_filenode($1)::bigint, pg_catalog.pg_stat_get_tuples_inserted($1),"
    " pg_catalog.pg_stat_get_tuples_updated($1), pg_catalog.pg_stat_get_tuples_deleted($1)"
)

_RESTART = "run the job with `--restart` to begin again"


def taken(session: Session, table: Table | None) -> Mapping[str, Any]:
    """Return the transaction's snapshot, when it was taken, and facts about the table, if there is one."""
    ((snapshot, when),), *facts = session.looking(look(table), what="looking at the snapshot")
    found: dict[str, Any] = {"snapshot": snapshot, "taken": when}
    for ((oid, filenode, inserted, updated, deleted),) in facts:
        found["table"] = {"oid": oid, "file": filenode, "inserted": inserted, "updated": updated, "deleted": deleted}
    return found


def look(table: Table | None) -> list[str]:
    """Return what ``taken`` asks ``Session.looking`` for."""
    of_table = [bound(_COUNTERS, table_details(table).oid)] if table is not None and table.kind != "query" else []
    return [_SNAPSHOT, *of_table]


def check_not_rewritten(session: Session, label: str) -> None:
    """Refuse what was read if TRUNCATE or ALTER has given a table a new file since the snapshot was taken.

    Such a file looks empty to the snapshot, without an error (manual, 13.6). This backend holds locks on every table
    that was read, including partitions and tables behind views and queries; under the snapshot, pg_class has the old
    file, pg_relation_filenode the new one.
    """
    rewritten = session.query(
        "SELECT DISTINCT c.oid::regclass::text FROM pg_catalog.pg_locks AS l"
        " JOIN pg_catalog.pg_class AS c ON c.oid = l.relation"
        " WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND c.relkind IN ('r', 'm')"
        " AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())"
        " AND c.relfilenode <> 0 AND c.relfilenode <> pg_catalog.pg_relation_filenode(c.oid)",
        what="checking what was read",
    )
    if rewritten:
        raise SchemaError(
            f"{label}: {rewritten[0][0]} was truncated or rewritten while the run had its snapshot: "
            "rows of that snapshot could not be seen",
            hint="run the job again while nobody truncates or alters the table",
        )


def findings(
    session: Session,
    table: Table,
    from_: str,
    lines: Sequence[ChunkLine],
    run: Run,
    *,
    repeatable: bool,
) -> list[Finding]:
    """Return what prevents a run from being resumed, or what the user should know about it.

    Args:
        session: in the reading transaction.
        table: that of the source.
        from_: what follows FROM, without conditions.
        lines: the run's chunk lines.
        run: with the snapshots of earlier attempts.
        repeatable: True if writing a row twice does no harm.
    """
    now = taken(session, table)
    blocks = any(_by(line) == BLOCK for line in lines)
    if blocks and (moved := _rewritten(table, run, now)):
        return [moved]
    by_attempt: dict[int, list[int]] = {}
    for line in lines:
        if line.state is not ChunkState.PENDING:
            by_attempt.setdefault(line.attempt, []).append(line.number)
    found = []
    for attempt, numbers in sorted(by_attempt.items()):
        before = run.snapshots.get(attempt, {})
        if not before.get("snapshot") or before["snapshot"] == now["snapshot"]:
            continue
        if blocks and not repeatable and (finding := _moved(session, table, from_, before, now)):
            return [finding]
        found.append(
            warning(
                "source",
                f"{_named(numbers)} copied from the state of {before.get('taken', 'an earlier attempt')}; "
                "what the source changed since is not in what was copied then",
                "`resume: recopy` copies it again",
            )
        )
    return found


def _rewritten(table: Table, run: Run, now: Mapping[str, Any]) -> Finding | None:
    """Return a problem if the run's blocks are no longer those of the table."""
    for snapshot in run.snapshots.values():
        before = snapshot.get("table", {})
        if any(before.get(fact) != now["table"][fact] for fact in ("oid", "file")):
            return problem(
                "source",
                f"{table.name} was rewritten or created again since the run began (TRUNCATE, VACUUM FULL, CLUSTER,"
                " ALTER TABLE, REFRESH): the run's block ranges are no longer valid",
                _RESTART,
            )
    return None


def _moved(
    session: Session, table: Table, from_: str, before: Mapping[str, Any], now: Mapping[str, Any]
) -> Finding | None:
    """Return a problem if rows may have moved between blocks since an earlier snapshot."""
    younger, doubtful = _younger(session, from_, before["snapshot"])
    if not younger and not doubtful:
        return None
    old, new = before.get("table", {}), now["table"]
    same = all(old.get(counter) == new[counter] for counter in ("updated", "deleted"))
    # Counters lag behind, and a crash resets them: trust them only if they account for every row found.
    if same and younger <= new["inserted"] - old["inserted"]:
        return None
    return problem(
        "source",
        f"{younger + doubtful:,} row version{'s' * (younger + doubtful != 1)} of {table.name} may be younger than the "
        f"state of {before.get('taken')} that the run began with: rows that were updated may have moved from one block "
        "range to another, so that resuming could lose or duplicate them",
        f"{_RESTART}; a table with a primary key is split by key ranges, which updates do not affect",
    )


def _younger(session: Session, from_: str, snapshot: str) -> tuple[int, int]:
    """Count the row versions that a snapshot does not see, and those for which that is uncertain.

    A snapshot does not list subtransactions, so anything between its oldest and its next transaction may be newer. xmin
    has 32 bits: the latest transaction with these bits that is not in the future is assumed (frozen ones are older, and
    a wrong guess for them errs on the side of refusing).
    """
    ((younger, doubtful),) = session.query(
        "SELECT count(*) FILTER (WHERE NOT pg_catalog.txid_visible_in_snapshot(x, $1::text::pg_catalog.txid_snapshot)),"
        " count(*) FILTER (WHERE pg_catalog.txid_visible_in_snapshot(x, $1::text::pg_catalog.txid_snapshot))"
        " FROM (SELECT top - ((top - low) & 4294967295) AS x"
        f" FROM (SELECT xmin::text::bigint AS low FROM {from_}) AS portl_lows"
        " CROSS JOIN (SELECT pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot()) AS top) AS portl_now"
        " WHERE low > 2) AS portl_rows"
        " WHERE x >= pg_catalog.txid_snapshot_xmin($1::text::pg_catalog.txid_snapshot)",
        snapshot,
        what="looking for rows that have changed",
    )
    return younger, doubtful


def _by(line: ChunkLine) -> object:
    bounds = line.bounds or {}
    # The line of a partly finished chunk has the bounds of the whole and of the remainder.
    inner = bounds.get("chunk", bounds)
    return inner.get("by") if isinstance(inner, Mapping) else None


def _named(numbers: Sequence[int]) -> str:
    """Return ``chunks 1 to 5 and 7 were``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    text = texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
    return f"chunk {text} was" if len(numbers) == 1 else f"chunks {text} were"
