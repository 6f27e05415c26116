"""Write to a table: look at it, make it if it is missing, say how rows will be written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

import attrs
import psycopg

import portl
from portl import Column, Conversion, Examination, Field, Finding, Intent, LedgerConfig, Rejected, Strategy, Table
from portl_postgres import catalog, ddl, inside, quarantine, types, unfinished, verifying
from portl_postgres.catalog import details, table_details
from portl_postgres.config import PostgresDestinationConfig, check_name
from portl_postgres.conflicts import Merge, check_merge, trials
from portl_postgres.connection import Session
from portl_postgres.copying import BINARY, TEXT
from portl_postgres.database import Database
from portl_postgres.ledger import PostgresLedger, ledger_of
from portl_postgres.quarantine import RejectedTable
from portl_postgres.sqltext import quoted
from portl_postgres.types import PgType
from portl_postgres.writer import PostgresWriter, copy_statement, merges_straight

COMPRESSION_SINCE = 14


class PostgresDestination(portl.Destination[PostgresDestinationConfig]):
    """A table of PostgreSQL's."""

    strategies: ClassVar[Collection[Strategy]] = tuple(Strategy)
    savepoints: ClassVar[bool] = True

    def __init__(self, config: PostgresDestinationConfig, handle: object | None = None) -> None:
        super().__init__(config, handle)
        self._database_: Database | None = None
        #: True beside another destination, which makes what is missing, and whose pool is shared in its process.
        self._second = self._shares = False
        #: Whether the first writer goes through the staging table; None: it does not know yet.
        self._stages: bool | None = None
        self._writer: PostgresWriter | None = None
        self._stack = ExitStack()
        self._session_: Session | None = None
        self._database_here: inside.Database | None = None
        self._resolver: ddl.TypeResolver | None = None

    def __getstate__(self) -> dict[str, Any]:
        if self.handle is not None:
            raise TypeError("a connection that was handed in does not travel to another process")
        return {"config": self.config, "second": self._second, "stages": self._stages}

    def __setstate__(self, state: dict[str, Any]) -> None:
        PostgresDestination.__init__(self, state["config"])
        self._second, self._stages = state["second"], state["stages"]

    @property
    def _database(self) -> Database:
        if self._database_ is None:
            self._database_ = Database(self.config, self.handle, "destination")
        return self._database_

    @property
    def _session(self) -> Session:
        assert self._session_ is not None, "open() comes first"
        return self._session_

    def connect(self, context: portl.Context) -> None:
        """See ``Destination.connect``."""
        self._database.begin(context)

    def open(self, context: portl.Context) -> None:
        """See ``Destination.open``."""
        super().open(context)
        # What is lost with a crash of the server is known and reported: the last commit waits for the disk.
        settings = {"synchronous_commit": "off", "standard_conforming_strings": "on"}
        self._session_ = self._stack.enter_context(self._database.session(context, settings))

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
        return table if table is None else unfinished.as_it_will_be(table)

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
            collations = [name for (name,) in self._session.query(
                "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.collname) FROM pg_catalog.pg_collation AS c"
                " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.collnamespace"
            )]  # fmt: skip
        for column in columns.values():
            if source.dialect == catalog.DIALECT and details(column) is None:
                self._resolver.remarks.append((column.name, _unknown_type(column.name, column.native)))
        return ddl.propose_table(source, columns, self.config, self._resolver, self._session.version, collations)

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
    def _where(self) -> inside.Database:
        """Which database this is."""
        if self._database_here is None:
            self._database_here = inside.database(self._session)
        return self._database_here

    def obstacle(self, intent: Intent) -> str | None:
        """See ``Destination.obstacle``."""
        return inside.obstacle(self._session, intent)

    def examine(self, intent: Intent) -> Examination:
        """See ``Destination.examine``."""
        with self._session.scope():
            findings = self._server() + self._names(intent) + self._privileges(intent) + self._kind(intent)
            findings += self._conflict(intent) + self._staging(intent) + self._types_asked_for(intent)
            findings += quarantine.examine(self._session, intent)
            before, after = self._ddl(intent, findings)
        return Examination(
            findings=tuple(findings),
            before=tuple(before),
            after=tuple(after),
            write=tuple(self._writes(intent)),
            ordered=self._ordered(intent),
            rejected_to=catalog.shown(*quarantine.table_name(intent)) if intent.quarantine else None,
        )

    def _ordered(self, intent: Intent) -> str | None:
        """Say why a chunk must wait for those before it: a row may refer to one that comes earlier."""
        if intent.create:
            return None
        rows = self._session.query(
            "SELECT conname FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conrelid = $1::oid"
            " AND confrelid = conrelid",
            table_details(intent.target).oid,
        )
        return f"{rows[0][0]} refers to rows of the same table" if rows else None

    def writer(self, intent: Intent) -> portl.Writer:
        """See ``Destination.writer``."""
        if self._second:
            return PostgresWriter(self._session, intent, self.context, before=(), after=(), stages=self._stages)
        examination = self.examine(intent)
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
        rows = quoted(self.config.schema, self.config.table)
        return verifying.DestinationComparer(self._session, self.context.token, rows, self.label())

    def ledger(self, wanted: LedgerConfig) -> PostgresLedger | Finding:
        """See ``Destination.ledger``."""
        return ledger_of(self._session, wanted, self.config.schema, self.context.token)

    def empty(self) -> bool:
        """See ``Destination.empty``. Where the role does not see every row, nothing is known."""
        table = self.describe()
        if table is None or table_details(table).row_security or not self._may_select(table_details(table).oid):
            return False
        name = quoted(self.config.schema, self.config.table)
        ((found,),) = self._session.query(f"SELECT EXISTS (SELECT FROM {name})")
        return not found

    def incarnation(self) -> str | None:
        """See ``Destination.incarnation``: the table's OID. TRUNCATE, VACUUM FULL and ALTER leave it as it is."""
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

    def room(self) -> int | None:
        """See ``Destination.room``: the pool's connections but the one that is in use already."""
        most = self._database.most
        return most - 1 if most else None  # a pool's 0 is no limit

    def sibling(self) -> PostgresDestination | None:
        """See ``Destination.sibling``. In this process it shares the pool; in another it has one of its own."""
        if isinstance(self.handle, psycopg.Connection):
            return None
        found = PostgresDestination(self.config, self.handle)
        found._database_ = self._database
        found._second = found._shares = True
        found._stages = self._writer.stages if self._writer is not None else self._stages
        return found

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

    def _types_asked_for(self, intent: Intent) -> list[Finding]:
        """Refuse types that the job asks for and neither end knows, where they go to a column that is there."""
        if intent.create or intent.source.dialect != catalog.DIALECT:
            return []
        return [
            _unknown_type(field.source.name, field.sent.native)
            for field in intent.fields
            if details(field.sent) is None and self._type_oid(field.sent.native) is None
        ]

    def _server(self) -> list[Finding]:
        ((recovering, read_only),) = self._session.query(
            "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean"
        )
        if recovering:
            return [portl.problem("destination", "the server is a standby, which only reads", "connect to its primary")]
        if not read_only:
            return []
        if self._session.nested:
            return [
                portl.problem(
                    "destination", "the transaction that was handed in is read-only", "open one that may write"
                )
            ]
        return [
            portl.problem("destination", "default_transaction_read_only is on for this role or database", "turn it off")
        ]

    def _names(self, intent: Intent) -> list[Finding]:
        findings = []
        for field in intent.fields:
            try:
                check_name("schema_mapping", field.target.name)
            except portl.FieldError as error:
                findings.append(portl.problem(f"column {field.source.name!r}", error.text))
        return findings

    def _privileges(self, intent: Intent) -> list[Finding]:
        if intent.create:
            return self._may_create()
        found = table_details(intent.target)
        table = quoted(found.schema, found.name)
        resolves = intent.conflict.strategy is not Strategy.FAIL and intent.key is not None
        updates = resolves and intent.conflict.strategy is not Strategy.SKIP
        key = intent.key.columns if resolves and intent.key is not None else ()
        known = [(f.target.name, d) for f in intent.fields if (d := details(f.target)) is not None and d.pg.oid]
        lacking = []
        if not all(d.may_insert for _, d in known):
            lacking.append("INSERT")
        if updates and not all(d.may_update for name, d in known if name not in key):
            lacking.append("UPDATE")
        # The staging table is made after the table, and xmax tells new rows from old: columns alone are not enough.
        stages = resolves or PostgresWriter.must_stage(intent, nested=self._session.nested)
        if stages and not self._may_select(found.oid):
            lacking.append("SELECT")
        findings = []
        if lacking:
            findings.append(
                portl.problem(
                    "destination",
                    f"the role may not {' or '.join(lacking)} on {intent.target.name}",
                    f"GRANT {', '.join(lacking)} ON {table} TO the role",
                )
            )
        if intent.add and not self._owns(found.oid):
            findings.append(
                portl.problem("destination", f"the role does not own {intent.target.name}, so it cannot add columns")
            )
        if not self._may_use(found.schema):
            findings.append(
                portl.problem(
                    "destination",
                    f"the role may not use the schema {found.schema!r}",
                    f"GRANT USAGE ON SCHEMA {quoted(found.schema)} TO the role",
                )
            )
        return findings

    def _staging(self, intent: Intent) -> list[Finding]:
        """Say if the staging table may be needed and cannot be made."""
        resolves = intent.conflict.strategy is not Strategy.FAIL and intent.key is not None
        may_conflict = resolves and not (intent.create and intent.distinct)
        if not may_conflict and not PostgresWriter.must_stage(intent, nested=self._session.nested):
            return []
        ((may,),) = self._session.query("SELECT has_database_privilege(current_database(), 'TEMPORARY')")
        if may:
            return []
        return [
            portl.problem(
                "destination",
                "the role may not create the temporary table that conflicts are resolved with",
                "GRANT TEMPORARY ON DATABASE … TO the role, or use `conflict: fail`",
            )
        ]

    def _may_select(self, relation: int) -> bool:
        ((may,),) = self._session.query("SELECT has_table_privilege($1::oid, 'SELECT')", relation)
        return bool(may)

    def _owns(self, relation: int) -> bool:
        ((owns,),) = self._session.query(
            "SELECT pg_has_role(relowner, 'USAGE') FROM pg_catalog.pg_class WHERE oid = $1", relation
        )
        return bool(owns)

    def _may_use(self, schema: str) -> bool:
        ((may,),) = self._session.query("SELECT has_schema_privilege($1, 'USAGE')", schema)
        return bool(may)

    def _schema_exists(self) -> bool:
        return bool(self._session.query("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1", self.config.schema))

    def _may_create(self) -> list[Finding]:
        schema = self.config.schema
        if self._schema_exists():
            # A list of privileges in one call asks for any of them.
            ((may,),) = self._session.query(
                "SELECT has_schema_privilege($1, 'CREATE') AND has_schema_privilege($1, 'USAGE')", schema
            )
            text, grant = (
                f"the role may not create tables in schema {schema!r}",
                f"GRANT CREATE, USAGE ON SCHEMA {quoted(schema)}",
            )
        else:
            ((may,),) = self._session.query("SELECT has_database_privilege(current_database(), 'CREATE')")
            text, grant = f"the role may not create the schema {schema!r}", "GRANT CREATE ON DATABASE …"
        return [] if may else [portl.problem("destination", text, f"{grant} TO the role")]

    def _kind(self, intent: Intent) -> list[Finding]:
        """Say what is special about an existing table."""
        if intent.create:
            return []
        found = table_details(intent.target)
        name = intent.target.name
        findings = []
        if found.kind == "m":
            findings.append(portl.problem("destination", f"{name} is a materialized view", "write to a table"))
        if found.unfinished:
            when = "at the end of that run, which goes on" if intent.resumed else "first"
            findings.append(
                portl.note("destination", f"{name} was left by a run that was interrupted: its key is built {when}")
            )
        if found.triggers:
            findings.append(
                portl.warning(
                    "destination", f"triggers on {name} run for each row and may change it: {', '.join(found.triggers)}"
                )
            )
        if found.rules:
            findings.append(
                portl.warning(
                    "destination", f"rules on {name} do not see rows that COPY brings: {', '.join(found.rules)}"
                )
            )
        if found.row_security:
            findings.append(
                portl.note("destination", f"row security on {name} applies: rows go through a staging table and INSERT")
            )
        if found.foreign_keys:
            findings.append(
                portl.note("destination", f"{found.foreign_keys} foreign key(s) of {name} are checked for each row")
            )
        for field in intent.fields:
            if field.target.identity == "always":
                findings.append(
                    portl.note(
                        f"column {field.source.name!r}",
                        f"{field.target.name!r} is GENERATED ALWAYS AS IDENTITY: new rows keep the source's value, "
                        "an update leaves it alone",
                    )
                )
        return findings

    def _conflict(self, intent: Intent) -> list[Finding]:
        findings = []
        filled = {field.target.name for field in intent.fields}
        if intent.key is not None and intent.conflict.strategy is not Strategy.FAIL:
            unfilled = [name for name in intent.key.columns if name not in filled]
            if unfilled:
                findings.append(
                    portl.problem(
                        "conflict",
                        f"the key ({', '.join(intent.key.columns)}) has a column that nothing fills: {unfilled[0]!r}",
                        "map a column to it in `schema_mapping`, or choose another `conflict.key`",
                    )
                )
            elif intent.key.deferrable:
                findings.append(
                    portl.note(
                        "conflict", f"the key {intent.key.name!r} is deferrable: rows are joined, not ON CONFLICT"
                    )
                )
        if intent.conflict.strategy is Strategy.MERGE:
            wrong = check_merge(intent)
            findings += [portl.problem(where, text) for where, text in wrong]
            if not wrong and intent.key is not None and not intent.create and not findings:
                findings += self._try_merge(intent)
        return findings

    def _try_merge(self, intent: Intent) -> list[Finding]:
        """Have the server parse what ``conflict`` asks for."""
        for where, statement in trials(intent):
            try:
                with self._session.scope():
                    self._session.query(f"EXPLAIN {statement}", what=where)
            except portl.Error as error:
                return [
                    portl.problem(
                        where,
                        error.message,
                        f"expected one of {', '.join(portl.MERGE_WORDS)}, or an SQL expression over source.x and"
                        " destination.x",
                    )
                ]
        return []

    def _ddl(self, intent: Intent, findings: list[Finding]) -> tuple[list[str], list[str]]:
        """Return what is executed before the rows and after them."""
        config = self.config
        resolver = self._resolver
        begun = not intent.create and table_details(intent.target).unfinished
        # The run that has made the table is not done: the key is built after its last rows.
        due = [unfinished.build_key(intent.target)] if begun else []
        first, last = ([], due) if intent.resumed else (due, [])
        finish = [unfinished.unmark(intent.target), f"ANALYZE {quoted(config.schema, config.table)}"]
        if not intent.create and not intent.add:
            return (first, [*last, *finish]) if begun else ([], [])
        made_columns = intent.target.columns if intent.create else intent.add
        if resolver is not None:
            findings += resolver.findings_of(made_columns)
        types_before = [ddl.create_type(made) for made in (resolver.needed(made_columns) if resolver else ())]
        if not intent.create:
            return [*first, *types_before, ddl.add_columns(intent.add, config)], [*last, *finish] if begun else []
        findings += self._compression() + ddl.unknown_keys(intent.target, config)
        before = [] if self._schema_exists() else [f"CREATE SCHEMA {quoted(config.schema)}"]
        # A key that the source guarantees is built after the rows, in half the time; another must be there to decide.
        key_first = not intent.distinct
        before += [*types_before, ddl.create_table(intent.target, config, key=key_first)]
        if key_first:
            return [*before, *ddl.comments(intent.target, config)], finish[1:]
        before += [*ddl.comments(attrs.evolve(intent.target, comment=None), config), unfinished.mark(intent.target)]
        return before, [unfinished.build_key(intent.target), *finish]

    def _compression(self) -> list[Finding]:
        wanted = self.config.compression
        if wanted is None:
            return []
        rows = self._session.query(
            "SELECT enumvals FROM pg_catalog.pg_settings WHERE name = 'default_toast_compression'"
        )
        known = rows[0][0] if rows else []
        if wanted.value in known:
            return []
        return [
            portl.problem(
                "destination.compression",
                f"this server does not know {wanted.value}"
                + ("" if self._session.version >= COMPRESSION_SINCE else f": it is older than {COMPRESSION_SINCE}"),
                f"it knows: {', '.join(known) or 'none'}",
            )
        ]

    def _writes(self, intent: Intent) -> list[str]:
        """Return how rows are written, for the plan."""
        table = quoted(self.config.schema, self.config.table)
        statements = []
        select = intent.format.select if isinstance(intent.format, inside.ServerFormat) else None
        if select is not None:
            statements.append(Merge(intent).insert(select))
        elif not PostgresWriter.must_stage(intent, nested=self._session.nested):
            statements.append(copy_statement(table, intent, binary=intent.format.name == BINARY))
        if (
            intent.conflict.strategy is not Strategy.FAIL
            and intent.key is not None
            and not (intent.create and intent.distinct)
        ):
            merge = Merge(intent)
            rows = merge.selected(select) if select is not None and merges_straight(intent) else merge.rows
            statements.append(merge.statement(rows))
        return statements


def _unknown_type(column: str, native: str) -> Finding:
    remedy = "name one that is there in `types`"
    return portl.problem(f"column {column!r}", f"neither end knows the type {native!r}", remedy)
