"""Run a job inside an application: events to a log, Ctrl-C and a time limit to a token."""

from __future__ import annotations

import logging
import sys
import threading

import portl

logger = logging.getLogger("application")


def watch(event: portl.Event) -> None:
    """Log what the application wants to know."""
    if isinstance(event, portl.BatchCommitted):
        logger.info("%s: %d rows so far, %.0f rows/s", event.table, event.total_rows, event.rows_per_second)
    elif isinstance(event, portl.Warned | portl.Retrying):
        logger.warning("%s", event)


def copy(job: str, limit_seconds: float = 3600.0) -> portl.Result | None:
    """Run a job for at most ``limit_seconds``; return None if it was ended before its time."""
    token = portl.CancelToken()
    timer = threading.Timer(limit_seconds, token.cancel)
    timer.start()
    try:
        return portl.migrate(job, observers=[watch], cancel=token)
    except portl.Cancelled as ended:
        logger.error("%s", ended)
        return None
    finally:
        timer.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    result = copy(sys.argv[1])
    sys.exit(0 if result is not None else 1)
