"""How a server is reached, and what is said when it is not."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import portl
from portl_postgres.demo.server import Server, free_port
from portl_postgres.session import connect_errors
from tests.jobs import BRIEF
from tests.servers import Db, system_binaries, temporary_folder

FAST = {"attempts": 2, "max_delay": 0.1}


class Attempt:
    """Plans a job and keeps what came of it."""

    def __init__(self, source: dict[str, Any], destination: Db) -> None:
        self.events: list[portl.Event] = []
        self.error: portl.Error | None = None
        try:
            self.plan = portl.plan(
                {"source": source, "destination": destination.end(table="t"), "retry": FAST},
                observers=[self.events.append],
            )
        except portl.Error as error:
            self.error = error

    @property
    def retries(self) -> int:
        return sum(isinstance(event, portl.Retrying) for event in self.events)

    def refused(self, kind: type[portl.Error], words: str, hint: str, retries: int) -> None:
        assert self.error is not None
        assert type(self.error) is kind, self.error
        assert words in self.error.message
        assert self.error.hint == hint
        assert self.retries == retries
        assert self.error.transient is bool(retries)
        assert type(self.events[-1]) is portl.Failed


@pytest.fixture
def table(source: Db) -> Db:
    source.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    return source


@pytest.fixture
def roles(source: Db) -> Iterator[Db]:
    names = ("portl_full", "portl_barred", "portl_nologin")
    source.execute("".join(f"DROP ROLE IF EXISTS {name};" for name in names))
    source.execute("CREATE ROLE portl_full LOGIN PASSWORD 'pw' CONNECTION LIMIT 0")
    source.execute("CREATE ROLE portl_barred LOGIN PASSWORD 'pw'; CREATE ROLE portl_nologin PASSWORD 'pw'")
    yield source
    source.execute("".join(f"DROP ROLE {name};" for name in names))


def test_a_wrong_password_is_final(table: Db, destination: Db) -> None:
    found = Attempt(table.end(table="t", password="wrong"), destination)
    found.refused(portl.AuthenticationFailed, "password authentication failed", connect_errors.HINT_PASSWORD, 0)
    assert found.error is not None
    assert found.error.sqlstate == "28P01"
    assert f"source postgres@127.0.0.1:{table.endpoint.port}/{table.connection.info.dbname}: " in found.error.message


def test_an_unknown_role_is_final(table: Db, destination: Db) -> None:
    found = Attempt(table.end(table="t", username="nobody_here"), destination)
    found.refused(portl.AuthenticationFailed, 'user "nobody_here"', connect_errors.HINT_PASSWORD, 0)


def test_a_role_that_may_not_log_in_is_final(table: Db, roles: Db, destination: Db) -> None:
    found = Attempt(table.end(table="t", username="portl_nologin", password="pw"), destination)
    found.refused(portl.AuthenticationFailed, "not permitted to log in", connect_errors.HINT_ROLE, 0)


def test_an_unknown_database_is_final(table: Db, destination: Db) -> None:
    found = Attempt(table.end(table="t", database="no_such_db"), destination)
    found.refused(portl.AuthenticationFailed, 'database "no_such_db" does not exist', connect_errors.HINT_DATABASE, 0)


def test_a_database_that_the_role_may_not_enter_is_final(table: Db, roles: Db, destination: Db) -> None:
    table.execute(f"REVOKE CONNECT ON DATABASE {table.connection.info.dbname} FROM PUBLIC")
    found = Attempt(table.end(table="t", username="portl_barred", password="pw"), destination)
    found.refused(portl.AuthenticationFailed, "permission denied for database", connect_errors.HINT_CONNECT, 0)


def test_a_password_that_is_not_set_is_final(table: Db, destination: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSFILE", "/nonexistent")
    found = Attempt(table.end(table="t", password=None), destination)
    found.refused(portl.AuthenticationFailed, "no password supplied", connect_errors.HINT_NO_PASSWORD, 0)


def test_nothing_listening_is_tried_again(destination: Db) -> None:
    found = Attempt(destination.end(table="t", port=free_port()), destination)
    found.refused(portl.ConnectionFailed, "Connection refused", connect_errors.HINT_UNREACHABLE, 1)
    retrying = next(event for event in found.events if isinstance(event, portl.Retrying))
    assert (retrying.what, retrying.attempt, retrying.attempts) == ("connecting to the source", 1, 2)
    assert retrying.pause > 0


def test_an_unknown_host_is_tried_again(destination: Db) -> None:
    found = Attempt(destination.end(table="t", host="no-such-host.invalid"), destination)
    found.refused(portl.ConnectionFailed, "no-such-host.invalid", connect_errors.HINT_UNREACHABLE, 1)


def test_a_server_that_does_not_answer_is_given_up_after_connect_timeout_and_tried_again(destination: Db) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        found = Attempt(destination.end(table="t", port=port, connect_timeout=1), destination)
    found.refused(portl.ConnectionFailed, "timeout", connect_errors.HINT_UNREACHABLE, 1)


def test_a_role_without_a_free_connection_is_tried_again(table: Db, roles: Db, destination: Db) -> None:
    found = Attempt(table.end(table="t", username="portl_full", password="pw"), destination)
    found.refused(portl.ConnectionFailed, "too many connections for role", connect_errors.HINT_FULL, 1)


def test_tls_required_of_a_server_that_has_none_is_final(table: Db, destination: Db) -> None:
    for sslmode in ("require", "verify-full"):
        found = Attempt(table.end(table="t", sslmode=sslmode), destination)
        found.refused(portl.AuthenticationFailed, "", connect_errors.HINT_TLS, 0)


def test_where_the_protocol_cannot_be_traced_a_refusal_is_final_all_the_same(
    table: Db, destination: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect_errors, "TRACES", False)
    wrong = Attempt(table.end(table="t", password="wrong"), destination)
    wrong.refused(portl.AuthenticationFailed, "password authentication failed", connect_errors.HINT_REFUSED, 0)
    nobody = Attempt(destination.end(table="t", port=free_port()), destination)
    nobody.refused(portl.ConnectionFailed, "Connection refused", connect_errors.HINT_UNREACHABLE, 1)


#: Answers as a server does that is starting up (manual, 54.2.1 and 54.8): a real one starts too fast to be met at it.
STARTING_UP = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
fields = b"SFATAL\\0VFATAL\\0C57P03\\0Mthe database system is starting up\\0\\0"
while True:
    connection, _ = listener.accept()
    with connection:
        if connection.recv(8, socket.MSG_PEEK)[4:] == b"\\x04\\xd2\\x16\\x2f":  # SSLRequest
            connection.recv(8)
            connection.sendall(b"N")
        connection.recv(4096)
        connection.sendall(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
"""


