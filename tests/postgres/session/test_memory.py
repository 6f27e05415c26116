"""Indexes are built with more memory than the server gives by itself, within the session alone."""

from __future__ import annotations

import psycopg
import pytest

import portl
from portl_postgres.config import PostgresDestinationConfig
from portl_postgres.destination.destination import PostgresDestination
from tests.servers import Db


def given(db: Db, **keys: object) -> str:
    """Return what a session of a destination has."""
    own = {name: value for name, value in db.end().items() if name != "type"}
    own["password"] = portl.Secret(db.endpoint.password)
    config = PostgresDestinationConfig(type="postgres", **own, **keys)  # type: ignore[arg-type]
    destination = PostgresDestination(config)
    try:
        destination.open(portl.Context())
        ((found,),) = destination._session.query("SELECT current_setting('maintenance_work_mem')")
        return str(found)
    finally:
        destination.close()


@pytest.mark.parametrize(
    ("cache", "own", "wanted", "found"),
    [
        ("4GB", "64MB", "auto", "256MB"),
        ("100GB", "64MB", "auto", "1GB"),
        ("256MB", "64MB", "auto", "64MB"),
        ("4GB", "3GB", "auto", "3GB"),
        ("4GB", "64MB", "300MB", "300MB"),
        ("4GB", "64MB", "server", "64MB"),
    ],
)
def test_a_session_has_what_the_job_says(destination: Db, cache: str, own: str, wanted: str, found: str) -> None:
    name = destination.connection.info.dbname
    destination.execute(f"ALTER DATABASE {name} SET effective_cache_size = '{cache}'")
    destination.execute(f"ALTER DATABASE {name} SET maintenance_work_mem = '{own}'")
    try:
        assert given(destination, maintenance_work_mem=wanted) == found
    finally:
        destination.execute(f"ALTER DATABASE {name} RESET ALL")


def test_a_callers_connection_gets_its_own_back(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    job = {"source": {**source.end(), "table": "t"}, "destination": {"type": "postgres", "table": "t"}}
    info = destination.connection.info
    with psycopg.connect(
        host=info.host, port=info.port, user=info.user, dbname=info.dbname, password=destination.endpoint.password
    ) as connection:
        before = connection.execute("SHOW maintenance_work_mem").fetchone()
        connection.commit()
        portl.migrate(job, destination=connection)
        assert connection.execute("SHOW maintenance_work_mem").fetchone() == before


def test_what_is_no_size_is_refused(source: Db) -> None:
    job = {"source": {**source.end(), "table": "t"}, "destination": {**source.end(), "table": "t"}}
    job["destination"]["maintenance_work_mem"] = "much"
    with pytest.raises(portl.ConfigError, match="expected auto, server, or a size such as 512MB, found 'much'"):
        portl.plan(job)
