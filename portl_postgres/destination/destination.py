"""Write to a table: look at it, make it if it is missing, say how rows will be written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

import attrs
import psycopg

import portl
from portl import Column, Conversion, Examination, Field, Finding, Intent, LedgerConfig, Rejected, Strategy, Table
from portl_postgres.catalog import tables as catalog
from portl_postgres.catalog import types
from portl_postgres.catalog.tables import details, table_details
from portl_postgres.catalog.types import PgType
from portl_postgres.config import PostgresDestinationConfig
from portl_postgres.destination import ddl, due_key
from portl_postgres.destination.checks import Examiner, unknown_type
from portl_postgres.destination.quarantine.table import RejectedTable
from portl_postgres.destination.writing.writer import PostgresWriter
from portl_postgres.ledger.choice import ledger_of
from portl_postgres.ledger.ledger import PostgresLedger
from portl_postgres.session import worker_sessions
from portl_postgres.session.database import Database
from portl_postgres.session.session import Session
from portl_postgres.sql.text import quoted
from portl_postgres.wire import server_route
from portl_postgres.wire.batches import BINARY, TEXT


class PostgresDestination(portl.Destination[PostgresDestinationConfig]):
    """A table of PostgreSQL's."""

    strategies: ClassVar[Collection[Strategy]] = tuple(Strategy)
    savepoints: ClassVar[bool] = True

    def __init__(self, config: PostgresDestinationConfig, handle: object | None = None) -> None:
        super().__init__(config, handle)
        self._database_: Database | None = None
        #: True beside another destination, which makes what is missing, and whose pool is shared in its process.
        self._second = self._shares = False
        #: True if the first writer has found that rows can go straight into the table.
        self._straight = False
        self._writer: PostgresWriter | None = None
        #: Marks the connections of worker sessions in other processes.
        self._mark = worker_sessions.new_mark()
        #: True for what came out of a pickle.
        self._travelled = False
        self._stack = ExitStack()
        self._session_: Session | None = None
        self._database_here: server_route.Database | None = None
        self._resolver: ddl.TypeResolver | None = None
        #: What was examined last, and what came out.
        self._examined: tuple[Intent, Examination] | None = None

    def __getstate__(self) -> dict[str, Any]:
        if self.handle is not None:
            raise TypeError("a connection that was handed in does not travel to another process")
        return {"config": self.config, "second": self._second, "straight": self._straight, "mark": self._mark}

    def __setstate__(self, state: dict[str, Any]) -> None:
        PostgresDestination.__init__(self, state["config"])
        self._second, self._straight, self._mark = state["second"], state["straight"], state["mark"]
        self._travelled = True

    @property
    def _database(self) -> Database:
        if self._database_ is None:
            self._database_ = Database(self.config, self.handle, "destination")
        return self._database_

    @property
    def _session(self) -> Session:
        assert self._session_ is not None, "open() comes first"
        return self._session_

    @classmethod
    def tables(cls, keys: Mapping[str, Any], context: portl.Context) -> Sequence[portl.TableEntry]:
        """See ``Destination.tables``."""
        from portl_postgres.catalog import addresses

        return addresses.tables(keys, context, "destination")

    def connect(self, context: portl.Context) -> None:
        """See ``Destination.connect``."""
        self._database.begin(context)

    def open(self, context: portl.Context) -> None:
        """See ``Destination.open``."""
        super().open(context)
        # What is lost with a crash of the server is known and reported: the last commit waits for the disk.
        settings = {"synchronous_commit": "off", "standard_conforming_strings": "on"}
        self._session_ = self._stack.enter_context(self._database.session(context, settings))
        if self._travelled:
            worker_sessions.wear(self._session, self._mark)

    def close(self) -> None:
        """See ``Destination.close``."""
        try:
            self._stack.close()
        finally:
            if self._database_ is not None and not self._shares:
                self._database_.close()

    def label(self) -> str:
        """See ``Destination.label``."""
        return self._database.label

    def target(self) -> str:
        """See ``Destination.target``."""
        return catalog.shown(self.config.schema, self.config.table)

    def describe(self) -> Table | None:
        """See ``Destination.describe``."""
        with self._session.scope():
            table = catalog.read_table(self._session, self.config.schema, self.config.table)
        return table if table is None else due_key.as_it_will_be(table)

    def propose(self, source: Table, columns: Mapping[str, Column]) -> Table:
        """See ``Destination.propose``."""
        with self._session.scope():
            if source.dialect == catalog.DIALECT:
                columns = {name: self._known_here(column) for name, column in columns.items()}
            self._resolver = ddl.TypeResolver(
                known=self._known_types(columns.values()),
                schema=self.config.schema,
                may_create=self.config.create_types,
            )
            collations = self._collations() if any(column.collation for column in columns.values()) else []
        for column in columns.values():
            if source.dialect == catalog.DIALECT and details(column) is None:
                self._resolver.remarks.append((column.name, unknown_type(column.name, column.native)))
        return ddl.propose_table(source, columns, self.config, self._resolver, self._session.version, collations)

    def _collations(self) -> list[str]:
        rows = self._session.query(
            "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.collname) FROM pg_catalog.pg_collation AS c"
            " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.collnamespace",
            what="looking for collations",
        )
        return [name for (name,) in rows]

    def _known_here(self, column: Column) -> Column:
        """Return a column whose type the source does not know with what this server knows of it."""
        if details(column) is not None:
            return column
        oid = self._type_oid(column.native)
        if oid is None:
            return column
        pg = catalog.read_types(self._session, [oid])[oid]
        found = catalog.ColumnDetails(pg=pg, version=self._session.version)
        return attrs.evolve(column, native=pg.spelled, type=types.generic(pg, -1), details=found)

    def _type_oid(self, spelled: str) -> int | None:
        try:
            with self._session.scope():
                # In the schema of the table first, as its columns' types would be sought.
                ((oid,),) = self._session.query(
                    "SELECT coalesce(to_regtype(quote_ident($1) || '.' || $2), to_regtype($2))::oid",
                    self.config.schema,
                    spelled,
                )
        except portl.Error:
            return None  # what cannot even be parsed is no type
        return int(oid) if oid is not None else None

    def _known_types(self, columns: Collection[Column]) -> dict[tuple[str, str], PgType]:
        """Return the user-made types here that bear the names of those in use there."""
        found = [d.pg for column in columns if (d := details(column)) is not None]
        names = {part.name for pg in found for part in pg.parts() if not part.builtin}
        if not names:
            return {}
        oids = [
            oid
            for (oid,) in self._session.query(
                "SELECT oid FROM pg_catalog.pg_type WHERE typname = ANY($1) AND oid >= $2",
                sorted(names),
                types.FIRST_USER_OID,
                what="looking for types",
            )
        ]
        return {(t.schema, t.name): t for t in catalog.read_types(self._session, oids).values() if not t.builtin}

    def conversion(self, source: Column, target: Column) -> Conversion:
        """See ``Destination.conversion``."""
        left, right = details(source), details(target)
        if left is None or right is None:
            if right is not None and not types.has_generic(right.pg) and not types.is_text(right.pg):
                return Conversion.of(portl.Risk.FORM)
            return portl.conversion(source.type, target.type)
        return types.conversion(left.pg, source.type, right.pg, target.type, (left.modifier, right.modifier))

    def formats(self, fields: Sequence[Field]) -> Collection[str]:
        """See ``Destination.formats``."""
        server = self._where.format
        return {BINARY, TEXT, portl.ROWS.name, *([server] if server is not None else [])}

    @property
    def _where(self) -> server_route.Database:
        """Which database this is."""
        if self._database_here is None:
            self._database_here = server_route.database(self._session)
        return self._database_here

    def obstacle(self, intent: Intent) -> str | None:
        """See ``Destination.obstacle``."""
        return server_route.obstacle(self._session, intent)

    def examine(self, intent: Intent) -> Examination:
        """See ``Destination.examine``."""
        examiner = Examiner(self._session, self.config, self._resolver, self._type_oid)
        self._examined = intent, examiner.examine(intent)
        return self._examined[1]

    def writer(self, intent: Intent) -> portl.Writer:
        """See ``Destination.writer``."""
        if self._second:
            return PostgresWriter(self._session, intent, self.context, before=(), after=(), straight=self._straight)
        # A job that was examined a moment ago has been given no more than a run since.
        seen, examination = self._examined or (None, None)
        if examination is None or seen is None or attrs.evolve(seen, run=intent.run) != intent:
            examination = self.examine(intent)
        self._examined = None
        self._writer = PostgresWriter(
            self._session, intent, self.context, before=examination.before, after=examination.after
        )
        return self._writer

    def rejected(self, intent: Intent, *, after: int = 0, limit: int = 1000) -> Sequence[Rejected]:
        """See ``Destination.rejected``."""
        return RejectedTable(self._session, intent, self.context.token).read(after, limit)

    def settle(
        self, intent: Intent, gone: Sequence[Rejected], still: Sequence[tuple[Rejected, portl.DataError]]
    ) -> None:
        """See ``Destination.settle``."""
        RejectedTable(self._session, intent, self.context.token).settle(gone, still)

    def comparer(self, intent: Intent) -> portl.Comparer:
        """See ``Destination.comparer``."""
        from portl_postgres.verification import comparer as verifying

        rows = quoted(self.config.schema, self.config.table)
        return verifying.DestinationComparer(self._session, self.context.token, rows, self.label())

    def ledger(self, wanted: LedgerConfig) -> PostgresLedger | Finding:
        """See ``Destination.ledger``."""
        return ledger_of(self._session, wanted, self.config.schema, self.context.token)

    def empty(self) -> bool:
        """See ``Destination.empty``. Where the role does not see every row, nothing is known."""
        table = self.describe()
        if table is None or table_details(table).row_security:
            return False
        ((may,),) = self._session.query("SELECT has_table_privilege($1::oid, 'SELECT')", table_details(table).oid)
        if not may:
            return False
        name = quoted(self.config.schema, self.config.table)
        ((found,),) = self._session.query(f"SELECT EXISTS (SELECT FROM {name})")
        return not found

    def incarnation(self) -> str | None:
        """See ``Destination.incarnation``: the table's OID. TRUNCATE, VACUUM FULL and ALTER leave it as it is."""
        seen = self._writer.relation if self._writer is not None else None
        if seen:
            return str(seen)
        ((found,),) = self._session.query(
            "SELECT pg_catalog.to_regclass($1)::oid::text", quoted(self.config.schema, self.config.table)
        )
        return None if found is None else str(found)

    def leftover(self, *, remove: bool = False) -> str | None:
        """See ``Destination.leftover``: a table that a run has made and not finished."""
        table = self.describe()
        if table is None or not table_details(table).unfinished:
            return None
        name = quoted(self.config.schema, self.config.table)
        ((count,),) = self._session.query(f"SELECT count(*) FROM {name}")
        if remove:
            self._session.execute(f"DROP TABLE {name}", what="dropping the unfinished table")
        return f"the table {self.target()}, with {count:,} rows and without its key"

    @property
    def near(self) -> bool:
        """See ``Destination.near``."""
        return self._session.near

    def room(self) -> int | None:
        """See ``Destination.room``: the pool's connections but the one that is in use already."""
        most = self._database.most
        return most - 1 if most else None  # a pool's 0 is no limit

    def for_worker(self) -> PostgresDestination | None:
        """See ``Destination.for_worker``. In this process it shares the pool; in another it has one of its own."""
        if isinstance(self.handle, psycopg.Connection):
            return None
        found = PostgresDestination(self.config, self.handle)
        found._database_ = self._database
        found._second = found._shares = True
        found._mark = self._mark
        found._straight = self._writer.straight if self._writer is not None else self._straight
        return found

    def end_workers(self) -> int:
        """See ``Destination.end_workers``."""
        return worker_sessions.end(self._session, self._mark)

    def identity(self) -> Mapping[str, Any]:
        """See ``Destination.identity``: the cluster, the database, the table; by whatever way they are reached."""
        found = self._where
        config = self.config
        key = None if config.primary_key is None else list(config.primary_key)
        return {
            "system": found.system,
            "database": [found.oid, found.name],
            "schema": config.schema,
            "table": config.table,
            "primary_key": key,
        }

    def holds(self) -> bool:
        """See ``Destination.holds``."""
        return not self._session.broken
