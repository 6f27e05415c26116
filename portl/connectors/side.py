"""What sources and destinations have in common. No I/O happens in this module; see ``portl.connectors``."""

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

    #: As ``Connector.from_name`` takes it.
    name: str
    #: table, view, …
    kind: str = "table"
    #: Approximate number of rows; None: unknown.
    rows: int | None = None
    #: The keys of ``source`` that read it, and those of ``destination`` that write to one of the same name.
    reading: Mapping[str, Any] = attrs.field(factory=dict, eq=False)
    writing: Mapping[str, Any] = attrs.field(factory=dict, eq=False)


class Side(abc.ABC, Generic[C]):
    """One side of a job.

    Args:
        config: an instance of the connector's own config class.
        handle: a caller-supplied connection or pool; None: the connector opens its own.
    """

    def __init__(self, config: C, handle: object | None = None) -> None:
        self.config = config
        self.handle = handle
        self.context = Context()

    @classmethod
    def tables(cls, keys: Mapping[str, Any], context: Context) -> Sequence[TableEntry] | None:
        """Connect, and return the tables of the database, folder or service; None: they cannot be listed.

        Args:
            keys: what ``Connector.from_url`` has returned; no table is chosen yet.
            context: how long to wait.

        Raises:
            Error: there is no connection.
        """
        return None

    def connect(self, context: Context) -> None:
        """Start connecting without waiting for it, so that both sides connect at the same time.

        By default it does nothing. Called at most once, before ``open``, which reports any failure.
        """

    def open(self, context: Context) -> None:
        """Connect. Called once, first; ``close`` follows in any case."""
        self.context = context

    def close(self) -> None:
        """Release everything. Called once, also after a failed ``open``."""

    def label(self) -> str:
        """Return where this is, for messages; never a secret."""
        return type(self).__name__

    def identity(self) -> Mapping[str, Any]:
        """Return what decides which rows are read, or where they go, as plain data without secrets.

        A run is resumed only if it is the same as before. By default all keys of the config except secrets.
        """
        fields: dict[str, Any] = attrs.asdict(self.config)
        return {name: value for name, value in fields.items() if not isinstance(value, Secret)}

    def listing(self) -> Sequence[TableEntry]:
        """Return the tables there are, over an open side, for a job that moves many.

        Raises:
            OperationError: the connector does not list any.
        """
        raise OperationError(f"{self.label()}: its tables cannot be listed", hint="write a job for each table")

    def over(self, base: Self) -> Self:
        """Return this side over the sessions of ``base``, which is open. What is returned is not opened or closed.

        What this side has found out of its table stays known. One such side at a time is used.

        Raises:
            OperationError: the connector moves one table a job.
        """
        raise OperationError(f"{self.label()}: the connector moves one table a job")

    def look_ahead(self, sides: Sequence[Self]) -> None:
        """Look at the tables of several sides over this one's sessions at once, so that they need not one by one."""

    def for_worker(self) -> Self | None:
        """Return another instance, not yet open, for a worker; None: there can be none.

        A source's reads the same state, a destination's writes to the same table, at the same time. It is opened, used
        and closed in another thread or, pickled, in another process.
        """
        return None

    def end_workers(self) -> int:
        """End what workers in other processes are doing, because the run ends; return how many were found.

        Called from another thread, repeatedly until it finds none. By default it leaves them to finish by themselves.
        """
        return 0

    @property
    def near(self) -> bool:
        """True if it runs on this machine, where workers share its processors, or if that is unknown."""
        return True

    def room(self) -> int | None:
        """Return how many worker sessions can be open at a time; None: there is no limit."""
        return None

    def holds(self) -> bool:
        """Return whether what ``open`` has established is intact: the state to read, the connection and its locks."""
        return True
