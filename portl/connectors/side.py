"""What sources and destinations have in common. See ``portl.connectors``."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Self, TypeVar

import attrs

from portl.config.models import DestinationConfig, SourceConfig
from portl.connectors.context import Context
from portl.values.errors import OperationError
from portl.values.secrets import Secret

C = TypeVar("C", bound=SourceConfig | DestinationConfig)


@attrs.frozen(kw_only=True)
class TableEntry:
    """A table that a connector offers for selection."""

    #: As passed to ``Connector.from_name``.
    name: str
    #: table, view, …
    kind: str = "table"
    #: Approximate number of rows; None if unknown.
    rows: int | None = None
    #: The keys of ``source`` that read it, and those of ``destination`` that write to a table of the same name.
    reading: Mapping[str, Any] = attrs.field(factory=dict, eq=False)
    writing: Mapping[str, Any] = attrs.field(factory=dict, eq=False)


class Side(abc.ABC, Generic[C]):
    """One side of a job.

    Args:
        config: an instance of the connector's own config class.
        handle: a caller-supplied connection or pool; None if the connector opens its own.
    """

    def __init__(self, config: C, handle: object | None = None) -> None:
        self.config = config
        self.handle = handle
        self.context = Context()

    @classmethod
    def tables(cls, keys: Mapping[str, Any], context: Context) -> Sequence[TableEntry] | None:
        """Connect, and return the tables of the database, folder or service; None if they cannot be listed.

        Args:
            keys: what ``Connector.from_url`` returned; no table is chosen yet.
            context: how long to wait.

        Raises:
            Error: connecting failed.
        """
        return None

    def connect(self, context: Context) -> None:
        """Start connecting without waiting, so that both sides connect concurrently.

        By default it does nothing. Called at most once, before ``open``, which reports any failure.
        """

    def open(self, context: Context) -> None:
        """Connect. Called once, first; ``close`` always follows."""
        self.context = context

    def close(self) -> None:
        """Release everything. Called once, also after a failed ``open``."""

    def label(self) -> str:
        """Return where this is, for messages; contains no secrets."""
        return type(self).__name__

    def identity(self) -> Mapping[str, Any]:
        """Return what determines which rows are read or where they go, as plain data without secrets.

        A run is resumed only if this is unchanged. By default all keys of the config except secrets.
        """
        fields: dict[str, Any] = attrs.asdict(self.config)
        return {name: value for name, value in fields.items() if not isinstance(value, Secret)}

    def listing(self) -> Sequence[TableEntry]:
        """Return the tables that exist, for a job that moves many. Called on an open side.

        Raises:
            OperationError: the connector cannot list tables.
        """
        raise OperationError(f"{self.label()}: its tables cannot be listed", hint="write a job for each table")

    def over(self, base: Self) -> Self:
        """Return this side on the sessions of ``base``, which is open. The result is neither opened nor closed.

        What this side already knows of its table is kept. Only one such side is used at a time.

        Raises:
            OperationError: the connector moves one table a job.
        """
        raise OperationError(f"{self.label()}: the connector moves one table a job")

    def look_ahead(self, sides: Sequence[Self]) -> None:
        """Examine the tables of several sides at once on this side's sessions, to save each a round trip."""

    def for_worker(self) -> Self | None:
        """Return another instance, not yet open, for a worker; None if workers are not supported.

        A source's worker reads the same state, a destination's writes to the same table, concurrently. It is opened,
        used and closed in another thread or, pickled, in another process.
        """
        return None

    def end_workers(self) -> int:
        """End what workers in other processes are doing, because the run is ending; return how many were found.

        Called from another thread, repeatedly until it finds none. By default they are left to finish.
        """
        return 0

    @property
    def near(self) -> bool:
        """True if the server runs on this machine, sharing its processors with workers, or if that is unknown."""
        return True

    def room(self) -> int | None:
        """Return how many worker sessions can be open at a time; None if there is no limit."""
        return None

    def holds(self) -> bool:
        """Return whether what ``open`` established is intact: the state to read, the connection and its locks."""
        return True
