"""What a connector implements to be written to. See ``portl.connectors``."""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Self, TypeVar

from portl.config.models import DestinationConfig, LedgerConfig, Strategy
from portl.connectors.comparer import Comparer, Texts
from portl.connectors.exchange import ROWS, Examination, Field, Intent, Rejected
from portl.connectors.ledger import Ledger
from portl.connectors.mirroring import MirrorDestination, Mirroring
from portl.connectors.objects import Building, ForeignKey, SchemaObject, Standing
from portl.connectors.side import Side
from portl.connectors.writer import Writer
from portl.schema.conversions import Conversion, conversion
from portl.schema.tables import Column, Table
from portl.values.errors import DataError, OperationError
from portl.values.findings import Finding, note

D = TypeVar("D", bound=DestinationConfig)


class Destination(Side[D]):
    """Where rows go. The arguments are those of ``Side``."""

    #: The strategies that this destination supports.
    strategies: ClassVar[Collection[Strategy]] = (Strategy.FAIL,)
    #: True if its writers implement ``save``, ``restore``, ``release`` and ``reject``, so that rows can be quarantined
    #: and a job can be one transaction.
    savepoints: ClassVar[bool] = False
    #: True if it changes the types of columns as ``Intent.widen`` says.
    widens: ClassVar[bool] = False
    #: See ``Source.digests``; that of ``ROWS`` needs ``stored`` and ``remove``.
    digests: ClassVar[Collection[str]] = ()

    def target(self) -> str:
        """Return the name of the table written to, whether it exists or not. It identifies the job in the ledger."""
        return str(getattr(self.config, "table", None) or self.label())

    @abc.abstractmethod
    def describe(self) -> Table | None:
        """Return the table as it stands, or None if it does not exist."""

    @abc.abstractmethod
    def propose(self, source: Table, columns: Mapping[str, Column]) -> Table:
        """Return the table that this run would create.

        Args:
            source: the source's table.
            columns: maps a source column's name to the column as it leaves the source, under the destination's name.
        """

    def conversion(self, source: Column, target: Column) -> Conversion:
        """Return the verdict on writing values of one column into another."""
        return conversion(source.type, target.type)

    def formats(self, fields: Sequence[Field]) -> Collection[str]:
        """Return the names of the formats that it accepts for these fields."""
        return {ROWS.name}

    def obstacle(self, intent: Intent) -> str | None:
        """Return why ``intent.format``, though accepted, does not suit this job, or None if it does."""
        return None

    def examine(self, intent: Intent) -> Examination:
        """Return problems, the DDL to execute, and how rows will be written. Writes nothing."""
        return Examination()

    def objects(self) -> Collection[str] | None:
        """Return the labels of existing objects, or None if it cannot create objects of another database."""
        return None

    def standing(self, objects: Sequence[SchemaObject]) -> Standing | None:
        """Return which of these objects exist, and which cannot be created here with a table; None if none can be."""
        return None

    def foreign_keys(self) -> Sequence[ForeignKey]:
        """Return the existing foreign keys."""
        return ()

    def unfit(self, objects: Sequence[SchemaObject]) -> list[Finding]:
        """Return what prevents these objects from being created here."""
        return []

    def make(self, objects: Sequence[SchemaObject], first: Callable[[], None] | None = None) -> None:
        """Create objects in the given order, in separate transactions, each object as a whole or not at all.

        Args:
            objects: from a source of the same dialect; each either does not exist or is safe to repeat.
            first: called in the first transaction.
        """
        raise NotImplementedError

    def drop(self, tables: Sequence[str]) -> None:
        """Drop tables, by their names as ``target`` returns them, with their rows; ignore those that do not exist."""
        raise NotImplementedError

    def building(self, others: Sequence[Self]) -> Sequence[Building | None]:
        """Return the progress of the objects that worker sessions are creating; None where it is unknown.

        Called on the run's session, while those of ``others`` are busy in other threads.
        """
        return [None] * len(others)

    def expect(self, table: Table) -> None:
        """Plan as if ``table`` existed: this run will create it as it is at the source, without keys."""
        raise NotImplementedError

    def transaction(self) -> AbstractContextManager[None]:
        """Return a context in which several writers share one transaction; they neither begin nor commit."""
        raise NotImplementedError

    def finisher(self, intent: Intent) -> Writer:
        """Return a writer only for its ``finish``, after other writers have written the table's rows."""
        return self.writer(intent)

    @abc.abstractmethod
    def writer(self, intent: Intent) -> Writer:
        """Return a writer for this job's rows. Its first transaction creates the table if needed.

        Worker sessions' writers are requested after that: they create nothing, and ``finish`` is not called on them.
        """

    def stored(self, fields: Sequence[Field]) -> Iterable[tuple[Any, ...]]:
        """Yield the table's rows as tuples in the order of ``fields``, with the types of ``portl.schema``.

        Raises:
            OperationError: rows written here cannot be read back.
        """
        raise OperationError(f"{self.label()}: what is written here cannot be read back, so it cannot be verified")

    def comparer(self, intent: Intent) -> Comparer:
        """Return this side of a comparison (``portl.verify``): the table's rows."""
        return Comparer(lambda: self.stored(intent.fields))

    def examine_mirror(self, intent: Intent, mirroring: Mirroring) -> list[Finding]:
        """Return what prevents the table from being a mirror. Called as ``mirror`` is. Writes nothing."""
        return []

    def mirror(self, intent: Intent, mirroring: Mirroring) -> MirrorDestination:
        """Return this side of a mirror (``mode: mirror``), by a kind of digest other than that of ``ROWS``."""
        raise NotImplementedError

    def remove(self, intent: Intent, keys: Sequence[Texts]) -> int:
        """Remove the rows with these keys, in the writer's transaction; return their number.

        Args:
            intent: with a ``key``.
            keys: the values of its columns in the form of ``canonical``; their rows may be gone already.
        """
        raise NotImplementedError

    def ledger(self, wanted: LedgerConfig) -> Ledger | Finding:
        """Return this session's ledger, or why there is none. Creates nothing."""
        return note("ledger", f"{self.label()} has none: an interrupted run starts over")

    def rejected(self, intent: Intent, *, after: int = 0, limit: int = 1000) -> Sequence[Rejected]:
        """Return the job's next quarantined rows, in order, and lock them until the transaction ends.

        Called while the writer has a transaction open.

        Args:
            intent: says where they are (``quarantine``).
            after: return only rows with a larger ``id``.
            limit: return at most this many.
        """
        return ()

    def settle(self, intent: Intent, gone: Sequence[Rejected], still: Sequence[tuple[Rejected, DataError]]) -> None:
        """Remove from the quarantine the rows that were written, and record why the others are still refused.

        Called in the writer's transaction, after ``Writer.check``.
        """
        raise NotImplementedError

    def empty(self) -> bool:
        """Return whether the table is known to be empty; if so, a run that copied rows into it is not resumed."""
        return False

    def incarnation(self) -> str | None:
        """Return what tells the table from another of the same name, or None if unknown or if there is no table.

        A run is resumed only into the table that it began to fill.
        """
        return None

    def leftover(self, *, remove: bool = False) -> str | None:
        """Return what an interrupted run left behind outside the ledger, for display; None if nothing.

        Args:
            remove: True to remove it.
        """
        return None
