"""The objects of a database are read and created elsewhere: pg_dump prints the same of both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import portl
from portl_postgres.config import PostgresDestinationConfig, PostgresSourceConfig
from portl_postgres.destination.destination import PostgresDestination
from portl_postgres.objects.renaming import rename
from portl_postgres.source.source import PostgresSource
from tests.servers import Db
from tests.whole import EVERYTHING, differences


@pytest.fixture
def sides(source: Db, destination: Db) -> Iterator[tuple[PostgresSource, PostgresDestination]]:
    source.execute(EVERYTHING)
    keys = {name: value for name, value in source.end().items() if name != "type"}
    keys["password"] = portl.Secret(source.endpoint.password)
    reading = PostgresSource(PostgresSourceConfig(type="postgres", **keys))  # type: ignore[arg-type]
    keys["database"] = destination.connection.info.dbname
    writing = PostgresDestination(PostgresDestinationConfig(type="postgres", **keys))  # type: ignore[arg-type]
    try:
        reading.open(portl.Context())
        writing.open(portl.Context())
        yield reading, writing
    finally:
        reading.close()
        writing.close()


def test_everything_is_created_as_it_is(
    source: Db, destination: Db, sides: tuple[PostgresSource, PostgresDestination]
) -> None:
    reading, writing = sides
    objects, findings = reading.objects({})
    assert findings == []
    for number, found in enumerate(objects):
        assert all(need < number for need in found.needs)
    writing.make(objects)
    assert differences(source, destination) == [], differences(source, destination)
    assert {found.label for found in objects if not found.repeatable} <= set(writing.objects())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT a.b FROM a.c AS a", 'SELECT "x y".b FROM "x y".c AS a'),
        ("x.a.b", "x.a.b"),
        ("DEFAULT nextval('a.s'::regclass)", "DEFAULT nextval('\"x y\".s'::regclass)"),
        ("CHECK (v <> 'a.s')", "CHECK (v <> 'a.s')"),
        ('-- a.b\n"a".b /* a.c */ || $$a.b$$', '-- a.b\n"x y".b /* a.c */ || $$a.b$$'),
    ],
)
def test_schemas_are_renamed_in_names_alone(text: str, expected: str) -> None:
    assert rename(text, {"a": "x y"}) == expected
