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
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import attrs

from portl.comparing import Comparer, Texts, canonical
from portl.config import Conflict, DestinationConfig, LedgerConfig, Quarantine, Retry, SourceConfig, Strategy
from portl.errors import Cancelled, DataError, Error, OperationError
from portl.events import Event, Severity
from portl.ledger import ChunkLine, Ledger, Run
from portl.schema import Column, Conversion, Key, Table, Type, conversion
from portl.secret import Secret

S = TypeVar("S", bound=SourceConfig)
D = TypeVar("D", bound=DestinationConfig)


class CancelToken:
    """Ends a run from another thread: hand it to ``portl.migrate`` and call ``cancel``."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    def cancel(self) -> None:
        """Ask the run to end. What is open is rolled back; what is committed stays. Safe to call twice."""
        self._event.set()
        with self._lock:
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    @property
    def cancelled(self) -> bool:
        """True once ``cancel`` was called."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise ``Cancelled`` once ``cancel`` was called."""
        if self._event.is_set():
            raise Cancelled("the run was cancelled")

    def verdict(self, error: Error) -> Error:
        """Return what a run has failed with: once ``cancel`` was called, what a server says is only its echo."""
        if not self._event.is_set() or isinstance(error, Cancelled):
            return error
        return Cancelled("the run was cancelled")

    def wait(self, seconds: float) -> None:
        """Sleep for ``seconds``; raise ``Cancelled`` as soon as ``cancel`` is called."""
        self._event.wait(seconds)
        self.check()

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` in the thread that cancels, for work that does not look at the token. Returns the undo."""
        with self._lock:
            self._callbacks.append(callback)

        def undo() -> None:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)

        return undo


def _ignore(event: Event) -> None:
    """Observe nothing."""


@attrs.frozen(kw_only=True)
class Context:
    """What a run lends to both ends."""

    #: Look at it in every loop that may take long.
    token: CancelToken = attrs.field(factory=CancelToken)
    #: Hands an event to the observers.
    emit: Callable[[Event], None] = _ignore
    retry: Retry = attrs.field(factory=Retry)


@attrs.frozen(kw_only=True)
class Finding:
    """Something that a look at both ends has shown. A problem keeps the plan from running."""

    severity: Severity
    #: ``source``, ``destination``, or the column in question.
    where: str
    message: str
    #: What to do about it.
    remedy: str | None = None

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}"
        return f"{text} -> {self.remedy}" if self.remedy else text


def problem(where: str, message: str, remedy: str | None = None) -> Finding:
    """Return a finding that keeps the plan from running."""
    return Finding(severity=Severity.PROBLEM, where=where, message=message, remedy=remedy)


def warning(where: str, message: str, remedy: str | None = None) -> Finding:
    """Return a finding that the user should know before he runs the plan."""
    return Finding(severity=Severity.WARNING, where=where, message=message, remedy=remedy)


def note(where: str, message: str) -> Finding:
    """Return a finding that explains."""
    return Finding(severity=Severity.NOTE, where=where, message=message)


@attrs.frozen(kw_only=True)
class Format:
    """One way for rows to travel. Two ends that name the same format understand each other's batches."""

    name: str
    #: ``rows``, ``relay`` or ``server``.
    route: str
    #: Why the source offers it, for the plan.
    reason: str
    #: Why the source cannot use it for this job after all; None: it can.
    obstacle: str | None = None
    #: True if each chunk is read in a state of its own, not in the source's snapshot: all rows have to be one chunk.
    own_state: bool = False
    #: What takes a chunk of which a row was refused, where this format cannot tell which row; None: it can.
    then: Format | None = None


ROWS = Format(name="rows", route="rows", reason="decoded Python rows, which every connector understands")


@attrs.frozen(kw_only=True)
class Field:
    """One column on its way from the source to the destination."""

    #: As the source has it.
    source: Column
    #: As it leaves the source: equal to ``source`` unless the job's ``types`` ask for a conversion.
    sent: Column
    #: As the destination has it, or will have it.
    target: Column
    conversion: Conversion
    #: The conversion the user asked for, an expression in the source's language.
    using: str | None = None


@attrs.frozen(kw_only=True)
class RowCount:
    """How many rows the source holds."""

    rows: int
    exact: bool


@attrs.frozen(kw_only=True)
class Chunk:
    """A slice of the source that can be read by itself."""

    #: Counted from 1.
    number: int = 1
    #: Plain data, as JSON has it, that belongs to the source and is kept in the ledger; None is the whole.
    bounds: Mapping[str, Any] | None = None
    #: About how many rows it holds; None where that is unknown.
    rows: int | None = None


@attrs.frozen(kw_only=True)
class Splitting:
    """What the engine asks of a source that is to be cut into chunks."""

    fields: tuple[Field, ...]
    #: Rows in a chunk, if the job says so.
    chunk_rows: int | None = None
    #: Bytes in a chunk to aim at where it does not.
    chunk_bytes: int
    #: False if rows must arrive in the order in which the source has them: later ones win over earlier ones.
    any_order: bool = True


@attrs.frozen(kw_only=True)
class Split:
    """How a source is cut into chunks. Every row is in exactly one of them."""

    #: In the order in which they are to be read.
    chunks: tuple[Chunk, ...] = (Chunk(),)
    #: For people: ``the whole``, ``key ranges of id``, ``block ranges``.
    by: str = "the whole"
    #: For people: why so.
    reason: str = "the source cannot be read in slices"
    #: True if a chunk can be read again, in the same order, also by a later run, as long as its rows do not change.
    resumable: bool = False
    #: True if ``Source.rest`` can tell what is left of a chunk of which some rows are done.
    divisible: bool = False


@attrs.frozen(kw_only=True)
class Counts:
    """What became of rows at the destination."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            inserted=self.inserted + other.inserted,
            updated=self.updated + other.updated,
            unchanged=self.unchanged + other.unchanged,
            skipped=self.skipped + other.skipped,
        )


@attrs.define(kw_only=True)
class Batch(abc.ABC):
    """Consecutive rows that succeed or fail together."""

    #: Counted from 1 within a table.
    number: int
    #: The position of the first row in what the source sends, counted from 1.
    first_row: int
    #: How many rows there are. A batch that stands for rows it does not hold has 0 until ``Writer.write`` sets it.
    rows: int
    #: How much memory they hold, in bytes; an estimate is enough.
    size: int

    @abc.abstractmethod
    def take(self, start: int, stop: int) -> Batch:
        """Return the rows from ``start`` up to ``stop`` (counted from 0) as a batch of the same number."""

    def release(self) -> None:
        """Let go of what can be made again. Called after ``Writer.write``: the batch may be kept for another try."""

    @abc.abstractmethod
    def values(self, row: int, fields: Sequence[Field]) -> dict[str, str | None]:
        """Return row ``row`` (counted from 0) as texts under the destination's column names, for an error message."""


@attrs.define(kw_only=True)
class RowBatch(Batch):
    """A batch of the format ``ROWS``."""

    data: list[tuple[Any, ...]] = attrs.field(repr=False)

    def take(self, start: int, stop: int) -> RowBatch:
        """See ``Batch.take``."""
        data = self.data[start:stop]
        size = self.size * len(data) // max(1, self.rows)
        return RowBatch(number=self.number, first_row=self.first_row + start, rows=len(data), size=size, data=data)

    def values(self, row: int, fields: Sequence[Field]) -> dict[str, str | None]:
        """See ``Batch.values``."""
        pairs = zip(fields, self.data[row], strict=True)
        return {field.target.name: None if value is None else str(value) for field, value in pairs}


@attrs.frozen(kw_only=True)
class Reading:
    """What the engine asks of a source."""

    fields: tuple[Field, ...]
    format: Format
    chunk: Chunk
    #: Rows in a batch.
    batch_rows: int
    #: A batch ends early when it holds this many bytes; None: never.
    batch_bytes: int | None = None


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

    def room(self) -> int | None:
        """Return how many siblings can be open at a time; None where nothing limits them."""
        return None

    def holds(self) -> bool:
        """Tell whether the state that ``open`` has fixed can still be read; False after a lost connection."""
        return True

    def comparer(self, intent: Intent) -> Comparer:
        """Return this end of a comparison (``portl.verify``): the rows as the destination should hold them."""

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


@attrs.frozen(kw_only=True)
class Examination:
    """What a destination says of a job before it is run."""

    findings: tuple[Finding, ...] = ()
    #: What will be executed before the rows, in order.
    before: tuple[str, ...] = ()
    #: What will be executed after the rows.
    after: tuple[str, ...] = ()
    #: How rows are written, for people: one or more statements.
    write: tuple[str, ...] = ()
    #: Why chunks have to come one after the other, in their order; None: they need not.
    ordered: str | None = None
    #: Where rejected rows go, for people.
    rejected_to: str | None = None


@attrs.frozen(kw_only=True)
class Intent:
    """What the job wants of a destination: the part of the plan that it needs to examine and to write."""

    source: Table
    #: As it is, or as it will be.
    target: Table
    fields: tuple[Field, ...]
    #: True if this run makes the table.
    create: bool
    #: Columns that this run adds to an existing table.
    add: tuple[Column, ...]
    conflict: Conflict
    #: The columns that decide what a conflict is; None if there are none.
    key: Key | None
    #: True if the source cannot hold two rows with one such key.
    distinct: bool
    format: Format = ROWS
    #: True if the ledger says that this table was made by the run that is taken up: what it lacks is due at the end.
    resumed: bool = False
    #: Where rows that are refused go; None: they end the run.
    quarantine: Quarantine | None = None
    #: Columns of the destination whose values must not be shown.
    mask: frozenset[str] = frozenset()
    #: The job's name and the run's id, for what is written down of them; empty where they are not known.
    job: str = ""
    run: str = ""


@attrs.frozen(kw_only=True)
class Rejection:
    """A row that was put aside."""

    #: The row alone.
    row: Batch
    error: DataError
    chunk: int
    #: For people: where the row stands in the source.
    position: str


@attrs.frozen(kw_only=True)
class Rejected:
    """A row that was put aside earlier, as the quarantine has it now."""

    #: Tells it from the others; later ones have larger numbers.
    id: int
    #: The row alone, in the format ``ROWS``; None if what stands there is no row of this job.
    row: RowBatch | None
    #: Why ``row`` is None.
    trouble: str | None = None
    #: For people: where the row stands in the source.
    position: str = ""


class Writer(abc.ABC):
    """Writes batches in transactions."""

    @abc.abstractmethod
    def begin(self) -> None:
        """Open a transaction. The first one makes what is missing, until it is committed."""

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
