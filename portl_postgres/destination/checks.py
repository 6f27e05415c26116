"""Check what prevents a job from writing to a table, and what the user should know beforehand."""

from __future__ import annotations

from collections.abc import Collection

import attrs

import portl
from portl import Examination, Finding, Intent, Strategy
from portl_postgres.catalog.tables import DIALECT, details, shown, table_details
from portl_postgres.config import PostgresDestinationConfig, check_name
from portl_postgres.destination import ddl, new_table
from portl_postgres.destination.new_table import Proposal
from portl_postgres.destination.quarantine import checks as quarantine
from portl_postgres.destination.quarantine.table import table_name
from portl_postgres.destination.type_resolver import type_oid
from portl_postgres.destination.writing.conflicts import Merge, identities, replaces
from portl_postgres.destination.writing.merge_rules import check_merge, trials
from portl_postgres.destination.writing.server_side import merges_straight
from portl_postgres.destination.writing.straight import copy_statement
from portl_postgres.destination.writing.transitions import must_stage
from portl_postgres.session.session import Session
from portl_postgres.sql.text import bound, quoted
from portl_postgres.wire.batches import BINARY
from portl_postgres.wire.server_route import ServerFormat

COMPRESSION_SINCE = 14

#: What the server says of a relation (its name is $2) and its schema ($1), whether they exist or not.
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
         WHERE k.contype = 'f' AND k.conrelid = c.oid AND k.confrelid = c.oid),
       coalesce(pg_has_role(c.relowner, 'USAGE'), false) AND c.relkind IN ('r', 'p')
           AND NOT coalesce((to_jsonb(c) ->> 'relispartition')::boolean, false)
           AND NOT EXISTS (WITH RECURSIVE part(oid) AS (
                   SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i WHERE i.inhparent = c.oid
                    UNION ALL SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i JOIN part ON i.inhparent = part.oid)
               SELECT FROM part JOIN pg_catalog.pg_class AS k ON k.oid = part.oid
                WHERE NOT pg_has_role(k.relowner, 'USAGE')),
       ARRAY(SELECT DISTINCT a.attname::text
               FROM pg_catalog.pg_index AS i
               JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[])
              WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate),
       -- Rules for UPDATE, even disabled ones, and for INSERT (matchLocks in rewriteHandler.c).
       ARRAY(SELECT r.rulename::text FROM pg_catalog.pg_rewrite AS r
              WHERE r.ev_class = c.oid AND (r.ev_type = '2' OR r.ev_type = '3' AND r.ev_enabled IN ('O', 'A'))
              ORDER BY r.rulename)
  FROM (SELECT $1::text AS name) AS wanted
  LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = wanted.name
  LEFT JOIN pg_catalog.pg_class AS c
    ON c.relnamespace = n.oid AND c.relname = $2::text AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""


@attrs.frozen(repr=False, eq=False)
class _Facts:
    """The result of ``_FACTS``, in column order."""

    recovering: bool
    read_only: bool
    may_stage: bool
    may_create_schemas: bool
    schema_exists: bool
    may_use: bool
    may_create: bool
    may_select: bool
    owns: bool
    #: A foreign key of the table that references itself.
    self_reference: str | None
    #: True if the role may alter the table and its partitions.
    alters: bool
    #: Columns of unique indexes that are checked immediately.
    unique: list[str]
    #: The table's rules that prevent the server from resolving conflicts.
    rules: list[str]


def examine(
    session: Session, config: PostgresDestinationConfig, intent: Intent, proposal: Proposal | None
) -> Examination:
    """See ``Destination.examine``.

    Args:
        session: that of the destination.
        config: that of the destination.
        intent: the job.
        proposal: the table that would be created; None if that was not asked for.
    """
    with session.scope():
        (rows,) = session.looking(look(config), what="looking at privileges")
        facts = _Facts(*rows[0])
        findings = _Checks(session, config, intent, facts).findings(proposal)
        before, after = ddl.around_rows(intent, config, proposal, schema_exists=facts.schema_exists)
        makes = ddl.makes(intent, config, proposal, schema_exists=facts.schema_exists)
    kept = _kept_identities(intent, facts, nested=session.nested)
    return Examination(
        findings=tuple(findings),
        before=tuple(before),
        makes=tuple(makes),
        after=tuple(after),
        write=tuple(_write_statements(intent, config, nested=session.nested)),
        ordered=_ordered(intent, facts, kept),
        rejected_to=shown(*table_name(intent)) if intent.quarantine else None,
        kept=tuple(kept),
    )


