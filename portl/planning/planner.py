"""Look at both sides of a job and say what will be done: config + source + destination -> Plan. Nothing is written."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from portl.config.models import (
    CreateTable,
    DestinationConfig,
    MigrationConfig,
    OnError,
    Route,
    SourceConfig,
    Strategy,
    TypeRule,
    Verify,
)
from portl.connectors.destination import Destination
from portl.connectors.exchange import ROWS, Field, Format, Intent, Split, Splitting
from portl.connectors.ledger import Ledger
from portl.connectors.source import Source
from portl.planning.plan import Plan
from portl.planning.request import Request, Sides
from portl.planning.resume import Resumption
from portl.planning.tasks import TableTask
from portl.schema.conversions import Verdict
from portl.schema.tables import Column, Key, Table
from portl.values.errors import SchemaError
from portl.values.findings import Finding, Severity, note, problem, warning
from portl.values.masking import COVER

PREVIEW_ROWS = 5

#: Bytes in a chunk to aim at: a COMMIT, and the pause in the stream around it, cost little at this size, and little is
#: redone after a crash. What is kept in memory is less: ``portl.execution.chunks.load.GROUP_BYTES``.
CHUNK_BYTES = 64 * 1024 * 1024


def plan(request: Request, sides: Sides, *, exact: bool, restart: bool) -> Plan:
    """Return what a run would do.

    Args:
        request: the job.
        sides: both, open.
        exact: see ``plan_table``.
        restart: see ``plan_table``.
    """
    config, source, destination = request.config, sides.source, sides.destination
    task = plan_table(config, source, destination, sides.kept, exact=exact, restart=restart)
    return Plan(config=config, source=source.label(), destination=destination.label(), tables=(task,))


def plan_table(
    config: MigrationConfig,
    source: Source[SourceConfig],
    destination: Destination[DestinationConfig],
    ledger: Ledger | Finding,
    *,
    exact: bool,
    restart: bool = False,
) -> TableTask:
    """Return the task for the job's table.

    Args:
        config: the job.
        source: an open source.
        destination: an open destination.
        ledger: the destination's, or why it has none.
        exact: True to count the rows and to fetch a preview, False for an estimate alone.
        restart: True to begin again where a run was interrupted.
    """
    return _Planner(config, source, destination, ledger, restart=restart).plan(exact=exact)


class _Planner:
    def __init__(
        self,
        config: MigrationConfig,
        source: Source[SourceConfig],
        destination: Destination[DestinationConfig],
        ledger: Ledger | Finding,
        *,
        restart: bool,
    ) -> None:
        self._config = config
        self._ledger = ledger if isinstance(ledger, Ledger) else None
        self._restart = restart
        self._source = source
        self._destination = destination
        self._findings: list[Finding] = [ledger] if isinstance(ledger, Finding) else []
        self._ignored: list[tuple[str, str]] = []

    def plan(self, *, exact: bool) -> TableTask:
        table = self._source.describe()
        existing = self._destination.describe()
        columns = self._chosen(table)
        sent = [self._cast(column) for column in columns]
        names = self._names(table, columns)
        renamed = {
            c.name: attrs.evolve(leaving, name=name) for c, leaving, name in zip(columns, sent, names, strict=True)
        }
        proposed = self._destination.propose(table, renamed)
        target, added = self._target(existing, proposed, names)
        fields = tuple(self._fields(columns, sent, names, target))
        self._lacking(target, fields)
        if not fields:
            self._findings.append(problem("columns", "no column is left to copy"))
        key = self._key(target, existing is None)
        intent = Intent(
            source=table,
            target=target,
            fields=fields,
            create=existing is None,
            add=added,
            conflict=self._config.conflict,
            key=key,
            distinct=_distinct(table, fields, key),
            quarantine=self._config.quarantine if self._config.on_error is OnError.QUARANTINE else None,
            mask=self._masked(columns, names),
            job=self._config.name,
        )
        own_state = self._own_state()
        intent = attrs.evolve(intent, format=self._negotiate(intent, own_state))
        self._findings += self._source.examine(fields)
        readable = bool(fields) and not any(
            f.severity is Severity.PROBLEM and f.where.startswith("source") for f in self._findings
        )
        split = self._split(intent) if readable else Split()
        sides = self._source, self._destination
        resumption = Resumption.of(self._config, *sides, self._ledger, intent, split, self._restart)
        self._findings += resumption.findings
        if resumption.run is not None:
            # What is copied again meets rows that are there: then the key has to be there too.
            intent = attrs.evolve(intent, resumed=not resumption.recopy)
            split = attrs.evolve(split, chunks=resumption.chunks)
            if intent.format.own_state and len(split.chunks) > 1:
                cut = f"the run that is resumed is cut into {len(split.chunks):,} chunks"
                intent = attrs.evolve(intent, format=self._negotiate(intent, cut))
        examination = self._destination.examine(intent)
        findings = sorted([*self._findings, *examination.findings], key=lambda f: list(Severity).index(f.severity))
        return TableTask(
            intent=intent,
            findings=tuple(dict.fromkeys(findings)),
            examination=examination,
            count=self._source.count(exact=exact) if readable else None,
            preview=self._preview(intent) if readable and exact else (),
            read=self._source.statement(fields, intent.format) if fields else None,
            split=split,
            delivery=resumption.delivery,
            job=resumption.job,
            identity=resumption.identity,
            ledger=self._ledger.place if self._ledger is not None else None,
            run=resumption.run,
            found=resumption.found,
            reported=resumption.reported,
            recopy=resumption.recopy,
            ignored=tuple(self._ignored),
        )

    def _preview(self, intent: Intent) -> tuple[tuple[str | None, ...], ...]:
        """Return the first rows as texts, without the values that the job masks."""
        hidden = [field.target.name in intent.mask for field in intent.fields]
        return tuple(
            tuple(COVER if hide and text is not None else text for hide, text in zip(hidden, row, strict=True))
            for row in self._source.preview(intent.fields, PREVIEW_ROWS)
        )

    def _chosen(self, table: Table) -> list[Column]:
        """Return the columns to read, in the order of the job or of the table."""
        config = self._config.source
        known = table.by_name
        for name in (*(config.columns or ()), *config.exclude_columns):
            if name not in known:
                self._unknown("columns" if name in (config.columns or ()) else "exclude_columns", name, known)
        names = config.columns if config.columns is not None else tuple(known)
        for name in set(config.exclude_columns) & set(known):
            self._ignored.append((name, "excluded by the job"))
        return [known[name] for name in names if name in known and name not in config.exclude_columns]

    def _unknown(self, where: str, name: str, known: Sequence[str] | dict[str, Any] | Any) -> None:
        near = difflib.get_close_matches(name, list(known), n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(known)}"
        self._findings.append(problem(where, f"the source has no column {name!r}", remedy))

    def _cast(self, column: Column) -> Column:
        rule = self._rule(column)
        if rule is None:
            return column
        try:
            return self._source.cast(column, rule.to, rule.using)
        except SchemaError as error:
            self._findings.append(problem(f"types, column {column.name!r}", error.message, error.hint))
            return column

    def _rule(self, column: Column) -> TypeRule | None:
        """Return the rule for a column; one that names the column goes before one that names its type."""
        rules = self._config.types
        named = (rule for rule in rules if rule.column == column.name)
        typed = (rule for rule in rules if rule.type in _type_names(column))
        return next(named, None) or next(typed, None)

    def _names(self, table: Table, columns: Sequence[Column]) -> list[str]:
        mapping = self._config.schema_mapping
        known = table.by_name
        for name in mapping:
            if name not in known:
                self._unknown("schema_mapping", name, known)
        for rule in self._config.types:
            if rule.column is not None and rule.column not in known:
                self._unknown("types", rule.column, known)
            if rule.type is not None and not any(rule.type in _type_names(column) for column in columns):
                there = ", ".join(dict.fromkeys(column.native for column in columns))
                said = f"no column is of the type {rule.type!r}, so this rule does nothing"
                self._findings.append(warning("types", said, f"the source's types are: {there}"))
        names = [mapping.get(column.name, column.name) for column in columns]
        for column, name in zip(columns, names, strict=True):
            if names.count(name) > 1 and column.name not in mapping:
                self._findings.append(
                    problem("schema_mapping", f"two columns would be called {name!r}", f"map {column.name!r} elsewhere")
                )
        return names

    def _target(
        self, existing: Table | None, proposed: Table, names: Sequence[str]
    ) -> tuple[Table, tuple[Column, ...]]:
        """Return the destination's table as it will be, and the columns that are added to it."""
        if existing is None:
            if self._config.destination.create_table is CreateTable.NEVER:
                self._findings.append(
                    problem(
                        "destination",
                        f"the table {proposed.name} does not exist",
                        "create it, or leave `create_table: never` out",
                    )
                )
            return proposed, ()
        lacking = [name for name in dict.fromkeys(names) if name not in existing.by_name]
        if not self._config.destination.add_columns:
            for name in lacking:
                near = difflib.get_close_matches(name, existing.by_name, n=1)
                advice = f"map it to {near[0]!r} in `schema_mapping`, " if near else "map it in `schema_mapping`, "
                self._findings.append(
                    problem(
                        f"column {name!r}",
                        f"the destination {existing.name} has no such column",
                        f"{advice}exclude it in `source.exclude_columns`, or set `destination.add_columns: true`",
                    )
                )
            return existing, ()
        added = tuple(attrs.evolve(proposed.by_name[name], nullable=True) for name in lacking)
        return attrs.evolve(existing, columns=existing.columns + added), added

    def _fields(
        self, columns: Sequence[Column], sent: Sequence[Column], names: Sequence[str], target: Table
    ) -> Iterator[Field]:
        for column, leaving, name in zip(columns, sent, names, strict=True):
            arriving = target.by_name.get(name)
            if arriving is None:
                continue
            if not arriving.writable:
                self._ignored.append((column.name, f"the destination generates {name!r} itself"))
                continue
            rule = self._rule(column)
            conversion = self._destination.conversion(leaving, arriving)
            if rule is not None and rule.using is None and leaving.native == arriving.native:
                # A cast may cut, and one that fails ends the reading without naming its row. So the rule only says
                # what the column becomes, and the values go as they would without it; if there is a way at all.
                plain = self._destination.conversion(column, arriving)
                if plain.verdict is not Verdict.IMPOSSIBLE:
                    leaving, conversion = column, plain
            where = f"column {column.name!r}"
            types = f"{leaving.native} to {arriving.native}"
            if conversion.verdict is Verdict.IMPOSSIBLE:
                self._findings.append(
                    problem(where, f"{types}: no conversion", "give one in `types` with `using`, or exclude the column")
                )
            elif conversion.verdict is Verdict.LOSSY:
                self._findings.append(warning(where, f"{types}: {conversion.explanation}"))
            if column.nullable and not arriving.nullable and arriving.default is None:
                # Of a query or view nobody knows whether a column can be NULL: that deserves no warning each time.
                say = warning if self._source.describe().kind == "table" else note
                said = f"NULL is possible here, and {name!r} is NOT NULL at the destination: such a row is refused"
                self._findings.append(say(where, said))
            yield Field(
                source=column,
                sent=leaving,
                target=arriving,
                conversion=conversion,
                using=rule.using if rule else None,
            )

    def _lacking(self, target: Table, fields: Sequence[Field]) -> None:
        """Report columns of the destination that nothing fills."""
        filled = {field.target.name for field in fields}
        for column in target.columns:
            if column.name in filled or not column.writable:
                continue
            if not column.optional:
                self._findings.append(
                    problem(
                        f"column {column.name!r}",
                        f"{target.name} wants a value (NOT NULL, no default), and nothing from the source goes there",
                        "map a column to it in `schema_mapping`, select one in a query, or give it a default",
                    )
                )
            else:
                self._findings.append(note(f"column {column.name!r}", "not filled by this job: it keeps its default"))

    def _own_state(self) -> str | None:
        """Return what the job asks for that needs the source's snapshot; None if nothing does."""
        if self._config.chunk_rows is not None:
            return "`chunk_rows` asks for chunks, which have to read one state"
        if self._config.verify is not Verify.NONE:
            return "`verify` compares with the state that the source had at the beginning"
        return None

    def _negotiate(self, intent: Intent, own_state: str | None) -> Format:
        """Return the first of the source's formats that the destination takes and that suits the job.

        Args:
            intent: the job; its format is not looked at.
            own_state: why a format will not do that reads a state of its own; None: it will.
        """
        wanted = self._config.route
        taken = set(self._destination.formats(intent.fields))
        passed: list[str] = []
        for format in self._source.formats(intent.fields):
            if format.name not in taken or wanted.value not in (Route.AUTO.value, format.route):
                continue
            why = format.obstacle or (own_state if format.own_state else None)
            why = why or self._destination.obstacle(attrs.evolve(intent, format=format))
            if why is not None:
                passed.append(f"not {format.route}: {why}")
                continue
            asked = [] if wanted is Route.AUTO else [f"the job asks for it: {wanted}"]
            return attrs.evolve(format, reason="; ".join([*(asked or [format.reason]), *passed]))
        self._findings.append(self._no_way(wanted, passed))
        return ROWS

    def _no_way(self, wanted: Route, passed: Sequence[str]) -> Finding:
        """Return the problem that no format is left."""
        remedy = None if wanted is Route.AUTO else "leave `route` out"
        if passed:
            return problem("route", "; ".join(passed), remedy)
        if wanted is Route.SERVER:
            return problem("route", "not server: the two sides are not one database of one running server", remedy)
        return problem("route", f"the two sides have no way in common for rows to travel ({wanted})", remedy)

    def _masked(self, columns: Sequence[Column], names: Sequence[str]) -> frozenset[str]:
        """Return the destination's columns whose values must not be shown; a job may name either side's."""
        arriving = dict(zip((c.name for c in columns), names, strict=True))
        for name in self._config.mask:
            if name not in arriving and name not in names:
                near = difflib.get_close_matches(name, [*arriving, *names], n=1)
                remedy = f"did you mean {near[0]!r}?" if near else f"the columns are: {', '.join(arriving)}"
                self._findings.append(problem("mask", f"no column {name!r} is copied", remedy))
        return frozenset(arriving.get(name, name) for name in self._config.mask)

    def _split(self, intent: Intent) -> Split:
        return self._source.split(
            Splitting(
                fields=intent.fields,
                chunk_rows=self._config.chunk_rows,
                chunk_bytes=sys.maxsize if intent.format.own_state else CHUNK_BYTES,
                any_order=intent.distinct or intent.key is None or self._config.conflict.strategy is Strategy.FAIL,
            )
        )

    def _key(self, target: Table, created: bool) -> Key | None:
        """Return the key that decides what a conflict is."""
        conflict = self._config.conflict
        if conflict.strategy not in self._destination.strategies:
            able = ", ".join(sorted(self._destination.strategies))
            self._findings.append(
                problem("conflict", f"the destination cannot {conflict.strategy.value}", f"it can: {able}")
            )
            return None
        if conflict.key is None:
            return target.primary_key or self._only_key(target, created)
        wanted = set(conflict.key)
        for key in target.keys:
            if set(key.columns) == wanted:
                return key
        offers = "; ".join(", ".join(key.columns) for key in target.keys) or "none"
        self._findings.append(
            problem(
                "conflict.key",
                f"{target.name} has no unique constraint or index over exactly ({', '.join(conflict.key)})",
                f"create one, or choose one of those that are there: {offers}",
            )
        )
        return None

    def _only_key(self, target: Table, created: bool) -> Key | None:
        """Return what stands in for a missing primary key; explain what its absence means."""
        strategy = self._config.conflict.strategy
        if created:
            self._findings.append(
                warning(
                    "destination",
                    f"{target.name} is created without a key: another run would add the rows a second time or stop",
                    "name its columns in `destination.primary_key`",
                )
            )
            return None
        if strategy is Strategy.FAIL:
            return None
        unique = "; ".join(", ".join(key.columns) for key in target.keys)
        self._findings.append(
            problem(
                "conflict",
                f"`{strategy.value}` needs a key, and {target.name} has no primary key",
                f"name a unique key in `conflict.key`: {unique}"
                if unique
                else "add a primary key or a unique constraint there, or use `conflict: fail`",
            )
        )
        return None


def _type_names(column: Column) -> tuple[str, ...]:
    """Return the names under which a rule may speak of a column's type."""
    return (column.native, column.type.kind.value, _bare(column.native))


def _bare(native: str) -> str:
    """Return a type's name without its modifiers."""
    return native.split("(", 1)[0].strip()


def _distinct(source: Table, fields: Sequence[Field], key: Key | None) -> bool:
    """Tell whether a key of the source, untouched on its way, guarantees that no two rows share the destination's."""
    if key is None:
        return False
    arriving = {f.source.name: f.target.name for f in fields if f.sent.native == f.target.native and not f.using}
    return any(
        not k.nulls_equal
        and all(name in arriving for name in k.columns)
        and {arriving[name] for name in k.columns} <= set(key.columns)
        and all(not source.by_name[name].nullable for name in k.columns)
        for k in source.keys
        if not k.deferrable
    )
