"""Advance the sequences behind a table's columns past the loaded values, so that the application's inserts succeed."""

from __future__ import annotations

import portl
from portl import Field, Intent, Kind
from portl_postgres.catalog.sequences import PgSequence, read_sequences
from portl_postgres.catalog.tables import details, table_details
from portl_postgres.session.session import Session
from portl_postgres.sql.text import Expression, bound, literal, quoted, statement


class Sequences:
    """The sequences of one table, after its rows are loaded.

    Args:
        session: in a transaction.
        intent: the job.
        table: its quoted name.
        context: that of the run.
    """

    def __init__(self, session: Session, intent: Intent, table: str, context: portl.Context) -> None:
        self._session = session
        self._intent = intent
        self._table = table
        self._context = context
        #: True if this run creates the table: a sequence that is still unused then gets the source's exact position.
        self._created = intent.create or table_details(intent.target).due is not None

    def advance(self) -> None:
        """Advance each sequence past the column's values and the source's sequence; warn about those that cannot be.

        A sequence is never moved back.
        """
        fields = [field for field in self._intent.fields if self._may_have_sequence(field)]
        if not fields:
            return
        relation = Expression(f"SELECT to_regclass({literal(self._table)})")
        (rows,) = self._session.bare([bound(statement("sequences"), relation)], what="looking at sequences")
        sequences = read_sequences(self._session, rows)
        for field in fields:
            sequence = sequences.get(field.target.name)
            if sequence is not None:
                self._advance(field, sequence)

    def _may_have_sequence(self, field: Field) -> bool:
        found = details(field.target)
        whole = field.target.type.kind in (Kind.SMALLINT, Kind.INT, Kind.BIGINT)
        return whole and found is not None and (found.sequence is not None or field.target.identity is not None)

    def _advance(self, field: Field, sequence: PgSequence) -> None:
        name, column = sequence.name, details(field.target)
        if not sequence.may_set or column is None or not column.may_select:
            self._warn(
                field,
                f"the role may not set the sequence {name} past the values in {self._intent.target.name}",
                f"GRANT SELECT, UPDATE ON SEQUENCE {name} and SELECT on the column TO the role, or set it by hand",
            )
            return
        if sequence.options.cycle and sequence.called:
            return  # it cycles: no position is past all values
        wanted = self._furthest(field, sequence)
        if wanted.last == sequence.last and wanted.called == sequence.called:
            return
        if wanted.last is not None and sequence.options.minimum <= wanted.last <= sequence.options.maximum:
            setting = "SELECT pg_catalog.setval($1::regclass, $2, $3)"
            self._session.query(setting, name, wanted.last, wanted.called, what="setting a sequence")
        else:
            self._warn(field, f"the sequence {name} cannot hold {wanted.last}", "alter it before the next insert")

    def _furthest(self, field: Field, sequence: PgSequence) -> PgSequence:
        """Return the sequence past the source's and past all values of the column; unchanged if already there."""
        wanted = sequence
        source = details(field.source)
        origin = source.sequence if source is not None else None
        if origin is not None and origin.last is not None and origin.options.ascending == sequence.options.ascending:
            there = sequence.at(origin.last, called=origin.called)
            if sequence.is_behind(there) or (self._created and sequence.is_unused):
                if sequence.options.cycle:
                    return there  # may precede values that the source returned in an earlier cycle
                wanted = there
        extreme = "max" if sequence.options.ascending else "min"
        ((value,),) = self._session.query(f"SELECT {extreme}({quoted(field.target.name)}) FROM {self._table}")
        if value is not None and not wanted.has_passed(value):
            wanted = sequence.at(value, called=True)
        return wanted

    def _warn(self, field: Field, message: str, remedy: str) -> None:
        self._context.emit(portl.Warned(where=f"column {field.target.name!r}", message=message, remedy=remedy))
