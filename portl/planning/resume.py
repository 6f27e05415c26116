"""Decide from the ledger what a run does: resume an interrupted one, report a finished one, or begin a new one.

==================================  ====================================================================
the latest run of the job           this run
==================================  ====================================================================
there is none                       begins
was interrupted, can be resumed     resumes it
was interrupted, cannot be resumed  begins if it left nothing behind; else a problem says what to do
is done, its result was delivered   begins
is done, its result was lost        begins if repeating it does no harm; else reports it and copies nothing
has the ``run_id`` of this one      reports it if it is done, in any case
==================================  ====================================================================

A process can die after the last COMMIT but before its caller knows. The ledger then has the run as done, while the
caller believes that it failed and runs the job again. Without a key, every row would arrive twice. So the ledger also
records whether the result was delivered (``Ledger.acknowledge``); if not, the next run delivers it and copies nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from portl.config.models import (
    DestinationConfig,
    MigrationConfig,
    Mode,
    OnError,
    OnSchemaChange,
    Resume,
    SourceConfig,
    Strategy,
)
from portl.connectors.destination import Destination
from portl.connectors.exchange import Chunk, Intent, Split
from portl.connectors.ledger import Ledger
from portl.connectors.source import Source
from portl.planning.delivery import Delivery, begun, job_name, whole_bounds
from portl.planning.modes import incremental
from portl.values.findings import Finding, note, problem, warning
from portl.values.runs import ChunkState, Run, RunState


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the dotted names of the keys in which two identities differ."""
    old, new = dict(_leaves(before)), dict(_leaves(now))
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", list(value) if isinstance(value, tuple) else value


@attrs.frozen(kw_only=True)
class Resumption:
    """How a job is delivered, and which of its runs is resumed or reported."""

    delivery: Delivery
    job: str
    identity: Mapping[str, Any]
    #: The run that is resumed; None if a new one begins.
    run: Run | None = None
    chunks: tuple[Chunk, ...] = ()
    recopy: bool = False
    #: The latest run of the job, in whatever state.
    found: Run | None = None
    #: One table's part of that, in a job of many.
    part: Run | None = None
    #: True if the run creates the table as it is at the source, in a job of many.
    made: bool = False
    #: A finished run that is reported instead of copying rows; None if rows are copied.
    reported: Run | None = None
    findings: tuple[Finding, ...] = ()

    @classmethod
    def of(
        cls,
        config: MigrationConfig,
        source: Source[SourceConfig],
        destination: Destination[DestinationConfig],
        ledger: Ledger | None,
        intent: Intent,
        split: Split,
        restart: bool,
        refresh: bool = False,
    ) -> Resumption:
        """Decide; see the table in the module's docstring. ``refresh``: an incremental run reads all rows."""
        inquiry = _Inquiry(config, source, destination, ledger, intent, split)
        return inquiry.resumption(restart=restart, refresh=refresh)


