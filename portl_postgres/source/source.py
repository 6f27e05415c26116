"""Read a table, view or query in one REPEATABLE READ, READ ONLY transaction, from planning to the last row."""

from __future__ import annotations

import logging
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from typing import Any, ClassVar

import attrs
import psycopg
from psycopg import pq

import portl
from portl import (
    Chunk,
    ChunkLine,
    Column,
    Field,
    Finding,
    Format,
    Reading,
    RowBatch,
    RowCount,
    Run,
    Split,
    Splitting,
)
from portl_postgres.catalog import addresses
from portl_postgres.catalog.tables import details
from portl_postgres.config import PostgresSourceConfig
from portl_postgres.session import worker_sessions
from portl_postgres.session.database import Database
from portl_postgres.session.session import Session
from portl_postgres.source import ahead, chunks, formats, increments, snapshot, unsendable
from portl_postgres.source.checks import SourceExaminer, expected_rows
from portl_postgres.source.chunks import Splitter
from portl_postgres.source.decoding import decoded
from portl_postgres.source.describing import selected
from portl_postgres.source.increments import Rows
from portl_postgres.source.queries import Describer, only_reading
from portl_postgres.source.ranges import relation_of
from portl_postgres.source.selection import Selection, origin, search_path
from portl_postgres.source.sharing import SharedSnapshot, begin, first
from portl_postgres.verification import by_key, comparer
from portl_postgres.verification.mirroring import MirroredRows, PostgresMirrorSource
from portl_postgres.verification.places import Places
from portl_postgres.wire import select_list, server_route
from portl_postgres.wire.batches import BINARY, CopyBatch
from portl_postgres.wire.copy import as_they_are, text_options
from portl_postgres.wire.copy_out import CopyOut
from portl_postgres.wire.messages import ended

#: A table or query of more rows than this, by the server's estimate, is not counted exactly.
COUNT_ROWS = 5_000_000

logger = logging.getLogger("portl.postgres")

#: Objects of a database, and findings.
Objects = tuple[Sequence[portl.SchemaObject], Sequence[Finding]]


