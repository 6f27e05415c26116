"""The public API as a typed program uses it: mypy checks this file, and the test runs it."""

from __future__ import annotations

from typing import assert_type

import portl
from tests.servers import Db


def watch(event: portl.Event) -> None:
    if isinstance(event, portl.BatchCommitted):
        assert_type(event.rows, int)
        assert_type(event.rows_per_second, float)


def test_the_public_api_is_typed(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t AS SELECT 1 AS id")
    job = {"source": source.end(table="t"), "destination": destination.end(table="t", primary_key=["id"])}
    plan = portl.plan(job)
    assert_type(plan, portl.Plan)
    assert_type(plan.problems, tuple[portl.Finding, ...])
    result = plan.execute()
    assert_type(result, portl.Result)
    assert_type(result.tables[0].route, str)
    again = portl.migrate(job, observers=[watch], cancel=portl.CancelToken())
    assert (result.rows_inserted, again.rows_unchanged) == (1, 1)