class _Inquiry:
    def __init__(
        self,
        config: MigrationConfig,
        source: Source[SourceConfig],
        destination: Destination[DestinationConfig],
        ledger: Ledger | None,
        intent: Intent,
        split: Split,
    ) -> None:
        self._config = config
        self._source = source
        self._destination = destination
        self._ledger = ledger
        self._intent = intent
        self._split = split
        self._findings: list[Finding] = []
        self._job = job_name(config, destination)
        self._repeatable = intent.key is not None and intent.conflict.strategy in (
            Strategy.OVERWRITE,
            Strategy.SKIP,
        )

    def resumption(self, *, restart: bool, refresh: bool) -> Resumption:
        identity = self._identity()
        mode = self._delivery()
        self._capabilities()
        self._hidden()
        found = self._ledger.find(self._job) if self._ledger is not None else None
        reported = None if restart else self._reported(found, identity)
        if self._config.incremental is not None and not refresh:
            self._moved_on(found, identity, restart=restart)
        # A mirror is not resumed: the next one compares both sides afresh.
        fresh = restart or reported or self._intent.mirror
        run = None if found is None or fresh else self._resumed(found, mode, identity)
        recopy = run is not None and self._recopies(run)
        chunks = tuple(Chunk(number=line.number, bounds=whole_bounds(line).whole) for line in run.chunks) if run else ()
        return Resumption(
            delivery=mode,
            job=self._job,
            identity=identity,
            run=run,
            chunks=chunks,
            recopy=recopy,
            found=found,
            reported=reported,
            findings=tuple(self._findings),
        )

    def _identity(self) -> Mapping[str, Any]:
        """Return everything in the job that determines which rows arrive, and how."""
        intent = self._intent
        conflict = intent.conflict
        return {
            "source": dict(self._source.identity()),
            "destination": dict(self._destination.identity()),
            "columns": {
                f.source.name: [f.target.name, f.sent.native, *([f.using] if f.using else [])] for f in intent.fields
            },
            "conflict": {
                "strategy": conflict.strategy.value,
                "key": list(intent.key.columns) if intent.key else None,
                "columns": dict(conflict.columns),
                "newest_by": conflict.newest_by,
            },
            **({"mode": self._config.mode.value} if intent.mirror else {}),
            **incremental.settings(self._config),
        }

    def _moved_on(self, found: Run | None, identity: Mapping[str, Any], *, restart: bool) -> None:
        """Report why a watermark is no longer valid for this run."""
        if found is None or incremental.last_watermark(found) is None:
            return
        if found.state is not RunState.DONE and begun(found.chunks) and not restart:
            return  # either resumed or already a problem
        different = changes(found.identity, identity)
        if self._config.on_schema_change is not OnSchemaChange.FAIL:
            # Columns that come, go or grow are what the job expects; rows that were copied before stay as they are.
            different = [name for name in different if not name.startswith("columns.")]
        if different:
            self._findings.append(incremental.changed(found, different))
        elif (lost := incremental.lost(self._destination, found, self._intent.target.name)) is not None:
            self._findings.append(lost)

    def _delivery(self) -> Delivery:
        if self._config.atomic or self._config.mode is Mode.REPLACE:
            return Delivery.WHOLE
        if self._intent.mirror:
            said = "an interrupted mirror compares both sides again, and moves what still differs"
            self._findings.append(note("resume", said))
            return Delivery.CHUNKS
        if self._ledger is not None and self._split.resumable:
            return Delivery.CHUNKS
        why = self._split.reason if self._ledger is not None else "there is no ledger"
        if self._repeatable or not self._destination.savepoints:
            if self._ledger is not None:
                self._findings.append(note("resume", f"an interrupted run starts over: {why}"))
            if not self._repeatable:
                message = f"an interrupted run leaves rows behind, which the next one writes again: {why}"
                self._findings.append(warning("resume", message))
            return Delivery.REPEAT
        message = f"this job is one transaction, and starts over if it is interrupted: {why}"
        self._findings.append(note("resume", message))
        return Delivery.WHOLE

    def _capabilities(self) -> None:
        """Report what the job asks for but the destination does not support."""
        if self._destination.savepoints:
            return
        label = self._destination.label()
        if self._config.atomic:
            self._findings.append(problem("atomic", f"{label} has no savepoints", "remove `atomic`"))
        if self._config.mode is Mode.REPLACE:
            self._findings.append(problem("mode", f"{label} has no savepoints", "use `mode: mirror`"))
        if self._config.on_error is OnError.QUARANTINE:
            self._findings.append(problem("on_error", f"{label} cannot quarantine rows", "use `on_error: fail`"))

    def _hidden(self) -> None:
        """Report where an interrupted run of this job may be hidden."""
        hidden = self._ledger.hidden() if self._ledger is not None else None
        if hidden is None:
            return
        where, remedy = hidden
        if self._repeatable or self._intent.create or self._destination.empty():
            message = f"{where}: if a run of this job was interrupted, it starts over"
            self._findings.append(note("ledger", message))
        else:
            message = f"{where}: if a run of this job was interrupted, its rows would be inserted twice"
            self._findings.append(problem("ledger", message, remedy))

    def _reported(self, latest: Run | None, identity: Mapping[str, Any]) -> Run | None:
        """Return the finished run that is reported instead of being repeated."""
        if self._config.run_id is not None and (named := self._named(self._config.run_id)) is not None:
            message = f"the run {self._config.run_id!r} of {named.began} is already done: its result is reported, and"
            message += " nothing is copied"
            different = changes(named.identity, identity)
            since = f"; the job has changed since: {', '.join(different)}" if different else ""
            self._findings.append(warning("run_id", message + since, "run the job with another id to copy rows again"))
            return named
        if latest is None or latest.state is not RunState.DONE or latest.acknowledged or self._intent.idempotent:
            return None
        if changes(latest.identity, identity) or self._gone(latest):
            return None
        message = (
            f"the run of {latest.began} is done, but its result was never delivered: it is reported now, and nothing"
            " is copied"
        )
        self._findings.append(warning("ledger", message, "run the job again to copy its rows again"))
        return latest

    def _named(self, run_id: str) -> Run | None:
        """Return the run with this idempotency key, if it is done."""
        if self._ledger is None:
            self._findings.append(
                problem("run_id", "there is no ledger to record it", "remove `run_id`, or see the finding on `ledger`")
            )
            return None
        found = self._ledger.find(self._job, idempotency_key=run_id)
        return found if found is not None and found.state is RunState.DONE else None

    def _gone(self, run: Run) -> bool:
        """Return whether the rows that a run copied are gone, or their table is."""
        if self._intent.create or run.incarnation not in (None, self._destination.incarnation()):
            return True
        return any(line.inserted for line in run.chunks) and self._destination.empty()

    def _resumed(self, found: Run, mode: Delivery, identity: Mapping[str, Any]) -> Run | None:
        """Return the run to resume, if the latest one was interrupted and can be resumed."""
        if found.state is RunState.DONE or not begun(found.chunks) or not found.resumable:
            return None
        rows = sum(line.rows for line in found.chunks)
        done = sum(line.state is ChunkState.DONE for line in found.chunks)
        state = (
            f"the run of {found.began} was interrupted with {rows:,} rows in {done} of {len(found.chunks)} chunks done"
        )
        advice = "`--restart` starts over; for rows that are there, the conflict strategy decides"
        if mode is not Delivery.CHUNKS:
            self._findings.append(problem("resume", f"{state}, and this job is not copied in chunks", advice))
            return None
        different = changes(found.identity, identity)
        if different:
            message = f"{state}, and the job has changed since: {', '.join(different)}"
            self._findings.append(problem("resume", message, f"change it back to resume the run, or {advice}"))
            return None
        if self._intent.create:
            # The rows are gone with it.
            message = f"{state}, and the table {self._intent.target.name} is gone: it starts over"
            self._findings.append(note("resume", message))
            return None
        recopies = self._recopies(found)
        if not recopies and found.incarnation not in (None, self._destination.incarnation()):
            message = f"{state}, and the table {self._intent.target.name} has been replaced by another"
            self._findings.append(problem("resume", message, advice))
            return None
        if not recopies and any(line.inserted for line in found.chunks) and self._destination.empty():
            message = f"{state}, and the table {self._intent.target.name} is empty"
            self._findings.append(problem("resume", message, advice))
            return None
        self._findings.append(note("resume", f"{state}: it is resumed"))
        if not recopies:
            self._findings += self._source.resumable(found.chunks, found, repeatable=self._repeatable)
        return found

    def _recopies(self, run: Run) -> bool:
        if self._config.resume is not Resume.RECOPY:
            return False
        if self._repeatable:
            return True
        self._findings.append(
            problem(
                "resume",
                f"`recopy` would write rows twice under `conflict: {self._config.conflict.strategy.value}`",
                "it needs overwrite or skip, and a key; use `resume: continue`",
            )
        )
        return False
