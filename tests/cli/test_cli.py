"""The command line as a person or a script meets it: exit codes, what goes where, each message."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import portl
from tests.commands import command, portl_cli, portl_cli_in
from tests.servers import Db

JOB = """\
source:
  type: postgres
  host: {source.endpoint.host}
  port: {source.endpoint.port}
  database: {source.connection.info.dbname}
  username: {source.endpoint.user}
  password: ${{SOURCE_PASSWORD}}
  table: users

destination:
  type: postgres
  host: {destination.endpoint.host}
  port: {destination.endpoint.port}
  database: {destination.connection.info.dbname}
  username: {destination.endpoint.user}
  password: ${{DEST_PASSWORD}}
  table: users
"""


@pytest.fixture
def job(source: Db, destination: Db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    source.execute("INSERT INTO users SELECT g, 'name ' || g FROM generate_series(1, 3000) AS g")
    monkeypatch.setenv("SOURCE_PASSWORD", source.endpoint.password)
    monkeypatch.setenv("DEST_PASSWORD", destination.endpoint.password)
    path = tmp_path / "users.yaml"
    path.write_text(JOB.format(source=source, destination=destination), encoding="utf-8")
    return path


def test_a_run_ends_with_0_and_says_what_happened(job: Path, destination: Db) -> None:
    done = portl_cli("run", job)
    assert (done.returncode, destination.value("SELECT count(*) FROM users")) == (0, 3000)
    assert "users: 3,000 rows read, 3,000 inserted" in done.stdout
    assert "public.users -> public.users (relay)" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    for line in ("done users\n", "  rows      3,000 read, 3,000 new\n", "  ledger    portl.migrations\n"):
        assert line in done.stdout


def test_a_dry_run_shows_the_plan_and_writes_nothing(job: Path, destination: Db) -> None:
    done = portl_cli("run", job, "--dry-run")
    assert done.returncode == 0
    for text in ("rows      3,000\n", "  sql       CREATE TABLE, COMMENT ON before the rows; ALTER TABLE"):
        assert text in done.stdout
    for text in ("preview", "name 1\n", "ready to run"):
        assert text in done.stdout
    assert "--sql shows all" in done.stdout
    assert "ADD PRIMARY KEY" not in done.stdout
    shown = portl_cli("run", job, "--dry-run", "--sql").stdout
    assert "before the rows\n  CREATE TABLE" in shown
    assert "ADD PRIMARY KEY" in shown
    assert "--sql shows all" not in shown
    assert destination.value("SELECT count(*) FROM pg_class WHERE relname = 'users'") == 0


def test_a_dry_run_with_problems_ends_with_1(job: Path, destination: Db) -> None:
    destination.execute("CREATE TABLE users (id int PRIMARY KEY)")
    done = portl_cli("run", job, "--dry-run")
    assert done.returncode == 1
    assert "column 'name': the destination public.users has no such column" in done.stdout
    assert "1 problem: this plan does not run" in done.stdout


def test_a_run_with_problems_ends_with_1_and_says_what_to_do(job: Path, destination: Db) -> None:
    destination.execute("CREATE TABLE users (id int PRIMARY KEY)")
    done = portl_cli("run", job)
    assert done.returncode == 1
    assert "the plan has problems; nothing was written" in done.stderr
    assert "on_schema_change: add_columns" in done.stderr
    assert "Traceback" not in done.stderr


def test_json_puts_one_event_a_line_on_standard_output_and_nothing_else(job: Path) -> None:
    done = portl_cli("run", job, "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    names = ["started", "table_started", "chunk_moved", "batch_committed", "objects_started", "objects_made"]
    assert [e["event"] for e in events] == [*names, "table_done", "done"]
    assert events[-1]["rows_inserted"] == 3000
    assert done.stderr == ""


def test_json_of_a_failure_is_an_event_too(job: Path, tmp_path: Path) -> None:
    done = portl_cli("run", job, "--json", "--set", "source.table=nowhere")
    assert (done.returncode, json.loads(done.stdout.splitlines()[-1])["kind"]) == (1, "SchemaError")
    wrong = portl_cli("run", tmp_path / "none.yaml", "--json")
    assert (wrong.returncode, json.loads(wrong.stdout)["kind"]) == (2, "ConfigError")


def test_json_of_a_dry_run_is_the_plan(job: Path) -> None:
    done = portl_cli("run", job, "--json", "--dry-run")
    plan = json.loads(done.stdout)
    assert (plan["event"], plan["problems"], plan["tables"][0]["rows"]) == ("plan", 0, 3000)


def test_a_wrong_job_file_ends_with_2(job: Path) -> None:
    job.write_text(job.read_text().replace("table: users", "tabel: users", 1))
    done = portl_cli("run", job)
    assert done.returncode == 2
    assert "line 8: source.tabel: unknown key; did you mean `table`?" in done.stderr


def test_a_wrong_call_ends_with_2(job: Path) -> None:
    assert portl_cli("run").returncode == 2
    assert portl_cli("runn", job).returncode == 2
    assert portl_cli("run", job, "--batch-size", "0").returncode == 2
    done = portl_cli("run", job, "--set", "batch_size")
    assert (done.returncode, "expected KEY=VALUE, found 'batch_size'" in done.stderr) == (2, True)


def test_set_and_batch_size_change_the_job(job: Path, destination: Db) -> None:
    done = portl_cli(
        "run", job, "--set", "source.limit=10", "--set", "destination.table=few", "--batch-size", "4", "--json"
    )
    committed = [e for e in map(json.loads, done.stdout.splitlines()) if e["event"] == "batch_committed"]
    assert (committed[0]["first_batch"], committed[-1]["last_batch"]) == (1, 3)
    assert destination.value("SELECT count(*) FROM few") == 10


def test_verbose_shows_sql_and_batches_but_no_secret(job: Path, source: Db) -> None:
    done = portl_cli("run", job, "--verbose")
    assert done.returncode == 0
    assert "COPY (SELECT" in done.stderr
    assert "chunk 1: written batches 1 to 3: 3000 rows" in done.stderr
    assert "chunks 1 to 1 are committed with the table" in done.stderr
    assert source.endpoint.password not in done.stderr + done.stdout


def test_a_stack_trace_appears_with_verbose_alone(job: Path) -> None:
    quiet = portl_cli("run", job, "--set", "source.table=nowhere")
    loud = portl_cli("run", job, "--set", "source.table=nowhere", "--verbose")
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in loud.stderr


def test_a_refused_password_is_told_in_one_breath(job: Path) -> None:
    done = portl_cli("run", job, "--set", "source.password=wrong-password")
    assert done.returncode == 1
    assert "hint: check username and password" in done.stderr
    assert "wrong-password" not in done.stderr + done.stdout


def test_a_value_cannot_drive_the_terminal(job: Path, source: Db) -> None:
    source.execute("TRUNCATE users")
    source.execute(r"INSERT INTO users VALUES (1, E'\x1b[31mred\x07')")
    done = portl_cli("run", job, "--dry-run")
    assert "\x1b" not in done.stdout
    assert r"\x1b[31mred\x07" in done.stdout


def test_ctrl_c_ends_with_130_and_says_what_is_committed(job: Path, source: Db, destination: Db) -> None:
    # Rows that come slowly: the run is in the middle of them when it is interrupted.
    source.execute("CREATE VIEW slow AS SELECT id, name, pg_sleep(0.01)::text AS nap FROM users")
    process = subprocess.Popen(
        command(
            *("run", job, "--set", "source.table=slow", "--set", "batch_size=10", "--set", "destination.table=slow"),
            *("--set", "destination.primary_key=[id]"),  # without a key, a view is copied in one transaction
        ),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not destination.value("SELECT count(*) FROM pg_class WHERE relname = 'slow'"):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted by Ctrl-C" in said
    assert "committed before this:" in said
    assert "Traceback" not in said
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'portl'"
    while time.monotonic() < deadline and destination.value(query):
        time.sleep(0.1)
    assert destination.value(query) == 0


def test_output_that_is_not_read_to_its_end_does_no_harm(job: Path) -> None:
    shell = f"{' '.join(map(repr, command('run', job, '--dry-run')))} | head -1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "plan users\n"
    assert done.stderr == ""


def test_the_version_is_printed() -> None:
    assert portl_cli("--version").stdout == f"portl {portl.__version__}\n"


def test_without_its_extra_the_command_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['click'] = None; from portl.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "the portl command needs its extra: python -m pip install 'portl[cli]'\n",
    )


def test_help_lists_the_commands_of_plugins_too() -> None:
    assert "demo" in portl_cli("--help").stdout


def completions(line: str, folder: Path) -> list[str]:
    """What a shell is offered for the last word of a line, as click's scripts for shells ask for it."""
    words = line.split(" ")
    asked = {"_PORTL_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = portl_cli_in(folder, **asked)
    assert done.returncode == 0
    return done.stdout.split()


def test_a_shell_completes_commands_options_and_job_files(tmp_path: Path) -> None:
    for name in ("users.yaml", "user_orders.yml", "users.csv", ".hidden.yaml"):
        (tmp_path / name).touch()
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "night.yaml").touch()
    assert completions("portl sta", tmp_path) == ["plain,status"]
    assert "plain,--dry-run" in completions("portl run --d", tmp_path)
    for name in ("run", "status", "clean", "verify", "retry-rejected"):
        assert completions(f"portl {name} u", tmp_path) == ["plain,user_orders.yml", "plain,users.yaml"]
    assert completions("portl run ", tmp_path) == ["plain,jobs/", "plain,user_orders.yml", "plain,users.yaml"]
    assert completions("portl run jobs/", tmp_path) == ["plain,jobs/night.yaml"]
    assert completions("portl run jo", tmp_path) == ["dir,jo"]
    assert completions("portl run nowhere/", tmp_path) == []


def test_bash_takes_the_completion_that_the_docs_show(tmp_path: Path) -> None:
    (tmp_path / "users.yaml").touch()
    docs = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    line = next(text for text in docs.split("`") if "bash_source" in text)
    program = tmp_path / "bin" / "portl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command())} "$@"\n')
    program.chmod(0o755)
    asks = "COMP_WORDS=(portl run us); COMP_CWORD=2; _portl_completion portl; echo ${COMPREPLY[@]}"
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", f"{line}\n{asks}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        timeout=60,
        check=True,
    )
    assert done.stdout == "users.yaml\n"
