"""Plan a job of many tables: the tables, the objects that go with them, and which run is resumed or reported.

Such a job has one run in the ledger, in which the chunks of all tables are numbered consecutively (``Run.tables``). A
resumed run keeps its tables; tables that the source has gained since are left to the next run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import attrs

from portl.config.models import Conflict, MigrationConfig, Mode, Resume, Strategy, Tables
from portl.config.objects import ForeignKeys
from portl.connectors.exchange import Chunk
from portl.connectors.ledger import Ledger
from portl.connectors.objects import Changes, SchemaObject, Stage
from portl.planning.database.objects import ChosenObjects, choose
from portl.planning.database.order import in_order
from portl.planning.database.selection import Chosen
from portl.planning.database.selection import choose as choose_tables
from portl.planning.delivery import Delivery, begun, job_name, whole_bounds
from portl.planning.modes import incremental
from portl.planning.modes.mirror import missing, modes
from portl.planning.placing import placement
from portl.planning.plan import Plan
from portl.planning.request import Sides, TableSides
from portl.planning.resume import Resumption, changes
from portl.planning.table import plan_table
from portl.planning.tasks import TableTask
from portl.values.findings import Finding, note, problem, warning
from portl.values.runs import ChunkState, DroppedKey, Run, RunState, RunTable
from portl.values.text import counted_tables


def plan_tables(config: MigrationConfig, sides: Sides, *, restart: bool, refresh: bool = False) -> Plan:
    """Return what a run would do.

    Args:
        config: the job.
        sides: both sides, open; the sides of each table are added to it.
        restart: True to start over instead of resuming an interrupted run.
        refresh: True to read all rows in ``mode: incremental``.
    """
    return _Planner(config, sides).plan(restart=restart, refresh=refresh)


class _Planner:
    def __init__(self, config: MigrationConfig, sides: Sides) -> None:
        self._config = config
        self._sides = sides
        self._ledger: Ledger | None = sides.ledger
        self._job = job_name(config, sides.destination)
        self._findings: list[Finding] = []
        #: The run that is resumed.
        self._run: Run | None = None
        #: The source's objects, once read.
        self._read: tuple[Sequence[SchemaObject], Sequence[Finding]] | None = None

    def plan(self, *, restart: bool, refresh: bool) -> Plan:
        config, sides = self._config, self._sides
        chosen, findings = choose_tables(config, sides.source.listing())
        self._findings += [*findings, *self._unsuitable()]
        self._findings += modes(config, [table.config for table in chosen])
        mirrored = config.mode is Mode.MIRROR
        identity = self._identity()
        found = self._ledger.find(self._job) if self._ledger is not None else None
        if found is not None and not restart and not mirrored:
            self._run = self._resumed(found, identity)
        if self._run is not None:
            chosen = self._kept(chosen, self._run)
        there = sides.destination.objects() if not mirrored else None
        created = self._created(chosen, there)
        watermarks = None if refresh else found
        if watermarks is not None:
            self._findings += self._moved_on(watermarks, identity)
        tasks = self._tasks(chosen, created, found, identity, watermarks)
        self._findings += missing(tasks) if mirrored else ()
        objects = self._objects(tasks, there, created, found)
        self._findings += _twice(tasks)
        tasks, dropped = self._in_order(tasks, there, found)
        if not tasks and not any(finding.severity.value == "problem" for finding in self._findings):
            self._findings.append(problem("tables", "there is no table to copy"))
        reported = None if restart or self._run is not None else self._reported(found, identity, tasks)
        if reported is not None:
            # Nothing is copied, so it does not matter what would prevent it.
            tasks = [attrs.evolve(task, reported=reported, findings=()) for task in tasks]
        return Plan(
            config=config,
            source=sides.source.label(),
            destination=sides.destination.label(),
            tables=tuple(tasks),
            objects=objects.objects,
            dropped=dropped,
            findings=tuple(sorted([*self._findings, *objects.findings], key=lambda f: f.rank)),
        )

    def _unsuitable(self) -> list[Finding]:
        """Return problems for keys that a job of many tables cannot have."""
        config, kept = self._config, self._sides.kept
        found = []
        if isinstance(kept, Finding):
            said = f"many tables need a ledger: {kept.message}"
            found.append(problem("ledger", said, kept.remedy or "set `ledger.mode` to auto"))
        elif (hidden := kept.hidden()) is not None:
            where, remedy = hidden
            found.append(problem("ledger", f"{where}: an interrupted run of this job could not be found", remedy))
        if config.atomic:
            found.append(problem("atomic", "many tables are not copied in one transaction", "remove `atomic`"))
        if config.resume is Resume.RECOPY:
            found.append(problem("resume", "`recopy` is for jobs of one table", "use `resume: continue`"))
        return found

    def _identity(self) -> Mapping[str, Any]:
        """Return everything in the job that determines which rows arrive, and how."""
        config = self._config
        entries: Any = (
            "all"
            if isinstance(config.tables, Tables) or config.tables is None
            else [
                [choice.table, *([_difference(config, choice.job)] if choice.job is not None else [])]
                for choice in config.tables
            ]
        )
        return {
            "source": dict(self._sides.source.identity()),
            "destination": {k: v for k, v in self._sides.destination.identity().items() if v},
            "tables": entries,
            "exclude": list(config.exclude),
            "schemas": dict(config.schemas or {}),
            "conflict": config.conflict.strategy.value,
            **incremental.settings(config),
        }

    def _moved_on(self, found: Run, identity: Mapping[str, Any]) -> list[Finding]:
        """Report why watermarks are no longer valid: tables may come and go, the rest may not change."""
        if not incremental.is_incremental(self._config) or self._run is not None:
            return []
        before, now = ({k: v for k, v in known.items() if k != "exclude"} for known in (found.identity, identity))
        entries = [known.pop("tables") for known in (before, now)]
        old, new = ({e[0]: e[1:] for e in known} if isinstance(known, list) else {} for known in entries)
        different = changes(before, now) + [f"tables.{n}" for n in sorted(old.keys() & new) if old[n] != new[n]]
        return [incremental.changed(found, different)] if different else []

    def _resumed(self, found: Run, identity: Mapping[str, Any]) -> Run | None:
        """Return the run to resume, if the latest one was interrupted."""
        if found.state is RunState.DONE or not found.tables:
            return None
        done = sum(line.state is ChunkState.DONE for line in found.chunks)
        state = f"the run of {found.began} was interrupted with {done:,} of {len(found.chunks):,} chunks done"
        different = changes(found.identity, identity)
        if different:
            said = f"{state}, and the job has changed since: {', '.join(different)}"
            self._findings.append(problem("resume", said, "change it back to resume the run, or use `--restart`"))
            return None
        self._findings.append(note("resume", f"{state}: it is resumed"))
        return found

    def _kept(self, chosen: Sequence[Chosen], run: Run) -> list[Chosen]:
        """Return the tables of a run that is resumed."""
        names = {table.source for table in run.tables}
        found = [table for table in chosen if table.entry is None or table.entry.name in names]
        gone = names - {table.entry.name for table in found if table.entry is not None} - {"query"}
        if gone:
            said = f"the resumed run includes tables that the source no longer has: {', '.join(sorted(gone))}"
            self._findings.append(problem("resume", said, "`--restart` begins a new run"))
        new = len(chosen) - len(found)
        if new:
            self._findings.append(
                note("tables", f"{counted_tables(new, 'is', 'are')} new at the source: the next run copies them")
            )
        return found

    def _created(self, chosen: Sequence[Chosen], there: Collection[str] | None) -> set[str]:
        """Return the source's names of the tables that are created unchanged."""
        if there is None:
            return set()
        objects, _ = self._source_objects()
        made = {table.source for table in self._run.tables if table.made} if self._run is not None else set()
        tables = {found.table: found.label for found in objects if found.kind == "table" and found.table is not None}
        return {
            table.entry.name
            for table in chosen
            if table.entry is not None
            and table.as_it_is
            and (tables.get(table.entry.name) not in {None, *there} or table.entry.name in made)
        }

    def _source_objects(self, changed: Changes | None = None) -> tuple[Sequence[SchemaObject], Sequence[Finding]]:
        """Return the source's objects; they are read again if some tables are created in another form."""
        if changed is not None or self._read is None:
            self._read = self._sides.source.objects(self._config.schemas or {}, changed)
        return self._read

    def _objects(
        self, tasks: Sequence[TableTask], there: Collection[str] | None, created: Collection[str], latest: Run | None
    ) -> ChosenObjects:
        """Return the objects to create."""
        if there is None:
            return ChosenObjects()
        config, sides = self._config, self._sides
        others = [task for task in tasks if self._otherwise(task)]
        changes = Changes(
            placements=tuple(placement(task.intent, config.schemas) for task in others),
            created=frozenset(created),
            groups=config.groups,
        )
        objects, findings = self._source_objects(changes if others and config.groups else None)
        if not objects:
            return ChosenObjects(findings=tuple(findings))
        self._findings += self._unfinished(objects, there, latest)
        placed = {task.source.name for task in others}
        found = choose(config, objects, there, created, placed=placed, resumed=self._run is not None)
        kept = [f for f in findings if f.severity.value != "note" or config.groups]
        unfit = sides.destination.unfit(found.objects) if found.objects else []
        return attrs.evolve(found, findings=(*kept, *found.findings, *unfit))

    def _otherwise(self, task: TableTask) -> bool:
        """Return whether a run creates a table in a form that differs from the source's."""
        source, target = task.source, task.destination
        run = self._part_of(target.name)
        created = run.created if run is not None else task.intent.create
        return created and not task.made and source.kind != "query" and source.dialect == target.dialect

    def _part_of(self, name: str) -> RunTable | None:
        """Return a table of the run that is resumed."""
        tables = self._run.tables if self._run is not None else ()
        return next((table for table in tables if table.name == name), None)

    def _unfinished(self, objects: Sequence[SchemaObject], there: Collection[str], latest: Run | None) -> list[Finding]:
        """Return a problem for each table that a run which is not resumed created and left without its key."""
        if latest is None or latest.state is RunState.DONE or self._run is not None:
            return []
        made = {table.source: table.name for table in latest.tables if table.made}
        tables = {found.table for found in objects if found.kind == "table" and found.label in there}
        lacking = dict.fromkeys(
            made[found.table]
            for found in objects
            if found.table in made
            and found.table in tables
            and found.stage is Stage.INDEXES
            and found.group is None
            and found.label not in there
        )
        return [
            problem(
                "resume",
                f"the interrupted run of {latest.began} has created {name}, but not its key",
                "resume that run; or drop the tables that it has created with `portl clean --table`",
            )
            for name in lacking
        ]

    def _tasks(
        self,
        chosen: Sequence[Chosen],
        created: Collection[str],
        found: Run | None,
        identity: Mapping[str, Any],
        watermarks: Run | None,
    ) -> list[TableTask]:
        """Return a task for each table, with chunks numbered consecutively."""
        place, target = self._sides.source, self._sides.destination
        reading = [type(place)(table.config.source, place.handle).over(place) for table in chosen]
        place.look_ahead(reading)
        # A missing ledger has been reported once for the whole plan.
        ledger = self._ledger if self._ledger is not None else note("ledger", "there is none")
        tasks = []
        first = 1
        for table, source in zip(chosen, reading, strict=True):
            destination = type(target)(table.config.destination, target.handle).over(target)
            name, config = destination.target(), table.config
            run = self._part(name)
            if run is not None and begun(run.chunks):
                self._findings += self._resuming(source, destination, run)
            made = table.entry is not None and table.entry.name in created
            if made:
                destination.expect(source.describe())
                # The table is new, so no row conflicts; the source's keys are created after the rows.
                config = attrs.evolve(config, conflict=Conflict(strategy=Strategy.FAIL))
            lines = run.chunks if run is not None else ()
            part = _part_of(watermarks, name)
            if part is not None and run is None and incremental.last_watermark(part) is not None:
                lost = incremental.lost(destination, part, name)
                self._findings += [lost] if lost is not None else []
            resumption = Resumption(
                delivery=Delivery.CHUNKS,
                job=self._job,
                identity=identity,
                run=run if run is not None and (begun(lines) or made) else None,
                chunks=tuple(Chunk(number=line.number, bounds=whole_bounds(line).whole) for line in lines),
                found=found,
                part=part,
                made=made,
            )
            task = plan_table(config, source, destination, ledger, exact=False, resumption=resumption)
            if run is None:
                chunks = [attrs.evolve(chunk, number=first + n) for n, chunk in enumerate(task.split.chunks)]
            else:
                chunks = [*resumption.chunks]
            first += len(chunks)
            split = attrs.evolve(task.split, chunks=tuple(chunks))
            tasks.append(attrs.evolve(task, split=split, run=self._run, made=made))
            self._sides.tables[name] = TableSides(config=table.config, source=source, destination=destination)
        return tasks

    def _in_order(
        self, tasks: list[TableTask], there: Collection[str] | None, latest: Run | None
    ) -> tuple[list[TableTask], tuple[DroppedKey, ...]]:
        """Return the tasks with the tables that each waits for, and the foreign keys to drop before the rows."""
        given_up = latest.dropped if latest is not None and latest.state is not RunState.DONE else ()
        if not given_up and all(task.made or task.intent.create for task in tasks):
            return tasks, ()
        keys = self._sides.destination.foreign_keys()
        if self._run is None:
            # This run re-creates what an abandoned one dropped, if its tables exist. A key that exists may not have
            # been validated yet; if it is valid, someone else has created it.
            names = {found.key.name for found in keys if found.valid}
            known = {label.removeprefix("table ") for label in there or ()}
            given_up = tuple(k for k in given_up if k.name not in names and {k.table, k.refers} <= known)
        # A resumed run has recorded which foreign keys it drops.
        wanted = self._config.foreign_keys if self._run is None else ForeignKeys.KEEP
        order = in_order(tasks, keys, wanted, given_up)
        self._findings += order.findings
        return [*order.tasks], order.dropped

    def _part(self, name: str) -> Run | None:
        """Return a table's part of the run that is resumed."""
        table = self._part_of(name)
        return self._run.of(table) if self._run is not None and table is not None else None

    def _resuming(self, source: Any, destination: Any, run: Run) -> list[Finding]:
        """Return what prevents resuming a table that was begun."""
        name, remedy = destination.target(), "`--restart` begins a new run"
        if run.incarnation not in (None, destination.incarnation()):
            return [problem("resume", f"the table {name} has been replaced by another since the run began", remedy)]
        if destination.incarnation() is None:
            return [problem("resume", f"the table {name} is gone, and with it the rows of the run", remedy)]
        if any(line.inserted for line in run.chunks) and destination.empty():
            return [problem("resume", f"the table {name} is empty, although the run has copied rows into it", remedy)]
        if all(line.state is ChunkState.DONE for line in run.chunks):
            return []
        return [*source.resumable(run.chunks, run, repeatable=self._config.conflict.idempotent)]

    def _reported(self, latest: Run | None, identity: Mapping[str, Any], tasks: Sequence[TableTask]) -> Run | None:
        """Return the finished run that is reported instead of being repeated; see ``portl.planning.resume``."""
        config = self._config
        if config.run_id is not None and self._ledger is not None:
            named = self._ledger.find(self._job, idempotency_key=config.run_id)
            if named is not None and named.state is RunState.DONE:
                said = (
                    f"the run {config.run_id!r} of {named.began} is already done: its result is reported, and nothing"
                )
                said += " is copied"
                self._findings.append(warning("run_id", said, "run the job with another id to copy rows again"))
                return named
        if latest is None or latest.state is not RunState.DONE or latest.acknowledged:
            return None
        if all(task.intent.idempotent or task.made for task in tasks) or changes(latest.identity, identity):
            return None
        said = f"the run of {latest.began} is done, but its result was never delivered: it is reported now"
        self._findings.append(warning("ledger", f"{said}, and nothing is copied", "run the job again to copy again"))
        return latest


