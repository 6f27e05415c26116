"""Runs of a job in small chunks: its table, an observer that acts at a commit, and what must hold afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import portl
from tests.proxy import Proxy
from tests.servers import Db

ROWS = 5000
KEYLESS = f"CREATE TABLE t AS SELECT g % 700 AS x, repeat('r', g % 60) AS y FROM generate_series(1, {ROWS}) AS g"
KEYED = f"{KEYLESS}; ALTER TABLE t ADD COLUMN id serial PRIMARY KEY"

#: Patience that suits a test: many attempts, short pauses.
PATIENT = {"attempts": 60, "max_delay": 0.1}
#: One retry, at once: for a failure that stays.
BRIEF = {"attempts": 2, "max_delay": 0.1}


def job_of(source: dict[str, object], destination: dict[str, object], **keys: object) -> dict[str, Any]:
    return {
        "name": "faults",
        "source": {**source, "table": "t"},
        "destination": {**destination, "table": "t"},
        "conflict": "fail",
        "chunk_rows": 500,
        "batch_size": 100,
        "parallel": 1,
        "retry": PATIENT,
        **keys,
    }


@contextmanager
def through(db: Db) -> Iterator[tuple[Proxy, dict[str, object]]]:
    with Proxy(db.endpoint) as proxy:
        yield proxy, db.end(host=proxy.host, port=proxy.port)


class Once:
    """An observer that does something at the n-th COMMIT, once; it keeps the events."""

    def __init__(self, number: int, what: Callable[[], object]) -> None:
        self.events: list[portl.Event] = []
        self._left = number
        self._what = what

    def __call__(self, event: portl.Event) -> None:
        self.events.append(event)
        if isinstance(event, portl.BatchCommitted):
            self._left -= 1
            if self._left == 0:
                self._what()

    @property
    def retries(self) -> list[portl.Retrying]:
        """The retries that were told."""
        return [event for event in self.events if isinstance(event, portl.Retrying)]


class Stop(Exception):
    """What an observer raises to end a run."""


def stop() -> None:
    raise Stop


def rows(db: Db, table: str) -> list[tuple[Any, ...]]:
    """Return the rows of a table as a multiset: each distinct row with its count, in order."""
    return db.execute(f'SELECT t::text, count(*) FROM "{table}" AS t GROUP BY 1 ORDER BY 1')


def nothing_left(destination: Db) -> None:
    """Insist that no connection, lock or temporary table of portl's is left; a killed client's take a moment to go."""
    found: list[tuple[Any, ...]] = []
    for _ in range(100):
        found = destination.execute("SELECT pid, state, query FROM pg_stat_activity WHERE application_name = 'portl'")
        if not found:
            break
        time.sleep(0.1)
    assert found == []
    assert destination.execute("SELECT objid FROM pg_locks WHERE locktype = 'advisory'") == []
    assert destination.execute("SELECT relname FROM pg_class WHERE relname LIKE 'portl_stage%'") == []
