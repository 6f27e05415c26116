"""While workers build indexes, the observers are told how far they are."""

from __future__ import annotations

import pytest

import portl
from portl.execution.database import building
from portl.execution.workers import crew
from tests.servers import Db
from tests.whole import job_of

SLOW = """
CREATE FUNCTION slow(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
  'BEGIN PERFORM pg_sleep(0.002); RETURN n; END';
CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 600);
CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other SELECT generate_series(1, 3000);
CREATE INDEX t_slow ON t (slow(id));
"""


def test_an_index_that_takes_long_is_told(source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "AFTER_SECONDS", 0.1)
    monkeypatch.setattr(crew, "MEANWHILE_SECONDS", 0.1)
    source.execute(SLOW)
    seen: list[portl.Event] = []
    portl.migrate(job_of(source, destination, parallel=2, on_error="quarantine"), observers=[seen.append])
    told = [event for event in seen if isinstance(event, portl.ObjectProgress)]
    assert {event.table for event in told} == {"public.t"}
    assert any("index public.t_slow" in event.objects for event in told)
    assert "scanning table" in {event.phase for event in told}
    assert all(event.share is None or 0 <= event.share <= 1 for event in told)
    assert {event.worker for event in told} <= {1, 2}
    order = [type(event) for event in seen if isinstance(event, (portl.ObjectsStarted, portl.ObjectProgress))]
    assert order.index(portl.ObjectsStarted) < order.index(portl.ObjectProgress)
