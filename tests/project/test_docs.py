"""What the README and the docs show is run as it stands there."""

from __future__ import annotations

import re
import runpy
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import portl
from portl.job.loading import load
from portl_postgres.config import PostgresSourceConfig
from tests.pages import DOCS, ROOT, blocks, run_code
from tests.servers import Db

PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]
#: Its blocks belong together and are run one after the other.
TOUR = DOCS / "getting-started.md"


def whole_jobs() -> list[Any]:
    pages = [page for page in PAGES if page != TOUR]
    found = [(page, text) for page in pages for text in blocks(page, "yaml") if text.startswith("source:")]
    return [pytest.param(text, id=f"{page.stem}-{number}") for number, (page, text) in enumerate(found)]


def fragments() -> list[Any]:
    found = [(page, text) for page in PAGES for text in blocks(page, "yaml") if not text.startswith("source:")]
    return [pytest.param(text, id=f"{page.stem}-{number}") for number, (page, text) in enumerate(found)]


@pytest.fixture
def shop(source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch) -> tuple[Db, Db]:
    """The tables that the examples speak of."""
    source.execute("""
        CREATE TABLE users (user_id int PRIMARY KEY, full_name text, email text);
        INSERT INTO users VALUES (1, 'Ada', 'ada@example.com'), (2, NULL, 'bela@example.com');
        CREATE TABLE customers (id int PRIMARY KEY, email text);
        INSERT INTO customers VALUES (1, 'ada@example.com');
        CREATE TABLE events (id int PRIMARY KEY, updated_at timestamptz NOT NULL DEFAULT now());
        INSERT INTO events VALUES (1), (2);
        CREATE TABLE orders (id int PRIMARY KEY, customer_id int, total numeric(12, 2));
        INSERT INTO orders VALUES (7, 1, 5), (8, 1, 50), (9, 1, 12.34)
    """)
    monkeypatch.setenv("SHOP_PASSWORD", source.endpoint.password)
    monkeypatch.setenv("ANALYTICS_PASSWORD", destination.endpoint.password)
    monkeypatch.setenv("SOURCE_URL", url(source))
    monkeypatch.setenv("DESTINATION_URL", url(destination))
    return source, destination


def here(text: str, source: Db, destination: Db) -> str:
    """Return a job file whose servers are those of the test; nothing else is changed."""
    reader, writer = source.endpoint, destination.endpoint
    for db, database, role in ((source, "shop", "reader"), (destination, "analytics", "writer")):
        text = text.replace(f"database: {database}", f"database: {db.connection.info.dbname}")
        text = text.replace(f"username: {role}", f"username: {db.endpoint.user}")
    first, second = (f"host: {e.host}\n  port: {e.port}" for e in (reader, writer))
    return text.replace("host: localhost", first, 1).replace("host: localhost", second, 1)


@pytest.mark.parametrize("text", whole_jobs())
def test_a_whole_job_file_in_the_docs_runs(
    text: str, shop: tuple[Db, Db], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, destination = shop
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect("shop.db")) as file:
        file.executescript("CREATE TABLE users (id INTEGER PRIMARY KEY); INSERT INTO users VALUES (1), (2)")
    path = tmp_path / "job.yaml"
    path.write_text(here(text, source, destination), encoding="utf-8")
    assert portl.migrate(path).rows_inserted == (8 if "tables: all" in text else 2)


