"""``portl init``: with flags, and with questions on a terminal; the file that it writes runs as it is."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

import portl
from portl.connectors import registry
from portl.testing import memory
from tests.commands import portl_cli, url
from tests.servers import Db


@pytest.fixture
def users(source: Db) -> Db:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    source.execute("INSERT INTO users SELECT g, 'name ' || g FROM generate_series(1, 300) AS g")
    return source


def secrets(source: Db, destination: Db) -> dict[str, str]:
    """What the written file asks for."""
    return {"SOURCE_PASSWORD": source.endpoint.password, "DESTINATION_PASSWORD": destination.endpoint.password}


def test_with_flags_it_writes_a_job_that_runs_unchanged(users: Db, destination: Db, tmp_path: Path) -> None:
    file = tmp_path / "users.yaml"
    done = portl_cli("init", file, "--from", url(users), "--to", url(destination), "--table", "users")
    assert done.returncode == 0, done.stderr
    text = file.read_text()
    assert text.startswith("# yaml-language-server: $schema=portl.schema.json\n")
    assert "\n  password: ${SOURCE_PASSWORD}\n" in text
    assert "\n  password: ${DESTINATION_PASSWORD}\n" in text
    assert users.endpoint.password not in text + done.stdout + done.stderr
    assert "before a run, set in the environment: SOURCE_PASSWORD, DESTINATION_PASSWORD" in done.stderr
    assert "ready to run" in done.stdout
    assert destination.value("SELECT count(*) FROM pg_class WHERE relname = 'users'") == 0
    run = portl_cli("run", file, **secrets(users, destination))
    assert (run.returncode, destination.value("SELECT count(*) FROM users")) == (0, 300), run.stderr
    again = portl_cli("run", file, **secrets(users, destination))
    assert (again.returncode, "300 unchanged" in again.stdout) == (0, True)


def test_the_file_stands_up_to_the_schema_that_is_written_beside_it(users: Db, destination: Db, tmp_path: Path) -> None:
    file = tmp_path / "users.yaml"
    assert portl_cli("init", file, "--from", url(users), "--to", url(destination), "--table", "users").returncode == 0
    schema = json.loads((tmp_path / "portl.schema.json").read_text())
    jsonschema.validate(YAML(typ="safe", pure=True).load(file.read_text()), schema)


def test_a_file_that_is_there_is_replaced_with_force_alone(users: Db, destination: Db, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("mine")
    call = ["init", file, "--from", url(users), "--to", url(destination), "--table", "users"]
    done = portl_cli(*call)
    assert (done.returncode, file.read_text()) == (2, "mine")
    assert "exists already: name another file, or replace it with --force" in done.stderr
    assert portl_cli(*call, "--force").returncode == 0
    assert "source:" in file.read_text()


def test_without_a_terminal_it_names_the_flags_that_are_missing(users: Db, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "portl", "init", str(tmp_path / "job.yaml"), "--from", url(users)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "missing --to URL, --table NAME: there is no terminal to prompt on" in done.stderr
    assert users.endpoint.password not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_url_in_place_of_the_file_is_refused_unrepeated(tmp_path: Path) -> None:
    done = portl_cli("init", "postgresql://me:hunter2@host/db")
    assert (done.returncode, "hunter2" in done.stderr) == (2, False)
    assert "FILE is the job file to write" in done.stderr


def test_it_proposes_a_mapping_a_key_and_leaves_out_what_is_not_there(
    source: Db, destination: Db, tmp_path: Path
) -> None:
    source.execute("""
        CREATE TABLE people ("userId" int PRIMARY KEY, "FullName" text, mail text, "price$" int);
        INSERT INTO people VALUES (1, 'Ada', 'a@example.com', 3)
    """)
    destination.execute('CREATE TABLE people (no serial PRIMARY KEY, user_id int UNIQUE, full_name text, "PRICE$" int)')
    file = tmp_path / "people.yaml"
    done = portl_cli("init", file, "--from", url(source), "--to", url(destination), "--table", "people")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "excluded, missing at the destination (--missing add adds them): mail" in done.stderr
    text = file.read_text()
    assert "# Rows are matched by the destination's unique key (user_id)." in text
    run = portl_cli("run", file, **secrets(source, destination))
    assert run.returncode == 0, run.stderr
    assert destination.execute('SELECT user_id, full_name, "PRICE$" FROM people') == [(1, "Ada", 3)]
    assert "1 unchanged" in portl_cli("run", file, **secrets(source, destination)).stdout


def test_missing_columns_are_added_where_that_is_asked_for(users: Db, destination: Db, tmp_path: Path) -> None:
    destination.execute("CREATE TABLE users (id int PRIMARY KEY)")
    file = tmp_path / "users.yaml"
    ends = ("--from", url(users), "--to", url(destination), "--table", "users")
    assert portl_cli("init", file, *ends, "--missing", "add").returncode == 0
    assert "add_columns: true" in file.read_text()
    assert portl_cli("run", file, **secrets(users, destination)).returncode == 0
    assert destination.value("SELECT count(name) FROM users") == 300


def test_without_a_key_rows_are_added_and_the_file_says_so(users: Db, destination: Db, tmp_path: Path) -> None:
    destination.execute("CREATE TABLE users (id int, name text)")
    file = tmp_path / "users.yaml"
    ends = ("--from", url(users), "--to", url(destination), "--table", "users")
    assert portl_cli("init", file, *ends).returncode == 0
    assert "a second run adds them again.\nconflict: fail" in file.read_text()


def test_two_columns_that_could_be_meant_are_not_guessed(source: Db, destination: Db, tmp_path: Path) -> None:
    source.execute('CREATE TABLE t (id int PRIMARY KEY, "Name" text)')
    destination.execute('CREATE TABLE t (id int PRIMARY KEY, "NAME" text, name text)')
    file = tmp_path / "t.yaml"
    assert portl_cli("init", file, "--from", url(source), "--to", url(destination), "--table", "t").returncode == 0
    assert "schema_mapping" not in file.read_text()
    assert "- Name" in file.read_text()


HOSTILE = [
    "${HOME} $x",
    "a: b # c",
    "'\"",
    "no",
    "null",
    "0123",
    "tab\tnew\nline",
    "*star",
    "[x]",
    "Größe 🙂",
    "@at",
    "- ",
]


def test_names_of_any_kind_survive_the_file(source: Db, destination: Db, tmp_path: Path) -> None:
    def quoted(name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    columns = ", ".join(f"{quoted(name)} int" for name in HOSTILE)
    table, schema = "t\n# comment: ${PATH}.x", "sch: ema"
    source.execute(f"CREATE SCHEMA {quoted(schema)}; CREATE TABLE {quoted(schema)}.{quoted(table)} ({columns})")
    source.execute(f"INSERT INTO {quoted(schema)}.{quoted(table)} VALUES ({', '.join('7' * len(HOSTILE))})")
    destination.execute(f'CREATE SCHEMA {quoted(schema)}; CREATE TABLE {quoted(schema)}.{quoted(table)} ("0123" int)')
    file = tmp_path / "hostile.yaml"
    ends = ("--from", url(source), "--to", url(destination), "--table", f"{quoted(schema)}.{quoted(table)}")
    done = portl_cli("init", file, *ends)
    assert done.returncode == 0, done.stderr
    assert portl_cli("run", file, **secrets(source, destination)).returncode == 0
    assert destination.value(f"SELECT * FROM {quoted(schema)}.{quoted(table)}") == 7
    job = portl_cli("init", file, *ends, "--missing", "add", "--force")
    assert job.returncode == 0, job.stderr
    assert portl_cli("run", file, **secrets(source, destination)).returncode == 0
    found = destination.execute(f"SELECT * FROM {quoted(schema)}.{quoted(table)} ORDER BY {quoted('no')}")
    assert found[0] == (7,) * len(HOSTILE)


def test_a_wrong_password_writes_nothing_and_is_not_shown(users: Db, destination: Db, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    ends = ("--from", url(users, password="hunter2"), "--to", url(destination), "--table", "users")
    done = subprocess.run(
        [sys.executable, "-m", "portl", "init", str(file), *ends],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "hint: check username and password" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
    assert not list(tmp_path.iterdir())


def test_a_table_that_is_not_there_is_told_with_those_that_are_near(users: Db, destination: Db, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    done = portl_cli("init", file, "--from", url(users), "--to", url(destination), "--table", "usres")
    assert (done.returncode, file.exists()) == (1, False)
    assert "public.users" in done.stderr


def test_a_role_that_may_only_read_at_the_destination_gets_the_plan_and_no_file(
    users: Db, destination: Db, tmp_path: Path
) -> None:
    destination.execute("""
        CREATE TABLE users (id int PRIMARY KEY, name text);
        DROP ROLE IF EXISTS portl_looker;
        CREATE ROLE portl_looker LOGIN PASSWORD 'only looks';
        GRANT SELECT ON users TO portl_looker
    """)
    try:
        file = tmp_path / "job.yaml"
        looker = url(destination, user="portl_looker", password="only looks")
        done = portl_cli("init", file, "--from", url(users), "--to", looker, "--table", "users")
        assert (done.returncode, file.exists()) == (1, False)
        assert "INSERT" in done.stdout
        assert "nothing was written" in done.stderr
    finally:
        destination.execute("DROP OWNED BY portl_looker; DROP ROLE portl_looker")


def test_a_url_that_keys_cannot_say_goes_into_the_environment_as_a_whole(
    users: Db, destination: Db, tmp_path: Path
) -> None:
    at, file = users.endpoint, tmp_path / "job.yaml"
    several = f"postgresql://{at.user}:{at.password}@{at.host}:1,{at.host}:{at.port}/{users.connection.info.dbname}"
    assert portl_cli("init", file, "--from", several, "--to", url(destination), "--table", "users").returncode == 0
    assert "  url: ${SOURCE_URL}\n" in file.read_text()
    done = portl_cli("run", file, SOURCE_URL=several, DESTINATION_PASSWORD=destination.endpoint.password)
    assert done.returncode == 0, done.stderr


class Terminal:
    """A command on a terminal of its own: what it shows is read until a pattern, then an answer is typed."""

    def __init__(self, *arguments: object) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ.update(COLUMNS="80", TERM="xterm")
            os.execv(sys.executable, [sys.executable, "-m", "portl", *map(str, arguments)])
        self.shown = ""
        self._seen = 0

    def _more(self) -> bool:
        assert select.select([self._fd], [], [], 60)[0], f"nothing more is shown: {self.shown}"
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # the other side is closed
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)

    def answer(self, question: str, text: str) -> None:
        deadline = time.monotonic() + 60
        while question not in self.shown[self._seen :]:
            assert self._more(), f"ended before {question!r}: {self.shown}"
            assert time.monotonic() < deadline
        self._seen = self.shown.index(question, self._seen) + len(question)
        os.write(self._fd, text.encode() + b"\n")

    def end(self) -> int:
        while self._more():
            pass
        os.close(self._fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_on_a_terminal_it_asks_tests_each_end_and_offers_what_it_finds(
    users: Db, destination: Db, tmp_path: Path
) -> None:
    users.execute(
        "CREATE VIEW names AS SELECT name FROM users; CREATE SCHEMA sales; CREATE TABLE sales.orders (id int)"
    )
    destination.execute("CREATE TABLE users (id int PRIMARY KEY)")
    file = tmp_path / "users.yaml"
    screen = Terminal("init", file)
    screen.answer("URL of the source", "nonsense")
    screen.answer("expected a URL", "")
    screen.answer("URL of the source", url(users, password="hunter2"))
    screen.answer("Password of the source", "still wrong")
    screen.answer("Password of the source", users.endpoint.password)
    screen.answer("Which table?", "nothing")
    screen.answer("there is no table nothing", "")
    screen.answer("Which table?", "a.b.c")
    screen.answer("expected TABLE or SCHEMA.TABLE", "")
    screen.answer("Which table?", "2")
    screen.answer("URL of the destination", url(destination))
    screen.answer("Which table there?", "")
    screen.answer("The destination has no column name. Exclude or add?", "add")
    screen.answer(f"Write {file}?", "y")
    assert screen.end() == 0, screen.shown
    assert "check username and password" in screen.shown
    assert "example of a URL: postgresql://user@host:5432/database" in screen.shown
    for text in ("source: connected, 3 tables", "public.names", "sales.orders", "view"):
        assert text in screen.shown
    assert users.endpoint.password not in screen.shown.replace(url(destination), "")
    assert portl_cli("run", file, **secrets(users, destination)).returncode == 0
    assert destination.value("SELECT count(name) FROM users") == 300


def test_no_for_an_answer_writes_nothing(users: Db, destination: Db, tmp_path: Path) -> None:
    file = tmp_path / "users.yaml"
    screen = Terminal("init", file, "--from", url(users), "--to", url(destination))
    screen.answer("Which table?", "users")
    screen.answer("Which table there?", "people")
    screen.answer("Write ", "n")
    assert (screen.end(), list(tmp_path.iterdir())) == (0, [])
    assert "nothing was written" in screen.shown


def test_a_part_of_a_name_shows_the_tables_that_have_it(source: Db, destination: Db, tmp_path: Path) -> None:
    for end in (source, destination):
        for number in range(30):
            end.execute(f"CREATE TABLE t{number} (id int)")
    source.execute("CREATE TABLE z_orders (id int PRIMARY KEY); CREATE TABLE z_others (id int)")
    file = tmp_path / "job.yaml"
    screen = Terminal("init", file, "--from", url(source), "--to", url(destination))
    screen.answer("Which table?", "Z_O")
    screen.answer("Which table?", "1")
    screen.answer("Which table there?", "T2")
    screen.answer("the same name again creates a table", "T2")
    screen.answer("Write ", "y")
    assert screen.end() == 0, screen.shown
    assert "and 12 more: type part of a name to list those that contain it" in screen.shown
    text = file.read_text()
    assert "  table: z_orders\n" in text
    assert "  table: T2\n" in text


def test_the_one_table_that_is_left_needs_no_second_name(source: Db, destination: Db, tmp_path: Path) -> None:
    source.execute("CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE others (id int)")
    file = tmp_path / "job.yaml"
    screen = Terminal("init", file, "--from", url(source), "--to", url(destination))
    screen.answer("Which table?", "order")
    screen.answer("[public.orders]", "")
    screen.answer("Which table there?", "")
    screen.answer("Write ", "y")
    assert screen.end() == 0, screen.shown
    assert "  table: orders\n" in file.read_text()


def test_problems_of_the_plan_are_said_again_before_the_question(users: Db, destination: Db, tmp_path: Path) -> None:
    destination.execute("CREATE TABLE users (id int PRIMARY KEY, name text, must int NOT NULL)")
    file = tmp_path / "job.yaml"
    for answer, code in (("", 1), ("y", 0)):
        screen = Terminal("init", file, "--from", url(users), "--to", url(destination))
        screen.answer("Which table?", "users")
        screen.answer("Which table there?", "users")
        screen.answer("Write ", answer)
        assert (screen.end(), file.exists()) == (code, code == 0)
        assert screen.shown.rindex("column 'must'") > screen.shown.index("this plan does not run")


def test_ctrl_c_at_a_question_ends_with_130(users: Db, tmp_path: Path) -> None:
    screen = Terminal("init", tmp_path / "users.yaml")
    screen.answer("URL of the source", "\x03")
    assert (screen.end(), list(tmp_path.iterdir())) == (130, [])


@pytest.fixture
def attic(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connector that has URLs and cannot tell its tables."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    offer = memory.connector
    portl.register(
        portl.Connector(
            name="attic",
            source=offer.source,
            source_config=offer.source_config,
            destination=offer.destination,
            destination_config=offer.destination_config,
            schemes=("attic",),
            from_url=lambda address: {"database": re.sub("^attic://", "", address.reveal())},
        )
    )


def test_a_connector_that_cannot_tell_its_tables_does_as_well(
    attic: None, destination: Db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from portl.cli.app import app

    memory.database("init").create("users", [memory.column("id", "int")], key=["id"])
    memory.database("init").insert("users", [(1,), (2,)])
    file = tmp_path / "users.yaml"
    assert app(["init", str(file), "--from", "attic://init", "--to", url(destination), "--table", "users"]) == 0
    monkeypatch.setenv("DESTINATION_PASSWORD", destination.endpoint.password)
    assert portl.migrate(file).rows_inserted == 2


def test_tables_to_choose_from_are_those_that_the_role_may_use(users: Db, destination: Db, tmp_path: Path) -> None:
    users.execute("""
        CREATE TABLE parted (id int) PARTITION BY RANGE (id);
        CREATE TABLE part PARTITION OF parted DEFAULT;
        CREATE TABLE hidden (id int);
        CREATE SCHEMA closed; CREATE TABLE closed.safe (id int);
        DROP ROLE IF EXISTS portl_chooser;
        CREATE ROLE portl_chooser LOGIN PASSWORD 'chooses';
        GRANT SELECT ON users, parted, part, closed.safe TO portl_chooser
    """)
    try:
        from_keys = portl.job_from_urls(url(users, user="portl_chooser", password="chooses"), url(users), table="x")
        keys = {key: from_keys["source"][key] for key in ("host", "port", "database", "username", "password")}
        connector = registry.load("postgres")
        assert connector.source is not None
        assert connector.destination is not None
        assert [t.name for t in connector.source.tables(keys, portl.Context()) or ()] == [
            "public.parted",
            "public.users",
        ]
        assert connector.destination.tables(keys, portl.Context()) == []
        owner = {**keys, "username": users.endpoint.user, "password": portl.Secret(users.endpoint.password)}
        portl.migrate(portl.job_from_urls(url(destination), url(users), table="pg_catalog.pg_am", to_table="am"))
        assert users.value("SELECT count(*) FROM portl.migrations") == 1
        found = [table.name for table in connector.destination.tables(owner, portl.Context()) or ()]
        assert found == ["public.am", "public.hidden", "public.parted", "public.users", "closed.safe"]
    finally:
        users.execute("DROP OWNED BY portl_chooser; DROP ROLE portl_chooser")


@pytest.mark.system
def test_an_older_server_is_asked_in_the_same_way(system: Db, destination: Db, tmp_path: Path) -> None:
    system.execute("CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users VALUES (1)")
    file = tmp_path / "users.yaml"
    done = portl_cli("init", file, "--from", url(system), "--to", url(destination), "--table", "users")
    assert done.returncode == 0, done.stderr
    assert "source: connected, 1 table\n" in done.stderr
    assert portl_cli("run", file, **secrets(system, destination)).returncode == 0


@pytest.mark.parametrize(("table", "written"), [("all", "all"), ("use*", ["use*"])])
def test_many_tables_are_a_job_too(users: Db, destination: Db, tmp_path: Path, table: str, written: object) -> None:
    file = tmp_path / "job.yaml"
    done = portl_cli("init", file, "--from", url(users), "--to", url(destination), "--table", table)
    assert done.returncode == 0, done.stderr
    job = YAML(typ="safe", pure=True).load(file.read_text())
    assert job["tables"] == written
    jsonschema.validate(job, json.loads((tmp_path / "portl.schema.json").read_text()))
    run = portl_cli("run", file, **secrets(users, destination))
    assert (run.returncode, destination.value("SELECT count(*) FROM users")) == (0, 300), run.stderr


def test_on_a_terminal_all_tables_can_be_chosen(users: Db, destination: Db, tmp_path: Path) -> None:
    users.execute("CREATE TABLE others (id int PRIMARY KEY)")
    screen = Terminal("init", tmp_path / "job.yaml", "--from", url(users), "--to", url(destination))
    screen.answer("pattern with *, or all", "all")
    screen.answer("Write ", "y")
    assert screen.end() == 0, screen.shown
    assert "tables    2: 2 new, 0 there already" in screen.shown
