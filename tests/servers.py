"""Real servers for the tests: the embedded one, the one that PORTL_TEST_DSN names, one of the system.

pytest-postgresql names the databases and makes their templates. Its launcher cannot be used, because PostgreSQL
refuses to run as root: ``portl_postgres.demo.server`` starts the servers. Its fixture for a test's database opens three
connections and writes the whole database into the WAL; ``fresh`` makes the same database with a fifth of the work.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pytest_postgresql import factories
from pytest_postgresql.executors import NoopExecutor

from portl_postgres.demo.server import Server

#: Where servers live if it has room for all of them: files are most of the cost of a database that is soon dropped.
MEMORY, MEMORY_BYTES = Path("/dev/shm"), 4 * 1024**3
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

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """Return a new connection in autocommit mode."""
        return psycopg.connect(
            host=self.host, port=self.port, user=self.user, password=self.password, dbname=database, autocommit=True
        )


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
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=_memory()))
    folder.chmod(0o755)
    return folder


def _memory() -> Path | None:
    """Return a folder in memory that has room and from which binaries may be run, if there is one."""
    try:
        found = os.statvfs(MEMORY)
    except FileNotFoundError:
        return None
    roomy = found.f_bavail * found.f_frsize >= MEMORY_BYTES
    return MEMORY if roomy and not found.f_flag & os.ST_NOEXEC else None


def system_binaries() -> Path | None:
    """Return the folder of a PostgreSQL of the system, the newest if there are several."""
    found = [path.parent for root in SYSTEM_FOLDERS for path in Path(root).glob("*/bin/initdb")]
    return max(found, key=lambda path: int("".join(filter(str.isdigit, path.parent.name)) or 0), default=None)


def _running(prefix: str, binaries: Path | None = None) -> Iterator[Endpoint]:
    folder = temporary_folder(prefix)
    try:
        with Server(folder, binaries=binaries) as server:
            endpoint = Endpoint(server.host, server.port, server.user, server.password)
            with endpoint.connect() as connection:
                if connection.info.server_version >= 160000:
                    # With the default of 4096, most of the time of a connection goes into its password.
                    connection.execute("SET scram_iterations = 1")
                    connection.execute(sql.SQL("ALTER ROLE CURRENT_USER PASSWORD {}").format(server.password))
            yield endpoint
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


def _first_connection(**parameters: Any) -> None:
    """Have the server write its cache of the catalog, which copies of the template then bring along."""
    psycopg.connect(**parameters).close()


source_proc = factories.postgresql_noproc(dbname="portl_source", depends_on="server", load=[_first_connection])
destination_proc = factories.postgresql_noproc(
    dbname="portl_destination", depends_on="server", load=[_first_connection]
)
system_proc = factories.postgresql_noproc(dbname="portl_system", depends_on="system_server", load=[_first_connection])


@pytest.fixture(scope="session")
def maintenance(server: Endpoint) -> Iterator[psycopg.Connection[Any]]:
    """The connection that makes and drops the databases of the tests."""
    with server.connect() as connection:
        yield connection


@pytest.fixture(scope="session")
def system_maintenance(system_server: Endpoint) -> Iterator[psycopg.Connection[Any]]:
    """The same on the PostgreSQL of the system."""
    with system_server.connect() as connection:
        yield connection


@contextmanager
def fresh(names: NoopExecutor, maintenance: psycopg.Connection[Any], endpoint: Endpoint) -> Iterator[Db]:
    """Make an empty database, and drop it afterwards with all connections to it."""
    name, template = sql.Identifier(names.dbname), sql.Identifier(names.template_dbname)
    strategy = " STRATEGY file_copy" if maintenance.info.server_version >= 150000 else ""
    maintenance.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}" + strategy).format(name, template))
    try:
        with closing(endpoint.connect(names.dbname)) as connection:
            yield Db(connection, endpoint)
    finally:
        maintenance.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture
def source(source_proc: NoopExecutor, maintenance: psycopg.Connection[Any], server: Endpoint) -> Iterator[Db]:
    """An empty database to read from."""
    with fresh(source_proc, maintenance, server) as db:
        yield db


@pytest.fixture
def destination(destination_proc: NoopExecutor, maintenance: psycopg.Connection[Any], server: Endpoint) -> Iterator[Db]:
    """An empty database to write to."""
    with fresh(destination_proc, maintenance, server) as db:
        yield db


@pytest.fixture
def system(
    system_proc: NoopExecutor, system_maintenance: psycopg.Connection[Any], system_server: Endpoint
) -> Iterator[Db]:
    """An empty database on the PostgreSQL of the system."""
    with fresh(system_proc, system_maintenance, system_server) as db:
        yield db


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