def look(config: PostgresDestinationConfig) -> list[str]:
    """Return what ``examine`` asks ``Session.looking`` for."""
    return [bound(_FACTS, config.schema, config.table)]


def examine_expected(session: Session, config: PostgresDestinationConfig, intent: Intent) -> Examination:
    """See ``Destination.examine``, for a table that is created with the source's objects."""
    return Examination(
        findings=tuple(quarantine.examine(session, intent)),
        write=tuple(_write_statements(intent, config, nested=session.nested)),
        rejected_to=shown(*table_name(intent)) if intent.quarantine else None,
    )


class _Checks:
    """The checks of one job.

    Args:
        session: that of the destination.
        config: that of the destination.
        intent: the job.
        facts: the server's facts about the table and the role.
    """

    def __init__(self, session: Session, config: PostgresDestinationConfig, intent: Intent, facts: _Facts) -> None:
        self._session = session
        self._config = config
        self._intent = intent
        self._facts = facts
        #: True if a conflict is resolved rather than an error.
        self._resolves = intent.conflict.strategy is not Strategy.FAIL and intent.key is not None
        self._must_stage = must_stage(intent, nested=session.nested)

    def findings(self, proposal: Proposal | None) -> list[Finding]:
        """Return all findings, grouped as in the plan."""
        findings = [*self._server(), *self._names(), *self._privileges(), *self._kind(), *self._conflict()]
        findings += [*self._staging(), *self._types_asked_for(), *quarantine.examine(self._session, self._intent)]
        if proposal is not None:
            findings += proposal.findings(ddl.created_columns(self._intent))
        if self._intent.create:
            source, target = self._intent.source, self._intent.target
            findings += [*self._compression(), *new_table.check_key(source, target, self._config)]
        return findings

    def _types_asked_for(self) -> list[Finding]:
        """Refuse types that the key ``types`` asks for but neither side has, for existing columns."""
        intent = self._intent
        if intent.create or intent.source.dialect != DIALECT:
            return []
        return [
            new_table.unknown_type(field.source.name, field.sent.native)
            for field in intent.fields
            if details(field.sent) is None and type_oid(self._session, field.sent.native, self._config.schema) is None
        ]

    def _server(self) -> list[Finding]:
        if self._facts.recovering:
            return [_problem("the server is a standby, which is read-only", "connect to its primary")]
        if not self._facts.read_only:
            return []
        if self._session.nested:
            return [_problem("the caller's transaction is read-only", "begin one that can write")]
        return [_problem("default_transaction_read_only is on for this role or database", "turn it off")]

    def _names(self) -> list[Finding]:
        findings = []
        for field in self._intent.fields:
            try:
                check_name("schema_mapping", field.target.name)
            except portl.FieldError as error:
                findings.append(portl.problem(f"column {field.source.name!r}", error.text))
        return findings

    def _privileges(self) -> list[Finding]:
        if self._intent.create:
            return self._may_create()
        found, name = table_details(self._intent.target), self._intent.target.name
        findings = []
        if lacking := self._lacking():
            grant = f"GRANT {', '.join(lacking)} ON {quoted(found.schema, found.name)} TO the role"
            findings.append(_problem(f"the role lacks {' and '.join(lacking)} on {name}", grant))
        if (self._intent.add or self._intent.widen) and not self._facts.owns:
            findings.append(_problem(f"the role does not own {name}, so it cannot change its columns"))
        if not self._facts.may_use:
            grant = f"GRANT USAGE ON SCHEMA {quoted(found.schema)} TO the role"
            findings.append(_problem(f"the role lacks USAGE on the schema {found.schema!r}", grant))
        return findings

    def _lacking(self) -> list[str]:
        """Return the privileges on the table that the job needs and the role lacks."""
        intent = self._intent
        updates = self._resolves and intent.conflict.strategy is not Strategy.SKIP
        key = intent.key.columns if self._resolves and intent.key is not None else ()
        replaced = replaces(intent.conflict)
        kept = {f.target.name for f in intent.fields if f.target.name in key and (f.target.exact or not replaced)}
        known = [(f.target.name, d) for f in intent.fields if (d := details(f.target)) is not None and d.pg.oid]
        lacking = []
        if not all(d.may_insert for _, d in known):
            lacking.append("INSERT")
        if updates and not all(d.may_update for name, d in known if name not in kept):
            lacking.append("UPDATE")
        # The staging table copies the table's definition, and xmax tells new rows from old ones: SELECT on columns
        # is not enough.
        if (self._resolves or self._must_stage) and not self._facts.may_select:
            lacking.append("SELECT")
        return lacking

    def _may_create(self) -> list[Finding]:
        schema = self._config.schema
        if not self._facts.schema_exists:
            if self._facts.may_create_schemas:
                return []
            return [
                _problem(f"the role may not create the schema {schema!r}", "GRANT CREATE ON DATABASE … TO the role")
            ]
        if self._facts.may_create and self._facts.may_use:
            return []
        grant = f"GRANT CREATE, USAGE ON SCHEMA {quoted(schema)} TO the role"
        return [_problem(f"the role may not create tables in schema {schema!r}", grant)]

    def _staging(self) -> list[Finding]:
        """Refuse a job that may need a staging table if the role may not create one."""
        if self._facts.may_stage or not (_may_conflict(self._intent) or self._must_stage):
            return []
        return [
            _problem(
                "conflicts are resolved with a temporary table, and the role may not create one",
                "GRANT TEMPORARY ON DATABASE … TO the role, or use `conflict: fail`",
            )
        ]

    def _kind(self) -> list[Finding]:
        """Report what is special about an existing table."""
        if self._intent.create:
            return []
        found, name = table_details(self._intent.target), self._intent.target.name
        findings = []
        if found.kind == "m":
            findings.append(_problem(f"{name} is a materialized view", "write to a table"))
        if found.keyless:
            when = "after the last rows of that run, which is resumed" if self._intent.resumed else "first"
            findings.append(_note(f"an interrupted run left {name} without its key, which is built {when}"))
        elif found.due is not None:
            said = f"an interrupted run left {name} without its indexes and constraints"
            findings.append(_note(f"{said}, which come after the rows"))
        if found.children:
            # Not limited to ONLY: whoever reads the table also reads its children, and expects each key once.
            text = f"rows are added to {name} itself, not to its child tables ({', '.join(found.children)})"
            findings.append(portl.warning("destination", text, "copy into each table by a job of its own"))
        if found.triggers:
            text = f"triggers on {name} fire for each row and may change it: {', '.join(found.triggers)}"
            findings.append(portl.warning("destination", text))
        if found.rules:
            text = f"rules on {name} do not apply to rows that arrive by COPY: {', '.join(found.rules)}"
            findings.append(portl.warning("destination", text))
        if found.row_security:
            findings.append(_note(f"row security applies to {name}, so rows go through a staging table and INSERT"))
        if found.foreign_keys:
            findings.append(_note(f"{found.foreign_keys} foreign key(s) of {name} are checked for each row"))
        findings += self._identities()
        return findings

    def _identities(self) -> list[Finding]:
        """Report what happens to GENERATED ALWAYS AS IDENTITY columns, which UPDATE cannot set."""
        intent = self._intent
        kept = _kept_identities(intent, self._facts, nested=self._session.nested)
        findings = []
        for field in intent.fields:
            name, where = field.target.name, f"column {field.source.name!r}"
            if field.target.identity != "always":
                continue
            what = f"{name!r} is GENERATED ALWAYS AS IDENTITY"
            if name in kept:
                text = f"{what}, and {kept[name]}: new rows keep the source's value, existing ones their own"
                findings.append(portl.warning(where, text, "make it GENERATED BY DEFAULT, or leave it out"))
            elif name in identities(intent):
                text = f"{what}: to change it in an existing row, it is BY DEFAULT, and the table locked, until COMMIT"
                findings.append(portl.note(where, text))
            else:
                text = f"{what}: new rows keep the source's value, an update leaves it alone"
                findings.append(portl.note(where, text))
        return findings

    def _conflict(self) -> list[Finding]:
        intent, key = self._intent, self._intent.key
        findings = []
        if self._resolves and self._facts.rules and not intent.create:
            rules = f"{intent.target.name} has rules for INSERT or UPDATE ({', '.join(self._facts.rules)})"
            text = f"{rules}, so the server resolves no conflicts there"
            remedy = "drop them, use triggers instead, or use `conflict: fail`"
            findings.append(portl.problem("conflict", text, remedy))
        if self._resolves and key is not None:
            filled = {field.target.name for field in intent.fields}
            unfilled = [name for name in key.columns if name not in filled]
            if unfilled:
                text = f"nothing fills the column {unfilled[0]!r} of the key ({', '.join(key.columns)})"
                remedy = "map a column to it in `schema_mapping`, or choose another `conflict.key`"
                findings.append(portl.problem("conflict", text, remedy))
            elif key.deferrable:
                text = f"the key {key.name!r} is deferrable: conflicts are found by a join instead of ON CONFLICT"
                findings.append(portl.note("conflict", text))
        if intent.conflict.strategy is Strategy.MERGE:
            wrong = check_merge(intent)
            findings += [portl.problem(where, text) for where, text in wrong]
            if not wrong and key is not None and not intent.create and not findings:
                findings += self._try_merge()
        return findings

    def _try_merge(self) -> list[Finding]:
        """Have the server parse the rules of ``conflict``."""
        for where, statement in trials(self._intent):
            try:
                with self._session.scope():
                    self._session.query(f"EXPLAIN {statement}", what=where)
            except portl.Error as error:
                words = ", ".join(portl.MERGE_WORDS)
                remedy = f"expected one of {words}, or an SQL expression over source.x and destination.x"
                return [portl.problem(where, error.message, remedy)]
        return []

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
        since = f", which takes version {COMPRESSION_SINCE}" if self._session.version < COMPRESSION_SINCE else ""
        text = f"this server does not support {wanted.value}{since}"
        return [portl.problem("destination.compression", text, f"it supports: {', '.join(known) or 'none'}")]


