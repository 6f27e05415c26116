"""The page about a run: what it shows, what it never shows, and that it stands alone."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import portl
from portl.execution.recorder import INCIDENTS, REASONS, SPANS, Recorder
from portl.values import events
from tests.commands import portl_cli
from tests.jobs import Once, Stop
from tests.servers import Db
from tests.whole import job_of

HOSTILE = '"<script>alert(1)</script>"'


class Page(HTMLParser):
    """What a browser would make of a page: its tags, what they refer to, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.raw = path.read_text(encoding="utf-8")
        self.feed(self.raw)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def alone(page: Page, *secrets: str) -> None:
    """Insist that a page runs nothing, loads nothing and gives nothing away."""
    assert page.tags & {"script", "link", "img", "iframe", "object", "a", "form"} == set()
    assert page.attributes & {"src", "href", "xlink:href", "action"} == set()
    assert not any(name.startswith("on") for name in page.attributes)
    assert "url(" not in page.raw
    assert "@import" not in page.raw
    for secret in secrets:
        assert secret not in page.raw


def users(source: Db, destination: Db, **keys: object) -> dict[str, object]:
    sides = {"source": source.end(table="users"), "destination": destination.end(table="users")}
    return {"name": "users", **sides, **keys}


def test_a_page_shows_what_was_moved(source: Db, destination: Db, tmp_path: Path) -> None:
    source.execute(
        "CREATE TABLE users (id int PRIMARY KEY, mail text); CREATE INDEX users_mail ON users (mail);"
        "INSERT INTO users SELECT g, 'mail' || g FROM generate_series(1, 3000) AS g"
    )
    path = tmp_path / "report.html"
    result = portl.migrate(
        users(source, destination, verify="checksum", chunk_rows=1000, parallel=2, mask=["mail"]), report=path
    )
    page = Page(path)
    alone(page, source.endpoint.password, destination.endpoint.password, "mail17")
    for text in ("users", "3,000", "public.users", "both sides are equal", "lossless", "ready to run", "index"):
        assert text in page.text
    assert {"svg", "rect"} <= page.tags
    assert list(tmp_path.iterdir()) == [path]
    history = result.history
    assert history is not None
    assert sum(span.rows for span in history.spans if span.kind == "rows") == 3000
    assert {span.kind for span in history.spans} == {"plan", "rows", "objects", "verify"}
    assert all(0 <= span.begin <= span.end <= history.seconds for span in history.spans)
    result.report(tmp_path / "again.html")
    assert Page(tmp_path / "again.html").raw == page.raw


def test_a_page_of_many_tables_escapes_their_names(source: Db, destination: Db, tmp_path: Path) -> None:
    source.execute(
        f'CREATE TABLE {HOSTILE} (id int PRIMARY KEY, "\'><b>&" text); CREATE INDEX "<i>&amp;" ON {HOSTILE} (id);'
        f"INSERT INTO {HOSTILE} SELECT g, 'hidden' || g FROM generate_series(1, 40) AS g;"
        "CREATE TABLE large (id int PRIMARY KEY); INSERT INTO large SELECT generate_series(1, 4000)"
    )
    for number in range(30):
        source.execute(f"CREATE TABLE small{number} (id int PRIMARY KEY); INSERT INTO small{number} VALUES (1)")
    path = tmp_path / "report.html"
    seen: list[portl.Event] = []
    job = job_of(source, destination, name="<img src=x onerror=alert(1)>", parallel=2, chunk_rows=1000)
    result = portl.migrate({**job, "verify": "count"}, observers=[seen.append], report=path)
    page = Page(path)
    alone(page, source.endpoint.password, "hidden1")
    for text in ('public."<script>alert(1)</script>"', "<img src=x onerror=alert(1)>", "7 more tables", "worker"):
        assert text in page.text
    moved = [event for event in seen if isinstance(event, portl.ChunkMoved)]
    assert sum(event.rows for event in moved) == result.rows_read == 4070
    assert {event.worker for event in moved} <= {1, 2}
    assert {name for event in moved for name in event.tables} == {table.destination for table in result.tables}
    made = [name for event in seen if isinstance(event, portl.ObjectsMade) for name in event.objects]
    begun = [name for event in seen if isinstance(event, portl.ObjectsStarted) for name in event.objects]
    assert sorted(made) == sorted(begun)
    assert "index public.<i>&amp;" in [name for name in made if "amp" in name]


def test_a_run_that_fails_leaves_a_page_without_values(source: Db, destination: Db, tmp_path: Path) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, mail text, age int)")
    source.execute("INSERT INTO users SELECT g, 'mail' || g, g FROM generate_series(1, 5000) AS g")
    destination.execute("CREATE TABLE users (id int PRIMARY KEY, mail text, age int)")
    destination.execute("ALTER TABLE users ADD CONSTRAINT young CHECK (age < 3700)")
    path = tmp_path / "report.html"
    with pytest.raises(portl.DataError, match="mail3700") as caught:
        portl.migrate(users(source, destination, chunk_rows=1000, parallel=1), report=path)
    page = Page(path)
    alone(page, "mail3700", destination.endpoint.password)
    for text in ("failed", "row 700 of chunk 4 for users was refused: a check constraint (23514): young", "3,000"):
        assert text in page.text
    committed = caught.value.committed
    assert committed is not None
    assert committed.history is not None
    assert committed.history.failed == caught.value.without_values


