"""What a connector implements to be read from. No I/O happens in this module; see ``portl.connectors``."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from portl.config.models import SourceConfig
from portl.connectors.context import Context
from portl.connectors.exchange import (
    ROWS,
    Batch,
    Chunk,
    Field,
    Format,
    Intent,
    Reading,
    RowBatch,
    RowCount,
    Split,
    Splitting,
)
from portl.schema.tables import Column, Table
from portl.values.findings import Finding
from portl.values.runs import ChunkLine, Run
from portl.values.secrets import Secret

if TYPE_CHECKING:
    from portl.connectors.comparer import Comparer, Texts

S = TypeVar("S", bound=SourceConfig)


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
        """Begin to connect, without waiting for it, so that both sides do so at the same time. By default nothing.

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
        from portl.values.errors import SchemaError

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
        return plain(self.config)

    def snapshot(self) -> Mapping[str, Any]:
        """Return what tells the state that is read from later ones, as plain data for the ledger."""
        return {}

    def resumable(self, lines: Sequence[ChunkLine], run: Run, *, repeatable: bool) -> list[Finding]:
        """Return what keeps a run from being resumed, or what the user should know of it.

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

    def for_worker(self) -> Source[S] | None:
        """Return another source, not yet open, that reads the same state at the same time; None if there cannot be one.

        It is opened, read from and closed in another thread, or, pickled, in another process.
        """
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
        """Tell whether the state that ``open`` has fixed can still be read; False after a lost connection."""
        return True

    def comparer(self, intent: Intent) -> Comparer:
        """Return this side of a comparison (``portl.verify``): the rows as the destination should hold them."""
        from portl.connectors.comparer import Comparer

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
        from portl.connectors.comparer import canonical

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


def plain(config: object) -> Mapping[str, Any]:
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
