"""A call: the job, caller-supplied connections and other arguments, and the two sides that it opens."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property
from typing import Any, TypeVar

import attrs

from portl.config.models import (
    DestinationConfig,
    LedgerConfig,
    LedgerMode,
    MigrationConfig,
    Mode,
    Retry,
    SourceConfig,
)
from portl.connectors import registry
from portl.connectors.context import Context
from portl.connectors.destination import Destination
from portl.connectors.ledger import Ledger
from portl.connectors.retry import passes, retrying
from portl.connectors.source import Source
from portl.job.loading import load
from portl.values.cancel import CancelToken
from portl.values.errors import ConfigError, ConnectionFailed, Error, Interrupted, PluginError
from portl.values.events import Event, Failed, Observer
from portl.values.findings import Finding

T = TypeVar("T")
Job = str | os.PathLike[str] | Mapping[str, Any] | MigrationConfig


@attrs.frozen(kw_only=True)
class TableSides:
    """Both sides of one table in a job of many."""

    #: The job of this table alone.
    config: MigrationConfig
    source: Source[SourceConfig]
    destination: Destination[DestinationConfig]


@attrs.frozen(kw_only=True)
class Sides:
    """Both sides of a job, open."""

    source: Source[SourceConfig]
    destination: Destination[DestinationConfig]
    #: The job's settings for the ledger.
    wanted: LedgerConfig
    #: Both sides of each table of a job of many, on the sessions of these sides, by the destination's name.
    tables: dict[str, TableSides] = attrs.field(factory=dict, init=False, repr=False)
    #: Callbacks for closing, run in reverse order.
    _source_end: ExitStack = attrs.field(factory=ExitStack, init=False, repr=False)
    _destination_end: ExitStack = attrs.field(factory=ExitStack, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._source_end.callback(self.source.close)
        self._destination_end.callback(self.destination.close)

    def before_closing(self, call: Callable[[], None]) -> None:
        """Register ``call`` to run right before the destination is closed, whatever happens."""
        self._destination_end.callback(call)

    def close_source(self) -> None:
        """Close the source early, so that only the destination is left to close at the end."""
        self._source_end.close()

    def close(self) -> None:
        """Close both sides."""
        with self._destination_end:
            self._source_end.close()

    @cached_property
    def kept(self) -> Ledger | Finding:
        """The destination's ledger, or why there is none."""
        return self.destination.ledger(self.wanted)

    @property
    def ledger(self) -> Ledger | None:
        """The destination's ledger, or None."""
        return self.kept if isinstance(self.kept, Ledger) else None


