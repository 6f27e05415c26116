"""Which rows of a destination are mirrored, and what prevents it from being a mirror."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

import portl
from portl import Deletes, Intent, Kind, Mirroring
from portl_postgres.catalog.tables import table_details
from portl_postgres.session.session import Session
from portl_postgres.sql.text import bound, quoted, statement

#: What a foreign key does to rows that reference a deleted one, by pg_constraint.confdeltype.
_ACTIONS = {
    "c": "are deleted, too (ON DELETE CASCADE)",
    "n": "refer to none then (ON DELETE SET NULL)",
    "d": "refer to the default then (ON DELETE SET DEFAULT)",
}


@attrs.frozen(kw_only=True)
class Mark:
    """The column that marks rows as deleted, as SQL: assignments that set and clear it, and conditions that test it."""

    set: str
    cleared: str
    present: str
    absent: str

    @classmethod
    def of(cls, table: portl.Table, mirroring: Mirroring) -> Mark | None:
        """Return the mark of a table, or None if rows are not marked."""
        if mirroring.deletes is not Deletes.SOFT or mirroring.column is None:
            return None
        name = quoted(mirroring.column)
        if table.by_name[mirroring.column].type.kind is Kind.BOOLEAN:
            return cls(set=f"{name} = true", cleared=f"{name} = false", present=name, absent=f"{name} IS NOT TRUE")
        return cls(
            set=f"{name} = now()", cleared=f"{name} = NULL", present=f"{name} IS NOT NULL", absent=f"{name} IS NULL"
        )


def examine(session: Session, name: str, intent: Intent, mirroring: Mirroring) -> list[portl.Finding]:
    """See ``Destination.examine_mirror``.

    Args:
        session: that of the destination.
        name: the table's quoted name.
        intent: the job.
        mirroring: how it is mirrored.
    """
    kind = table_details(intent.target).kind
    if kind not in ("r", "p"):
        said = f"{intent.target.name} is a {intent.target.kind}, whose rows cannot be told apart"
        return [portl.problem("destination", said, "mirror a table")]
    findings = list(_followers(session, intent, mirroring))
    if mirroring.where is None:
        return findings
    try:
        session.looking([f"EXPLAIN SELECT FROM {mirrored_rows(name, intent, mirroring)}"], what="looking at `where`")
    except portl.Error as error:
        said = f"the condition has to hold for {intent.target.name} too, with the source's names: {error.message}"
        remedy = "use columns that are copied, with a form that both sides understand"
        findings.append(portl.problem("source.where", said, remedy))
    return findings


def _followers(session: Session, intent: Intent, mirroring: Mirroring) -> Iterator[portl.Finding]:
    """Warn about tables whose rows change when rows that they reference are deleted."""
    if mirroring.deletes is not Deletes.DELETE:
        return
    oid = table_details(intent.target).oid
    (rows,) = session.bare([bound(statement("followers"), oid)], what="looking at what refers to the table")
    for table, action in rows:
        said = f"rows of {table} that refer to a deleted row {_ACTIONS[action]}"
        yield portl.warning("mode", said, "drop the foreign key, or use `mirror: {deletes: keep}`, if that must not be")


def mirrored_rows(name: str, intent: Intent, mirroring: Mirroring) -> str:
    """Return what follows FROM for the destination's rows that are mirrored; the arguments are those of ``examine``."""
    conditions = []
    mark = Mark.of(intent.target, mirroring)
    if mark is not None:
        conditions.append(mark.absent)
    relation = quoted(table_details(intent.source).name) if intent.source.kind != "query" else "portl_query"
    if mirroring.where is not None and any(f.source.name != f.target.name for f in intent.fields):
        # The condition uses the source's names.
        columns = ", ".join(f"portl_there.{quoted(f.target.name)} AS {quoted(f.source.name)}" for f in intent.fields)
        conditions.append(f"EXISTS (SELECT FROM (SELECT {columns}) AS {relation} WHERE (\n{mirroring.where}\n))")
        relation = "portl_there"
    elif mirroring.where is not None:
        conditions.append(f"(\n{mirroring.where}\n)")
    return f"{name} AS {relation}{' WHERE ' if conditions else ''}{' AND '.join(conditions)}"
