"""An open source, and an open writer with the rows for it, without an engine around them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs

import portl
from portl import Chunk, Reading
from portl.planning import planner
from portl.planning.request import Request
from portl_postgres.config import PostgresSourceConfig
from portl_postgres.source.source import PostgresSource
from tests.servers import Db


def config(db: Db, **keys: Any) -> PostgresSourceConfig:
    end = {**db.end(), "password": portl.Secret(db.endpoint.password), **keys}
    return PostgresSourceConfig(**end)


@contextmanager
def opened(source: portl.Source[PostgresSourceConfig]) -> Iterator[PostgresSource]:
    assert isinstance(source, PostgresSource)
    try:
        source.open(portl.Context())
        yield source
    finally:
        source.close()


@contextmanager
def reader(db: Db, **keys: Any) -> Iterator[PostgresSource]:
    with opened(PostgresSource(config(db, **keys))) as source:
        yield source


@contextmanager
def writing(
    source: Db, destination: Db, batch_rows: int = 10, query: str | None = "SELECT * FROM t ORDER BY 1", **keys: object
) -> Iterator[tuple[portl.Writer, list[portl.Batch]]]:
    """Yield a writer for the destination's table ``t`` and the source's rows for it."""
    handle = keys.pop("handle", None)
    format = keys.pop("format", None)
    resumed = bool(keys.pop("resumed", False))
    config = {
        "source": source.end(query=query, table=None if query else "t"),
        "destination": destination.end(table="t"),
        **keys,
    }
    request = Request.of(config, destination=handle)
    with request.opened() as sides:
        reading, out = sides.source, sides.destination
        plan = planner.plan(request, sides, exact=False, restart=False)
        assert plan.problems == ()
        task = plan.tables[0]
        intent = attrs.evolve(task.intent, resumed=resumed)
        if format is not None:
            intent = attrs.evolve(intent, format=attrs.evolve(intent.format, name=str(format)))
        asked = Reading(fields=task.fields, format=task.intent.format, chunk=Chunk(), batch_rows=batch_rows)
        batches = list(reading.read(asked))
        yield out.writer(intent), batches
