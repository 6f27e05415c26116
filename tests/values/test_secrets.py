"""No password shows anywhere: not in clear, not percent-encoded, whatever goes wrong."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import pickletools
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql

import portl
from portl.job.loading import load
from portl_postgres.demo.server import free_port
from tests.servers import Db

PASSWORD = "hunter/2 @:?#%é'\\x"
ENCODED = quote(PASSWORD, safe="")
#: Any of these in a text gives the password away, or a telling part of it.
FORMS = [PASSWORD, ENCODED, ENCODED.lower(), repr(PASSWORD)[1:-1], "hunter"]


def leaks(text: str) -> list[str]:
    return [form for form in FORMS if form in text]


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and all that are chained to it, suppressed or not."""
    seen: set[int] = set()
    pending = [error]
    while pending:
        found = pending.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        pending += [found.__cause__, found.__context__]
        if isinstance(found, BaseExceptionGroup):
            pending += found.exceptions


def told(error: BaseException) -> str:
    """Return all that an exception and its chain would tell a log or an error tracker."""
    texts = []
    for found in chain(error):
        texts += [str(found), repr(found), repr(found.args), repr(vars(found))]
        texts += traceback.format_exception(found, chain=True)
    return "\n".join(texts)


@pytest.fixture
def role(source: Db) -> Iterator[str]:
    """A role of its own with the password; the source's table belongs to it."""
    source.execute("DROP ROLE IF EXISTS portl_secret")
    source.connection.execute(sql.SQL("CREATE ROLE portl_secret LOGIN PASSWORD {}").format(sql.Literal(PASSWORD)))
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0), (2, 5)")
    source.execute("ALTER TABLE t OWNER TO portl_secret")
    yield "portl_secret"
    source.execute("DROP TABLE t; DROP ROLE portl_secret")


