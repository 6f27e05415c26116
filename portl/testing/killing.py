"""Kill a migration between any two calls that the engine makes to its connectors.

The process survives, but the migration is dead: every further call raises ``Killed``, so that nothing is cleaned up.
``bury`` then closes both sides, as the operating system would close their connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from portl.connectors import registry
from portl.connectors.connector import Connector
from portl.connectors.exchange import Batch
from portl.connectors.ledger import Ledger
from portl.connectors.writer import Writer

#: The methods of sources and destinations that are called during a migration.
_SOURCE = ("open", "describe", "split", "snapshot", "resumable", "rest", "read")
_DESTINATION = ("open", "describe", "examine", "ledger", "writer", "empty", "incarnation", "holds")


class Killed(BaseException):
    """Stands for the death of the process: nothing catches it."""


@attrs.define
class Killer:
    """Counts calls; after the given number, raises instead."""

    #: The number of calls to let through; None for all.
    after: int | None = None
    calls: int = 0
    dead: bool = False
    _sides: list[Any] = attrs.field(factory=list, repr=False)

    def count(self) -> None:
        """Count a call.

        Raises:
            Killed: instead of making the call.
        """
        if not self.dead and self.after is not None and self.calls >= self.after:
            self.dead = True
        if self.dead:
            raise Killed
        self.calls += 1

    def opened(self, side: Any) -> None:
        """Remember a side, to close it later."""
        self._sides.append(side)

    def bury(self) -> None:
        """Close both sides, once the migration has raised ``Killed``."""
        self.dead, self.after = False, None
        for side in self._sides:
            side.close()
        self._sides.clear()


@contextmanager
def killing(after: int | None) -> Iterator[Killer]:
    """Kill migrations inside this context after a number of calls to their connectors.

    Args:
        after: the number; None for no limit, to count the calls.
    """
    killer = Killer(after)
    load = registry.load
    registry.load = lambda name: _mortal(load(name), killer)
    try:
        yield killer
    finally:
        registry.load = load


def _mortal(connector: Connector, killer: Killer) -> Connector:
    found: dict[str, Any] = {}
    if connector.source is not None:
        found["source"] = _subclass(connector.source, _SOURCE, killer, {})
    if connector.destination is not None:
        wraps = {
            "writer": lambda writer: _forwarding(Writer, writer, killer),
            "ledger": lambda ledger: _forwarding(Ledger, ledger, killer) if isinstance(ledger, Ledger) else ledger,
        }
        found["destination"] = _subclass(connector.destination, _DESTINATION, killer, wraps)
    return attrs.evolve(connector, **found)


def _subclass(
    base: type[Any], names: Sequence[str], killer: Killer, wraps: Mapping[str, Callable[[Any], Any]]
) -> type[Any]:
    """Return a subclass that counts each call."""

    def guarded(name: str) -> Callable[..., Any]:
        def call(self: Any, *arguments: Any, **keys: Any) -> Any:
            killer.count()
            if name == "open":
                killer.opened(self)
            found = getattr(base, name)(self, *arguments, **keys)
            if name == "read":
                return _steps(found, killer)
            return wraps[name](found) if name in wraps else found

        return call

    def close(self: Any) -> None:
        if not killer.dead:
            base.close(self)

    return type(f"Mortal{base.__name__}", (base,), {**{name: guarded(name) for name in names}, "close": close})


def _steps(batches: Iterator[Batch], killer: Killer) -> Iterator[Batch]:
    for batch in batches:
        killer.count()
        yield batch


def _forwarding(base: Any, real: Any, killer: Killer) -> Any:
    """Return an object of the class ``base`` that forwards to ``real``, and counts each call."""

    def forward(name: str) -> Callable[..., Any]:
        def call(self: Any, *arguments: Any, **keys: Any) -> Any:
            killer.count()
            return getattr(real, name)(*arguments, **keys)

        return call

    def value(name: str) -> property:
        return property(lambda self: getattr(real, name))

    members = {
        name: value(name) if isinstance(member, property) else forward(name)
        for name, member in vars(base).items()
        if not name.startswith("_")
    }
    return type(f"Mortal{base.__name__}", (base,), members)()


__all__ = ["Killed", "Killer", "killing"]