def run_tables(tasks: Sequence[TableTask], sides: Sides, dropped: Sequence[DroppedKey] = ()) -> tuple[RunTable, ...]:
    """Return what the ledger records of a new run's tables and of the foreign keys that it drops."""
    found: list[RunTable] = []
    names = {task.destination.name for task in tasks}
    for task in tasks:
        name = task.destination.name
        there = not task.made and not task.intent.create
        found.append(
            RunTable(
                name=name,
                source="query" if task.source.kind == "query" else task.source.name,
                first=task.split.chunks[0].number,
                last=task.split.chunks[-1].number,
                made=task.made,
                created=task.intent.create,
                dropped=tuple(key for key in dropped if key.table == name or (not found and key.table not in names)),
                incarnation=sides.tables[name].destination.incarnation() if there else None,
            )
        )
    return tuple(found)


def _part_of(run: Run | None, name: str) -> Run | None:
    """Return a table's part of a run."""
    table = next((table for table in run.tables if table.name == name), None) if run is not None else None
    return run.of(table) if run is not None and table is not None else None


def in_stage(objects: Sequence[SchemaObject], *stages: Stage) -> list[SchemaObject]:
    """Return the objects of some stages, in order."""
    return [found for found in objects if found.stage in stages]


def _difference(config: MigrationConfig, job: MigrationConfig) -> dict[str, Any]:
    """Return how the job of an entry differs from the others, as plain data."""
    found = {}
    for side in ("source", "destination"):
        mine, general = getattr(job, side), getattr(config, side)
        for field in attrs.fields(type(mine)):
            value = getattr(mine, field.name)
            if value != getattr(general, field.name, None):
                found[f"{side}.{field.name}"] = str(value)
    for name in ("schema_mapping", "conflict", "types"):
        if getattr(job, name) != getattr(config, name):
            found[name] = str(getattr(job, name))
    if (own := incremental.settings(job)) != incremental.settings(config):
        found.update(own)
    return found


def _twice(tasks: Sequence[TableTask]) -> list[Finding]:
    """Return a problem for each table that two entries write to."""
    seen: dict[str, str] = {}
    found = []
    for task in tasks:
        name = task.destination.name
        if name in seen:
            said = f"{seen[name]} and {task.source.name} both go to {name}"
            found.append(problem("tables", said, "name another table in `destination` of one of the entries"))
        seen[name] = task.source.name
    return found