class Watched:
    """Runs a job and keeps all that a program sees of it."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        self._caplog = caplog
        self.error: BaseException | None = None
        self.plan: portl.Plan | None = None
        self.events: list[portl.Event] = []

    def run(self, job: Any) -> Watched:
        try:
            self.plan = portl.plan(job, observers=[self.events.append])
            self.plan.execute()
        except portl.Error as error:
            self.error = error
        return self

    def seen(self) -> str:
        logs = io.StringIO()
        for record in self._caplog.records:
            logs.write(f"{record.getMessage()} {record.args!r} {record.exc_info!r}\n")
        texts = [logs.getvalue(), *(repr(event) for event in self.events)]
        texts += [json.dumps(event.to_dict(), default=str) for event in self.events]
        if self.plan is not None:
            texts += [repr(self.plan), str(self.plan), json.dumps(self.plan.to_dict(), default=str)]
        if self.error is not None:
            texts.append(told(self.error))
        return "\n".join(texts)


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> Watched:
    return Watched(caplog)


def ends(source: Db, way: str, **keys: Any) -> dict[str, Any]:
    """Return a source that reaches the database with the password, by one of three ways."""
    address = {"host": source.endpoint.host, "port": source.endpoint.port, **keys.pop("address", {})}
    user, database = keys.pop("user", "portl_secret"), source.connection.info.dbname
    if way == "keys":
        return {"type": "postgres", **address, "username": user, "database": database, "password": PASSWORD, **keys}
    if way == "uri":
        url = f"postgresql://{user}:{ENCODED}@{quote(str(address['host']), safe='')}:{address['port']}/{database}"
    else:
        escaped = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
        url = f"host={address['host']} port={address['port']} user={user} dbname={database} password='{escaped}'"
    return {"type": "postgres", "url": url, **keys}


WAYS = pytest.mark.parametrize("way", ["keys", "uri", "conninfo"])
FAST = {"attempts": 2, "max_delay": 0.1}


@WAYS
def test_a_run_that_succeeds_shows_no_password(
    way: str, role: str, source: Db, destination: Db, watched: Watched
) -> None:
    watched.run({"source": ends(source, way, table="t"), "destination": destination.end(table="t")})
    assert watched.error is None
    assert destination.value("SELECT count(*) FROM t") == 2
    assert "SELECT" in watched.seen()
    assert leaks(watched.seen()) == []


@WAYS
def test_a_wrong_password_is_not_shown(way: str, role: str, source: Db, destination: Db, watched: Watched) -> None:
    source.execute("ALTER ROLE portl_secret PASSWORD 'other'")
    watched.run({"source": ends(source, way, table="t"), "destination": destination.end(table="t")})
    assert isinstance(watched.error, portl.AuthenticationFailed)
    assert "password authentication failed" in watched.error.message
    assert [type(event) for event in watched.events] == [portl.Failed]
    assert leaks(watched.seen()) == []


@WAYS
def test_an_unreachable_server_shows_no_password(way: str, source: Db, destination: Db, watched: Watched) -> None:
    address = {"host": "127.0.0.1", "port": free_port()}
    job = {"source": ends(source, way, table="t", address=address), "destination": destination.end(table="t")}
    watched.run({**job, "retry": FAST})
    assert isinstance(watched.error, portl.ConnectionFailed)
    assert [type(event) for event in watched.events] == [portl.Retrying, portl.Failed]
    assert leaks(watched.seen()) == []


@WAYS
def test_a_socket_that_is_not_there_shows_no_password(way: str, source: Db, destination: Db, watched: Watched) -> None:
    job = {
        "source": ends(source, way, table="t", address={"host": "/no/such/folder"}),
        "destination": destination.end(table="t"),
    }
    watched.run({**job, "retry": {"attempts": 1}})
    assert isinstance(watched.error, portl.ConnectionFailed)
    assert leaks(watched.seen()) == []


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{PASSWORD}@h/d",
        f"postgresql://u:{ENCODED}@h:port/d",
        f"postgresql://u:{ENCODED}@h/d?{ENCODED}",
        f"postgresql://u:{ENCODED}@h/d?sslmod={ENCODED}",
        f"postgresql//u:{ENCODED}@h/d",
        f"host=h password={PASSWORD}",
        "host=h password='hunter",
        "hunter2",
    ],
)
def test_a_malformed_url_is_not_shown(url: str, watched: Watched, destination: Db) -> None:
    watched.run({"source": {"type": "postgres", "url": url, "table": "t"}, "destination": destination.end(table="t")})
    assert isinstance(watched.error, portl.ConfigError)
    assert watched.error.problems[0].startswith("source.url: ")
    assert leaks(watched.seen()) == []


@WAYS
def test_a_statement_that_fails_shows_no_password(
    way: str, role: str, source: Db, destination: Db, watched: Watched
) -> None:
    query = "SELECT id, 1 / v AS v FROM t"
    watched.run({"source": ends(source, way, query=query), "destination": destination.end(table="t")})
    assert watched.error is not None
    assert "division by zero" in str(watched.error)
    assert leaks(watched.seen()) == []


def test_a_server_that_repeats_the_password_does_not_bring_it_into_a_message(
    role: str, source: Db, destination: Db, watched: Watched
) -> None:
    literal = PASSWORD.replace("'", "''")
    query = f"SELECT '{literal}'::int AS v, $x${ENCODED}$x$ AS w"
    watched.run({"source": ends(source, "keys", query=query), "destination": destination.end(table="t")})
    assert isinstance(watched.error, portl.Error)
    assert "invalid input syntax" in watched.error.message
    assert leaks(watched.error.message) == []


def test_what_psycopg_holds_is_not_chained_to_an_error(role: str, source: Db, destination: Db) -> None:
    source.execute("ALTER ROLE portl_secret PASSWORD 'other'")
    with pytest.raises(portl.AuthenticationFailed) as caught:
        portl.migrate({"source": ends(source, "keys", table="t"), "destination": destination.end(table="t")})
    assert [type(error).__module__ for error in chain(caught.value) if isinstance(error, psycopg.Error)] == []


def models(password: str) -> portl.MigrationConfig:
    return load(
        {
            "source": {"type": "postgres", "host": "h", "password": password, "table": "a"},
            "destination": {
                "type": "postgres",
                "url": f"postgresql://u:{quote(password, safe='')}@h/d?sslpassword={quote(password, safe='')}",
                "table": "b",
            },
        }
    )


def test_models_do_not_show_a_password() -> None:
    config = models(PASSWORD)
    for shown in (repr(config), str(config), f"{config.source}", "%r" % (config.destination,)):  # noqa: UP031
        assert leaks(shown) == []
        assert "********" in shown


def test_a_pickle_leaves_the_password_behind_and_says_so_when_it_is_wanted() -> None:
    config = models(PASSWORD)
    data = pickle.dumps(config)
    listing = io.StringIO()
    pickletools.dis(data, listing)
    assert leaks(listing.getvalue() + data.decode("latin-1") + data.decode("utf-8", "replace")) == []
    again = pickle.loads(data)
    assert again.source.host == "h"
    assert bool(again.source.password)
    assert leaks(repr(again)) == []
    with pytest.raises(ValueError, match=r"^passwords are left out of pickles; load the job where it runs$"):
        again.source.password.reveal()


def test_a_copy_in_the_same_process_keeps_the_password() -> None:
    config = models(PASSWORD)
    assert copy.deepcopy(config) == copy.copy(config) == config


def test_secrets_compare_by_their_text() -> None:
    assert portl.Secret("a") == portl.Secret("a") != portl.Secret("b")
    assert portl.Secret("a") != "a"
    assert len({portl.Secret("a"), portl.Secret("a")}) == 1
    assert not portl.Secret("")


def test_a_frame_of_a_refused_file_holds_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "hunter2")
    path = tmp_path / "job.yaml"
    text = "source: {type: postgres, table: a, password: '${PW}', url: 'postgresql://u:hunter2@h:x/'}\nnmae: x\n"
    for broken in (text, text + "a: [", text.replace("${PW}", "hunter3") + "\udcff"):
        path.write_bytes(broken.encode("utf-8", "surrogateescape"))
        with pytest.raises(portl.ConfigError) as caught:
            load(path)
        assert list(chain(caught.value)) == [caught.value]
        frames = list(traceback.walk_tb(caught.value.__traceback__))[1:]  # the first is this test's own
        assert frames
        assert leaks("".join(repr(frame.f_locals) for frame, _ in frames)) == []


# The first draw fills hypothesis' table of characters, which takes a second.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), st.sampled_from(["", "/", "/@:+%"]))
@example("%", "")
def test_any_password_is_taken_out_of_any_text_however_it_is_escaped(password: str, safe: str) -> None:
    secret = portl.Secret(password)
    encoded = quote(password, safe=safe)
    lower = re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), encoded)
    in_conninfo = password.replace("\\", "\\\\").replace("'", "\\'")
    for form in (password, encoded, lower, quote_plus(password), in_conninfo, password.replace("'", "''")):
        assert secret.scrub(f"\0{form}\0").strip("\0") in ("*" * 8, "*" * 16)


def test_a_program_that_runs_a_job_shows_no_password_to_ps(role: str, source: Db, destination: Db) -> None:
    code = (
        "import json, sys, pathlib, portl\n"
        "job = json.loads(sys.stdin.read())\n"
        "seen = []\n"
        "look = lambda event: seen.append(pathlib.Path('/proc/self/cmdline').read_bytes())\n"
        "portl.migrate(job, observers=[look])\n"
        "print(seen)"
    )
    job = {"source": ends(source, "uri", table="t"), "destination": destination.end(table="t")}
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(job), capture_output=True, text=True, check=True
    )
    assert "portl.migrate" in done.stdout
    assert leaks(done.stdout + done.stderr) == []
    names = "application_name || ' ' || query"
    assert leaks("\n".join(row[0] for row in source.execute(f"SELECT {names} FROM pg_stat_activity"))) == []
