"""Map the source's columns to the destination's: which are read, how they are named there, how they are converted."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import attrs

from portl.config.models import (
    CreateTable,
    DestinationConfig,
    MigrationConfig,
    OnSchemaChange,
    SourceConfig,
    TypeRule,
)
from portl.connectors.destination import Destination
from portl.connectors.exchange import Field
from portl.connectors.source import Source
from portl.schema.conversions import Conversion, Verdict, widens
from portl.schema.tables import Column, Table
from portl.values.errors import SchemaError
from portl.values.findings import Finding, note, problem, warning
from portl.values.text import nearest


@attrs.frozen(kw_only=True)
class ColumnMapping:
    """The columns of a job, from the source's table to the destination's."""

    #: The destination's table as it will be.
    target: Table
    #: The columns that the job adds to it, and those whose types it widens.
    added: tuple[Column, ...]
    widened: tuple[Column, ...]
    fields: tuple[Field, ...]
    #: The destination's columns whose values must not be shown.
    mask: frozenset[str]
    #: Columns of the source that are not read, and why.
    ignored: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]


def map_columns(
    config: MigrationConfig,
    source: Source[SourceConfig],
    destination: Destination[DestinationConfig],
    table: Table,
    existing: Table | None,
) -> ColumnMapping:
    """Return which columns go where.

    Args:
        config: the job.
        source: an open source.
        destination: an open destination.
        table: the source's table.
        existing: the destination's table as it stands; None if it does not exist.
    """
    return _Mapper(config, source, destination).map(table, existing)


class _Mapper:
    def __init__(
        self, config: MigrationConfig, source: Source[SourceConfig], destination: Destination[DestinationConfig]
    ) -> None:
        self._config = config
        self._source = source
        self._destination = destination
        self._findings: list[Finding] = []
        self._ignored: list[tuple[str, str]] = []

    def map(self, table: Table, existing: Table | None) -> ColumnMapping:
        columns = self._chosen(table)
        sent = [self._cast(column) for column in columns]
        names = self._names(table, columns)
        renamed = {
            column.name: attrs.evolve(leaving, name=name)
            for column, leaving, name in zip(columns, sent, names, strict=True)
        }
        proposed = self._destination.propose(table, renamed)
        target, added = self._target(existing, proposed, names)
        target, widened = self._widened(existing, target, proposed)
        fields = tuple(
            field
            for column, leaving, name in zip(columns, sent, names, strict=True)
            for field in self._field(column, leaving, target.by_name.get(name), table.kind)
        )
        self._report_unfilled(target, {field.target.name for field in fields})
        if not fields and not self._without_columns(table, target):
            self._findings.append(problem("source.columns", "no column is left to copy"))
        return ColumnMapping(
            target=target,
            added=added,
            widened=widened,
            fields=fields,
            mask=self._masked(columns, names),
            ignored=tuple(self._ignored),
            findings=tuple(self._findings),
        )

    def _without_columns(self, table: Table, target: Table) -> bool:
        """Return whether the job copies rows without values: neither side has a writable column.

        Only for sides of the same dialect: otherwise, no columns may mean unknown columns, as in an empty file.
        """
        source = self._config.source
        if source.columns is not None or source.exclude_columns or table.dialect is None:
            return False
        columns = (*table.columns, *target.columns)
        return table.dialect == target.dialect and not any(column.writable for column in columns)

    def _chosen(self, table: Table) -> list[Column]:
        """Return the columns to read, in the order of the job or of the table."""
        config = self._config.source
        known = table.by_name
        for key, given in (("columns", config.columns or ()), ("exclude_columns", config.exclude_columns)):
            for name in given:
                if name not in known:
                    self._unknown(key, name, known)
        names = config.columns if config.columns is not None else tuple(known)
        for name in config.exclude_columns:
            if name in known:
                self._ignored.append((name, "excluded by the job"))
        return [known[name] for name in names if name in known and name not in config.exclude_columns]

    def _unknown(self, where: str, name: str, known: Collection[str]) -> None:
        near = nearest(name, known)
        remedy = f"did you mean {near!r}?" if near else f"it has: {', '.join(known)}"
        self._findings.append(problem(where, f"the source has no column {name!r}", remedy))

    def _cast(self, column: Column) -> Column:
        """Return a column as it leaves the source."""
        rule = self._rule(column)
        if rule is None:
            return column
        try:
            return self._source.cast(column, rule.to, rule.using)
        except SchemaError as error:
            self._findings.append(problem(f"types, column {column.name!r}", error.message, error.hint))
            return column

    def _rule(self, column: Column) -> TypeRule | None:
        """Return the rule for a column; one that names the column takes precedence over one that names its type."""
        rules = self._config.types
        named = (rule for rule in rules if rule.column == column.name)
        typed = (rule for rule in rules if rule.type in _type_names(column))
        return next(named, None) or next(typed, None)

    def _names(self, table: Table, columns: Sequence[Column]) -> list[str]:
        """Return the names of the columns at the destination."""
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
                message = f"no column is of the type {rule.type!r}, so this rule has no effect"
                self._findings.append(warning("types", message, f"the source's types are: {there}"))
        names = [mapping.get(column.name, column.name) for column in columns]
        for column, name in zip(columns, names, strict=True):
            if names.count(name) > 1 and column.name not in mapping:
                message = f"two columns would be called {name!r}"
                self._findings.append(problem("schema_mapping", message, f"map {column.name!r} to another name"))
        return names

    def _target(
        self, existing: Table | None, proposed: Table, names: Sequence[str]
    ) -> tuple[Table, tuple[Column, ...]]:
        """Return the destination's table as it will be, and the columns added to it."""
        if existing is None:
            if self._config.destination.create_table is CreateTable.NEVER:
                message = f"the table {proposed.name} does not exist"
                remedy = "create it, or remove `create_table: never`"
                self._findings.append(problem("destination", message, remedy))
            return proposed, ()
        lacking = [name for name in dict.fromkeys(names) if name not in existing.by_name]
        wanted = self._config.on_schema_change
        if wanted is OnSchemaChange.IGNORE:
            self._ignored += [(name, "the destination has no such column") for name in lacking]
            return existing, ()
        if self._config.destination.add_columns or wanted is OnSchemaChange.ADD_COLUMNS:
            added = tuple(attrs.evolve(proposed.by_name[name], nullable=True) for name in lacking)
            return attrs.evolve(existing, columns=existing.columns + added), added
        for name in lacking:
            near = nearest(name, existing.by_name)
            self._findings.append(
                problem(
                    f"column {name!r}",
                    f"the destination {existing.name} has no such column",
                    f"map it{f' to {near!r}' if near else ''} in `schema_mapping`, exclude it in"
                    " `source.exclude_columns`, or set `on_schema_change: add_columns`, or `ignore`",
                )
            )
        return existing, ()

    def _widened(self, existing: Table | None, target: Table, proposed: Table) -> tuple[Table, tuple[Column, ...]]:
        """Return the destination's table with the types that the source has outgrown, and the columns concerned."""
        if existing is None or self._config.on_schema_change is not OnSchemaChange.ADD_COLUMNS:
            return target, ()
        wider = {
            column.name: attrs.evolve(column, type=new.type, native=new.native, details=new.details)
            for column in existing.columns
            if (new := proposed.by_name.get(column.name)) is not None and widens(column.type, new.type)
        }
        if wider and not self._destination.widens:
            said = f"{existing.name}: the types of its columns cannot be changed from here: {', '.join(wider)}"
            self._findings.append(warning("on_schema_change", said, "widen them by hand"))
            return target, ()
        for name, column in wider.items():
            said = f"{existing.by_name[name].native} becomes {column.native} at the destination"
            self._findings.append(note(f"column {name!r}", said))
        columns = tuple(wider.get(column.name, column) for column in target.columns)
        return attrs.evolve(target, columns=columns), tuple(wider.values())

    def _field(self, column: Column, leaving: Column, arriving: Column | None, kind: str) -> Iterator[Field]:
        """Yield the field of a column, if it has a target."""
        if arriving is None:
            return
        if not arriving.writable:
            self._ignored.append((column.name, f"the destination generates {arriving.name!r} itself"))
            return
        rule = self._rule(column)
        leaving, conversion = self._conversion(column, leaving, arriving, rule)
        where = f"column {column.name!r}"
        if column.nullable and not arriving.nullable and arriving.default is None:
            # Whether a column of a query or view can be NULL is not known: that is not worth a warning each time.
            report = warning if kind == "table" else note
            message = f"it can be NULL, and {arriving.name!r} is NOT NULL at the destination: such a row is refused"
            self._findings.append(report(where, message))
        using = rule.using if rule else None
        yield Field(source=column, sent=leaving, target=arriving, conversion=conversion, using=using)

    def _conversion(
        self, column: Column, leaving: Column, arriving: Column, rule: TypeRule | None
    ) -> tuple[Column, Conversion]:
        """Return a column as it leaves the source, and the verdict on its conversion; report losses."""
        conversion = self._destination.conversion(leaving, arriving)
        if rule is not None and rule.using is None and leaving.native == arriving.native:
            # A cast may truncate, and one that fails ends the read without naming the row. So the rule only decides
            # what the column becomes, and the values travel unconverted if they can.
            plain = self._destination.conversion(column, arriving)
            if plain.verdict is not Verdict.IMPOSSIBLE:
                leaving, conversion = column, plain
        where, types = f"column {column.name!r}", f"{leaving.native} to {arriving.native}"
        if conversion.verdict is Verdict.IMPOSSIBLE:
            remedy = "give one in `types` with `using`, or exclude the column"
            self._findings.append(problem(where, f"{types}: no conversion", remedy))
        elif conversion.verdict is Verdict.LOSSY:
            self._findings.append(warning(where, f"{types}: {conversion.explanation}"))
        return leaving, conversion

    def _report_unfilled(self, target: Table, filled: Collection[str]) -> None:
        """Report columns of the destination that no column of the source goes to."""
        for column in target.columns:
            if column.name in filled or not column.writable:
                continue
            where = f"column {column.name!r}"
            if column.optional:
                self._findings.append(note(where, "not filled by this job: it keeps its default"))
            else:
                message = f"{target.name} requires a value (NOT NULL, no default), and the job provides none"
                remedy = "map a column to it in `schema_mapping`, select one in a query, or give it a default"
                self._findings.append(problem(where, message, remedy))

    def _masked(self, columns: Sequence[Column], names: Sequence[str]) -> frozenset[str]:
        """Return the destination's columns whose values must not be shown; a job may name either side's."""
        arriving = dict(zip((column.name for column in columns), names, strict=True))
        for name in self._config.mask:
            if name not in arriving and name not in names:
                near = nearest(name, [*arriving, *names])
                remedy = f"did you mean {near!r}?" if near else f"the columns are: {', '.join(arriving)}"
                self._findings.append(problem("mask", f"no column {name!r} is copied", remedy))
        return frozenset(arriving.get(name, name) for name in self._config.mask)


def _type_names(column: Column) -> tuple[str, ...]:
    """Return the names that a rule may use for a column's type."""
    return (column.native, column.type.kind.value, column.native.split("(", 1)[0].strip())
