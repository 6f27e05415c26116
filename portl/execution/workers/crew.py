"""Run the same work in several threads, with events reported in the thread that waits for them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from portl.connectors.context import Context
from portl.execution.workers.worker import LOOK_SECONDS
from portl.values import events
from portl.values.cancel import CancelToken
from portl.values.errors import Cancelled, Error

#: Seconds between two calls of ``meanwhile``.
MEANWHILE_SECONDS = 1.0


class Crew:
    """Several threads, all of which end once one has failed.

    Args:
        context: that of the run; its observers are called in the thread that calls ``run``.
    """

    def __init__(self, context: Context) -> None:
        self._outer = context
        #: Ends all threads once one has failed.
        self.stop = CancelToken()
        self._told: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._failures: list[BaseException] = []

    def context(self) -> Context:
        """Return a context for one of the threads."""
        return Context(token=self.stop, emit=self.emit, retry=self._outer.retry)

    def tell(self, call: Callable[[], None]) -> None:
        """Schedule a call in the waiting thread."""
        self._told.put(call)

    def emit(self, event: events.Event) -> None:
        """Schedule an event for the observers."""
        self.tell(lambda: self._outer.emit(event))

    def run(
        self, count: int, work: Callable[[int, Context], None], meanwhile: Callable[[], None] | None = None
    ) -> None:
        """Call ``work`` with a number, from 0, in each of ``count`` threads.

        Args:
            count: the number of threads.
            work: what each thread does.
            meanwhile: called from time to time in the waiting thread.

        Raises:
            BaseException: the first failure, after all threads have ended.
        """
        undo = self._outer.token.subscribe(self.stop.cancel)
        threads = [
            threading.Thread(target=self._one, args=(number, work), name=f"portl-worker-{number}", daemon=True)
            for number in range(count)
        ]
        try:
            for thread in threads:
                thread.start()
            self._listen(len(threads), meanwhile)
        except BaseException:
            self.stop.cancel()
            raise
        finally:
            for thread in threads:
                if thread.ident is not None:  # Ctrl-C may arrive before all are started
                    thread.join()
            undo()
        if self._failures:
            raise self._worst()

    def _one(self, number: int, work: Callable[[int, Context], None]) -> None:
        try:
            work(number, self.context())
        except BaseException as error:
            self._failures.append(error)
            self.stop.cancel()
        finally:
            self._told.put(None)

    def _listen(self, running: int, meanwhile: Callable[[], None] | None) -> None:
        looked = time.monotonic()
        while running:
            if meanwhile is not None and time.monotonic() - looked >= MEANWHILE_SECONDS:
                meanwhile()
                looked = time.monotonic()
            try:
                told = self._told.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            if told is None:
                running -= 1
            else:
                told()

    def _worst(self) -> BaseException:
        """Return the failure to raise: not a consequence of another, and a permanent one before a transient one."""
        token = self._outer.token
        real = [e for e in self._failures if not isinstance(e, Cancelled) or token.cancelled] or self._failures
        lasting = [e for e in real if not (isinstance(e, Error) and e.transient)]
        return (lasting or real)[0]
