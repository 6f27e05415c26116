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
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import attrs

from portl.config import DestinationConfig, LedgerConfig, SourceConfig, Strategy
from portl.context import CancelToken, Context
from portl.errors import DataError, OperationError
from portl.exchange import (
    ROWS,
    Batch,
    Chunk,
    Counts,
    Examination,
    Field,
    Finding,
    Format,
    Intent,
    Reading,
    Rejected,
    Rejection,
    RowBatch,
    RowCount,
    Split,
    Splitting,
    note,
    problem,
    warning,
)
from portl.ledger import Ledger
from portl.schema import Column, Conversion, Table, Type, conversion
from portl.secret import Secret
from portl.sources import Source, TableEntry, plain

if TYPE_CHECKING:
    from portl.comparing import Comparer

__all__ = [
    "ROWS",
    "Batch",
    "CancelToken",
    "Chunk",
    "Connector",
    "Context",
    "Counts",
    "Destination",
    "Examination",
    "Field",
    "Finding",
    "Format",
    "Intent",
    "Reading",
    "Rejected",
    "Rejection",
    "RowBatch",
    "RowCount",
    "Source",
    "Split",
    "Splitting",
    "TableEntry",
    "TypeMapper",
    "Writer",
    "note",
    "problem",
    "warning",
]

D = TypeVar("D", bound=DestinationConfig)


class Writer(abc.ABC):
    """Writes batches in transactions."""

    @abc.abstractmethod
    def begin(self) -> None:
        """Open a transaction. The first one makes what is missing, until it is committed."""

    @property
    def fresh(self) -> bool:
        """True if rows cost less in the transaction that ``begin`` opens next, as it makes the table they go into.

        Several chunks may be written in it then, without a savepoint. By default False.
        """
        return False

    @abc.abstractmethod
    def write(self, batch: Batch) -> int:
        """Write a batch; return the bytes sent. Raise ``DataError`` if a row is refused."""

    def check(self) -> Counts:
        """Bring to light what ``commit`` would refuse, without committing. Raise ``DataError``.

        Returns:
            What became of the rows since ``begin`` or the last ``check``; what is counted here, ``commit`` leaves out.
            A destination with a ledger must count here.
        """
        return Counts()

    def save(self) -> None:
        """Set a savepoint in place of an earlier one. Called after ``check``."""
        raise NotImplementedError

    def restore(self) -> None:
        """Undo what was written since ``save``; the savepoint stays. Called also after a ``DataError``."""
        raise NotImplementedError

    def release(self) -> None:
        """Drop the savepoint and keep what was written."""
        raise NotImplementedError

    def reject(self, rejections: Sequence[Rejection]) -> None:
        """Put rows aside, with the reason, in the transaction that is open."""
        raise NotImplementedError

    def unreject(self, run: str, chunk: int | None = None) -> None:
        """Remove what a run has put aside, in the transaction that is open: its rows come once more.

        Args:
            run: the run's id, as ``Intent.run`` had it.
            chunk: the chunk whose rows come again; None: all of them.
        """

    @abc.abstractmethod
    def commit(self) -> Counts:
        """Make what was written since ``begin`` permanent; return what ``check`` has not counted.

        Raises:
            DataError: if a row is refused only now.
        """

    @abc.abstractmethod
    def rollback(self) -> None:
        """Undo what was written since ``begin``. Called also when the connection is broken."""

    def reconsider(self, error: DataError) -> bool:
        """Answer a refusal after its rollback: True if the same batches shall be tried again in another way."""
        return False

    def finish(self, record: Callable[[], None] | None = None) -> None:
        """Do what comes after the rows, and make everything durable.

        Args:
            record: to be called in the same transaction, before its end; given where there is a ledger.
        """

    def abandon(self, *, resumable: bool = False) -> None:
        """Tidy up after a failure so that what is committed is durable and the same job can be run again.

        Args:
            resumable: True if the run can be taken up: then what comes after the rows can wait.
        """


class Destination(abc.ABC, Generic[D]):
    """Where rows go. The arguments are those of ``Source``."""

    #: The strategies that this destination carries out.
    strategies: ClassVar[Collection[Strategy]] = (Strategy.FAIL,)
    #: True if its writers' ``save``, ``restore``, ``release`` and ``reject`` work: then rows can be put aside, and a
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
        """Begin to connect, without waiting for it, so that both ends do so at the same time. By default nothing.

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

        A sibling's writer is asked for after that; it makes nothing, and its ``finish`` is not called.
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
        """Return this end of a comparison (``portl.verify``): the rows that are there."""
        from portl.comparing import Comparer

        return Comparer(lambda: self.stored(intent.fields))

    def ledger(self, wanted: LedgerConfig) -> Ledger | Finding:
        """Return the ledger of this session, or why there is none. Creates nothing."""
        return note("ledger", f"{self.label()} keeps none: a run that is interrupted starts over")

    def rejected(self, intent: Intent, *, after: int = 0, limit: int = 1000) -> Sequence[Rejected]:
        """Return the job's next rows that were put aside, in their order, and keep others from taking them up.

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
        """Tell whether the table is known to hold no row; a run that has brought some is not taken up then."""
        return False

    def incarnation(self) -> str | None:
        """Return what tells the table that is there from another of its name; None: unknown, or there is none.

        A run is not taken up on another table than the one that it has begun to fill.
        """
        return None

    def leftover(self, *, remove: bool = False) -> str | None:
        """Return what an interrupted run has left besides its lines in the ledger, for people; None: nothing.

        Args:
            remove: True to remove it.
        """
        return None

    def sibling(self) -> Destination[D] | None:
        """Return another destination, not yet open, that writes to the same table at the same time; None: it cannot."""
        return None

    def end_siblings(self) -> int:
        """End what siblings have under way in other processes, because the run ends; return how many were found.

        Called in another thread, again and again until there is none. By default they come to their ends by
        themselves.
        """
        return 0

    @property
    def near(self) -> bool:
        """True if what it works with runs on this machine, and lanes share its processors; so where it is not known."""
        return True

    def room(self) -> int | None:
        """Return how many siblings can be open at a time; None where nothing limits them."""
        return None

    def holds(self) -> bool:
        """Tell whether the connection of ``open``, and the locks on it, are whole; False after it was lost."""
        return True


class TypeMapper(abc.ABC):
    """Maps the native types of one system to the generic ones and back."""

    @abc.abstractmethod
    def generic(self, native: str) -> Type:
        """Return the generic type of a native one; ``text`` for what has none."""

    @abc.abstractmethod
    def native(self, type: Type) -> str:
        """Return the native type that holds every value of a generic one."""


@attrs.frozen(kw_only=True)
class Connector:
    """A plugin's offer: a name, and for each end a config class and a class."""

    name: str
    #: One line for people.
    summary: str = ""
    source: type[Source[Any]] | None = None
    source_config: type[SourceConfig] | None = None
    destination: type[Destination[Any]] | None = None
    destination_config: type[DestinationConfig] | None = None
    #: The schemes of the URLs that it understands, without ``://``.
    schemes: tuple[str, ...] = ()
    #: Such a URL, without a password, to show how they are made.
    url_example: str = ""
    #: Turns a URL of these schemes into the keys of a job file that reach the same place, for ``portl copy`` and
    #: ``portl init``: plain data, what is secret as ``Secret``. Raises ``FieldError``, whose text repeats no part of
    #: the URL, for any may be a password.
    from_url: Callable[[Secret], Mapping[str, Any]] | None = None
    #: Turns a table's name as a person writes it into keys of a job file. By default it is the key ``table``.
    from_name: Callable[[str], Mapping[str, Any]] | None = None
