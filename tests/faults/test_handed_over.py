"""A run whose process dies between its last COMMIT and the moment its caller knows: no row is lost, none comes twice.

The process is killed on purpose before and after each step of the end (``portl.execution.attempts``), and the same job
is run again.
"""

from __future__ import annotations

import json
import textwrap
from typing import Any

import pytest

import portl
from tests.commands import portl_cli, python
from tests.servers import Db

#: Runs a job in a process that kills itself before or after the call that is named.
CHILD = textwrap.dedent("""
    import json, os, signal, sys
    import portl
    from portl_postgres.destination.destination import PostgresDestination
    from portl_postgres.destination.writing.writer import PostgresWriter
    from portl_postgres.ledger.ledger import PostgresLedger
    from portl_postgres.source.source import PostgresSource

    order = json.loads(sys.stdin.read())
    classes = {
        "finish": PostgresWriter, "source.close": PostgresSource, "acknowledge": PostgresLedger,
        "unlock": PostgresLedger, "destination.close": PostgresDestination,
    }

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    step, moment = order["step"], order["moment"]
    if step in classes:
        cls, name = classes[step], step.split(".")[-1]
        real = getattr(cls, name)
        def call(self, *arguments, **keys):
            if moment == "before":
                die()
            real(self, *arguments, **keys)
            die()
        setattr(cls, name, call)

    def told(event):
        if step == "done" and isinstance(event, portl.Done):
            die()

    portl.migrate(order["job"], observers=[told])
    print("returned")
""")

#: The steps of the end up to the word that the outcome is known, in their order.
STEPS = [
    ("finish", "before"),
    ("finish", "after"),
    ("done", "amid"),
    ("source.close", "before"),
    ("source.close", "after"),
    ("acknowledge", "before"),
]
KEYED = "CREATE TABLE t (id int PRIMARY KEY, n int)"
KEYLESS = "CREATE TABLE t (id int, n int)"
ROWS = 3000
SUM = {"strategy": "merge", "columns": {"n": "sum"}}
HARMFUL = [(KEYLESS, "fail"), (KEYED, "fail"), (KEYED, SUM)]


def job_of(source: Db, destination: Db, conflict: object, **keys: object) -> dict[str, Any]:
    return {
        "name": "nightly",
        "source": source.end(table="t"),
        "destination": destination.end(table="t"),
        "conflict": conflict,
        "chunk_rows": 1000,
        **keys,
    }


def killed(job: dict[str, Any], step: str, moment: str) -> bool:
    """Run a job in a process that kills itself; return whether it came so far."""
    order = json.dumps({"job": job, "step": step, "moment": moment})
    done = python(CHILD, text=order)
    assert done.returncode == -9 or done.stdout == "returned\n", done.stderr
    return done.returncode == -9


def filled(source: Db, destination: Db, table: str) -> None:
    source.execute(table)
    source.execute(f"INSERT INTO t SELECT g, g % 7 FROM generate_series(1, {ROWS}) AS g")
    destination.execute(table)


def sums(db: Db) -> tuple[Any, ...]:
    """Return the number of rows and the sum over them."""
    (found,) = db.execute("SELECT count(*), sum(n) FROM t")
    return found


@pytest.mark.parametrize(("step", "moment"), STEPS)
@pytest.mark.parametrize(("table", "conflict"), HARMFUL)
def test_a_run_that_nobody_was_told_of_is_reported_and_not_done_again(
    source: Db, destination: Db, table: str, conflict: object, step: str, moment: str
) -> None:
    filled(source, destination, table)
    job = job_of(source, destination, conflict)
    for stop in ((step, moment), ("done", "amid")):
        assert killed(job, *stop)
        assert sums(destination)[0] == ROWS
    events: list[portl.Event] = []
    result = portl.migrate(job, observers=[events.append])
    assert sums(destination) == sums(source)
    assert result.rows_read == result.rows_inserted == ROWS
    assert result.reported
    (said,) = [event.message for event in events if isinstance(event, portl.Warned)]
    assert said.endswith("its result was never delivered: it is reported now, and nothing is copied")


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("table", "conflict"), [(KEYLESS, "fail"), (KEYED, SUM)])
def test_a_run_that_somebody_was_told_of_is_done_again(
    source: Db, destination: Db, table: str, conflict: object, moment: str
) -> None:
    filled(source, destination, table)
    job = job_of(source, destination, conflict)
    assert killed(job, "destination.close", moment)
    assert not portl.migrate(job).reported
    rows, total = sums(source)
    assert sums(destination) == (2 * rows if table == KEYLESS else rows, 2 * total)


