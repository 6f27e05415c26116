"""Runs jobs in processes that are killed: one line of JSON in, one line of JSON out, one forked process a job.

Started as ``python -m tests.victim``. A line holds ``job`` and, for when to kill the process that runs it:

* ``statement``: at the n-th statement that portl sends over any of its connections, before it is sent;
* ``seconds``: so long after it began;
* neither: not at all.

The answer says whether it was killed, what it raised, how many statements it sent and how long it took.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from typing import Any

import portl
import portl_postgres.plugin  # what a job would import first

__all__ = ["main", "portl_postgres"]


class _Counter(logging.Handler):
    """Counts the statements; ends the process before the one that is asked for."""

    def __init__(self, last: int | None) -> None:
        super().__init__()
        self.count = 0
        self._last = last
        self._lock = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._last:
                os.kill(os.getpid(), signal.SIGKILL)


def _carry_out(order: dict[str, Any], answer: int) -> None:
    counter = _Counter(order.get("statement"))
    logger = logging.getLogger("portl.postgres.sql")
    logger.addHandler(counter)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    started = time.monotonic()
    error = None
    try:
        portl.migrate(order["job"], restart=order.get("restart", False))
    except portl.Error as caught:
        error = f"{type(caught).__name__}: {caught}"
    found = {"error": error, "statements": counter.count, "seconds": time.monotonic() - started}
    os.write(answer, json.dumps(found).encode())


def main() -> None:
    """Read orders until the input ends."""
    for line in sys.stdin:
        order = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            try:
                _carry_out(order, writing)
            finally:
                os._exit(0)
        os.close(writing)
        if "seconds" in order:
            time.sleep(order["seconds"])
            os.kill(pid, signal.SIGKILL)
        with os.fdopen(reading) as pipe:
            text = pipe.read()
        _, status = os.waitpid(pid, 0)
        found = json.loads(text) if text else {}
        found["killed"] = os.WIFSIGNALED(status)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
