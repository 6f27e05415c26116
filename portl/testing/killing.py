"""Kill a migration between any two calls that the engine makes to its connectors.

The process goes on; what the migration had open is dead: every further call raises ``Killed``, so that nothing is
tidied up. ``bury`` then closes both sides, as the operating system would close their connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from portl.connectors import registry
from portl.connectors.connector import Connector
from portl.connectors.exchange import Batch, Counts, Rejection
from portl.connectors.ledger import Ledger
from portl.connectors.writer import Writer
from portl.values.errors import DataError
from portl.values.runs import ChunkLine, Run, RunState

#: What is called on a source and on a destination while a migration is under way.
_SOURCE = ("open", "describe", "split", "snapshot", "resumable", "rest", "read")
_DESTINATION = ("open", "describe", "examine", "ledger", "writer", "empty", "incarnation", "holds")


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@attrs.define
class Killer:
    """Counts the calls; raises before the n-th, and in place of all that follow."""

    #: Calls that are let through; None: all.
    after: int | None = None
    calls: int = 0
    dead: bool = False
    _ends: list[Any] = attrs.field(factory=list, repr=False)

    def pass_on(self) -> None:
        """Count a call.

        Raises:
            Killed: in place of it.
        """
        if not self.dead and self.after is not None and self.calls >= self.after:
            self.dead = True
        if self.dead:
            raise Killed
        self.calls += 1

    def opened(self, end: Any) -> None:
        """Remember an end that has to be closed."""
        self._ends.append(end)

    def bury(self) -> None:
        """Close both sides, once the migration has raised ``Killed``."""
        self.dead, self.after = False, None
        for end in self._ends:
            end.close()
        self._ends.clear()


@contextmanager
def killing(after: int | None) -> Iterator[Killer]:
    """Let the migrations inside make so many calls to their connectors.

    Args:
        after: how many; None for any number, to count them.
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
            "writer": lambda writer: MortalWriter(writer, killer),
            "ledger": lambda ledger: MortalLedger(ledger, killer) if isinstance(ledger, Ledger) else ledger,
        }
        found["destination"] = _subclass(connector.destination, _DESTINATION, killer, wraps)
    return attrs.evolve(connector, **found)


def _subclass(
    base: type[Any], names: Sequence[str], killer: Killer, wraps: Mapping[str, Callable[[Any], Any]]
) -> type[Any]:
    """Return a class whose calls pass by the killer."""

    def guarded(name: str) -> Callable[..., Any]:
        def call(self: Any, *arguments: Any, **keys: Any) -> Any:
            killer.pass_on()
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
        killer.pass_on()
        yield batch


class MortalWriter(Writer):
    """A writer whose calls pass by the killer."""

    def __init__(self, real: Writer, killer: Killer) -> None:
        self._real = real
        self._killer = killer

    def _do(self, name: str, *arguments: Any, **keys: Any) -> Any:
        self._killer.pass_on()
        return getattr(self._real, name)(*arguments, **keys)

    def begin(self) -> None:
        """See ``Writer.begin``."""
        self._do("begin")

    def write(self, batch: Batch) -> int:
        """See ``Writer.write``."""
        return int(self._do("write", batch))

    def check(self) -> Counts:
        """See ``Writer.check``."""
        found: Counts = self._do("check")
        return found

    def save(self) -> None:
        """See ``Writer.save``."""
        self._do("save")

    def restore(self) -> None:
        """See ``Writer.restore``."""
        self._do("restore")

    def release(self) -> None:
        """See ``Writer.release``."""
        self._do("release")

    def reject(self, rejections: Sequence[Rejection]) -> None:
        """See ``Writer.reject``."""
        self._do("reject", rejections)

    def unreject(self, run: str, chunk: int | None = None) -> None:
        """See ``Writer.unreject``."""
        self._do("unreject", run, chunk)

    def commit(self) -> Counts:
        """See ``Writer.commit``."""
        found: Counts = self._do("commit")
        return found

    def rollback(self) -> None:
        """See ``Writer.rollback``."""
        self._do("rollback")

    def reconsider(self, error: DataError) -> bool:
        """See ``Writer.reconsider``."""
        return bool(self._do("reconsider", error))

    def finish(self, record: Callable[[], None] | None = None) -> None:
        """See ``Writer.finish``."""
        self._do("finish", record)

    def abandon(self, *, resumable: bool = False) -> None:
        """See ``Writer.abandon``."""
        self._do("abandon", resumable=resumable)


class MortalLedger(Ledger):
    """A ledger whose calls pass by the killer."""

    def __init__(self, real: Ledger, killer: Killer) -> None:
        self._real = real
        self._killer = killer

    def _do(self, name: str, *arguments: Any, **keys: Any) -> Any:
        self._killer.pass_on()
        return getattr(self._real, name)(*arguments, **keys)

    @property
    def place(self) -> str:
        """See ``Ledger.place``."""
        return self._real.place

    def hidden(self) -> tuple[str, str] | None:
        """See ``Ledger.hidden``."""
        return self._real.hidden()

    def lock(self, job: str) -> None:
        """See ``Ledger.lock``."""
        self._do("lock", job)

    def unlock(self) -> None:
        """See ``Ledger.unlock``."""
        self._do("unlock")

    def find(self, job: str, *, idempotency_key: str | None = None) -> Run | None:
        """See ``Ledger.find``."""
        found: Run | None = self._do("find", job, idempotency_key=idempotency_key)
        return found

    def runs(self, job: str | None = None) -> Sequence[Run]:
        """See ``Ledger.runs``."""
        found: Sequence[Run] = self._do("runs", job)
        return found

    def prepare(self) -> None:
        """See ``Ledger.prepare``."""
        self._do("prepare")

    def start(self, run: Run) -> None:
        """See ``Ledger.start``."""
        self._do("start", run)

    def resume(self, run: Run) -> None:
        """See ``Ledger.resume``."""
        self._do("resume", run)

    def lines(self, run: Run) -> Sequence[ChunkLine]:
        """See ``Ledger.lines``."""
        found: Sequence[ChunkLine] = self._do("lines", run)
        return found

    def record(self, run: Run, line: ChunkLine, before: ChunkLine | None = None) -> None:
        """See ``Ledger.record``."""
        self._do("record", run, line, before)

    def settled(self, run: Run, number: int) -> ChunkLine | None:
        """See ``Ledger.settled``."""
        found: ChunkLine | None = self._do("settled", run, number)
        return found

    def close(self, run: Run, state: RunState, error: str | None = None) -> None:
        """See ``Ledger.close``."""
        self._do("close", run, state, error)

    def acknowledge(self, run: str) -> None:
        """See ``Ledger.acknowledge``."""
        self._do("acknowledge", run)

    def forget(self, job: str) -> int:
        """See ``Ledger.forget``."""
        return int(self._do("forget", job))


__all__ = ["Killed", "Killer", "killing"]
