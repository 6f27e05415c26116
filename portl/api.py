"""The two calls: ``migrate`` and ``plan``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from portl import engine, plugins
from portl.config import DestinationConfig, MigrationConfig, SourceConfig
from portl.connectors import CancelToken, Context, Destination, Source
from portl.errors import Error, Interrupted, PlanError, PluginError
from portl.events import Event, Failed, Observer, Warned
from portl.planning import Plan, plan_table
from portl.result import Result

Job = str | os.PathLike[str] | Mapping[str, Any] | MigrationConfig


def migrate(
    job: Job,
    *,
    source: object | None = None,
    destination: object | None = None,
    observers: Sequence[Observer] = (),
    cancel: CancelToken | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Result:
    """Plan a job and carry it out.

    Args:
        job: the path of a job file, a dict with the same keys, or a ``MigrationConfig``.
        source: a connection or pool of your own to read with, of the kind that the connector's driver has. portl
            neither closes it nor commits a transaction that is already open on it.
        destination: the same to write with.
        observers: functions that are called with each event, in the thread that called ``migrate``.
        cancel: a token with which another thread can end the run.
        overrides: dotted path of a key to the YAML text of its new value, as ``portl run --set`` takes them.

    Returns:
        What was done.

    Raises:
        ConfigError: the job is wrong.
        PlanError: the plan has problems; nothing was written.
        Error: anything else; ``committed`` says what stays.
    """
    session = Session.of(job, source, destination, observers, cancel, overrides)
    with session.ends() as (reading, writing):
        plan = session.plan(reading, writing, exact=False)
        return session.run(plan, reading, writing)


def plan(
    job: Job,
    *,
    source: object | None = None,
    destination: object | None = None,
    observers: Sequence[Observer] = (),
    cancel: CancelToken | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Plan:
    """Look at both ends and return what would be done. Writes nothing. The arguments are those of ``migrate``."""
    session = Session.of(job, source, destination, observers, cancel, overrides)
    with session.ends() as (reading, writing):
        return session.plan(reading, writing, exact=True)


@attrs.define(kw_only=True)
class Session:
    """A job with all that its caller has handed in."""

    config: MigrationConfig
    _source: object | None = attrs.field(repr=False)
    _destination: object | None = attrs.field(repr=False)
    _context: Context = attrs.field(repr=False)
    _started: float = attrs.field(factory=time.monotonic)

    @classmethod
    def of(
        cls,
        job: Job,
        source: object | None,
        destination: object | None,
        observers: Sequence[Observer],
        cancel: CancelToken | None,
        overrides: Mapping[str, str] | None,
    ) -> Session:
        """Load the job and gather the arguments of ``migrate``."""
        from portl.loading import load

        config = load(job, overrides=overrides)

        def emit(event: Event) -> None:
            for observer in observers:
                observer(event)

        context = Context(token=cancel or CancelToken(), emit=emit, retry=config.retry)
        return cls(config=config, source=source, destination=destination, context=context)

    @contextmanager
    def ends(self) -> Iterator[tuple[Source[SourceConfig], Destination[DestinationConfig]]]:
        """Open both ends; close them whatever happens."""
        reading, writing = self._connectors()
        try:
            with self._reported():
                reading.open(self._context)
                writing.open(self._context)
            yield reading, writing
        finally:
            try:
                writing.close()
            finally:
                reading.close()

    def _connectors(self) -> tuple[Source[SourceConfig], Destination[DestinationConfig]]:
        read_by = plugins.load(self.config.source.type)
        written_by = plugins.load(self.config.destination.type)
        if read_by.source is None:
            raise PluginError(f"the connector {read_by.name!r} has no source")
        if written_by.destination is None:
            raise PluginError(f"the connector {written_by.name!r} has no destination")
        return (
            read_by.source(self.config.source, self._source),
            written_by.destination(self.config.destination, self._destination),
        )

    def plan(self, reading: Source[SourceConfig], writing: Destination[DestinationConfig], *, exact: bool) -> Plan:
        """Return the plan; see ``portl.planning``."""
        with self._reported():
            task = plan_table(self.config, reading, writing, exact=exact)
        return Plan(
            config=self.config, source=reading.label(), destination=writing.label(), tables=(task,), session=self
        )

    def run(self, plan: Plan, reading: Source[SourceConfig], writing: Destination[DestinationConfig]) -> Result:
        """Carry a plan out over two open ends."""
        if plan.problems:
            with self._reported():
                raise PlanError(plan)
        for finding in plan.warnings:
            self._context.emit(Warned(where=finding.where, message=finding.message, remedy=finding.remedy))
        return engine.execute(plan, reading, writing, self._context, self._started)

    def execute(self, plan: Plan) -> Result:
        """Carry out a plan that was made earlier: the ends are opened and looked at again."""
        if plan.problems:
            raise PlanError(plan)
        self._started = time.monotonic()
        with self.ends() as (reading, writing):
            return self.run(self.plan(reading, writing, exact=False), reading, writing)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Tell the observers of a failure before the engine is at work, and make Ctrl-C one of portl's errors."""
        try:
            self._context.token.check()
            yield
        except KeyboardInterrupt:
            raise self._failed(Interrupted("interrupted by Ctrl-C; nothing was written")) from None
        except Error as error:
            raise self._failed(self._context.token.verdict(error))

    def _failed(self, error: Error) -> Error:
        self._context.emit(Failed(kind=type(error).__name__, error=str(error)))
        return error