class PostgresSource(portl.Source[PostgresSourceConfig]):
    """A PostgreSQL table, view or query."""

    digests: ClassVar[Sequence[str]] = ("postgres", portl.ROWS.name)
    increments: ClassVar[Collection[portl.By]] = (portl.By.CURSOR, portl.By.XMIN)

    def __init__(self, config: PostgresSourceConfig, handle: object | None = None) -> None:
        super().__init__(config, handle)
        self._database = Database(config, handle, "source")
        self._owns_database = True
        self._stack = ExitStack()
        self._session_: Session | None = None
        self._selected: Selection | None = None
        #: The current COPY and its batches.
        self._reading: tuple[CopyOut, Generator[CopyBatch, None, None]] | None = None
        #: The server's row estimate; None if not asked for.
        self._expected: int | None = None
        self._shared = SharedSnapshot()
        self._database_here: server_route.Database | None = None
        #: True if the table is known to be small and readable, so that it is one chunk.
        self._plain = False

    @property
    def _session(self) -> Session:
        assert self._session_ is not None, "open() comes first"
        return self._session_

    def listing(self) -> Sequence[portl.TableEntry]:
        """See ``Source.listing``. A parent is read without its inheritance children, a partitioned table as a whole."""
        return addresses.listing(self._session)

    def over(self, base: PostgresSource) -> PostgresSource:
        """See ``Source.over``."""
        made = PostgresSource(self.config, base.handle)
        made.context = base.context
        made._session_, made._shared = base._session, base._shared
        made._database, made._owns_database = base._database, False
        made._database_here = base._where
        made._selected = attrs.evolve(self._selected, orders={}) if self._selected is not None else None
        made._expected, made._plain = self._expected, self._plain
        if self.config.where is not None or self.config.query is not None:
            made._session.query(f"SELECT set_config('search_path', {search_path(self.config)}, true)")
        return made

    def look_ahead(self, sides: Sequence[PostgresSource]) -> None:
        """See ``Source.look_ahead``."""
        alone = [side for side in sides if side.config.table is not None and side._selected is None]
        found = ahead.look(self._session, [side.config for side in alone])
        for side in alone:
            seen = found.get((side.config.schema, side.config.table or ""))
            if seen is not None:
                side._selected = Selection(side.config, seen.table, origin(side.config))
                side._expected, side._plain = seen.rows, seen.plain and side.config.where is None

    def objects(self, schemas: Mapping[str, str], changes: portl.Changes | None = None) -> Objects:
        """See ``Source.objects``."""
        from portl_postgres.objects import reading  # jobs of one table do not need it; importing it takes 20 ms

        found = reading.read(self._session, schemas, changes)
        return found.objects, found.findings

    def objects_with(self, placement: portl.Placement, groups: Collection[portl.ObjectGroup]) -> Objects:
        """See ``Source.objects_with``."""
        from portl_postgres.objects import with_table  # see ``objects``

        return with_table.objects_with(self._session, placement, groups)

    @classmethod
    def tables(cls, keys: Mapping[str, Any], context: portl.Context) -> Sequence[portl.TableEntry]:
        """See ``Source.tables``."""
        return addresses.tables(keys, context, "source")

    def connect(self, context: portl.Context) -> None:
        """See ``Source.connect``."""
        self._database.begin(context)

    def open(self, context: portl.Context) -> None:
        """See ``Source.open``."""
        super().open(context)
        settings = {"row_security": self.config.row_security.value, "default_transaction_read_only": "on"}
        self._session_ = self._stack.enter_context(
            self._database.session(context, settings, first(self._shared, self.config))
        )
        if self._shared.travelled:
            worker_sessions.wear(self._session, self._shared.mark)
        self._stack.callback(self._end)
        if not self._session.begun:
            begin(self._session, self._shared, self.config)

    def since(self, wanted: portl.IncrementalConfig, watermark: Mapping[str, Any] | None) -> list[Finding]:
        """See ``Source.since``."""
        opened = None
        if not self._session.nested:
            # Open transactions must be known before the snapshot is taken, so a new one is taken.
            self._session.rollback()
            opened = increments.opened(self._session)
            begin(self._session, self._shared, self.config)
        self._selected, self._plain = None, False
        self._selection.increment, found = increments.confined(self._changing(opened), wanted, watermark)
        return found

    def _changing(self, opened: str | None = None) -> Rows:
        system, origin = (self._where.server, self._where.name), self._selection.origin
        return Rows(self._session, self.describe(), origin, self.config.where, system, opened)

    def behind(self, wanted: portl.IncrementalConfig, watermark: Mapping[str, Any]) -> portl.Behind | None:
        """See ``Source.behind``."""
        return increments.behind(self._changing(), wanted, watermark)

    def all_rows(self) -> None:
        """See ``Source.all_rows``."""
        if self._selected is not None:
            self._selected.increment = None

    def _end(self) -> None:
        if self._session_ is None or self._session_.broken:
            return  # there is nothing to roll back, or the server has done it
        if self._owns_database and self.handle is None:
            return  # it does once the connection is closed
        try:
            if self._reading is not None:
                copy, batches = self._reading
                copy.read_out = False  # nothing is read after this
                batches.close()  # ends a COPY that was abandoned halfway
            self._session_.rollback()
        except portl.Error as error:
            logger.warning("%s: ending the reading transaction failed: %s", self.label(), error.message)

    def close(self) -> None:
        """See ``Source.close``."""
        try:
            self._stack.close()
        finally:
            if self._owns_database:
                self._database.close()

    def label(self) -> str:
        """See ``Source.label``."""
        return self._database.label

    def describe(self) -> portl.Table:
        """See ``Source.describe``."""
        return self._selection.table

    @property
    def _selection(self) -> Selection:
        if self._selected is None:
            self._selected = selected(self._session, self.config, self._describer)
        return self._selected

    @property
    def _describer(self) -> Describer:
        return Describer(self._session, self.context.token, self.label())

    def cast(self, column: Column, to: str, using: str | None) -> Column:
        """See ``Source.cast``. Values of a type unknown here leave as text, for the destination to parse."""
        return self._describer.cast(self._selection.origin, column, to, using)

    def examine(self, fields: Sequence[Field]) -> list[Finding]:
        """See ``Source.examine``."""
        if self._plain:
            return []
        looked = SourceExaminer(self._session, self.config, self.describe(), self._describer)
        select = self._selection.select(self._session, fields)
        rows, looks = self._source(), self._next_looks
        found = looked.examine(fields, origin=self._selection.origin, rows=rows, select=select, next_looks=looks)
        if looked.expected is not None:
            self._expected = looked.expected
        return found

    @property
    def _next_looks(self) -> list[list[str]]:
        """What the session is asked for once what is read was examined."""
        of_all = [snapshot.look(self._snapshot_of)] if self._owns_database else []
        return [look for look in (chunks.look(self.describe()), *of_all) if look]

    @property
    def _snapshot_of(self) -> portl.Table | None:
        """The table of which the snapshot has facts."""
        return self.describe() if self.config.lacks is None else None

    def formats(self, fields: Sequence[Field]) -> Sequence[Format]:
        """See ``Source.formats``. Binary if it means the same on the other side, otherwise text."""
        if any(details(field.target) is None for field in fields):
            return (portl.ROWS,)
        # One of many tables does not stay inside the server: all are read from one snapshot.
        where = self._where if self._owns_database else None
        offer = formats.Offer(self._session, self.config, self._selection, where)
        return (*offer.formats(fields), portl.ROWS)

    @property
    def _where(self) -> server_route.Database:
        """What identifies the database."""
        if self._database_here is None:
            self._database_here = server_route.database(self._session)
        return self._database_here

    def statement(self, fields: Sequence[Field], format: Format) -> str | None:
        """See ``Source.statement``."""
        if isinstance(format, server_route.ServerFormat):
            return format.select
        return self._selection.copy(self._session, fields, format)

    def split(self, splitting: Splitting) -> Split:
        """See ``Source.split``."""
        table = self.describe()
        if self._plain and splitting.chunk_rows is None and self.config.limit is None:
            return Split(chunks=(Chunk(rows=self._expected),), reason="it is smaller than a chunk")
        with only_reading():
            select = self._selection.select(self._session, splitting.fields)
            config = attrs.evolve(self.config, where=self._selection.where)
            return Splitter(self._session, table, config, self._selection.origin, select, splitting).split()

    def rest(self, reading: Reading, rows: int) -> Chunk | None:
        """See ``Source.rest``."""
        return self._selection.rest(self._session, reading, rows)

    def identity(self) -> Mapping[str, Any]:
        """See ``Source.identity``. The rows and the database, however it is reached."""
        of_table = self._selection.identity if self.config.lacks is None else {}
        return {"system": self._where.server, "database": self._where.name, **of_table}

    def _source(self) -> str:
        """Return what follows FROM."""
        return self._selection.rows(self._session)

    def snapshot(self) -> Mapping[str, Any]:
        """See ``Source.snapshot``."""
        found = snapshot.taken(self._session, self._snapshot_of)
        increment = self._selected.increment if self._selected is not None else None
        return {**found, "watermark": increment.watermark} if increment is not None else found

    def resumable(self, lines: Sequence[ChunkLine], run: Run, *, repeatable: bool) -> list[Finding]:
        """See ``Source.resumable``."""
        table = self.describe()
        return snapshot.findings(self._session, table, self._selection.origin, lines, run, repeatable=repeatable)

    @property
    def near(self) -> bool:
        """See ``Source.near``."""
        return self._session.near

    def room(self) -> int | None:
        """See ``Source.room``. The connections of the pool except the one in use."""
        most = self._database.most
        return most - 1 if most else None  # a pool's 0 is no limit

    def for_worker(self) -> PostgresSource | None:
        """See ``Source.for_worker``. It inherits the snapshot and the description of the table."""
        if isinstance(self.handle, psycopg.Connection) or self._session.nested:
            return None
        made = PostgresSource(self.config, self.handle)
        made._database, made._owns_database = self._database, False
        if self.config.lacks is None:
            made._selected = attrs.evolve(self._selection, orders=dict(self._selection._orders))
        made._shared = self._shared.handed_on(self._session)
        return made

    def end_workers(self) -> int:
        """See ``Source.end_workers``."""
        return worker_sessions.end(self._session, self._shared.mark)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out connections: an unpickled copy opens its own."""
        if self.handle is not None:
            raise TypeError("a source on the caller's connection or pool cannot be pickled")
        return {name: getattr(self, name) for name in ("config", "_selected", "_shared")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """See ``__getstate__``."""
        PostgresSource.__init__(self, state["config"])
        self.__dict__.update(state, _shared=attrs.evolve(state["_shared"], travelled=True))

    def holds(self) -> bool:
        """See ``Source.holds``."""
        session = self._session_
        if session is None or self._shared.lost or session.broken:
            return False
        status = session.connection.info.transaction_status
        if status is pq.TransactionStatus.INTRANS:
            return not ended(session)  # without a query: another worker's thread may be about to use it
        return status is pq.TransactionStatus.ACTIVE

    def count(self, *, exact: bool) -> RowCount | None:
        """See ``Source.count``."""
        estimate = self._estimate()
        if not exact or estimate > COUNT_ROWS:
            return RowCount(rows=estimate, exact=False)
        with only_reading():
            rows = self._session.query(
                f"SELECT count(*) FROM (SELECT 1 FROM {self._source()}) AS portl_rows", what="counting the rows"
            )
        return RowCount(rows=rows[0][0], exact=True)

    def _estimate(self) -> int:
        """Return the server's row estimate."""
        if self._expected is None:
            statement = f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {self._source()}"
            self._expected = expected_rows(self._session.query(statement, what="estimating the rows"))
        return self._expected

    def preview(self, fields: Sequence[Field], rows: int) -> list[tuple[str | None, ...]]:
        """See ``Source.preview``."""
        columns = ", ".join(
            f"({select_list.select_item(field, named=False)})::text AS c{number}" for number, field in enumerate(fields)
        )
        statement = f"SELECT * FROM (SELECT {columns} FROM {self._source()}) AS portl_preview LIMIT {rows}"
        with only_reading(), as_they_are(self._session):
            found = self._session.query(statement, what="the preview")
        return [tuple(map(_shown, row)) for row in found]

    def rows(self) -> Iterable[tuple[Any, ...]]:
        """See ``Source.rows``. The engine uses ``read``."""
        columns = self.describe().columns
        fields = [portl.Field(source=c, sent=c, target=c, conversion=portl.Conversion.of()) for c in columns]
        reading = Reading(fields=tuple(fields), format=portl.ROWS, chunk=portl.Chunk(), batch_rows=1000)
        for batch in self.read(reading):
            assert isinstance(batch, RowBatch)
            yield from batch.data

    def read(self, reading: Reading) -> Iterator[portl.Batch]:
        """See ``Source.read``."""
        bounds = reading.chunk.bounds
        if isinstance(reading.format, server_route.ServerFormat):
            select = self._selection.select(self._session, reading.fields, bounds, ordered=False)
            count = f"SELECT 1 FROM {self._selection.rows(self._session, bounds, ordered=False)}"
            yield server_route.ServerBatch(number=1, first_row=1, rows=0, size=0, select=select, count=count)
            return
        statement = self._selection.copy(self._session, reading.fields, reading.format, bounds)
        copy = CopyOut(self._session, statement, self.context.token, "reading", read_out=bounds is not None)
        binary = reading.format.name == BINARY
        batches = copy.batches(binary=binary, rows=reading.batch_rows, size=reading.batch_bytes)
        self._reading = copy, batches
        naming = unsendable.named(self._session, self._selection, reading, copy)
        with only_reading(), self._passing(reading.format), naming, closing(batches):
            yield from decoded(reading, batches) if reading.format.name == portl.ROWS.name else batches
        if reading.check:
            self.check()

    def check(self) -> None:
        """See ``Source.check``."""
        snapshot.check_not_rewritten(self._session, self.label())

    def _passing(self, format: Format) -> AbstractContextManager[None]:
        """Let invalid UTF-8 pass, so that the destination refuses the row, rather than the source the whole read."""
        return as_they_are(self._session) if format.name == BINARY else nullcontext()

    def comparer(self, intent: portl.Intent) -> portl.Comparer:
        """See ``Source.comparer``."""
        return comparer.SourceComparer(
            self._session,
            self.context.token,
            self._source(),
            self.label(),
            row_security=self.config.row_security.value,
        )

    def condition(self) -> str | None:
        """See ``Source.condition``."""
        return self.config.where

    def mirror(self, intent: portl.Intent) -> portl.MirrorSource:
        """See ``Source.mirror``."""
        self._selection.places = places = Places()
        rows = MirroredRows(
            rows=self._source(),
            row_security=self.config.row_security.value,
            table=self.describe(),
            relation=relation_of(self.describe()),
            only=self.config.only,
        )
        return PostgresMirrorSource(self._session, self.context.token, self.label(), rows, places)

    def select(self, reading: Reading, key: Sequence[str], wanted: Mapping[portl.Texts, int]) -> Iterator[portl.Batch]:
        """See ``Source.select``."""
        statement = by_key.selection(reading.fields, key, wanted, self._source(), self._session.version)
        binary = reading.format.name == BINARY
        options = "FORMAT binary" if binary else text_options(self._session)
        copy = CopyOut(self._session, f"COPY ({statement}) TO STDOUT ({options})", self.context.token, "reading")
        batches = copy.batches(binary=binary, rows=reading.batch_rows, size=reading.batch_bytes)
        with self._passing(reading.format):
            yield from decoded(reading, batches) if reading.format.name == portl.ROWS.name else batches


def _shown(value: str | bytes | None) -> str | None:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
