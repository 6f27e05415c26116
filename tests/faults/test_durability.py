"""Success is reported only after the disk has everything."""

from __future__ import annotations

from pathlib import Path

import psycopg

import portl
from portl_postgres.demo.server import Server


def connect(server: Server, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        dbname=database,
        autocommit=True,
    )


def test_what_was_reported_as_done_survives_a_crash_of_the_server(server_folder: Path) -> None:
    # The WAL writer sleeps, so that nothing reaches the disk by its doing.
    server = Server(server_folder, settings={"wal_writer_delay": "10s"})
    with server:
        with connect(server) as connection:
            connection.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
            connection.execute("CREATE TABLE t AS SELECT g AS id, g AS x FROM generate_series(1, 1000) AS g")
            connection.execute("CREATE TABLE copied (id int PRIMARY KEY, x int)")
            connection.execute("GRANT SELECT ON t TO plain; GRANT ALL ON copied TO plain; CHECKPOINT")
        side = {**server.parameters(), "type": "postgres", "username": "plain", "password": "plain"}
        job = {"source": {**side, "table": "t"}, "destination": {**side, "table": "copied"}}
        assert portl.migrate(job).rows_inserted == 1000
        server.stop("immediate")
        server.start()
        with connect(server) as connection:
            assert connection.execute("SELECT count(*) FROM copied").fetchone() == (1000,)
