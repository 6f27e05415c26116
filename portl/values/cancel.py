"""End a run from another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

from portl.values.errors import Cancelled, Error


class CancelToken:
    """Ends a run from another thread: pass it to ``portl.migrate`` and call ``cancel``."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    def cancel(self) -> None:
        """Ask the run to end. Open transactions are rolled back; committed ones stay. Safe to call twice."""
        self._event.set()
        with self._lock:
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    @property
    def cancelled(self) -> bool:
        """True once ``cancel`` has been called."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise ``Cancelled`` if ``cancel`` has been called."""
        if self._event.is_set():
            raise Cancelled("the run was cancelled")

    def verdict(self, error: Error) -> Error:
        """Return the error to report: after ``cancel``, that is ``Cancelled``, of which others are a consequence."""
        if not self._event.is_set() or isinstance(error, Cancelled):
            return error
        return Cancelled("the run was cancelled")

    def wait(self, seconds: float) -> None:
        """Sleep for ``seconds``, or raise ``Cancelled`` as soon as ``cancel`` is called."""
        self._event.wait(seconds)
        self.check()

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` in the thread that cancels, for work that cannot poll; return a function to unsubscribe."""
        with self._lock:
            self._callbacks.append(callback)

        def undo() -> None:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)

        return undo