@pytest.mark.parametrize("traces", [True, False])
def test_a_server_that_is_starting_up_is_tried_again(
    traces: bool, destination: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect_errors, "TRACES", traces)
    with subprocess.Popen([sys.executable, "-c", STARTING_UP], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        found = Attempt(destination.end(table="t", port=port), destination)
        process.kill()
    found.refused(portl.ConnectionFailed, "starting up", connect_errors.HINT_STARTING, 1)


def test_a_server_that_comes_up_between_two_attempts_is_used(destination: Db) -> None:
    server = Server(temporary_folder("portl-late-"))
    try:
        with server:
            pass
        job = {
            "source": {**server.parameters(), "type": "postgres", "query": "SELECT 1 AS id"},
            "destination": destination.end(table="t"),
            "retry": {"attempts": 3, "max_delay": 0.1},
        }
        retries = []

        def start(event: portl.Event) -> None:
            if isinstance(event, portl.Retrying):
                retries.append(event)
                server.start()

        assert portl.migrate(job, observers=[start]).rows_inserted == 1
        assert len(retries) == 1
    finally:
        server.stop("immediate")
        shutil.rmtree(server.folder)


def backends(db: Db, name: str) -> list[tuple[Any, ...]]:
    return db.execute("SELECT state FROM pg_stat_activity WHERE application_name = %s", name)


def until_gone(db: Db, name: str) -> list[tuple[Any, ...]]:
    """Return the backends of that name once the server has had a moment to end them."""
    for _ in range(50):
        if not backends(db, name):
            return []
        db.execute("SELECT pg_sleep(0.1)")
    return backends(db, name)


def test_application_name_shows_in_the_server_and_no_connection_stays_after_success(table: Db, destination: Db) -> None:
    seen = []

    def look(event: portl.Event) -> None:
        if isinstance(event, portl.Started):
            seen.append((len(backends(table, "portl reads")), len(backends(table, "portl"))))

    job = {"source": table.end(table="t", application_name="portl reads"), "destination": destination.end(table="t")}
    portl.migrate(job, observers=[look])
    assert seen == [(1, 1)]
    assert until_gone(table, "portl reads") == []
    assert until_gone(table, "portl") == []


@pytest.mark.parametrize("where", ["plan", "source", "destination", "observer"])
def test_no_connection_stays_after_a_failure(where: str, table: Db, destination: Db) -> None:
    destination.execute("CREATE TABLE t (id int PRIMARY KEY CHECK (id < 2))" if where == "destination" else "SELECT 1")
    source = table.end(query="SELECT 1 / (id - 2) AS id FROM t") if where == "source" else table.end(table="t")
    if where == "plan":
        source = table.end(table="nowhere")

    def raising(event: portl.Event) -> None:
        if where == "observer" and isinstance(event, portl.BatchCommitted):
            raise LookupError("from the observer")

    job = {
        "source": {**source, "application_name": "portl fails"},
        "destination": destination.end(table="t", application_name="portl fails"),
    }
    with pytest.raises((portl.Error, LookupError)):
        portl.migrate(job, observers=[raising])
    assert until_gone(table, "portl fails") == []


def test_a_plan_leaves_no_connection_open(table: Db, destination: Db) -> None:
    end = {"application_name": "portl plans"}
    plan = portl.plan({"source": table.end(table="t", **end), "destination": destination.end(table="t", **end)})
    assert until_gone(table, "portl plans") == []
    assert plan.execute().rows_inserted == 2


def test_a_url_reaches_the_same_database(table: Db, destination: Db) -> None:
    e, name = table.endpoint, table.connection.info.dbname
    for url in (
        f"postgresql://{e.user}:{e.password}@{e.host}:{e.port}/{name}?application_name=by+url",
        f"host={e.host} port={e.port} user={e.user} password={e.password} dbname={name}",
    ):
        job = {"source": {"type": "postgres", "url": url, "table": "t"}, "destination": destination.end(table="t")}
        assert portl.migrate(job).rows_read == 2


def test_params_are_libpqs(table: Db, destination: Db) -> None:
    source = table.end(
        query="SELECT current_setting('work_mem') AS id",
        params={"options": "-c work_mem=4321kB", "keepalives_idle": "30"},
    )
    portl.migrate({"source": source, "destination": destination.end(table="t")})
    assert destination.execute("SELECT id FROM t") == [("4321kB",)]


def test_timeouts_of_the_job_hold_in_its_sessions(table: Db, destination: Db) -> None:
    query = "SELECT current_setting('statement_timeout') AS s, current_setting('lock_timeout') AS l"
    source = table.end(query=query, statement_timeout=2.5, lock_timeout=61)
    portl.migrate({"source": source, "destination": destination.end(table="t")})
    assert destination.execute("SELECT s, l FROM t") == [("2500ms", "61s")]


def test_a_timeout_of_the_role_does_not_end_a_job(table: Db, destination: Db) -> None:
    query = "SELECT current_setting('statement_timeout') || current_setting('idle_session_timeout') AS s"
    source = table.end(query=query, params={"options": "-c statement_timeout=90s -c idle_session_timeout=90s"})
    portl.migrate({"source": source, "destination": destination.end(table="t")})
    assert destination.execute("SELECT s FROM t") == [("00",)]


def test_a_statement_that_takes_longer_than_statement_timeout_is_ended(table: Db, destination: Db) -> None:
    source = table.end(query="SELECT id, pg_sleep(5)::text AS p FROM t", statement_timeout=0.2)
    with pytest.raises(portl.OperationError, match=r"statement timeout \(SQLSTATE 57014\)") as caught:
        portl.migrate({"source": source, "destination": destination.end(table="t"), "retry": BRIEF})
    assert caught.value.hint == "the statement was cancelled, or took longer than `statement_timeout` allows"


def test_a_lock_that_is_held_longer_than_lock_timeout_ends_the_job(table: Db, destination: Db) -> None:
    destination.execute("CREATE TABLE t (id int PRIMARY KEY)")
    with psycopg.connect(destination.connection.info.dsn, password=destination.endpoint.password) as other:
        other.execute("LOCK TABLE t")
        end = destination.end(table="t", lock_timeout=0.2)
        job = {"source": table.end(table="t"), "destination": end, "retry": BRIEF}
        with pytest.raises(portl.OperationError, match=r"lock timeout \(SQLSTATE 55P03\)") as caught:
            portl.migrate(job)
    assert "somebody else holds a lock" in (caught.value.hint or "")
    assert caught.value.transient


def test_a_pool_of_one_connection_is_enough_for_one_end(table: Db, destination: Db) -> None:
    pool = {"min_size": 1, "max_size": 1, "timeout": 5}
    job = {"source": table.end(table="t", pool=pool), "destination": destination.end(table="t", pool=pool)}
    assert portl.migrate(job).rows_inserted == 2


def test_min_size_connections_are_kept(table: Db, destination: Db) -> None:
    seen = []

    def look(event: portl.Event) -> None:
        if isinstance(event, portl.TableStarted):
            table.execute("SELECT pg_sleep(0.5)")
            seen.append(len(backends(table, "portl pools")))

    source = table.end(table="t", pool={"min_size": 3, "max_size": 3}, application_name="portl pools")
    portl.migrate({"source": source, "destination": destination.end(table="t")}, observers=[look])
    assert seen == [3]


# TLS: the embedded server is built without it.


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def _authority(folder: Path, name: str) -> None:
    _openssl(
        folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
        "-keyout", f"{name}.key", "-out", f"{name}.crt",
    )  # fmt: skip


def _certificate(folder: Path, authority: str, name: str, subject: str, extension: str) -> None:
    _openssl(
        folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={subject}",
        "-keyout", f"{name}.key", "-out", f"{name}.csr",
    )  # fmt: skip
    (folder / f"{name}.ext").write_text(extension)
    _openssl(
        folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.crt", "-CAkey", f"{authority}.key",
        "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.crt",
    )  # fmt: skip


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    _authority(folder, "ours")
    _authority(folder, "theirs")
    _certificate(folder, "ours", "server", "localhost", "subjectAltName=DNS:localhost")
    _certificate(folder, "ours", "client", "tls_user", "extendedKeyUsage=clientAuth")
    return folder


@pytest.fixture(scope="module")
def tls(certificates: Path) -> Iterator[Server]:
    """A server that takes TLS alone, with a password or, for ``tls_user``, with a certificate."""
    binaries = system_binaries()
    if binaries is None:
        pytest.skip("there is no PostgreSQL of the system here")
    server = Server(temporary_folder("portl-tls-"), binaries=binaries)
    try:
        server.start()
        owner = server.data.stat()
        for name in ("server.crt", "server.key", "ours.crt"):
            shutil.copy(certificates / name, server.data / name)
            shutil.chown(server.data / name, owner.st_uid, owner.st_gid)
        (server.data / "server.key").chmod(0o600)
        dsn: dict[str, Any] = {
            "host": server.host,
            "port": server.port,
            "user": server.user,
            "password": server.password,
        }
        with psycopg.connect(**dsn, dbname="postgres", autocommit=True) as connection:
            connection.execute(
                "CREATE ROLE tls_user LOGIN; CREATE TABLE t AS SELECT 1 AS id; GRANT SELECT ON t TO tls_user"
            )
            connection.execute("ALTER SYSTEM SET ssl = on")
            connection.execute("ALTER SYSTEM SET ssl_ca_file = 'ours.crt'")
        (server.data / "pg_hba.conf").write_text(
            "hostssl all tls_user 127.0.0.1/32 cert\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
        )
        server.stop()
        yield server.start()
    finally:
        server.stop("immediate")
        shutil.rmtree(server.folder)


def tls_end(server: Server, **keys: object) -> dict[str, Any]:
    found = {"type": "postgres", **server.parameters(), "host": "localhost", **keys}
    found.setdefault("query", "SELECT id, (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS ssl FROM t")
    return {key: value for key, value in found.items() if value is not None}


@pytest.mark.system
@pytest.mark.parametrize("sslmode", [None, "prefer", "require", "verify-ca", "verify-full"])
def test_tls_is_used_as_sslmode_says(sslmode: str | None, tls: Server, certificates: Path, destination: Db) -> None:
    root = str(certificates / "ours.crt")
    source = tls_end(tls, sslmode=sslmode, sslrootcert=root if sslmode and "verify" in sslmode else None)
    portl.migrate({"source": source, "destination": destination.end(table="t")})
    assert destination.execute("SELECT id, ssl FROM t") == [(1, True)]


@pytest.mark.system
def test_a_client_certificate_stands_in_for_a_password(tls: Server, certificates: Path, destination: Db) -> None:
    (certificates / "client.key").chmod(0o600)
    source = tls_end(
        tls,
        username="tls_user",
        password=None,
        sslmode="verify-full",
        sslrootcert=str(certificates / "ours.crt"),
        sslcert=str(certificates / "client.crt"),
        sslkey=str(certificates / "client.key"),
    )
    portl.migrate({"source": source, "destination": destination.end(table="t")})
    assert destination.execute("SELECT id, ssl FROM t") == [(1, True)]


@pytest.mark.system
def test_a_certificate_of_another_authority_is_final(tls: Server, certificates: Path, destination: Db) -> None:
    source = tls_end(tls, sslmode="verify-ca", sslrootcert=str(certificates / "theirs.crt"))
    found = Attempt(source, destination)
    found.refused(portl.AuthenticationFailed, "certificate verify failed", connect_errors.HINT_TLS, 0)


@pytest.mark.system
def test_a_certificate_for_another_host_is_final(tls: Server, certificates: Path, destination: Db) -> None:
    source = tls_end(tls, host="127.0.0.1", sslmode="verify-full", sslrootcert=str(certificates / "ours.crt"))
    Attempt(source, destination).refused(portl.AuthenticationFailed, "127.0.0.1", connect_errors.HINT_TLS, 0)


@pytest.mark.system
def test_a_server_that_insists_on_tls_refuses_for_good(tls: Server, destination: Db) -> None:
    found = Attempt(tls_end(tls, sslmode="disable"), destination)
    found.refused(portl.AuthenticationFailed, "pg_hba.conf", connect_errors.HINT_ROLE, 0)