@attrs.frozen(kw_only=True)
class Request:
    """A job, with the other arguments of the call."""

    config: MigrationConfig
    #: A caller-supplied connection or pool for each side; None if portl opens its own.
    source: object | None = attrs.field(repr=False)
    destination: object | None = attrs.field(repr=False)
    context: Context = attrs.field(repr=False)
    #: True to start over instead of resuming an interrupted run.
    restart: bool = False
    #: True to read all rows in ``mode: incremental``; implies ``restart``.
    full_refresh: bool = False

    @classmethod
    def of(
        cls,
        job: Job,
        *,
        source: object | None = None,
        destination: object | None = None,
        observers: Sequence[Observer] = (),
        cancel: CancelToken | None = None,
        overrides: Mapping[str, str] | None = None,
        restart: bool = False,
        full_refresh: bool = False,
        run_id: str | None = None,
    ) -> Request:
        """Load the job and gather the arguments of ``portl.migrate``.

        Raises:
            ConfigError: the job is wrong.
        """
        config = load(job, overrides=overrides)
        if full_refresh and config.mode is not Mode.INCREMENTAL:
            raise ConfigError([f"needs `mode: incremental`, found `mode: {config.mode.value}`"], origin="full_refresh")
        if run_id is not None:
            config = attrs.evolve(config, run_id=run_id)

        def emit(event: Event) -> None:
            for observer in observers:
                try:
                    observer(event)
                except Error as error:
                    error.transient = False  # an observer's error ends the run and must not be retried
                    raise

        context = Context(token=cancel or CancelToken(), emit=emit, retry=config.retry)
        return cls(
            config=config,
            source=source,
            destination=destination,
            context=context,
            restart=restart or full_refresh,
            full_refresh=full_refresh,
        )

    @property
    def caller_supplied(self) -> bool:
        """True if a connection is caller-supplied, so that portl cannot reopen it if it is lost."""
        return self.source is not None or self.destination is not None

    @contextmanager
    def opened(self, meanwhile: Callable[[], None] | None = None) -> Iterator[Sides]:
        """Open both sides, and close them at the end, whatever happens.

        Args:
            meanwhile: called while both sides are connecting.
        """
        sides = Sides(source=self._source(), destination=self._destination(), wanted=self._wanted())
        with closing(sides):
            self.context.token.check()
            sides.source.connect(self.context)
            sides.destination.connect(self.context)
            if meanwhile is not None:
                meanwhile()
            sides.source.open(self.context)
            sides.destination.open(self.context)
            yield sides

    def looking(self, look: Callable[[Sides], T]) -> T:
        """Open both sides and examine them with ``look``, which must not write; retry after a transient failure.

        Raises:
            Error: after the observers have received it.
        """

        def attempt() -> T:
            with self.opened() as sides:
                return look(sides)

        with self.reported():
            return self._retrying(attempt)

    def asking(self, ask: Callable[[Destination[DestinationConfig]], T]) -> T:
        """Open only the destination and query its ledger; retry after a transient failure."""

        def attempt() -> T:
            with self.opened_destination() as destination:
                return ask(destination)

        return self._retrying(attempt)

    def _retrying(self, attempt: Callable[[], T]) -> T:
        def again(error: BaseException) -> bool:
            # A caller-supplied connection that is lost cannot be reopened.
            return passes(error) and not (self.caller_supplied and isinstance(error, ConnectionFailed))

        return retrying(attempt, self.context, f"the job {self.config.name!r}", again=again)

    @contextmanager
    def opened_destination(self) -> Iterator[Destination[DestinationConfig]]:
        """Open only the destination, for its ledger."""
        destination = self._destination()
        try:
            destination.open(self.context)
            yield destination
        finally:
            destination.close()

    @contextmanager
    def opened_source(self) -> Iterator[Source[SourceConfig]]:
        """Open only the source, once: no failure is retried."""
        source = self._source()
        try:
            source.open(attrs.evolve(self.context, retry=Retry(attempts=1)))
            yield source
        finally:
            source.close()

    def _wanted(self) -> LedgerConfig:
        """Return the job's settings for the ledger, which is required for many tables."""
        wanted = self.config.ledger
        required = self.config.tables is not None and wanted.mode is LedgerMode.AUTO
        return attrs.evolve(wanted, mode=LedgerMode.REQUIRED) if required else wanted

    def _source(self) -> Source[SourceConfig]:
        connector = registry.load(self.config.source.type)
        if connector.source is None:
            raise PluginError(f"the connector {connector.name!r} has no source")
        return connector.source(self.config.source, self.source)

    def _destination(self) -> Destination[DestinationConfig]:
        connector = registry.load(self.config.destination.type)
        if connector.destination is None:
            raise PluginError(f"the connector {connector.name!r} has no destination")
        return connector.destination(self.config.destination, self.destination)

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Report a failure to the observers, and turn Ctrl-C into one of portl's errors."""
        try:
            yield
        except KeyboardInterrupt as error:
            raise self._failed(Interrupted.of(error, "; nothing was written")) from None
        except Error as error:
            raise self._failed(self.context.token.verdict(error))

    def _failed(self, error: Error) -> Error:
        self.context.emit(Failed(kind=type(error).__name__, error=str(error)))
        return error
