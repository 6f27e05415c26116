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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
from portl.ledger import ChunkLine, Ledger, Run
from portl.schema import Column, Conversion, Table, Type, conversion
from portl.secret import Secret

if TYPE_CHECKING:
    from portl.comparing import Comparer, Texts

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

S = TypeVar("S", bound=SourceConfig)
D = TypeVar("D", bound=DestinationConfig)


@attrs.frozen(kw_only=True)
class TableEntry:
    """A table that a connector has found, for people to choose."""

    #: As ``Connector.from_name`` takes it.
    name: str
    #: table, view, …
    kind: str = "table"
    #: About how many rows it has; None: unknown.
    rows: int | None = None


class Source(abc.ABC, Generic[S]):
    """Where rows come from.

    Args:
        config: an instance of the connector's own config class.
        handle: a connection or pool of the caller's, where he gave one.
    """

    def __init__(self, config: S, handle: object | None = None) -> None:
        self.config = config
        self.handle = handle
        self.context = Context()

    @classmethod
    def tables(cls, keys: Mapping[str, Any], context: Context) -> Sequence[TableEntry] | None:
        """Connect, and return the tables that can be read; None: it cannot tell them.

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

    @abc.abstractmethod
    def describe(self) -> Table:
        """Return the table or query as it is. Raise ``SchemaError`` if it does not exist."""

    @abc.abstractmethod
    def rows(self) -> Iterable[tuple[Any, ...]]:
        """Yield all rows as tuples in the order of ``describe().columns``, with the types of ``portl.schema``."""

    def label(self) -> str:
        """Return where this is, for people; never a secret."""
        return type(self).__name__

    def cast(self, column: Column, to: str, using: str | None) -> Column:
        """Return ``column`` as it leaves the source when the job's ``types`` ask for ``to``.

        Raises:
            SchemaError: if this source evaluates no conversions, or does not know the type.
        """
        from portl.errors import SchemaError

        raise SchemaError(f"the source {self.label()} cannot convert {column.name!r} to {to!r}")

    def examine(self, fields: Sequence[Field]) -> list[Finding]:
        """Return what the user should know: missing privileges, hidden rows. Writes nothing."""
        return []

    def formats(self, fields: Sequence[Field]) -> Sequence[Format]:
        """Return the formats that suit these fields, best first; the last should be ``ROWS``."""
        return (ROWS,)

    def statement(self, fields: Sequence[Field], format: Format) -> str | None:
        """Return what will be executed to read, where that means something to a person."""
        return None

    def count(self, *, exact: bool) -> RowCount | None:
        """Return the number of rows, or None where it is unknown. ``exact=False`` must be cheap."""
        return None

    def preview(self, fields: Sequence[Field], rows: int) -> list[tuple[str | None, ...]]:
        """Return the first rows as texts, as they will arrive."""
        from itertools import islice

        chosen = _chooser(self.describe(), fields)
        return [
            tuple(None if value is None else str(value) for value in chosen(row))
            for row in islice(self._limited(), rows)
        ]

    def split(self, splitting: Splitting) -> Split:
        """Return how to read it in chunks. Must be cheap: it is part of every plan."""
        return Split()

    def identity(self) -> Mapping[str, Any]:
        """Return what decides which rows are read, as plain data without secrets; a resume insists on the same.

        By default all keys of the config but secrets.
        """
        return _plain(self.config)

    def snapshot(self) -> Mapping[str, Any]:
        """Return what tells the state that is read from later ones, as plain data for the ledger."""
        return {}

    def resumable(self, lines: Sequence[ChunkLine], run: Run, *, repeatable: bool) -> list[Finding]:
        """Return what keeps a run from being taken up, or what the user should know of it.

        Args:
            lines: the run's chunk lines.
            run: has ``snapshots``, what ``snapshot`` has returned in earlier attempts.
            repeatable: True if a row that is written twice does no harm (overwrite, skip).
        """
        return []

    def rest(self, reading: Reading, rows: int) -> Chunk | None:
        """Return what is left of a chunk after its first ``rows`` rows, in the same state; None if nothing is.

        Called after ``read`` of that chunk has ended or was closed. Only where ``Split.divisible`` is true.
        """
        raise NotImplementedError

    def sibling(self) -> Source[S] | None:
        """Return another source, not yet open, that reads the same state at the same time; None if there cannot be one.

        It is opened, read from and closed in another thread, or, pickled, in another process.
        """
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
        """Tell whether the state that ``open`` has fixed can still be read; False after a lost connection."""
        return True

    def comparer(self, intent: Intent) -> Comparer:
        """Return this end of a comparison (``portl.verify``): the rows as the destination should hold them."""
        from portl.comparing import Comparer

        def rows() -> Iterator[tuple[Any, ...]]:
            for batch in self.read(Reading(fields=intent.fields, format=ROWS, chunk=Chunk(), batch_rows=1000)):
                yield from batch.data  # type: ignore[attr-defined]  # of the format ROWS

        return Comparer(rows)

    def select(self, reading: Reading, key: Sequence[str], wanted: Mapping[Texts, int]) -> Iterator[Batch]:
        """Yield the rows with certain keys, to copy them once more.

        Args:
            reading: of the whole; ``format`` is ROWS unless ``comparer`` is this connector's own.
            key: the destination's columns that the key has; empty: the whole row is meant.
            wanted: the keys as the comparer told them, and how many rows of each at most.
        """
        from portl.comparing import canonical

        names = [field.target.name for field in reading.fields]
        places = [names.index(name) for name in key or names]
        types = [field.target.type for field in reading.fields]
        left = dict(wanted)
        data: list[tuple[Any, ...]] = []
        for batch in self.read(reading):
            for row in batch.data:  # type: ignore[attr-defined]  # of the format ROWS
                found = tuple([canonical(row[place], types[place]) for place in places])
                if left.get(found, 0) > 0:
                    left[found] -= 1
                    data.append(row)
        if data:
            yield RowBatch(number=1, first_row=1, rows=len(data), size=_estimate(data), data=data)

    def read(self, reading: Reading) -> Iterator[Batch]:
        """Yield the batches of one chunk in ``reading.format``, streaming."""
        chosen = _chooser(self.describe(), reading.fields)
        data: list[tuple[Any, ...]] = []
        number, first = 1, 1
        for row in self._limited():
            data.append(chosen(row))
            if len(data) >= reading.batch_rows:
                yield RowBatch(number=number, first_row=first, rows=len(data), size=_estimate(data), data=data)
                number, first, data = number + 1, first + len(data), []
        if data:
            yield RowBatch(number=number, first_row=first, rows=len(data), size=_estimate(data), data=data)

    def _limited(self) -> Iterator[tuple[Any, ...]]:
        from itertools import islice

        return islice(self.rows(), self.config.limit)


def _plain(config: object) -> Mapping[str, Any]:
    """Return a config as plain data without its secrets."""
    fields: dict[str, Any] = attrs.asdict(config)  # type: ignore[arg-type]
    return {name: value for name, value in fields.items() if not isinstance(value, Secret)}


def _chooser(table: Table, fields: Sequence[Field]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    positions = {column.name: index for index, column in enumerate(table.columns)}
    wanted = [positions[field.source.name] for field in fields]
    return lambda row: tuple(row[index] for index in wanted)


def _estimate(data: Sequence[tuple[Any, ...]]) -> int:
    """Return about how many bytes the rows hold, from the lengths of their texts and 16 bytes for other values."""
    return sum(len(v) if isinstance(v, (str, bytes)) else 16 for row in data for v in row)


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
        return _plain(self.config)

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
