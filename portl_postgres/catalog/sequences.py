"""Set the sequences behind a table's columns past what was loaded: the application's next insert would collide."""

from __future__ import annotations

import portl
from portl import Intent, Kind
from portl_postgres.catalog.tables import details
from portl_postgres.session.session import Session
from portl_postgres.sql.text import quoted

_WHOLE = {Kind.SMALLINT, Kind.INT, Kind.BIGINT}


class Sequences:
    """The sequences of one table.

    Args:
        session: inside a transaction.
        intent: the job.
        table: quoted.
        context: the run's.
    """

    def __init__(self, session: Session, intent: Intent, table: str, context: portl.Context) -> None:
        self._session = session
        self._intent = intent
        self._table = table
        self._context = context

    def advance(self) -> None:
        """Advance them, or warn of what cannot be."""
        for field, sequence in self._behind():
            self._advance(field, sequence)

    def _behind(self) -> list[tuple[portl.Field, int]]:
        """Return the fields with a sequence behind their column; columns that were just made are asked for theirs."""
        fields = {field.target.name: field for field in self._intent.fields if field.target.type.kind in _WHOLE}
        known: dict[str, int | None] = {
            name: found.sequence for name, field in fields.items() if (found := details(field.target))
        }
        made = {column.name for column in (self._intent.target.columns if self._intent.create else self._intent.add)}
        asked = [name for name, sequence in known.items() if not sequence and name in made]
        if asked:
            known |= dict(
                self._session.query(
                    "SELECT n, pg_get_serial_sequence($1, n)::regclass::oid FROM unnest($2::text[]) AS n",
                    self._table,
                    asked,
                )
            )
        return [(fields[name], int(sequence)) for name, sequence in known.items() if sequence]

    def _advance(self, field: portl.Field, sequence: int) -> None:
        """Set the sequence behind a column past what was loaded and past what the source had handed out."""
        found = details(field.target)
        if found is None:
            return
        ((name, increment, low, high, may),) = self._session.query(
            "SELECT c.oid::regclass::text, s.seqincrement, s.seqmin, s.seqmax,"
            " has_sequence_privilege(c.oid, 'SELECT') AND has_sequence_privilege(c.oid, 'UPDATE')"
            " FROM pg_catalog.pg_sequence AS s JOIN pg_catalog.pg_class AS c ON c.oid = s.seqrelid WHERE c.oid = $1",
            sequence,
        )
        if not may or not found.may_select:
            self._warn(
                field,
                f"the role may not set the sequence {name} past what is in {self._intent.target.name}",
                f"GRANT SELECT, UPDATE ON SEQUENCE {name} and SELECT on the column TO the role, or set it by hand",
            )
            return
        extreme = "max" if increment > 0 else "min"
        ((value, last, called),) = self._session.query(
            f"SELECT (SELECT {extreme}({quoted(field.target.name)}) FROM {self._table}), last_value, is_called"
            f" FROM {name}"
        )
        origin = details(field.sent)
        wanted = [v for v in (value, origin.sequence_last if origin else None) if v is not None]
        if not wanted:
            return
        goal = max(wanted) if increment > 0 else min(wanted)
        standing = last if called else last - increment
        ahead = goal > standing if increment > 0 else goal < standing
        if ahead and low <= goal <= high:
            self._session.query("SELECT setval($1::oid::regclass, $2, true)", sequence, goal)
        elif ahead:
            self._warn(field, f"the sequence {name} cannot hold {goal}", "alter it before the next insert")

    def _warn(self, field: portl.Field, message: str, remedy: str) -> None:
        self._context.emit(portl.Warned(where=f"column {field.target.name!r}", message=message, remedy=remedy))
