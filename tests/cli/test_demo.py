"""``portl demo`` and the server that it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from portl_postgres.demo.server import Server, ServerError


def demo(*arguments: object) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-c", "from portl.cli import main; main()", "demo", *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, timeout=240, check=False)


def test_the_demo_moves_a_shop_and_both_sides_agree() -> None:
    done = demo("--rows", 3000)
    assert done.returncode == 0, done.stderr
    for name in ("customers", "orders", "order_items", "customer_report", "orders, again"):
        assert f"  {name}: both sides have the same rows\n" in done.stderr
    assert "demo: 13,250 rows read, 10,250 inserted, 30 updated, 2,970 unchanged" in done.stdout
    assert "Traceback" not in done.stderr
    assert "warning" not in done.stderr


def test_what_is_kept_can_be_gone_on_with(server_folder: Path) -> None:
    kept = server_folder / "demo"
    done = demo("--rows", 100, "--keep", kept)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (kept / "jobs").iterdir()) == [
        "1-customers.yaml",
        "2-orders.yaml",
        "3-order_items.yaml",
        "4-customer_report.yaml",
    ]
    for name in ("start-server", "demo.env", "stop-server"):
        assert str(kept / name) in done.stderr
    subprocess.run(["sh", kept / "start-server"], stdout=subprocess.DEVNULL, timeout=60, check=True)
    try:
        lines = (kept / "demo.env").read_text().splitlines()
        environment = {**os.environ, **dict(line.removeprefix("export ").split("=", 1) for line in lines)}
        assert f"port: {environment['PORTL_DEMO_PORT']}" in (kept / "jobs" / "2-orders.yaml").read_text()
        call = [sys.executable, "-c", "from portl.cli import main; main()", "run", str(kept / "jobs" / "2-orders.yaml")]
        again = subprocess.run(call, capture_output=True, text=True, env=environment, timeout=60, check=False)
        assert "150 rows read, 150 unchanged" in again.stdout
    finally:
        subprocess.run(["sh", kept / "stop-server"], stdout=subprocess.DEVNULL, timeout=60, check=True)


def test_a_folder_with_something_in_it_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    done = demo("--keep", tmp_path)
    assert done.returncode == 1
    assert "is not empty\nhint: name a new folder, or an empty one" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_server_that_does_not_start_says_why(server_folder: Path) -> None:
    server = Server(server_folder, settings={"no_such_setting": "1"})
    with pytest.raises(ServerError, match=r"no_such_setting"):
        server.start()


def test_a_server_stops_with_its_block(server_folder: Path) -> None:
    with Server(server_folder) as server:
        assert server.pid is not None
        address = server.parameters()
        with psycopg.connect(
            host=server.host, port=server.port, user=server.user, password=server.password, dbname="postgres"
        ) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not server.running
    assert str(address["password"]) not in repr(server)
