"""Real servers for the tests: the embedded one, the one that PORTL_TEST_DSN names, one of the system.

pytest-postgresql makes a fresh database for each test and drops it afterwards. Its own launcher cannot be used, for
PostgreSQL refuses to run as root; the server is started by ``portl_postgres.demo.server`` instead.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from pytest_postgresql import factories

from portl_postgres.demo.server import Server

SYSTEM_FOLDERS = ("/usr/lib/postgresql", "/usr/local/lib/postgresql", "/opt/homebrew/opt")


@attrs.frozen
class Endpoint:
    """A server as pytest-postgresql wants to know it."""

    host: str
    port: int
    user: str
    password: str
    options: str = ""
    maintenance_dbname: str = "postgres"
    template_dbname: str = "template1"


@attrs.frozen
class Db:
    """A database of one test: a connection in autocommit mode, and the keys of a job file that reach it."""

    connection: psycopg.Connection[Any]
    endpoint: Endpoint

    def execute(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Execute; return the rows, if there are any. Several statements may be given where there are no parameters."""
        cursor = self.connection.execute(statement.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, statement: str, *parameters: object) -> Any:
        """Return the one value of a query."""
        return self.execute(statement, *parameters)[0][0]

    def end(self, **keys: object) -> dict[str, object]:
        """Return one side of a job file."""
        found: dict[str, object] = {
            "type": "postgres",
            "host": self.endpoint.host,
            "port": self.endpoint.port,
            "database": self.connection.info.dbname,
            "username": self.endpoint.user,
            "password": self.endpoint.password,
        }
        found.update(keys)
        return {key: value for key, value in found.items() if value is not None}


def temporary_folder(prefix: str) -> Path:
    """Return a new folder that the account of a server may enter, whoever runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o755)
    return folder


def system_binaries() -> Path | None:
    """Return the folder of a PostgreSQL of the system, the newest if there are several."""
    found = [path.parent for root in SYSTEM_FOLDERS for path in Path(root).glob("*/bin/initdb")]
    return max(found, key=lambda path: int("".join(filter(str.isdigit, path.parent.name)) or 0), default=None)


def _running(prefix: str, binaries: Path | None = None) -> Iterator[Endpoint]:
    folder = temporary_folder(prefix)
    try:
        with Server(folder, binaries=binaries) as server:
            yield Endpoint(server.host, server.port, server.user, server.password)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def server_folder() -> Iterator[Path]:
    """A folder for a server of the test's own; it is gone afterwards."""
    folder = temporary_folder("portl-own-")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server() -> Iterator[Endpoint]:
    """The server that the tests run against: PORTL_TEST_DSN's if it is set, else the embedded one."""
    dsn = os.environ.get("PORTL_TEST_DSN")
    if dsn:
        found = conninfo_to_dict(dsn)
        yield Endpoint(
            str(found.get("host", "127.0.0.1")),
            int(found.get("port") or 5432),
            str(found.get("user", "postgres")),
            str(found.get("password", "")),
        )
        return
    yield from _running("portl-tests-")


@pytest.fixture(scope="session")
def system_server() -> Iterator[Endpoint]:
    """A PostgreSQL of the system, another version than the embedded one and built with TLS; skips without one."""
    binaries = system_binaries()
    if binaries is None:
        pytest.skip("there is no PostgreSQL of the system here")
    yield from _running("portl-system-", binaries)


source_proc = factories.postgresql_noproc(dbname="portl_source", depends_on="server")
destination_proc = factories.postgresql_noproc(dbname="portl_destination", depends_on="server")
system_proc = factories.postgresql_noproc(dbname="portl_system", depends_on="system_server")
source_client = factories.postgresql("source_proc")
destination_client = factories.postgresql("destination_proc")
system_client = factories.postgresql("system_proc")


def _db(connection: psycopg.Connection[Any], endpoint: Endpoint) -> Db:
    connection.autocommit = True
    return Db(connection, endpoint)


@pytest.fixture
def source(source_client: psycopg.Connection[Any], server: Endpoint) -> Db:
    """An empty database to read from."""
    return _db(source_client, server)


@pytest.fixture
def destination(destination_client: psycopg.Connection[Any], server: Endpoint) -> Db:
    """An empty database to write to."""
    return _db(destination_client, server)


@pytest.fixture
def system(system_client: psycopg.Connection[Any], system_server: Endpoint) -> Db:
    """An empty database on the PostgreSQL of the system."""
    return _db(system_client, system_server)


def pytest_report_header(config: pytest.Config) -> str:
    """Say which servers there are."""
    binaries = system_binaries()
    main = "PORTL_TEST_DSN" if os.environ.get("PORTL_TEST_DSN") else "embedded"
    return f"portl servers: {main}; system: {binaries or 'none'}"


class _Skipped:
    """Remembers which tests that need a server of the system were skipped."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and "system" in report.keywords:
            self.names.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.names and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.names:
            names = ", ".join(self.names)
            terminalreporter.write_line(f"skipped although a PostgreSQL of the system is here: {names}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Fail a run that skips what it could have run, where PORTL_SYSTEM_TESTS_REQUIRED says so."""
    if os.environ.get("PORTL_SYSTEM_TESTS_REQUIRED") and system_binaries() is not None:
        config.pluginmanager.register(_Skipped(), "portl-skipped")
