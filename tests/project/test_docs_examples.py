"""The programs in examples/ run as they stand there, against real servers."""

from __future__ import annotations

import asyncio
import os
import runpy
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import portl
from tests.servers import Db

EXAMPLES = Path(__file__).parents[2] / "examples"
JOB = EXAMPLES / "users.yaml"


@pytest.fixture
def users(source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch) -> tuple[Db, Db]:
    """What the examples speak of, and the environment that leads them there."""
    source.execute("""
        CREATE TABLE users (id int PRIMARY KEY, name text);
        INSERT INTO users VALUES (1, 'Ada'), (2, 'Bela')
    """)
    destination.execute("""
        CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL);
        CREATE TABLE refreshes (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, rows int, at timestamptz)
    """)
    for prefix, db in (("SOURCE", source), ("DEST", destination)):
        monkeypatch.setenv(f"{prefix}_HOST", db.endpoint.host)
        monkeypatch.setenv(f"{prefix}_PORT", str(db.endpoint.port))
        monkeypatch.setenv(f"{prefix}_DATABASE", db.connection.info.dbname)
        monkeypatch.setenv(f"{prefix}_USER", db.endpoint.user)
        monkeypatch.setenv(f"{prefix}_PASSWORD", db.endpoint.password)
    return source, destination


def run(example: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-W", "error", str(EXAMPLES / example), str(JOB)]
    return subprocess.run(call, capture_output=True, text=True, timeout=60, check=False, env=os.environ.copy())


@pytest.mark.parametrize("example", ["django_app.py", "sqlalchemy_app.py"])
def test_rows_and_the_applications_own_line_come_together_or_not_at_all(example: str, users: tuple[Db, Db]) -> None:
    source, destination = users
    done = run(example)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 rows read, 2 inserted; the first is Ada\n"
    assert destination.execute("SELECT rows FROM refreshes") == [(2,)]

    source.execute("UPDATE users SET name = 'Ada L.' WHERE id = 1; INSERT INTO users VALUES (3, NULL)")
    failed = run(example)
    assert failed.returncode == 1
    assert 'null value in column "name"' in failed.stderr
    assert destination.execute("SELECT rows FROM refreshes") == [(2,)]
    assert destination.execute("SELECT name FROM users ORDER BY id") == [("Ada",), ("Bela",)]


def test_a_job_in_a_task_runs_beside_others(users: tuple[Db, Db], capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(runpy.run_path(str(EXAMPLES / "asyncio_app.py"))["main"](str(JOB)))
    assert capsys.readouterr().out == "2 rows read, 2 inserted\n"


def test_a_cancelled_task_has_ended_its_run_when_it_ends(users: tuple[Db, Db]) -> None:
    source, destination = users
    source.execute("INSERT INTO users SELECT g, 'x' FROM generate_series(3, 50000) AS g")
    migrate = runpy.run_path(str(EXAMPLES / "asyncio_app.py"))["migrate"]
    ended: list[bool] = []

    async def main() -> None:
        started, loop = asyncio.Event(), asyncio.get_running_loop()
        resume = threading.Event()

        def hold(event: portl.Event) -> None:
            if isinstance(event, portl.TableStarted):
                loop.call_soon_threadsafe(started.set)
                resume.wait(30)
            if isinstance(event, portl.Failed):
                ended.append(event.kind == "Cancelled")

        task = asyncio.create_task(migrate(str(JOB), observers=[hold]))
        await started.wait()
        task.cancel()
        await asyncio.sleep(0)
        resume.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert ended == [True]
    assert destination.value("SELECT count(*) FROM users") == 0


def settled(client: TestClient) -> dict[str, str]:
    while (shown := client.get("/copies/users").json())["state"] == "running":
        time.sleep(0.01)
    return dict(shown)


def test_a_web_application_starts_watches_and_ends_jobs(users: tuple[Db, Db], monkeypatch: pytest.MonkeyPatch) -> None:
    _, destination = users
    monkeypatch.setenv("PORTL_JOBS", str(EXAMPLES))
    web = runpy.run_path(str(EXAMPLES / "fastapi_app.py"))
    with TestClient(web["app"]) as client:
        assert client.post("/copies/nothing").status_code == 404
        assert client.get("/copies/users").status_code == 404
        started = client.post("/copies/users")
        assert (started.status_code, started.json()["state"]) == (202, "running")
        assert settled(client) == {"state": "done", "rows": 2, "error": None}

        with destination.connection.transaction():
            destination.execute("LOCK TABLE users")
            client.post("/copies/users")
            assert client.post("/copies/users").status_code == 409
            assert client.delete("/copies/users").json()["state"] == "cancelled"
        destination.execute("DROP TABLE users; CREATE TABLE users (id int PRIMARY KEY)")
        client.post("/copies/users")
        shown = settled(client)
        assert shown["state"] == "failed"
        assert "name" in shown["error"]


def test_a_table_is_replaced_by_truncating_it_in_a_transaction_that_is_handed_in(users: tuple[Db, Db]) -> None:
    """As docs/coming-from.md says to those who miss a mode that replaces."""
    _, destination = users
    destination.execute("INSERT INTO users VALUES (7, 'old')")
    with destination.connection.transaction():
        destination.execute("TRUNCATE users")
        assert portl.migrate(JOB, destination=destination.connection).rows_inserted == 2
    assert destination.execute("SELECT id FROM users ORDER BY id") == [(1,), (2,)]
