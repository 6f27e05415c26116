"""Name the holders of locks that a statement waits for."""

from __future__ import annotations

from portl_postgres.session.watchdog import Vigil
from portl_postgres.sql.text import literal

#: The holders of locks on relations that a statement names, strongest first; plain reads block no one.
_HOLDERS = """
    SELECT 'process ' || l.pid, nullif('(' || a.application_name || ')', '()'), a.state, 'with ' || l.mode, 'on',
        c.oid::regclass
    FROM pg_catalog.pg_locks AS l
    JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
    JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.granted AND l.pid <> {backend} AND l.mode <> 'AccessShareLock' AND c.relkind IN ('r', 'p', 'm', 'f')
        AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
        AND strpos({statement}, c.relname) > 0
    ORDER BY l.mode NOT LIKE '%Exclusive%', l.mode LIKE 'Row%', a.xact_start
    LIMIT 3
"""


def holders_of(vigil: Vigil, waiting: str) -> str | None:
    """Return who holds locks on the relations that a statement names, for display; None if unknown.

    Args:
        vigil: that of the session that waited for them.
        waiting: the statement.
    """
    rows = vigil.ask(_HOLDERS.format(statement=literal(waiting), backend=vigil.backend))
    found = [" ".join(value.decode(errors="replace") for value in row if value) for row in rows or []]
    return f"locks are held there by {', and by '.join(found)}" if found else None