def test_a_reported_run_is_reported_once(source: Db, destination: Db) -> None:
    filled(source, destination, KEYLESS)
    job = job_of(source, destination, "fail")
    assert killed(job, "done", "amid")
    plan = portl.plan(job)
    assert [f.message for f in plan.warnings if "never delivered" in f.message] != []
    assert portl.migrate(job).reported
    assert not portl.migrate(job).reported
    assert sums(destination)[0] == 2 * ROWS


@pytest.mark.parametrize("conflict", ["overwrite", "skip", {"strategy": "merge", "columns": {"n": "greatest"}}])
def test_where_it_does_no_harm_the_job_simply_runs(source: Db, destination: Db, conflict: object) -> None:
    filled(source, destination, KEYED)
    job = job_of(source, destination, conflict)
    assert killed(job, "done", "amid")
    source.execute("INSERT INTO t VALUES (0, 0)")
    result = portl.migrate(job)
    assert not result.reported
    assert (result.rows_inserted, sums(destination)) == (1, sums(source))


def test_one_transaction_for_everything_is_reported_too(source: Db, destination: Db) -> None:
    filled(source, destination, KEYLESS)
    job = job_of(source, destination, "fail", atomic=True)
    assert killed(job, "done", "amid")
    assert portl.migrate(job).reported
    assert sums(destination) == sums(source)


@pytest.mark.parametrize("change", ["DROP TABLE t", "TRUNCATE t", "DROP TABLE t; CREATE TABLE t (id int, n int)"])
def test_rows_that_are_gone_again_are_moved_again(source: Db, destination: Db, change: str) -> None:
    filled(source, destination, KEYLESS)
    job = job_of(source, destination, "fail")
    assert killed(job, "done", "amid")
    destination.execute(change)
    assert not portl.migrate(job).reported
    assert sums(destination) == sums(source)


def test_another_job_of_the_same_name_is_not_taken_for_the_finished_one(source: Db, destination: Db) -> None:
    filled(source, destination, KEYLESS)
    assert killed(job_of(source, destination, "fail"), "done", "amid")
    other = job_of(source, destination, "fail")
    other["source"]["where"] = "id > 2000"
    assert not portl.migrate(other).reported
    assert sums(destination)[0] == ROWS + 1000


def test_restart_does_it_again(source: Db, destination: Db) -> None:
    filled(source, destination, KEYLESS)
    job = job_of(source, destination, "fail")
    assert killed(job, "done", "amid")
    assert not portl.migrate(job, restart=True).reported
    assert sums(destination)[0] == 2 * ROWS


def test_what_the_job_verifies_is_compared_again(source: Db, destination: Db) -> None:
    filled(source, destination, KEYLESS)
    job = job_of(source, destination, "fail", verify="checksum")
    assert killed(job, "done", "amid")
    result = portl.migrate(job)
    assert result.reported
    assert result.verification is not None
    assert result.verification.equal


def test_a_caller_who_was_told_by_an_error_is_told(source: Db, destination: Db) -> None:
    filled(source, destination, KEYLESS)
    job = job_of(source, destination, "fail", verify="count")
    destination.execute("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    destination.execute("CREATE TRIGGER t BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id = 7) EXECUTE FUNCTION f()")
    with pytest.raises(portl.VerificationFailed, match="1 rows missing"):
        portl.migrate(job)
    (run,) = portl.status(job).runs
    assert (run.state, run.acknowledged) == (portl.RunState.DONE, True)


def test_an_observer_that_fails_leaves_the_outcome_untold(source: Db, destination: Db) -> None:
    filled(source, destination, KEYLESS)
    job = job_of(source, destination, "fail")

    def closed(event: portl.Event) -> None:
        if isinstance(event, portl.Done):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        portl.migrate(job, observers=[closed])
    assert portl.migrate(job).reported
    assert sums(destination) == sums(source)


