"""What a connector implements: a source, a destination, a writer. No I/O happens in this module.

A source author writes ``describe`` and ``rows``; a destination author ``describe``, ``propose`` and a ``Writer``.
Everything else has a default. The calls come in this order, all in one thread:

* source: ``open``, ``describe``, ``formats``, ``examine``, ``count``, ``preview``, ``chunks`` and ``read``; ``close``;
* destination: ``open``, ``describe``, ``propose``, ``formats``, ``examine``, then ``writer``; ``close``;
* writer: ``begin``, ``write`` once a batch, ``commit`` or ``rollback``, again and again; at the end ``finish``, or
  ``abandon`` after a failure.

How rows travel is negotiated: the source offers formats, best first, for the fields of the job; the destination says
which of them it takes; the first that both know is used. ``ROWS`` is the one that everybody has.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from portl.config.models import DestinationConfig, LedgerConfig, Strategy
from portl.connectors.context import Context
from portl.connectors.exchange import ROWS, Examination, Field, Intent, Rejected
from portl.connectors.ledger import Ledger
from portl.connectors.source import TableEntry, plain
from portl.connectors.writer import Writer
from portl.schema.conversions import Conversion, conversion
from portl.schema.tables import Column, Table
from portl.values.errors import DataError, OperationError
from portl.values.findings import Finding, note

if TYPE_CHECKING:
    from portl.connectors.comparer import Comparer

D = TypeVar("D", bound=DestinationConfig)


class Destination(abc.ABC, Generic[D]):
    """Where rows go. The arguments are those of ``Source``."""

    #: The strategies that this destination carries out.
    strategies: ClassVar[Collection[Strategy]] = (Strategy.FAIL,)
    #: True if its writers' ``save``, ``restore``, ``release`` and ``reject`` work: then rows can be quarantined, and a
    #: job can be one transaction.
    savepoints: ClassVar[bool] = False

    def __init__(self, config: D, handle: object | None = None) -> None:
        self.config = config
        self.handle = handle
        self.context = Context()

    @classmethod
    def tables(cls, keys: Mapping[str, Any], context: Context) -> Sequence[TableEntry] | None:
        """Connect, and return the tables that can be written to; None: it cannot tell them.

        Args:
            keys: what ``Connector.from_url`` has returned; no table is chosen yet.
            context: how patient to be.

        Raises:
            Error: the place is not reached.
        """
        return None

    def connect(self, context: Context) -> None:
        """Begin to connect, without waiting for it, so that both sides do so at the same time. By default nothing.

        Called once before ``open``, if at all: what keeps it from connecting, ``open`` says.
        """

    def open(self, context: Context) -> None:
        """Connect. Called once, first; ``close`` follows whatever happens."""
        self.context = context

    def close(self) -> None:
        """Let go of everything. Called once, also after a failed ``open``."""

    def label(self) -> str:
        """Return where this is, for people; never a secret."""
        return type(self).__name__

    def target(self) -> str:
        """Return the name of what is written to, whether it is there or not: a job goes by it in the ledger."""
        return str(getattr(self.config, "table", None) or self.label())

    @abc.abstractmethod
    def describe(self) -> Table | None:
        """Return the table as it is, None if it does not exist."""

    @abc.abstractmethod
    def propose(self, source: Table, columns: Mapping[str, Column]) -> Table:
        """Return the table that this run would create.

        Args:
            source: the source's table.
            columns: by their names there, the columns as they leave the source, under the destination's names.
        """

    def conversion(self, source: Column, target: Column) -> Conversion:
        """Return the verdict on writing values of one column into another."""
        return conversion(source.type, target.type)

    def formats(self, fields: Sequence[Field]) -> Collection[str]:
        """Return the names of the formats that it takes for these fields."""
        return {ROWS.name}

    def obstacle(self, intent: Intent) -> str | None:
        """Return why ``intent.format``, though it takes it, does not suit this job; None if it does."""
        return None

    def examine(self, intent: Intent) -> Examination:
        """Return problems, the DDL, and how rows are written. Writes nothing."""
        return Examination()

    @abc.abstractmethod
    def writer(self, intent: Intent) -> Writer:
        """Return what writes this job's rows. The table is made in the first transaction, if it is to be made.

        A worker session's writer is asked for after that; it makes nothing, and its ``finish`` is not called.
        """

    def identity(self) -> Mapping[str, Any]:
        """Return what decides where rows go, as plain data without secrets; a resume insists on the same."""
        return plain(self.config)

    def stored(self, fields: Sequence[Field]) -> Iterable[tuple[Any, ...]]:
        """Yield the rows that are there, as tuples in the order of ``fields``, with the types of ``portl.schema``.

        Raises:
            OperationError: if what was written here cannot be read back.
        """
        raise OperationError(f"{self.label()}: what is written here cannot be read back, so it cannot be verified")

    def comparer(self, intent: Intent) -> Comparer:
        """Return this side of a comparison (``portl.verify``): the rows that are there."""
        from portl.connectors.comparer import Comparer

        return Comparer(lambda: self.stored(intent.fields))

    def ledger(self, wanted: LedgerConfig) -> Ledger | Finding:
        """Return the ledger of this session, or why there is none. Creates nothing."""
        return note("ledger", f"{self.label()} keeps none: a run that is interrupted starts over")

    def rejected(self, intent: Intent, *, after: int = 0, limit: int = 1000) -> Sequence[Rejected]:
        """Return the job's next rows that were quarantined, in their order, and keep others from taking them up.

        Called while the writer has a transaction open, which the hold lasts as long as.

        Args:
            intent: has ``quarantine``.
            after: the ``id`` behind which to begin.
            limit: how many at most.
        """
        return ()

    def settle(self, intent: Intent, gone: Sequence[Rejected], still: Sequence[tuple[Rejected, DataError]]) -> None:
        """Remove rows that have gone through from the quarantine, and write down why others still do not.

        Called in the writer's transaction, after ``Writer.check``.
        """
        raise NotImplementedError

    def empty(self) -> bool:
        """Tell whether the table is known to hold no row; a run that has brought some is not resumed then."""
        return False

    def incarnation(self) -> str | None:
        """Return what tells the table that is there from another of its name; None: unknown, or there is none.

        A run is not resumed on another table than the one that it has begun to fill.
        """
        return None

    def leftover(self, *, remove: bool = False) -> str | None:
        """Return what an interrupted run has left besides its lines in the ledger, for people; None: nothing.

        Args:
            remove: True to remove it.
        """
        return None

    def for_worker(self) -> Destination[D] | None:
        """Return another destination, not yet open, that writes to the same table at the same time; None: it cannot."""
        return None

    def end_workers(self) -> int:
        """End what workers have under way in other processes, because the run ends; return how many were found.

        Called in another thread, again and again until there is none. By default they come to their ends by
        themselves.
        """
        return 0

    @property
    def near(self) -> bool:
        """True if it runs on this machine, where workers share its processors; True too where it is not known."""
        return True

    def room(self) -> int | None:
        """Return how many worker sessions can be open at a time; None where nothing limits them."""
        return None

    def holds(self) -> bool:
        """Tell whether the connection of ``open``, and the locks on it, are whole; False after it was lost."""
        return True
