"""Examine both sides of one table and plan what a run will do with it. Writes nothing."""

from __future__ import annotations

import sys

import attrs

from portl.config.models import DestinationConfig, MigrationConfig, OnError, SourceConfig, Strategy
from portl.connectors.destination import Destination
from portl.connectors.exchange import ROWS, Intent, Split, Splitting
from portl.connectors.ledger import Ledger
from portl.connectors.source import Source
from portl.planning.columns import map_columns
from portl.planning.delivery import job_name
from portl.planning.keys import choose_key, distinct, report_nulls
from portl.planning.modes import incremental, mirror
from portl.planning.placing import with_objects
from portl.planning.resume import Resumption
from portl.planning.route import choose_format, snapshot_need
from portl.planning.tasks import TableTask
from portl.values.findings import Finding, Severity
from portl.values.masking import COVER
from portl.values.runs import Run

PREVIEW_ROWS = 5

#: The target size of a chunk in bytes: large enough that a COMMIT, and the pause in the stream around it, cost little;
#: small enough that little is redone after a crash. Less is kept in memory:
#: ``portl.execution.chunks.load.GROUP_BYTES``.
CHUNK_BYTES = 64 * 1024 * 1024


def plan_table(
    config: MigrationConfig,
    source: Source[SourceConfig],
    destination: Destination[DestinationConfig],
    ledger: Ledger | Finding,
    *,
    exact: bool,
    restart: bool = False,
    refresh: bool = False,
    resumption: Resumption | None = None,
) -> TableTask:
    """Return the task for the job's table.

    Args:
        config: the job.
        source: an open source.
        destination: an open destination.
        ledger: the destination's ledger, or why it has none.
        exact: True to count the rows and fetch a preview, False for an estimate only.
        restart: True to start over instead of resuming an interrupted run.
        refresh: True to read all rows in ``mode: incremental``.
        resumption: given if it was decided for many tables together.
    """
    return _Planner(config, source, destination, ledger, resumption).plan(exact=exact, restart=restart, refresh=refresh)


class _Planner:
    def __init__(
        self,
        config: MigrationConfig,
        source: Source[SourceConfig],
        destination: Destination[DestinationConfig],
        ledger: Ledger | Finding,
        resumption: Resumption | None,
    ) -> None:
        self._resumption = resumption
        self._config = config
        self._source = source
        self._destination = destination
        self._ledger = ledger if isinstance(ledger, Ledger) else None
        self._findings: list[Finding] = [ledger] if isinstance(ledger, Finding) else []

    def plan(self, *, exact: bool, restart: bool, refresh: bool) -> TableTask:
        changing = incremental.is_incremental(self._config)
        if changing:
            latest = None if refresh else self._latest()
            self._findings += incremental.confine(self._config, self._source, self._ledger, latest)
        intent, ignored = self._intent()
        together = "all tables are read in one state" if self._resumption is not None else None
        if intent.mirror:
            together = "a mirror moves rows in the state in which they were compared"
            self._findings += mirror.examine(self._config, intent, self._source, self._destination)
        if changing:
            made = self._resumption is not None and self._resumption.made
            self._findings += incremental.examine(self._config, intent, made=made)
        intent = self._with_format(intent, together or snapshot_need(self._config))
        self._findings += self._source.examine(intent.fields)
        if self._resumption is None:
            intent, findings = with_objects(intent, self._source, self._destination)
            self._findings += findings
        readable = not any(f.severity is Severity.PROBLEM and f.where.startswith("source") for f in self._findings)
        split = self._split(intent) if readable else Split()
        resumption = self._resumption or Resumption.of(
            self._config, self._source, self._destination, self._ledger, intent, split, restart, refresh
        )
        self._findings += resumption.findings
        if resumption.run is not None:
            # Rows that are copied again conflict with those already there, so the key must exist by then.
            intent = attrs.evolve(intent, resumed=not resumption.recopy)
            split = attrs.evolve(split, chunks=resumption.chunks)
            if intent.format.own_state and len(split.chunks) > 1:
                cut = f"the run that is resumed is cut into {len(split.chunks):,} chunks"
                intent = self._with_format(intent, cut)
        examination = self._destination.examine(intent)
        intent = attrs.evolve(intent, kept=frozenset(examination.kept))
        findings = sorted([*self._findings, *examination.findings], key=lambda f: f.rank)
        return TableTask(
            intent=intent,
            findings=tuple(dict.fromkeys(findings)),
            examination=examination,
            count=self._source.count(exact=exact) if readable else None,
            preview=self._preview(intent) if readable and exact else (),
            read=self._source.statement(intent.fields, intent.format) if intent.fields or readable else None,
            split=split,
            delivery=resumption.delivery,
            job=resumption.job,
            identity=resumption.identity,
            ledger=self._ledger.place if self._ledger is not None else None,
            run=resumption.run,
            found=resumption.found,
            reported=resumption.reported,
            recopy=resumption.recopy,
            ignored=ignored,
        )

    def _latest(self) -> Run | None:
        """Return the latest run of the table."""
        if self._resumption is not None:
            return self._resumption.part
        return self._ledger.find(job_name(self._config, self._destination)) if self._ledger is not None else None

    def _intent(self) -> tuple[Intent, tuple[tuple[str, str], ...]]:
        """Return the intent, still without its format, and the columns that are not read, with reasons."""
        config = self._config
        table, existing = self._source.describe(), self._destination.describe()
        mapping = map_columns(config, self._source, self._destination, table, existing)
        created = existing is None
        mirrored = mirror.mirrors(config)
        conflict = mirror.conflict(config, mapping.target, created=created) if mirrored else config.conflict
        key, findings = choose_key(conflict, self._destination.strategies, mapping.target, created=created)
        nulls = () if mirrored else report_nulls(key, conflict, table, mapping.fields)
        self._findings += [*mapping.findings, *findings, *nulls]
        intent = Intent(
            source=table,
            target=mapping.target,
            fields=mapping.fields,
            create=created,
            add=mapping.added,
            widen=mapping.widened,
            conflict=conflict,
            key=key,
            distinct=distinct(table, mapping.fields, key),
            quarantine=config.quarantine if config.on_error is OnError.QUARANTINE else None,
            mask=mapping.mask,
            job=config.name,
            groups=config.groups,
            mirror=mirrored,
        )
        return intent, mapping.ignored

    def _with_format(self, intent: Intent, own_state: str | None) -> Intent:
        """Return an intent with the format that suits it; see ``choose_format``."""
        found = choose_format(self._config.route, self._source, self._destination, intent, own_state)
        if isinstance(found, Finding):
            self._findings.append(found)
            found = ROWS
        return attrs.evolve(intent, format=found)

    def _split(self, intent: Intent) -> Split:
        return self._source.split(
            Splitting(
                fields=intent.fields,
                chunk_rows=self._config.chunk_rows,
                chunk_bytes=sys.maxsize if intent.format.own_state else CHUNK_BYTES,
                any_order=intent.distinct or intent.key is None or self._config.conflict.strategy is Strategy.FAIL,
            )
        )

    def _preview(self, intent: Intent) -> tuple[tuple[str | None, ...], ...]:
        """Return the first rows as text, without masked values."""
        hidden = [field.target.name in intent.mask for field in intent.fields]
        return tuple(
            tuple(COVER if hide and text is not None else text for hide, text in zip(hidden, row, strict=True))
            for row in self._source.preview(intent.fields, PREVIEW_ROWS)
        )
