"""Say what keeps a job from writing to a table, what it will do there, and what the user should know before."""

from __future__ import annotations

from collections.abc import Callable

import attrs

import portl
from portl import Examination, Finding, Intent, Strategy
from portl_postgres.catalog import tables as catalog
from portl_postgres.catalog.tables import details, table_details
from portl_postgres.config import PostgresDestinationConfig, check_name
from portl_postgres.destination import ddl, due_key
from portl_postgres.destination.quarantine import checks as quarantine
from portl_postgres.destination.quarantine.table import table_name
from portl_postgres.destination.writing.conflicts import Merge
from portl_postgres.destination.writing.merge_rules import check_merge, trials
from portl_postgres.destination.writing.server_side import merges_straight
from portl_postgres.destination.writing.straight import copy_statement
from portl_postgres.destination.writing.transitions import must_stage
from portl_postgres.session.session import Session
from portl_postgres.sql.text import quoted
from portl_postgres.wire import server_route
from portl_postgres.wire.batches import BINARY

COMPRESSION_SINCE = 14

#: All that is asked of the server about a relation (its oid is $2) and its schema ($1), whether they are there or not.
_FACTS = """
SELECT pg_catalog.pg_is_in_recovery(),
       current_setting('transaction_read_only')::boolean,
       has_database_privilege(current_database(), 'TEMPORARY'),
       has_database_privilege(current_database(), 'CREATE'),
       n.oid IS NOT NULL,
       coalesce(has_schema_privilege(n.oid, 'USAGE'), false),
       coalesce(has_schema_privilege(n.oid, 'CREATE'), false),
       coalesce(has_table_privilege(c.oid, 'SELECT'), false),
       coalesce(pg_has_role(c.relowner, 'USAGE'), false),
       (SELECT min(k.conname)::text FROM pg_catalog.pg_constraint AS k
         WHERE k.contype = 'f' AND k.conrelid = c.oid AND k.confrelid = c.oid)
  FROM (SELECT $1::text AS name) AS wanted
  LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = wanted.name
  LEFT JOIN pg_catalog.pg_class AS c ON c.oid = $2::oid
"""


@attrs.frozen(repr=False, eq=False)
class _Facts:
    """What the server says, in the order of ``_FACTS``."""

    recovering: bool
    read_only: bool
    may_stage: bool
    may_create_schemas: bool
    schema_exists: bool
    may_use: bool
    may_create: bool
    may_select: bool
    owns: bool
    #: A foreign key of the table to itself.
    self_reference: str | None


class Examiner:
    """Looks at what a job is about to do to a destination.

    Args:
        session: the destination's.
        config: the destination's.
        resolver: what is known of the types in question; None before a table was proposed.
        type_oid: finds a type by how it is spelled.
    """

    def __init__(
        self,
        session: Session,
        config: PostgresDestinationConfig,
        resolver: ddl.TypeResolver | None,
        type_oid: Callable[[str], int | None],
    ) -> None:
        self._session = session
        self._config = config
        self._resolver = resolver
        self._type_oid = type_oid

    def examine(self, intent: Intent) -> Examination:
        """See ``Destination.examine``."""
        relation = 0 if intent.create else table_details(intent.target).oid
        with self._session.scope():
            rows = self._session.query(_FACTS, self._config.schema, relation, what="looking at privileges")
            self._facts = _Facts(*rows[0])
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
            rejected_to=catalog.shown(*table_name(intent)) if intent.quarantine else None,
        )

    def _ordered(self, intent: Intent) -> str | None:
        """Say why a chunk must wait for those before it: a row may refer to one that comes earlier."""
        if intent.create:
            return None
        constraint = self._facts.self_reference
        return f"{constraint} refers to rows of the same table" if constraint else None

    def _types_asked_for(self, intent: Intent) -> list[Finding]:
        """Refuse types that the job asks for and neither end knows, where they go to a column that is there."""
        if intent.create or intent.source.dialect != catalog.DIALECT:
            return []
        return [
            unknown_type(field.source.name, field.sent.native)
            for field in intent.fields
            if details(field.sent) is None and self._type_oid(field.sent.native) is None
        ]

    def _server(self) -> list[Finding]:
        if self._facts.recovering:
            return [portl.problem("destination", "the server is a standby, which only reads", "connect to its primary")]
        if not self._facts.read_only:
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
        stages = resolves or must_stage(intent, nested=self._session.nested)
        if stages and not self._facts.may_select:
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
        if intent.add and not self._facts.owns:
            findings.append(
                portl.problem("destination", f"the role does not own {intent.target.name}, so it cannot add columns")
            )
        if not self._facts.may_use:
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
        if not may_conflict and not must_stage(intent, nested=self._session.nested):
            return []
        if self._facts.may_stage:
            return []
        return [
            portl.problem(
                "destination",
                "the role may not create the temporary table that conflicts are resolved with",
                "GRANT TEMPORARY ON DATABASE … TO the role, or use `conflict: fail`",
            )
        ]

    def _may_create(self) -> list[Finding]:
        schema = self._config.schema
        if self._facts.schema_exists:
            may = self._facts.may_create and self._facts.may_use
            text, grant = (
                f"the role may not create tables in schema {schema!r}",
                f"GRANT CREATE, USAGE ON SCHEMA {quoted(schema)}",
            )
        else:
            may = self._facts.may_create_schemas
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
        config = self._config
        resolver = self._resolver
        begun = not intent.create and table_details(intent.target).unfinished
        # The run that has made the table is not done: the key is built after its last rows.
        due = [due_key.build_key(intent.target)] if begun else []
        first, last = ([], due) if intent.resumed else (due, [])
        finish = [due_key.unmark(intent.target), f"ANALYZE {quoted(config.schema, config.table)}"]
        if not intent.create and not intent.add:
            return (first, [*last, *finish]) if begun else ([], [])
        made_columns = intent.target.columns if intent.create else intent.add
        if resolver is not None:
            findings += resolver.findings_of(made_columns)
        types_before = [ddl.create_type(made) for made in (resolver.needed(made_columns) if resolver else ())]
        if not intent.create:
            return [*first, *types_before, ddl.add_columns(intent.add, config)], [*last, *finish] if begun else []
        findings += self._compression() + ddl.unknown_keys(intent.target, config)
        before = [] if self._facts.schema_exists else [f"CREATE SCHEMA {quoted(config.schema)}"]
        # A key that the source guarantees is built after the rows, in half the time; another must be there to decide.
        key_first = not intent.distinct
        before += [*types_before, ddl.create_table(intent.target, config, key=key_first)]
        if key_first:
            return [*before, *ddl.comments(intent.target, config)], finish[1:]
        before += [*ddl.comments(attrs.evolve(intent.target, comment=None), config), due_key.mark(intent.target)]
        return before, [due_key.build_key(intent.target), *finish]

    def _compression(self) -> list[Finding]:
        wanted = self._config.compression
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
        table = quoted(self._config.schema, self._config.table)
        statements = []
        select = intent.format.select if isinstance(intent.format, server_route.ServerFormat) else None
        if select is not None:
            statements.append(Merge(intent).insert(select))
        elif not must_stage(intent, nested=self._session.nested):
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


def unknown_type(column: str, native: str) -> Finding:
    """Return the problem of a column whose type neither end knows."""
    remedy = "name one that is there in `types`"
    return portl.problem(f"column {column!r}", f"neither end knows the type {native!r}", remedy)
