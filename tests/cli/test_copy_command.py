"""``portl copy``: a job from two URLs, on real servers. What a URL holds of secrets appears nowhere."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import pytest

import portl
from portl.connectors import registry
from tests.commands import command, portl_cli, url
from tests.servers import Db


@pytest.fixture
def users(source: Db) -> Db:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    source.execute("INSERT INTO users SELECT g, 'name ' || g FROM generate_series(1, 3000) AS g")
    return source


def test_two_urls_and_a_table_are_a_whole_job(users: Db, destination: Db) -> None:
    done = portl_cli("copy", url(users), url(destination, scheme="postgres"), "--table", "users")
    assert (done.returncode, destination.value("SELECT count(*) FROM users")) == (0, 3000)
    assert "copy of public.users: 3,000 rows read, 3,000 inserted" in done.stdout
    assert users.endpoint.password not in done.stdout + done.stderr


def test_a_table_is_named_with_its_schema_and_goes_where_it_is_told(source: Db, destination: Db) -> None:
    source.execute('CREATE SCHEMA sales; CREATE TABLE sales."Odd.Name" (id int PRIMARY KEY)')
    source.execute('INSERT INTO sales."Odd.Name" VALUES (1), (2)')
    ends = (url(source), url(destination))
    assert portl_cli("copy", *ends, "--table", 'sales."Odd.Name"').returncode == 0
    assert destination.value('SELECT count(*) FROM sales."Odd.Name"') == 2
    assert portl_cli("copy", *ends, "--table", 'sales."Odd.Name"', "--to-table", "t").returncode == 0
    assert destination.value("SELECT count(*) FROM public.t") == 2


@pytest.mark.parametrize("name", ["$HOME ${X}", 'quo"te', "sp ace; DROP TABLE users", "Größe"])
def test_names_are_taken_as_they_are(source: Db, destination: Db, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    source.execute(f"CREATE TABLE {quoted} (id int PRIMARY KEY); INSERT INTO {quoted} VALUES (7)")
    done = portl_cli("copy", url(source), url(destination), "--table", name)
    assert (done.returncode, done.stderr.count("warning")) == (0, 0), done.stderr
    assert destination.value(f"SELECT id FROM {quoted}") == 7


def test_a_name_with_too_many_dots_is_refused_with_the_way_to_write_it(users: Db, destination: Db) -> None:
    done = portl_cli("copy", url(users), url(destination), "--table", "a.b.c")
    assert done.returncode == 2
    assert "expected TABLE or SCHEMA.TABLE, found 'a.b.c'" in done.stderr


def test_a_dry_run_shows_the_plan_and_writes_nothing(users: Db, destination: Db) -> None:
    done = portl_cli("copy", url(users), url(destination), "--table", "users", "--dry-run")
    assert done.returncode == 0
    assert "ready to run" in done.stdout
    assert users.endpoint.password not in done.stdout
    assert destination.value("SELECT count(*) FROM pg_class WHERE relname = 'users'") == 0
    as_json = portl_cli("copy", url(users), url(destination), "--table", "users", "--dry-run", "--json")
    assert json.loads(as_json.stdout)["tables"][0]["rows"] == 3000


def test_json_verify_conflict_and_set_do_what_they_do_in_a_job(users: Db, destination: Db) -> None:
    destination.execute("CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users VALUES (1, 'mine')")
    ends = (url(users), url(destination), "--table", "users")
    done = portl_cli("copy", *ends, "--conflict", "skip", "--set", "source.limit=10", "--verify", "count", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, events[-1]["rows_skipped"], events[-1]["rows_inserted"]) == (0, 1, 9)
    assert events[-1]["verification"]["mode"] == "count"
    assert destination.value("SELECT name FROM users WHERE id = 1") == "mine"
    refused = portl_cli("copy", *ends, "--conflict", "fail")
    assert refused.returncode == 1
    assert "row 1 of the source (batch 1) with id = 1" in refused.stderr


def test_a_password_may_come_from_the_environment_or_from_pgpass(users: Db, destination: Db, tmp_path: Path) -> None:
    ends = (url(users, password=None), url(destination, password=None))
    done = portl_cli("copy", *ends, "--table", "users", PGPASSWORD=users.endpoint.password)
    assert done.returncode == 0, done.stderr
    passwords = tmp_path / "pgpass"
    passwords.write_text(f"*:*:*:*:{users.endpoint.password}\n")
    passwords.chmod(0o600)
    done = portl_cli("copy", *ends, "--table", "users", PGPASSFILE=str(passwords))
    assert (done.returncode, "3,000 unchanged" in done.stdout) == (0, True)


def test_a_wrong_password_ends_with_1_and_is_shown_nowhere(users: Db, destination: Db) -> None:
    wrong = "s3cr3t/@:%?&"
    for flags in ([], ["--json"], ["--verbose"], ["--dry-run"]):
        done = portl_cli("copy", url(users, password=wrong), url(destination), "--table", "users", *flags)
        assert done.returncode == 1
        said = done.stdout + done.stderr
        assert "password" in said
        for spelled in (wrong, quote(wrong, safe=""), "s3cr3t"):
            assert spelled not in said


@pytest.mark.parametrize(
    "broken",
    [
        "postgresql://me:hunter2%zz@host/db",
        "postgresql://me:hunter2@ho:st:x/db",
        "me:hunter2@host/db",
        "host=x password=hunter2",
        "mysql://me:hunter2@host/db",
        "hunter2://x",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_a_word_of_its_password(destination: Db, broken: str) -> None:
    done = portl_cli("copy", broken, url(destination), "--table", "users")
    assert done.returncode in (1, 2)
    assert "the source" in done.stderr
    if not broken.startswith("hunter2"):  # there it stands where no password does
        assert "hunter2" not in done.stdout + done.stderr


def test_a_scheme_that_nobody_knows_names_those_that_are_known(destination: Db) -> None:
    done = portl_cli("copy", "mysql://me@host/db", url(destination), "--table", "users")
    assert done.returncode == 1
    assert "no installed connector knows URLs that begin with mysql://; known: " in done.stderr
    assert "postgresql://" in done.stderr


def test_a_wrong_call_repeats_no_url(users: Db, destination: Db) -> None:
    secret = "postgresql://me:hunter2@host/db"
    for call in (["copy", secret, secret, secret, "--table", "t"], [secret], ["copy", "--tabel", secret, secret]):
        done = portl_cli(*call)
        assert done.returncode == 2
        assert "hunter2" not in done.stdout + done.stderr
    conninfo = portl_cli("copy", secret, secret, "host=h password=hunter2", "--table", "t")
    assert "hunter2" not in conninfo.stderr
    missing = portl_cli("copy", url(users), url(destination))
    assert (missing.returncode, "name a table with --table, a schema with --schema" in missing.stderr) == (2, True)


def test_a_role_that_may_only_read_is_told_so_in_the_plan(users: Db, destination: Db) -> None:
    destination.execute("""
        CREATE TABLE users (id int PRIMARY KEY, name text);
        DROP ROLE IF EXISTS portl_reader;
        CREATE ROLE portl_reader LOGIN PASSWORD 'only reads';
        GRANT SELECT ON users TO portl_reader
    """)
    try:
        reader = url(destination, user="portl_reader", password="only reads")
        done = portl_cli("copy", url(users), reader, "--table", "users")
        assert done.returncode == 1
        assert "the plan has problems; nothing was written" in done.stderr
        assert "INSERT" in done.stderr
        assert "only reads" not in done.stderr
    finally:
        destination.execute("DROP OWNED BY portl_reader; DROP ROLE portl_reader")


def test_the_same_command_resumes_a_run_that_was_killed(users: Db, destination: Db) -> None:
    users.execute("INSERT INTO users SELECT g, repeat('x', 200) FROM generate_series(3001, 60000) AS g")
    destination.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    # The row in the middle waits for a lock, so that the run is found with some of its chunks done.
    destination.execute("""
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN PERFORM pg_advisory_xact_lock_shared(77); RETURN NEW; END$$;
        CREATE TRIGGER wait BEFORE INSERT ON users FOR EACH ROW WHEN (NEW.id = 30000) EXECUTE FUNCTION wait();
        SELECT pg_advisory_lock(77)
    """)
    call = ["copy", url(users), url(destination), "--table", "public.users"]
    call += ["--set", "chunk_rows=1000", "--set", "parallel=1", "--conflict", "fail"]
    process = subprocess.Popen(command(*call), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND NOT granted"
    while time.monotonic() < deadline and not destination.value(waiting):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    destination.execute("SELECT pg_advisory_unlock_all()")
    there = destination.value("SELECT count(*) FROM users")
    assert 0 < there < 60000
    # ``users`` is the same table as ``public.users``: the job is the same.
    call[4] = "users"
    done = portl_cli(*call)
    assert done.returncode == 0, done.stderr
    assert "resuming the run of" in done.stderr
    assert destination.value("SELECT count(*) FROM users") == 60000


def test_the_library_does_the_same_in_one_line(users: Db, destination: Db) -> None:
    job = portl.job_from_urls(url(users), url(destination), table="users", to_table="people")
    assert users.endpoint.password not in repr(job)
    assert portl.migrate({**job, "conflict": "fail"}).rows_inserted == 3000
    assert portl.verify(job).equal
    assert destination.value("SELECT count(*) FROM people") == 3000


def test_what_keys_cannot_say_stays_a_url(users: Db, destination: Db) -> None:
    at = users.endpoint
    several = f"postgresql://{at.user}:{at.password}@{at.host}:1,{at.host}:{at.port}/{users.connection.info.dbname}"
    job = portl.job_from_urls(several, url(destination) + "?options=-c%20work_mem%3D8MB", table="users")
    assert set(job["source"]) == {"type", "url", "schema", "table"}
    assert job["destination"]["params"] == {"options": "-c work_mem=8MB"}
    assert portl.migrate(job).rows_inserted == 3000


def test_a_connector_of_an_application_gets_urls_of_its_own(destination: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    from portl.testing import memory

    def from_url(address: portl.Secret) -> dict[str, str]:
        return {"database": address.reveal().removeprefix("attic://")}

    memory.database("shop").create("users", [memory.column("id", "int")], key=["id"])
    memory.database("shop").insert("users", [(1,), (2,)])
    offer = memory.connector
    portl.register(
        portl.Connector(
            name="attic",
            source=offer.source,
            source_config=offer.source_config,
            destination=offer.destination,
            destination_config=offer.destination_config,
            schemes=("attic",),
            from_url=from_url,
        )
    )
    job = portl.job_from_urls("attic://shop", url(destination), table="users")
    assert portl.migrate(job).rows_inserted == 2
