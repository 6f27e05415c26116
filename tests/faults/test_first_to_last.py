"""A connection that is lost at any statement, the first and the last included, is opened again; the call succeeds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import portl
from tests.servers import Db

#: Every third statement, the first and the last with every run of the tests; each one with ``nox -s faults``.
SOME_OR_ALL = pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.faults)], ids=["some", "each"])


class Cut(logging.Handler):
    """Ends all of portl's connections when the n-th statement is about to be sent; counts the statements."""

    def __init__(self, db: Db, at: int | None) -> None:
        super().__init__()
        self._db = db
        self._at = at
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
        if self.count == self._at:
            self._db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'portl'")


@pytest.fixture
def cutting(source: Db) -> Iterator[Callable[[int | None], Cut]]:
    logger = logging.getLogger("portl.postgres.sql")
    before = logger.level
    handlers: list[Cut] = []

    def cut(at: int | None) -> Cut:
        for old in handlers:
            logger.removeHandler(old)
        handlers.append(Cut(source, at))
        logger.addHandler(handlers[-1])
        logger.setLevel(logging.DEBUG)
        return handlers[-1]

    yield cut
    for handler in handlers:
        logger.removeHandler(handler)
    logger.setLevel(before)


def job_of(source: Db, destination: Db, number: int) -> dict[str, Any]:
    return {
        "source": source.end(table="t"),
        "destination": destination.end(table=f"t{number}"),
        "retry": {"attempts": 3, "max_delay": 0.01},
        "conflict": "fail",
    }


@SOME_OR_ALL
def test_a_run_survives_the_loss_of_its_connections_at_any_statement(
    source: Db, destination: Db, cutting: Callable[[int | None], Cut], step: int
) -> None:
    source.execute("CREATE TABLE t (id int, x text); INSERT INTO t SELECT g, 'x' FROM generate_series(1, 50) AS g")
    portl.migrate(job_of(source, destination, 0))  # makes the ledger
    counter = cutting(None)
    portl.migrate(job_of(source, destination, 1))
    assert counter.count > 10
    for at in (*range(1, counter.count, step), counter.count):
        cutting(at)
        result = portl.migrate(job_of(source, destination, at + 1))
        assert result.rows_read == 50, at
        assert destination.value(f"SELECT count(*) FROM t{at + 1}") == 50, at


@SOME_OR_ALL
@pytest.mark.parametrize("call", ["plan", "verify", "status"])
def test_a_look_survives_the_loss_of_its_connections_at_any_statement(
    source: Db, destination: Db, cutting: Callable[[int | None], Cut], call: str, step: int
) -> None:
    source.execute("CREATE TABLE t (id int, x text); INSERT INTO t SELECT g, 'x' FROM generate_series(1, 50) AS g")
    config = job_of(source, destination, 0)
    portl.migrate(config)
    calls: dict[str, Callable[[], object]] = {
        "plan": lambda: portl.plan(config).tables[0].count,
        "verify": lambda: portl.verify(config).equal,
        "status": lambda: [run.standing for run in portl.status(config).runs],
    }
    counter = cutting(None)
    expected = calls[call]()
    assert counter.count >= 2
    for at in (*range(1, counter.count, step), counter.count):
        cutting(at)
        assert calls[call]() == expected, at


def test_a_server_that_is_down_is_tried_as_often_as_the_job_says_and_no_more(source: Db, destination: Db) -> None:
    config = job_of(source, destination, 0)
    config["source"] = {**source.end(table="t"), "port": 1}
    for call in (portl.migrate, portl.plan, portl.verify):
        events: list[portl.Event] = []
        with pytest.raises(portl.ConnectionFailed):
            call(config, observers=[events.append])
        assert sum(isinstance(event, portl.Retrying) for event in events) == 2
