"""The destination: describe the table or propose one, and create its writer, comparer and ledger."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Self

import attrs
import psycopg

import portl
from portl import Column, Conversion, Examination, Field, Finding, Intent, LedgerConfig, Rejected, Strategy, Table
from portl_postgres.catalog import addresses, conversions, tables, types
from portl_postgres.catalog.conversions import Typed
from portl_postgres.catalog.tables import details, table_details
from portl_postgres.config import SERVER, PostgresDestinationConfig
from portl_postgres.destination import checks, due_key, expected, foreign_keys, new_table
from portl_postgres.destination.new_table import Proposal
from portl_postgres.destination.quarantine.table import RejectedTable
from portl_postgres.destination.writing.writer import PostgresWriter
from portl_postgres.ledger import location
from portl_postgres.ledger.choice import ledger_of
from portl_postgres.ledger.ledger import PostgresLedger
from portl_postgres.session import worker_sessions
from portl_postgres.session.database import Database
from portl_postgres.session.first import First
from portl_postgres.session.session import Session
from portl_postgres.session.settings import MEMORY
from portl_postgres.sql.text import quoted
from portl_postgres.verification import by_key, mirrored
from portl_postgres.verification.comparer import DestinationComparer
from portl_postgres.verification.mirroring import PostgresMirrorDestination
from portl_postgres.wire import select_list, server_route
from portl_postgres.wire.batches import BINARY, TEXT


@attrs.frozen(kw_only=True)
class _Inherited:
    """What a worker's destination inherits from the one that created it."""

    #: True if the first writer found that rows can go straight into the table.
    straight: bool
    #: True within the same process, where the connection pool is shared.
    shares_pool: bool