def test_a_table_that_fails_among_others_is_told_without_values(source: Db, destination: Db, tmp_path: Path) -> None:
    for name in ("a", "b"):
        source.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, v text); INSERT INTO {name} VALUES (1, 'val' || 17)")
    destination.execute("CREATE TABLE a (id int PRIMARY KEY, v text CONSTRAINT never CHECK (v IS NULL))")
    path = tmp_path / "report.html"
    result = portl.migrate(job_of(source, destination, on_table_error="continue"), report=path)
    assert "val17" in (result.tables["public.a"].error or "")
    page = Page(path)
    alone(page, "val17")
    assert "1 table failed" in page.text
    assert page.text.count("was refused: a check constraint (23514): never") == 2


def test_a_page_tells_reasons_of_rejected_rows(source: Db, destination: Db, tmp_path: Path) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, mail text, age text)")
    source.execute("INSERT INTO users SELECT g, 'mail' || g, g FROM generate_series(1, 100) AS g")
    source.execute("UPDATE users SET age = 'val' || id WHERE id IN (20, 30); UPDATE users SET mail = NULL WHERE id = 7")
    destination.execute("CREATE TABLE users (id int PRIMARY KEY, mail text NOT NULL, age int)")
    path = tmp_path / "report.html"
    job = users(source, destination, on_error="quarantine")
    result = portl.migrate(job, report=path)
    assert result.history is not None
    found = {reason.reason: reason.rows for reason in result.history.reasons}
    assert found == {
        "NULL where it is not allowed (23502): column mail": 1,
        "text that the type cannot parse (22P02)": 2,
    }
    page = Page(path)
    alone(page, "val20", "val30")
    for text in ("done, 3 rows rejected", *found, "portl retry-rejected"):
        assert text in page.text


def test_a_plan_with_problems_leaves_a_page(source: Db, destination: Db, tmp_path: Path) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, mail text)")
    destination.execute("CREATE TABLE users (id int PRIMARY KEY)")
    path = tmp_path / "report.html"
    with pytest.raises(portl.PlanError):
        portl.migrate(users(source, destination), report=path)
    page = Page(path)
    assert "nothing was committed" in page.text
    assert "1 problem: this plan does not run" in page.text


def test_retries_and_warnings_are_in_the_page(source: Db, destination: Db, tmp_path: Path) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users SELECT generate_series(1, 3000)")
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'portl'"
    once = Once(1, lambda: destination.execute(cut))
    path = tmp_path / "report.html"
    keys = {"chunk_rows": 500, "parallel": 1, "retry": {"attempts": 20, "max_delay": 0.1}}
    result = portl.migrate(users(source, destination, **keys), observers=[once], report=path)
    assert result.history is not None
    assert "retry" in {found.kind for found in result.history.incidents}
    page = Page(path)
    assert "attempt 1 of 20 failed" in page.text
    assert {"line", "title"} <= page.tags


def test_what_a_report_needs_is_asked_for_before_the_run(
    source: Db, destination: Db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY)")
    job = users(source, destination)
    with pytest.raises(portl.ConfigError, match=r"there is no folder .*nowhere to write to"):
        portl.migrate(job, report=tmp_path / "nowhere" / "report.html")
    with pytest.raises(portl.ConfigError, match="is a folder; name a file"):
        portl.migrate(job, report=tmp_path)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(portl.ConfigError, match=r'pip install "portl\[report\]"'):
        portl.migrate(job, report=tmp_path / "report.html")
    assert destination.value("SELECT to_regclass('users')") is None
    assert list(tmp_path.iterdir()) == []
    result = portl.migrate(job)
    with pytest.raises(ImportError, match=r'pip install "portl\[report\]"'):
        result.report(tmp_path / "report.html")


def test_an_observer_that_ends_a_run_leaves_no_page(source: Db, destination: Db, tmp_path: Path) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users VALUES (1)")

    def stop(event: portl.Event) -> None:
        raise Stop

    with pytest.raises(Stop):
        portl.migrate(users(source, destination), observers=[stop], report=tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_the_history_of_a_long_run_is_bounded() -> None:
    recorder = Recorder()
    for number in range(5 * SPANS):
        recorder.note(
            events.ChunkMoved(
                tables=(f"t{number}",),
                chunk=number,
                rows=10,
                worker=1 + number % 4,
                began=recorder.began + number / 100,
                seconds=0.04,
            )
        )
        recorder.note(events.Warned(where="w", message=f"m{number}"))
        reasons = {f"reason {number}": 1}
        recorder.note(events.RowsRejected(table="t", chunk=1, rows=1, total=1, place="q", reasons=reasons))
    history = recorder.history([])
    assert SPANS / 4 < len(history.spans) <= SPANS
    assert sum(span.rows for span in history.spans) == 50 * SPANS
    assert sum(span.pieces for span in history.spans) == 5 * SPANS
    assert len(history.incidents) == INCIDENTS
    assert history.further_incidents == 5 * SPANS - INCIDENTS
    assert len(history.reasons) == REASONS + 1
    assert sum(reason.rows for reason in history.reasons) == 5 * SPANS


def test_the_command_writes_a_page(source: Db, destination: Db, tmp_path: Path) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users VALUES (1)")
    urls = [
        f"postgresql://{db.endpoint.user}:{db.endpoint.password}@{db.endpoint.host}:{db.endpoint.port}"
        f"/{db.connection.info.dbname}"
        for db in (source, destination)
    ]
    path = tmp_path / "report.html"
    done = portl_cli("copy", *urls, "--table", "users", "--report", path)
    assert done.returncode == 0
    assert "copy of public.users" in Page(path).text
    dry = portl_cli("copy", *urls, "--table", "users", "--report", path, "--dry-run")
    assert (dry.returncode, "--dry-run makes none" in dry.stderr) == (2, True)
    lost = portl_cli("copy", *urls, "--table", "users", "--report", tmp_path / "no" / "x.html")
    assert (lost.returncode, "there is no folder" in lost.stderr) == (2, True)