@pytest.mark.parametrize("text", fragments())
def test_a_fragment_of_a_job_file_in_the_docs_is_accepted(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_RUN_ID", "manual__2024-01-01")
    path = tmp_path / "job.yaml"
    table = "" if text.startswith("tables:") else ", table: t"
    head = f"source: {{type: postgres{table}}}\ndestination: {{type: postgres{table}}}\n"
    path.write_text(head + text, encoding="utf-8")
    config = load(path)
    assert isinstance(config.source, PostgresSourceConfig)


@pytest.fixture
def job_here(shop: tuple[Db, Db], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Db, Db]:
    """The job of the README as job.yaml in the current folder."""
    (tmp_path / "job.yaml").write_text(here(blocks(ROOT / "README.md", "yaml")[0], *shop), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return shop


def url(db: Db) -> str:
    endpoint = db.endpoint
    return (
        f"host={endpoint.host} port={endpoint.port} user={endpoint.user} password={endpoint.password}"
        f" dbname={db.connection.info.dbname}"
    )


def test_the_python_of_the_readme_runs(
    job_here: tuple[Db, Db], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, destination = job_here
    run_code(ROOT / "README.md", tmp_path, DSN=url(destination))
    said = capsys.readouterr().out
    assert "ready to run" in said
    assert "2 2 0 0\nrelay" in said
    assert destination.execute("SELECT * FROM user_profiles ORDER BY id") == source.execute("SELECT * FROM users")


@pytest.mark.parametrize("name", ["index", "embedding", "verify"])
def test_the_python_of_a_page_runs(name: str, job_here: tuple[Db, Db], tmp_path: Path) -> None:
    source, destination = job_here
    portl.migrate("job.yaml")
    run_code(DOCS / f"{name}.md", tmp_path, SOURCE_URL=url(source), DESTINATION_URL=url(destination))
    assert destination.value("SELECT count(*) FROM user_profiles") == 2


def test_the_page_of_errors_shows_how_to_catch_them(
    job_here: tuple[Db, Db], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, destination = job_here
    destination.execute("CREATE TABLE user_profiles (id int PRIMARY KEY, name text NOT NULL, email text)")
    run_code(DOCS / "errors.md", tmp_path)
    assert "row 2 was refused" in caplog.text
    destination.execute("DROP TABLE user_profiles")
    source.execute("DROP TABLE users")
    run_code(DOCS / "errors.md", tmp_path)
    assert "there is no table or view public.users" in caplog.text
    (tmp_path / "job.yaml").write_text("source: 1\ntable: 2\n", encoding="utf-8")
    run_code(DOCS / "errors.md", tmp_path)
    assert "job.yaml: line 2" in caplog.text


def test_the_five_minutes_run_from_the_first_command_to_the_last(server_folder: Path) -> None:
    """All but the installation, which test_build.py does."""
    (server_folder / "vip.yaml").write_text(blocks(TOUR, "yaml")[0], encoding="utf-8")
    (server_folder / "tour.py").write_text(blocks(TOUR, "python")[0], encoding="utf-8")
    commands = [block for block in blocks(TOUR, "bash") if "pip install" not in block]
    tour, tidy = commands[:-1], commands[-1]
    script = "\n".join(
        [
            "set -e",
            f"portl() {{ {sys.executable} -c 'from portl.cli import main; main()' \"$@\"; }}",
            f"trap '{tidy.strip()}' EXIT",
            *tour,
            f"{sys.executable} tour.py",
        ]
    )
    done = subprocess.run(
        ["sh", "-c", script], cwd=server_folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "read, 1,000 inserted" in done.stdout
    assert done.stdout.count("rows read, 1,000 unchanged") == 2
    assert "vip: equal" in done.stdout
    assert "copy of public.orders: 5,050 rows read, 5,050 inserted" in done.stdout
    assert "sales: 5,050 rows read, 5,050 unchanged" in done.stdout


def test_the_tables_of_keys_are_those_of_the_models() -> None:
    keys = runpy.run_path(str(DOCS / "keys.py"))
    for path in keys["PAGES"]:
        page = path.read_text(encoding="utf-8")
        assert keys["filled"](page) == page, "run: python docs/keys.py"


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_no_drawing_of_a_sequence_has_a_semicolon() -> None:
    """Mermaid ends a statement at one, and then draws nothing."""
    drawings = [text for page in PAGES for text in blocks(page, "mermaid")]
    assert len(drawings) >= 5
    assert not [text for text in drawings if text.startswith("sequenceDiagram") and ";" in text]


def test_the_change_log_names_the_version() -> None:
    assert f"## {portl.__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_examples_run(
    source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source.execute("CREATE TABLE users AS SELECT g AS id FROM generate_series(1, 10) AS g")
    for prefix, db in (("SOURCE", source), ("DEST", destination)):
        monkeypatch.setenv(f"{prefix}_HOST", db.endpoint.host)
        monkeypatch.setenv(f"{prefix}_PORT", str(db.endpoint.port))
        monkeypatch.setenv(f"{prefix}_DATABASE", db.connection.info.dbname)
        monkeypatch.setenv(f"{prefix}_USER", db.endpoint.user)
        monkeypatch.setenv(f"{prefix}_PASSWORD", db.endpoint.password)
    monkeypatch.setenv("AIRFLOW_RUN_ID", "manual__2024-01-01")
    embed = runpy.run_path(str(ROOT / "examples" / "embed.py"))
    caplog.set_level("INFO", "application")
    result = embed["copy"](str(ROOT / "examples" / "users.yaml"))
    assert result.rows_inserted == 10
    assert "public.users: 10 rows so far" in caplog.text