class PostgresDestination(portl.Destination[PostgresDestinationConfig]):
    """A PostgreSQL table that rows are written to."""

    strategies: ClassVar[Collection[Strategy]] = tuple(Strategy)
    savepoints: ClassVar[bool] = True
    widens: ClassVar[bool] = True
    digests: ClassVar[Collection[str]] = ("postgres", portl.ROWS.name)

    def __init__(self, config: PostgresDestinationConfig, handle: object | None = None) -> None:
        super().__init__(config, handle)
        self._database_: Database | None = None
        self._database_here: server_route.Database | None = None
        self._stack = ExitStack()
        self._session_: Session | None = None
        #: Marks the sessions of workers in other processes.
        self._mark = worker_sessions.new_mark()
        #: None for the first destination of a run, which creates what is missing.
        self._inherited: _Inherited | None = None
        self._proposal: Proposal | None = None
        #: The job that was examined last, and what was found.
        self._examined: tuple[Intent, Examination] | None = None
        self._writer: PostgresWriter | None = None
        #: The table as this run creates it, with the source's objects.
        self._expected: Table | None = None

    def __getstate__(self) -> dict[str, Any]:
        if self.handle is not None:
            raise TypeError("a destination on the caller's connection or pool cannot be pickled")
        return {"config": self.config, "mark": self._mark, "inherited": self._inherited}

    def __setstate__(self, state: dict[str, Any]) -> None:
        PostgresDestination.__init__(self, state["config"])
        self._mark = state["mark"]
        inherited: _Inherited | None = state["inherited"]
        self._inherited = inherited and attrs.evolve(inherited, shares_pool=False)

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
        return addresses.tables(keys, context, "destination")

    def over(self, base: PostgresDestination) -> PostgresDestination:
        """See ``Destination.over``. Writers execute nothing before or after the rows; ``finisher`` does."""
        made = PostgresDestination(self.config, base.handle)
        made.context = base.context
        made._session_, made._database_, made._mark = base._session, base._database, base._mark
        made._database_here = base._identified
        made._inherited = _Inherited(straight=False, shares_pool=True)
        made._expected, made._examined = self._expected, self._examined
        return made

    def expect(self, table: Table) -> None:
        """See ``Destination.expect``."""
        self._expected = expected.expected(table, self.config)

    def objects(self) -> Collection[str]:
        """See ``Destination.objects``."""
        from portl_postgres.objects import making  # see ``PostgresSource.objects``

        return making.existing(self._session)

    def standing(self, objects: Sequence[portl.SchemaObject]) -> portl.Standing:
        """See ``Destination.standing``."""
        from portl_postgres.objects import standing  # see ``PostgresSource.objects``

        return standing.standing(self._session, objects)

    def foreign_keys(self) -> Sequence[portl.ForeignKey]:
        """See ``Destination.foreign_keys``."""
        return foreign_keys.read(self._session)

    def unfit(self, objects: Sequence[portl.SchemaObject]) -> list[Finding]:
        """See ``Destination.unfit``."""
        from portl_postgres.objects import making  # see ``PostgresSource.objects``

        return making.unfit(self._session, objects)

    def make(self, objects: Sequence[portl.SchemaObject], first: Callable[[], None] | None = None) -> None:
        """See ``Destination.make``."""
        from portl_postgres.objects import making  # see ``PostgresSource.objects``

        making.make(self._session, objects, first)

    def building(self, others: Sequence[Self]) -> Sequence[portl.Building | None]:
        """See ``Destination.building``."""
        from portl_postgres.objects import making  # see ``PostgresSource.objects``

        return making.building(self._session, [other._session.connection.info.backend_pid for other in others])

    def drop(self, tables: Sequence[str]) -> None:
        """See ``Destination.drop``. One statement drops all tables, as foreign keys may connect them."""
        self._session.execute(
            f"DROP TABLE IF EXISTS {', '.join(map(addresses.requoted, tables))}", what="dropping tables"
        )

    def connect(self, context: portl.Context) -> None:
        """See ``Destination.connect``."""
        self._database.begin(context)

    def open(self, context: portl.Context) -> None:
        """See ``Destination.open``."""
        super().open(context)
        # The last commit waits for the disk, and the ledger tells which commits a crash of the server has lost.
        settings = {"synchronous_commit": "off", "standard_conforming_strings": "on"}
        if self.config.maintenance_work_mem != SERVER:
            settings[MEMORY] = self.config.maintenance_work_mem
        self._session_ = self._stack.enter_context(self._database.session(context, settings, self._first()))
        if self._inherited is not None and not self._inherited.shares_pool:
            worker_sessions.wear(self._session, self._mark)

    def _first(self) -> First:
        """Return what a new session does first: read what every run needs."""
        looks = [[location.look(location.candidates(LedgerConfig(), self.config.schema))]]
        table, bare = self.config.table, []
        if self._inherited is None:
            looks += [list(server_route.DATABASE_LOOK), *([checks.look(self.config)] if table else [])]
            bare = [tables.looks([(self.config.schema, table)])] if table else []
        return First(looks=looks, bare=bare)

    def close(self) -> None:
        """See ``Destination.close``."""
        try:
            self._stack.close()
        finally:
            shares_pool = self._inherited is not None and self._inherited.shares_pool
            if self._database_ is not None and not shares_pool:
                self._database_.close()

    def label(self) -> str:
        """See ``Destination.label``."""
        return self._database.label

    def target(self) -> str:
        """See ``Destination.target``."""
        return tables.shown(self.config.schema, self.config.table)

    def describe(self) -> Table | None:
        """See ``Destination.describe``."""
        if self._expected is not None:
            return self._expected
        with self._session.scope():
            table = tables.read_table(self._session, self.config.schema, self.config.table, alone=self.config.only)
        return table if table is None else due_key.as_it_will_be(table)

    def propose(self, source: Table, columns: Mapping[str, Column]) -> Table:
        """See ``Destination.propose``."""
        if self._expected is not None:
            return self._expected
        self._proposal = new_table.propose(self._session, source, columns, self.config)
        return self._proposal.table

    def conversion(self, source: Column, target: Column) -> Conversion:
        """See ``Destination.conversion``."""
        left, right = details(source), details(target)
        if left is None or right is None:
            if right is not None and not types.has_generic(right.pg) and not types.is_text(right.pg):
                return Conversion.of(portl.Risk.FORM)
            return portl.conversion(source.type, target.type)
        return conversions.conversion(
            Typed(left.pg, source.type, left.modifier), Typed(right.pg, target.type, right.modifier)
        )

    def formats(self, fields: Sequence[Field]) -> Collection[str]:
        """See ``Destination.formats``."""
        server = self._identified.format
        return {BINARY, TEXT, portl.ROWS.name, *([server] if server is not None else [])}

    @property
    def _identified(self) -> server_route.Database:
        """What identifies the server and the database, however they were reached."""
        if self._database_here is None:
            self._database_here = server_route.database(self._session)
        return self._database_here

    def obstacle(self, intent: Intent) -> str | None:
        """See ``Destination.obstacle``."""
        return server_route.obstacle(self._session, intent)

    def examine(self, intent: Intent) -> Examination:
        """See ``Destination.examine``."""
        if self._expected is not None:
            examination = checks.examine_expected(self._session, self.config, intent)
        else:
            examination = checks.examine(self._session, self.config, intent, self._proposal)
        self._examined = intent, examination
        return examination

    def writer(self, intent: Intent) -> portl.Writer:
        """See ``Destination.writer``. Text that becomes a date or time is read with the source's settings."""
        if read_by := select_list.settings(intent.fields):
            self._session.settings(read_by)
        if self._inherited is not None:
            straight = self._inherited.straight
            return PostgresWriter(self._session, intent, self.context, before=(), after=(), straight=straight)
        # If a plan is executed right away, its job differs from the examined one only in the run's id and in the
        # results of the examination.
        seen, examination = self._examined or (None, None)
        if examination is None or seen is None or attrs.evolve(seen, run=intent.run, kept=intent.kept) != intent:
            examination = self.examine(intent)
        intent = attrs.evolve(intent, kept=frozenset(examination.kept))
        self._examined = None
        self._writer = PostgresWriter(
            self._session, intent, self.context, before=examination.before, after=examination.after
        )
        return self._writer

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See ``Destination.transaction``."""
        self._session.begin(later=True)
        try:
            yield
        except BaseException:
            if not self._session.broken:
                self._session.rollback()
            raise
        self._session.commit()

    def finisher(self, intent: Intent) -> portl.Writer:
        """See ``Destination.finisher``."""
        after = self._examined[1].after if self._examined is not None else self.examine(intent).after
        return PostgresWriter(self._session, intent, self.context, before=(), after=after, straight=True)

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
        return DestinationComparer(self._session, self.context.token, self._name, self.label())

    def examine_mirror(self, intent: Intent, mirroring: portl.Mirroring) -> list[Finding]:
        """See ``Destination.examine_mirror``."""
        return mirrored.examine(self._session, self._name, intent, mirroring)

    def mirror(self, intent: Intent, mirroring: portl.Mirroring) -> portl.MirrorDestination:
        """See ``Destination.mirror``."""
        return PostgresMirrorDestination(self._session, self.context.token, self._name, self.label(), intent, mirroring)

    def remove(self, intent: Intent, keys: Sequence[portl.Texts]) -> int:
        """See ``Destination.remove``."""
        ((count,),) = self._session.query(by_key.removal(self._session, self._name, intent, keys), what="removing rows")
        return int(count)

    @property
    def _name(self) -> str:
        """The table's name, quoted."""
        return ("ONLY " if self.config.only else "") + quoted(self.config.schema, self.config.table)

    def ledger(self, wanted: LedgerConfig) -> PostgresLedger | Finding:
        """See ``Destination.ledger``."""
        return ledger_of(self._session, wanted, self.config.schema, self.context.token)

    def empty(self) -> bool:
        """See ``Destination.empty``. Also False if the role may not see every row."""
        table = self.describe()
        if table is None or table_details(table).row_security:
            return False
        ((may,),) = self._session.query("SELECT has_table_privilege($1::oid, 'SELECT')", table_details(table).oid)
        if not may:
            return False
        ((found,),) = self._session.query(f"SELECT EXISTS (SELECT FROM {self._name})")
        return not found

    def incarnation(self) -> str | None:
        """See ``Destination.incarnation``. The table's OID, which TRUNCATE, VACUUM FULL and ALTER do not change."""
        seen = self._writer.relation if self._writer is not None else None
        if seen:
            return str(seen)
        ((found,),) = self._session.query(
            "SELECT pg_catalog.to_regclass($1)::oid::text", quoted(self.config.schema, self.config.table)
        )
        return None if found is None else str(found)

    def leftover(self, *, remove: bool = False) -> str | None:
        """See ``Destination.leftover``. A table that a run created and did not finish."""
        table = self.describe()
        if table is None or table_details(table).due is None:
            return None
        ((count,),) = self._session.query(f"SELECT count(*) FROM {self._name}")
        if remove:
            self._session.execute(
                f"DROP TABLE {quoted(self.config.schema, self.config.table)}", what="dropping the unfinished table"
            )
        lacks = "its key" if table_details(table).keyless else "its indexes and constraints"
        return f"the table {self.target()}, with {count:,} rows and without {lacks}"

    @property
    def near(self) -> bool:
        """See ``Destination.near``."""
        return self._session.near

    def room(self) -> int | None:
        """See ``Destination.room``. The connections of the pool except the one in use."""
        most = self._database.most
        return most - 1 if most else None  # a pool's 0 is no limit

    def for_worker(self) -> PostgresDestination | None:
        """See ``Destination.for_worker``. In this process it shares the pool; in another it has its own."""
        if isinstance(self.handle, psycopg.Connection):
            return None
        inherited = self._inherited is not None and self._inherited.straight
        found = PostgresDestination(self.config, self.handle)
        found._database_ = self._database
        found._mark = self._mark
        straight = self._writer.straight if self._writer is not None else inherited
        found._inherited = _Inherited(straight=straight, shares_pool=True)
        return found

    def end_workers(self) -> int:
        """See ``Destination.end_workers``."""
        return worker_sessions.end(self._session, self._mark)

    def identity(self) -> Mapping[str, Any]:
        """See ``Destination.identity``. The cluster, the database and the table, however they are reached."""
        found = self._identified
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