def test_a_run_with_an_id_is_done_once(source: Db, destination: Db) -> None:
    filled(source, destination, KEYLESS)
    job = job_of(source, destination, "fail")
    first = portl.migrate(job, run_id="2024-01-01 'ü'")
    events: list[portl.Event] = []
    again = portl.migrate({**job, "run_id": "2024-01-01 'ü'"}, observers=[events.append])
    assert (first.reported, again.reported) == (False, True)
    assert (again.rows_read, again.tables[0].run) == (ROWS, first.tables[0].run)
    (said,) = [event.message for event in events if isinstance(event, portl.Warned)]
    assert said.startswith("the run \"2024-01-01 'ü'\" of ")
    assert said.endswith(" is already done: its result is reported, and nothing is copied")
    assert not portl.migrate(job, run_id="2024-01-02").reported
    # An earlier id stays known after later runs.
    assert portl.migrate(job, run_id="2024-01-01 'ü'").tables[0].run == first.tables[0].run
    assert sums(destination)[0] == 2 * ROWS


def test_an_id_holds_for_overwrite_and_for_a_job_that_has_changed(source: Db, destination: Db) -> None:
    filled(source, destination, KEYED)
    job = job_of(source, destination, "overwrite")
    portl.migrate(job, run_id="x")
    source.execute("UPDATE t SET n = 100")
    changed = job_of(source, destination, "overwrite")
    changed["source"]["where"] = "id > 7"
    events: list[portl.Event] = []
    assert portl.migrate(changed, run_id="x", observers=[events.append]).reported
    (said,) = [event.message for event in events if isinstance(event, portl.Warned)]
    assert said.endswith("; the job has changed since: source.where")
    assert destination.value("SELECT max(n) FROM t") == 6


def test_an_interrupted_run_with_an_id_is_resumed(source: Db, destination: Db) -> None:
    filled(source, destination, KEYLESS)
    job = job_of(source, destination, "fail", run_id="a")
    assert killed(job, "finish", "before")
    result = portl.migrate(job)
    assert (result.reported, result.tables[0].attempt) == (False, 2)
    assert portl.migrate(job).reported
    assert sums(destination) == sums(source)


def test_whoever_resumes_a_run_gives_it_their_id(source: Db, destination: Db) -> None:
    filled(source, destination, KEYLESS)
    job = job_of(source, destination, "fail")
    assert killed({**job, "run_id": "a"}, "finish", "before")
    portl.migrate(job, run_id="b")
    assert portl.status(job).runs[0].idempotency_key == "b"
    assert portl.migrate(job, run_id="b").reported


def test_an_id_without_a_ledger_is_a_problem(source: Db, destination: Db) -> None:
    filled(source, destination, KEYED)
    job = job_of(source, destination, "overwrite", run_id="a", ledger={"mode": "off"})
    with pytest.raises(portl.PlanError, match="run_id: there is no ledger to record it"):
        portl.migrate(job)
    assert sums(destination) == (0, None)


def test_an_empty_id_is_refused(source: Db, destination: Db) -> None:
    with pytest.raises(portl.ConfigError, match="run_id: expected a string, found an empty one"):
        portl.migrate(job_of(source, destination, "fail", run_id=" "))


def test_the_command_line_prints_first_and_acknowledges_then(source: Db, destination: Db, tmp_path: Any) -> None:
    filled(source, destination, KEYLESS)
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job_of(source, destination, "fail")))
    code = (
        "import os, signal, sys\n"
        "from portl_postgres.ledger.ledger import PostgresLedger\n"
        "from portl.cli import main\n"
        "PostgresLedger.acknowledge = lambda self, run: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"sys.argv = ['portl', 'run', {str(path)!r}]\n"
        "main()\n"
    )
    first = python(code)
    assert first.returncode == -9
    assert "3,000 rows read, 3,000 inserted" in first.stdout
    second = portl_cli("run", path, "--run-id", "x")
    assert second.returncode == 0
    assert "never delivered" in second.stderr
    assert "3,000 rows read, 3,000 inserted" in second.stdout
    assert sums(destination) == sums(source)
