"""A pooler between portl and its servers: one that keeps a backend for each client works, any other is refused."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import portl
from portl_postgres.demo.server import free_port
from tests.jobs import KEYLESS, ROWS, Once, Stop, job_of, nothing_left, rows, stop
from tests.servers import Db

PGBOUNCER = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
pytestmark = pytest.mark.skipif(not Path(PGBOUNCER).exists(), reason="there is no pgbouncer")


@contextmanager
def pooler(db: Db, folder: Path, mode: str) -> Iterator[dict[str, object]]:
    """Start pgbouncer before a server; yield one side of a job through it."""
    port, end = free_port(), db.endpoint
    file = folder / "pgbouncer.ini"
    file.write_text(
        f"[databases]\n* = host={end.host} port={end.port} user={end.user} password={end.password}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = {mode}\ndefault_pool_size = 20\nmax_client_conn = 50\nserver_idle_timeout = 1\n",
        encoding="utf-8",
    )
    file.chmod(0o644)
    account = ["-u", "nobody"] if os.geteuid() == 0 else []  # it refuses to run as root
    with subprocess.Popen([PGBOUNCER, "-q", *account, str(file)], stderr=subprocess.PIPE) as process:
        try:
            for _ in range(100):
                with socket.socket() as trial:
                    if trial.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.05)
            yield db.end(host="127.0.0.1", port=port)
        finally:
            process.terminate()


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("end", ["source", "destination"])
def test_a_pooler_that_gives_each_transaction_another_backend_is_refused(
    source: Db, destination: Db, server_folder: Path, mode: str, end: str
) -> None:
    source.execute(KEYLESS)
    with pooler(source if end == "source" else destination, server_folder, mode) as pooled:
        reads, writes = (pooled, destination.end()) if end == "source" else (source.end(), pooled)
        with pytest.raises(portl.ConnectionFailed) as caught:
            portl.migrate({**job_of(reads, writes), "retry": {"attempts": 1}})
    assert caught.value.message.startswith(end)
    assert "pooler" in caught.value.message
    assert "pool_mode = session" in str(caught.value.hint)
    assert destination.value("SELECT to_regclass('t')") is None


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_job_goes_through_a_pooler_in_session_mode(
    source: Db, destination: Db, server_folder: Path, parallel: int
) -> None:
    source.execute(KEYLESS)
    (server_folder / "w").mkdir()
    with (
        pooler(source, server_folder, "session") as reads,
        pooler(destination, server_folder / "w", "session") as writes,
    ):
        job = job_of(reads, writes, parallel=parallel, verify="checksum")
        with pytest.raises(Stop):
            portl.migrate(job, observers=[Once(3, stop)])
        result = portl.migrate(job)
        assert (result.rows_inserted, result.tables[0].attempt) == (ROWS, 2)
    assert rows(destination, "t") == rows(source, "t")
    nothing_left(destination)