def _kept_identities(intent: Intent, facts: _Facts, *, nested: bool) -> dict[str, str]:
    """Return the identity columns that cannot be overwritten, each with the reason."""
    reasons = {}
    for name in identities(intent):
        if nested:
            reasons[name] = "altering it would lock the table until the caller's transaction ends"
        elif not facts.alters:
            reasons[name] = "the role does not own the table, or it is a partition"
        elif name in facts.unique:
            reasons[name] = "it is unique, so that another row may still have the value"
    return reasons


def _ordered(intent: Intent, facts: _Facts, kept: Collection[str]) -> str | None:
    """Return why chunks have to be written one at a time."""
    if intent.create:
        return None
    if facts.self_reference:
        return f"{facts.self_reference} refers to rows of the same table"
    own = [name for name in identities(intent) if name not in kept]
    return f"the table is locked where the identity column {own[0]!r} changes" if own else None


def _problem(message: str, remedy: str | None = None) -> Finding:
    return portl.problem("destination", message, remedy)


def _note(message: str) -> Finding:
    return portl.note("destination", message)


def _may_conflict(intent: Intent) -> bool:
    """Return whether rows may conflict in a way that the strategy resolves."""
    resolves = intent.conflict.strategy is not Strategy.FAIL and intent.key is not None
    return resolves and not (intent.create and intent.distinct)


def _write_statements(intent: Intent, config: PostgresDestinationConfig, *, nested: bool) -> list[str]:
    """Return the statements that write rows, for the plan."""
    table = quoted(config.schema, config.table)
    statements = []
    select = intent.format.select if isinstance(intent.format, ServerFormat) else None
    if select is not None:
        statements.append(Merge(intent).insert(select))
    elif not must_stage(intent, nested=nested):
        statements.append(copy_statement(table, intent, binary=intent.format.name == BINARY))
    if _may_conflict(intent):
        merge = Merge(intent)
        rows = merge.selected(select) if select is not None and merges_straight(intent) else merge.rows
        statements.append(merge.statement(rows))
    return statements
