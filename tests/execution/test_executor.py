"""Chunks moved by an executor of the caller's: threads, processes, a Dask cluster of two workers on this machine."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import attrs
import psycopg_pool
import pytest
from distributed import Client, LocalCluster, get_worker
from psycopg import sql

import portl
from portl.execution.workers import executor as workers
from portl.execution.workers.task import Whereabouts
from portl.testing import memory
from portl.values.secrets import carried
from tests.jobs import Once, job_of, nothing_left, rows, through
from tests.servers import Db

ROWS = 4000
CHUNKS = 8
TABLE = f"CREATE TABLE t AS SELECT g AS id, repeat('r', g % 60) AS y FROM generate_series(1, {ROWS}) AS g"
LIKE_IT = "CREATE TABLE t (id int, y text)"
#: A worker stays at the row 2600, as long as the table ``gate`` is there.
GATE = """
CREATE TABLE gate ();
CREATE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF to_regclass('gate') IS NOT NULL THEN PERFORM pg_sleep(60); END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER waits BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id = 2600) EXECUTE FUNCTION waits();
"""
SLEEPERS = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
FEW = {"attempts": 3, "max_delay": 0.1}


def processes(start: str = "spawn") -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(start))


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with processes() as executor:
        yield executor


@pytest.fixture(scope="module")
def cluster() -> Iterator[Client]:
    with (
        # Any port: with None the scheduler takes 8787, and complains if others have it.
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(params=["threads", "processes", "dask"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "threads":
        with ThreadPoolExecutor(3) as threads:
            yield threads
    elif request.param == "processes":
        yield request.getfixturevalue("pool")
    else:
        yield request.getfixturevalue("cluster").get_executor()


class Counting(Executor):
    """Counts what another executor is given."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.names: list[str] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.names.append(f"{fn.__name__}({', '.join(map(repr, args))})")
        return self._executor.submit(fn, *args, **kwargs)


class Elsewhere(Executor):
    """Runs what it is given in threads, as if that were another process: it gets pickles and no more.

    Args:
        times: how often each chunk is moved, at the same time; the last one to end is the one that tells.
    """

    def __init__(self, times: int = 1) -> None:
        self._times = times
        self._threads = ThreadPoolExecutor(8)
        self.seen: list[bytes] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.seen.append(pickle.dumps(args))
        return self._threads.submit(self._run, fn, self.seen[-1])

    def _run(self, fn: Callable[..., Any], packed: bytes) -> Any:
        found: list[Any] = []
        threads = [threading.Thread(target=lambda: found.append(fn(*pickle.loads(packed)))) for _ in range(self._times)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        answer = found[-1]
        return attrs.evolve(answer, process=0) if isinstance(answer, Whereabouts) else answer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._threads.shutdown(wait, cancel_futures=cancel_futures)


def job(source: Db, destination: Db, **keys: object) -> dict[str, Any]:
    return job_of(source.end(), destination.end(), **{"parallel": 2, "retry": FEW, **keys})


def whole(source: Db, destination: Db) -> None:
    assert rows(destination, "t") == rows(source, "t")
    nothing_left(destination)
    nothing_left(source)


def lines(destination: Db) -> list[tuple[Any, ...]]:
    return destination.execute("SELECT number, state, rows FROM portl.chunks ORDER BY number")


@contextmanager
def once_it_sleeps(destination: Db, then: Callable[[], object]) -> Iterator[None]:
    """Do something from another thread as soon as a worker stays at its row."""

    def watch() -> None:
        for _ in range(1200):
            if destination.execute(SLEEPERS):
                break
            time.sleep(0.05)
        then()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_any_executor_moves_the_chunks(source: Db, destination: Db, executor: Executor) -> None:
    source.execute(TABLE)
    counting = Counting(executor)
    seen: list[portl.Event] = []
    result = portl.migrate(job(source, destination), executor=counting, observers=[seen.append])
    assert (result.rows_read, result.rows_inserted) == (ROWS, ROWS)
    assert [line[1:] for line in lines(destination)] == [("done", ROWS // CHUNKS)] * CHUNKS
    whole(source, destination)
    moved = {event.chunk: event.rows for event in seen if isinstance(event, portl.BatchCommitted)}
    assert moved == dict.fromkeys(range(1, CHUNKS + 1), ROWS // CHUNKS)
    # The first chunk makes the table and the run: that is moved by the run itself.
    expected = [f"move_chunk(<portl: chunk {number} of public.t>)" for number in range(2, CHUNKS + 1)]
    assert sorted(counting.names) == sorted(["look_around(<portl: a trial>)", *expected])
    assert not [event for event in seen if isinstance(event, portl.Warned) and event.where == "executor"]


def test_a_pool_of_a_fork_server_moves_the_chunks_of_a_plan(source: Db, destination: Db) -> None:
    source.execute(TABLE)
    plan = portl.plan(job(source, destination))
    with processes("forkserver") as executor:
        plan.execute(executor=executor)
    whole(source, destination)


def test_workers_read_the_snapshot_of_the_run(source: Db, destination: Db, pool: Executor) -> None:
    source.execute(TABLE)
    first = Once(1, lambda: source.execute("CREATE TABLE before AS TABLE t; UPDATE t SET y = 'new'; DELETE FROM t"))
    portl.migrate(job(source, destination), executor=pool, observers=[first])
    assert rows(destination, "t") == rows(source, "before")


def test_an_executor_with_one_thread_at_work_is_enough(source: Db, destination: Db) -> None:
    source.execute(TABLE)
    with ThreadPoolExecutor(1) as executor:
        portl.migrate(job(source, destination, parallel=4), executor=executor)
    whole(source, destination)


def test_every_strategy_goes_through_workers(source: Db, destination: Db, pool: Executor) -> None:
    source.execute(f"{TABLE}; ALTER TABLE t ADD PRIMARY KEY (id)")
    destination.execute(f"{LIKE_IT}; ALTER TABLE t ADD PRIMARY KEY (id)")
    destination.execute("INSERT INTO t SELECT g, 'old' FROM generate_series(1, 1000) AS g")
    skipped = portl.migrate(job(source, destination, conflict="skip", name="skip"), executor=pool)
    assert (skipped.rows_inserted, skipped.rows_skipped) == (3000, 1000)
    over = portl.migrate(job(source, destination, conflict="overwrite", name="over"), executor=pool)
    assert (over.rows_updated, over.rows_unchanged) == (1000, 3000)
    whole(source, destination)


def test_a_process_that_is_killed_ends_the_run_and_the_next_goes_on(source: Db, destination: Db) -> None:
    source.execute(TABLE)
    destination.execute(LIKE_IT + ";" + GATE)
    with processes() as executor:
        victims = executor._processes

        def kill() -> None:
            for pid in list(victims):
                os.kill(pid, signal.SIGKILL)

        with once_it_sleeps(destination, kill), pytest.raises(portl.OperationError) as caught:
            portl.migrate(job(source, destination), executor=executor)
    assert caught.value.message.startswith("the executor has lost chunk ")
    assert "BrokenProcessPool" in caught.value.message
    assert caught.value.committed is not None
    assert caught.value.committed.rows_read == destination.value("SELECT count(*) FROM t")
    nothing_left(destination)
    assert destination.execute("SELECT state FROM portl.migrations") == [("failed",)]
    assert destination.execute("SELECT coalesce(sum(rows), 0) FROM portl.chunks") == destination.execute(
        "SELECT count(*) FROM t"
    )
    destination.execute("DROP TABLE gate")
    with processes() as executor:
        result = portl.migrate(job(source, destination), executor=executor)
    assert (result.rows_read, result.tables[0].attempt) == (ROWS, 2)
    whole(source, destination)


#: A worker of the first run stays at the row 2600 until the gate is gone.
LOOP = """
CREATE TABLE gate ();
CREATE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  WHILE current_setting('application_name') = 'portl first' AND EXISTS (SELECT FROM pg_class WHERE relname = 'gate')
  LOOP
    PERFORM pg_sleep(0.05);
  END LOOP;
  RETURN NEW;
END $$;
CREATE TRIGGER waits BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id = 2600) EXECUTE FUNCTION waits();
"""


def test_workers_that_outlive_their_run_write_nothing_once_another_has_taken_it_over(
    source: Db, destination: Db, tmp_path: Path
) -> None:
    source.execute(TABLE)
    destination.execute(LIKE_IT + ";" + LOOP)
    path = tmp_path / "job.json"
    first = job_of(source.end(), destination.end(application_name="portl first"), retry=FEW)
    path.write_text(json.dumps(first), encoding="utf-8")
    call = [sys.executable, str(Path(__file__).parents[2] / "examples" / "process_pool.py"), str(path)]
    with subprocess.Popen(call, start_new_session=True) as program:
        try:
            with once_it_sleeps(destination, program.kill):
                program.wait()
            result = portl.migrate(job(source, destination))
            assert (result.rows_read, result.tables[0].attempt) == (ROWS, 2)
            assert rows(destination, "t") == rows(source, "t")
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'portl first'"
            assert destination.value(waiting) >= 1
            destination.execute("DROP TABLE gate")
            for _ in range(200):
                if not destination.value(waiting):
                    break
                time.sleep(0.05)
            assert destination.value(waiting) == 0
            assert rows(destination, "t") == rows(source, "t")
        finally:
            os.killpg(program.pid, signal.SIGKILL)


def test_dask_hands_the_chunks_of_a_killed_worker_to_another(source: Db, destination: Db, cluster: Client) -> None:
    source.execute(TABLE)
    destination.execute(LIKE_IT + ";" + GATE)
    before = cluster.run(os.getpid)

    def kill() -> None:
        destination.execute("DROP TABLE gate")
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)

    with once_it_sleeps(destination, kill):
        result = portl.migrate(job(source, destination), executor=cluster.get_executor())
    assert set(cluster.run(os.getpid).values()).isdisjoint(before.values())
    assert (result.rows_read, result.tables[0].attempt) == (ROWS, 1)
    assert rows(destination, "t") == rows(source, "t")
    destination.execute(f"SELECT pg_terminate_backend(pid) FROM ({SLEEPERS}) AS s")
    whole(source, destination)


@pytest.mark.parametrize("key", ["", "; ALTER TABLE t ADD PRIMARY KEY (id)"], ids=["no key", "key"])
def test_a_chunk_that_two_workers_move_at_once_arrives_once(source: Db, destination: Db, key: str) -> None:
    source.execute(TABLE + key)
    with Elsewhere(times=2) as executor:
        result = portl.migrate(job(source, destination), executor=executor)
    assert (result.rows_read, result.rows_inserted) == (ROWS, ROWS)
    whole(source, destination)


def test_a_worker_that_comes_after_the_end_of_the_run_writes_nothing(source: Db, destination: Db) -> None:
    source.execute(TABLE)
    with Elsewhere() as executor, pytest.raises(portl.Error, match="enough"):

        def stop(event: portl.Event) -> None:
            if isinstance(event, portl.BatchCommitted) and event.chunk > 1:
                raise portl.Error("enough")

        portl.migrate(job(source, destination), executor=executor, observers=[stop])
    before = rows(destination, "t")
    number, bounds = destination.execute("SELECT number, bounds FROM portl.chunks WHERE state = 'pending'")[-1]
    task = pickle.loads(executor.seen[1])[0].unpacked()
    task.source._shared.snapshot = None  # that of the run went with it
    outcome = attrs.evolve(task, line=portl.ChunkLine(number=number, bounds=bounds)).carry_out()
    assert isinstance(outcome.error, portl.Superseded), outcome
    assert outcome.error.message == "this attempt at 'faults -> public.t' has ended: it is failed"
    assert rows(destination, "t") == before


@pytest.mark.parametrize("kind", ["threads", "processes", "dask"])
def test_a_cancelled_run_ends_the_statements_of_its_workers(
    source: Db, destination: Db, kind: str, request: pytest.FixtureRequest
) -> None:
    source.execute(TABLE)
    destination.execute(LIKE_IT + ";" + GATE)
    token = portl.CancelToken()
    executors: dict[str, Callable[[], Executor]] = {
        "threads": lambda: ThreadPoolExecutor(2),
        "processes": lambda: request.getfixturevalue("pool"),
        "dask": lambda: request.getfixturevalue("cluster").get_executor(),
    }
    executor = executors[kind]()
    with once_it_sleeps(destination, token.cancel), pytest.raises(portl.Cancelled, match=r"^the run was cancelled"):
        portl.migrate(job(source, destination), executor=executor, cancel=token)
    nothing_left(destination)
    nothing_left(source)
    assert destination.execute("SELECT state FROM portl.migrations") == [("cancelled",)]
    destination.execute("DROP TABLE gate")
    result = portl.migrate(job(source, destination), executor=executor)
    assert (result.rows_read, result.tables[0].attempt) == (ROWS, 2)
    whole(source, destination)
    if kind == "threads":
        executor.shutdown()


def test_a_row_that_a_worker_is_refused_is_named_and_the_rows_before_it_are_kept(
    source: Db, destination: Db, executor: Executor
) -> None:
    source.execute(TABLE)
    destination.execute(LIKE_IT + "; ALTER TABLE t ADD CHECK (id <> 2950)")
    with pytest.raises(portl.DataError, match=r"row 450 of chunk 6 \(batch 5\) with id = 2950") as caught:
        portl.migrate(job(source, destination), executor=executor)
    assert (caught.value.chunk, caught.value.values) == (6, {"id": "2950", "y": "r" * 10})
    assert ("6", "partial", 400) in [(str(number), state, count) for number, state, count in lines(destination)]
    assert caught.value.committed is not None
    assert caught.value.committed.rows_read == destination.value("SELECT count(*) FROM t")
    nothing_left(destination)
    destination.execute("ALTER TABLE t DROP CONSTRAINT t_id_check")
    portl.migrate(job(source, destination), executor=executor)
    whole(source, destination)


def test_rows_that_workers_are_refused_are_quarantined(
    source: Db, destination: Db, executor: Executor, tmp_path: Path
) -> None:
    source.execute(TABLE)
    destination.execute(LIKE_IT + "; ALTER TABLE t ADD CHECK (id % 1000 <> 7)")
    seen: list[portl.Event] = []
    file = tmp_path / "rejected.jsonl"
    config = job(source, destination, on_error="quarantine", quarantine={"file": str(file)})
    result = portl.migrate(config, executor=executor, observers=[seen.append])
    assert (result.rows_inserted, result.rows_rejected) == (ROWS - 4, 4)
    assert destination.value("SELECT count(*) FROM t__rejected") == 4
    assert len(file.read_text().splitlines()) == 4
    assert sorted(event.chunk for event in seen if isinstance(event, portl.RowsRejected)) == [1, 3, 5, 7]


def test_quarantined_rows_by_workers_count_towards_the_limit_of_the_run(
    source: Db, destination: Db, pool: Executor
) -> None:
    source.execute(TABLE)
    destination.execute(LIKE_IT + "; ALTER TABLE t ADD CHECK (id % 500 <> 7)")
    config = job(source, destination, on_error="quarantine", quarantine={"limit": 3})
    with pytest.raises(portl.OperationError, match="more than 3 rows rejected"):
        portl.migrate(config, executor=pool)
    nothing_left(destination)


def test_a_failure_that_passes_is_tried_again_by_a_worker(source: Db, destination: Db, executor: Executor) -> None:
    source.execute(TABLE)
    destination.execute(
        LIKE_IT
        + """;
        CREATE SEQUENCE calls;
        CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF nextval('calls') = 1 THEN RAISE EXCEPTION 'once more' USING ERRCODE = '40001'; END IF;
          RETURN NEW;
        END $$;
        CREATE TRIGGER fails BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id = 2600) EXECUTE FUNCTION fails()"""
    )
    seen: list[portl.Event] = []
    result = portl.migrate(job(source, destination), executor=executor, observers=[seen.append])
    assert result.tables[0].retries == 1
    (retried,) = [event for event in seen if isinstance(event, portl.Retrying)]
    assert (retried.what, "once more" in retried.error) == ("chunk 6 of public.t", True)
    whole(source, destination)


@pytest.mark.parametrize("after", [True, False], ids=["carried out", "not carried out"])
def test_a_commit_of_a_worker_whose_answer_is_lost_is_looked_up(
    source: Db, destination: Db, after: bool, pool: Executor
) -> None:
    source.execute(TABLE)
    with through(destination) as (proxy, there):
        third = Once(3, lambda: proxy.cut_at_commit(after=after))
        config = job_of(source.end(), there, parallel=2)
        result = portl.migrate(config, executor=pool, observers=[third])
        assert proxy.cut_commits == 1
    assert (result.rows_read, result.rows_inserted) == (ROWS, ROWS)
    whole(source, destination)


PASSWORD = "k9 'Tr\\ee?/&=% ü"


@pytest.fixture
def role(source: Db, destination: Db) -> Iterator[str]:
    """A role with a password of its own, at both sides."""
    source.execute("DROP ROLE IF EXISTS portl_worker")
    source.connection.execute(sql.SQL("CREATE ROLE portl_worker LOGIN PASSWORD {}").format(sql.Literal(PASSWORD)))
    source.execute(f"{TABLE}; ALTER TABLE t OWNER TO portl_worker")
    name = destination.connection.info.dbname
    destination.execute(f"{LIKE_IT}; ALTER TABLE t OWNER TO portl_worker; GRANT ALL ON DATABASE {name} TO portl_worker")
    yield "portl_worker"
    for db in (source, destination):
        db.execute("DROP OWNED BY portl_worker CASCADE")
    source.execute("DROP ROLE portl_worker")


def leaks(text: str) -> list[str]:
    """Return in which forms the password is in a text."""
    return [form for form in (PASSWORD, PASSWORD[:6], repr(PASSWORD)[1:-1], "Tr\\ee", "Tr\\\\ee") if form in text]


def test_a_cluster_shows_no_password(
    source: Db, destination: Db, role: str, cluster: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither what a scheduler knows of its tasks, nor its logs and those of its workers, also of a task that fails."""
    destination.execute("ALTER TABLE t ADD CHECK (id <> 2950)")
    scheduler = cluster.cluster.scheduler  # type: ignore[union-attr]
    shown: list[str] = []

    def look(event: portl.Event) -> None:
        for key, state in scheduler.tasks.items():
            shown.append(f"{key!r} {state!r} {state.run_spec!r} {pickle.dumps(state.run_spec)!r}")

    end = {"username": role, "password": PASSWORD}
    config = job_of(source.end(**end), destination.end(**end), parallel=2, retry=FEW)
    caplog.set_level("DEBUG")
    with pytest.raises(portl.DataError, match=r"id = 2950") as caught:
        portl.migrate(config, executor=cluster.get_executor(), observers=[look])
    # A task that ends with an exception is logged by Dask, with its arguments.
    task = cluster.submit(_break, next(iter(_packed_tasks(source, destination, end))), pure=False)
    with pytest.raises(ZeroDivisionError):
        task.result()
    shown += [repr(cluster.get_worker_logs()), repr(cluster.get_scheduler_logs()), repr(scheduler.transition_log)]
    shown += [caplog.text, repr(caught.value), str(caught.value), repr(vars(caught.value))]
    text = "\n".join(shown)
    assert "move_chunk" in text
    assert "Compute Failed" in text
    assert leaks(text) == []


def _break(task: object) -> None:
    get_worker()
    raise ZeroDivisionError


def _packed_tasks(source: Db, destination: Db, end: dict[str, str]) -> Iterator[Any]:
    with Elsewhere() as executor:
        config = job_of(source.end(**end), destination.end(**end), parallel=2, name="tasks", retry=FEW)
        with pytest.raises(portl.DataError):
            portl.migrate(config, executor=executor)
        for packed in executor.seen:
            yield pickle.loads(packed)[0]


def test_a_task_holds_the_password_and_does_not_show_it(source: Db, destination: Db, role: str) -> None:
    end = {"username": role, "password": PASSWORD}
    with Elsewhere() as executor:
        portl.migrate(job_of(source.end(**end), destination.end(**end), parallel=2), executor=executor)
    assert rows(destination, "t") == rows(source, "t")
    assert len(executor.seen) == CHUNKS
    for packed in executor.seen:
        assert leaks(packed.decode("latin-1")) == []
        assert PASSWORD.encode() not in packed
        (task,) = pickle.loads(packed)
        assert repr(task).startswith("<portl: ")
        task = task.unpacked()
        assert task.source.config.password.reveal() == PASSWORD
        assert leaks(repr(task)) == []
        # Packed anew by itself, without its task, it leaves the password behind.
        with pytest.raises(ValueError, match="passwords are left out of pickles"):
            pickle.loads(pickle.dumps(task.source))._database.label  # noqa: B018


def refusal(reads: Db, writes: Db, executor: Executor, **handed_in: Any) -> str:
    """Return why an executor is refused; insist that nothing was touched."""
    with pytest.raises(portl.ConfigError) as caught:
        portl.migrate(job(reads, writes), executor=executor, **handed_in)
    assert writes.value("SELECT to_regclass('t')") is None
    assert writes.value("SELECT to_regnamespace('portl')") is None
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize("end", ["source", "destination"])
def test_a_connection_that_was_handed_in_goes_to_no_worker(source: Db, destination: Db, end: str) -> None:
    source.execute(TABLE)
    supplied = {"source": source, "destination": destination}[end].connection
    with ThreadPoolExecutor(2) as executor:
        found = refusal(source, destination, executor, **{end: supplied})
    assert found == (
        f"executor: {end} (the caller's connection) cannot be opened a second time: name it in the job instead of "
        "handing in a connection, or leave `executor` out"
    )


@pytest.mark.parametrize("end", ["source", "destination"])
def test_a_pool_that_was_handed_in_goes_to_threads_alone(
    source: Db, destination: Db, end: str, pool: Executor, cluster: Client
) -> None:
    source.execute(TABLE)
    db = {"source": source, "destination": destination}[end]
    keys: dict[str, Any] = {"host": db.endpoint.host, "port": db.endpoint.port, "user": db.endpoint.user}
    keys |= {"password": db.endpoint.password, "dbname": db.connection.info.dbname}
    with psycopg_pool.ConnectionPool(kwargs=keys, min_size=0, max_size=4, open=True) as supplied:
        for executor in (pool, cluster.get_executor()):
            found = refusal(source, destination, executor, **{end: supplied})
            assert found.startswith("executor: chunks cannot go to another process: TypeError: a ")
            assert "handing in connections" in found
        with ThreadPoolExecutor(2) as threads:
            handed: dict[str, Any] = {end: supplied}
            portl.migrate(job(source, destination), executor=threads, **handed)
    assert rows(destination, "t") == rows(source, "t")


class Odd(Executor):
    """Answers every trial in one way."""

    answers: ClassVar[dict[str, Any]] = {
        "version": Whereabouts(version="0.0.0", host="far", process=1),
        "obstacle": Whereabouts(version=portl.__version__, host="far", process=1, obstacle="a trial cannot be read"),
        "error": MemoryError("full"),
    }

    def __init__(self, kind: str) -> None:
        self._answer = self.answers[kind]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if isinstance(self._answer, Exception):
            future.set_exception(self._answer)
        else:
            future.set_result(self._answer)
        return future


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("version", f"portl is 0.0.0 on far, and {portl.__version__} here"),
        ("obstacle", "a trial cannot be read"),
        ("error", "it runs nothing: MemoryError: full"),
    ],
)
def test_an_executor_that_is_not_fit_is_refused(source: Db, destination: Db, kind: str, words: str) -> None:
    source.execute(TABLE)
    assert refusal(source, destination, Odd(kind)).startswith(f"executor: {words}")


def test_an_executor_that_was_shut_down_is_refused(source: Db, destination: Db) -> None:
    source.execute(TABLE)
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    assert refusal(source, destination, executor).startswith("executor: it takes nothing: RuntimeError: ")


def test_what_is_in_the_memory_of_a_process_stays_there(pool: Executor) -> None:
    store = memory.database("executors")
    store.create("t", [memory.column("id", "int")], key=["id"])
    store.insert("t", [(number,) for number in range(200)])
    try:
        end = {"type": "memory", "database": "executors"}
        config = {"source": {**end, "table": "t"}, "destination": {**end, "table": "u"}, "chunk_rows": 50}
        with pytest.raises(portl.ConfigError, match="an in-memory database exists in one process only"):
            portl.migrate(config, executor=pool)
        assert "u" not in store.tables
        with ThreadPoolExecutor(2) as threads:
            counting = Counting(threads)
            assert portl.migrate(config, executor=counting).rows_inserted == 200
        assert len(counting.names) == 4
        assert sorted(store.rows("u")) == store.rows("t")
    finally:
        memory.forget("executors")


@pytest.mark.parametrize("ended", [False, True], ids=["waited for", "cancelled"])
def test_an_executor_that_is_busy_is_waited_for_with_a_word(
    source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    monkeypatch.setattr(workers, "PATIENCE_SECONDS", 0.3)
    source.execute(TABLE)
    free, token = threading.Event(), portl.CancelToken()
    warned: list[portl.Warned] = []

    def look(event: portl.Event) -> None:
        if isinstance(event, portl.Warned) and event.where == "executor":
            warned.append(event)
            (token.cancel if ended else free.set)()

    with ThreadPoolExecutor(2) as executor:
        for _ in range(2):
            executor.submit(free.wait)
        try:
            if ended:
                with pytest.raises(portl.Cancelled):
                    portl.migrate(job(source, destination), executor=executor, observers=[look], cancel=token)
                assert destination.value("SELECT to_regclass('t')") is None
            else:
                portl.migrate(job(source, destination), executor=executor, observers=[look], cancel=token)
                whole(source, destination)
        finally:
            free.set()
    (told,) = warned
    assert told.message.startswith("waiting for the executor, which has run no task for ")


@pytest.mark.parametrize("text", ["", "x", "ü\udcff\0'\\", "a" * 1000])
def test_a_secret_that_is_carried_arrives_whole_and_looks_otherwise_each_time(text: str) -> None:
    with carried():
        one, two = (pickle.dumps(portl.Secret(text)) for _ in range(2))
    assert pickle.loads(one).reveal() == pickle.loads(two).reveal() == text
    assert (one != two) or not text
    if len(text) > 3:
        assert text.encode("utf-8", "surrogatepass") not in one
    with carried():
        left = pickle.dumps(pickle.loads(pickle.dumps(portl.Secret(text))))
    assert pickle.loads(left).reveal() == text


@pytest.mark.parametrize(
    ("keys", "why"),
    [({"atomic": True}, "the job is one transaction"), ({"ledger": {"mode": "off"}}, "")],
    ids=["one transaction", "no ledger"],
)
def test_what_is_not_cut_into_chunks_is_moved_here_with_a_word(
    source: Db, destination: Db, pool: Executor, keys: dict[str, Any], why: str
) -> None:
    source.execute(TABLE)
    counting = Counting(pool)
    seen: list[portl.Event] = []
    portl.migrate(job(source, destination, **keys), executor=counting, observers=[seen.append])
    assert counting.names == []
    (warned,) = [e for e in seen if isinstance(e, portl.Warned) and e.where == "executor"]
    assert warned.message.startswith(f"rows are moved by this process, not by the executor: {why}")
    assert rows(destination, "t") == rows(source, "t")


def test_one_chunk_needs_no_worker(source: Db, destination: Db, pool: Executor) -> None:
    source.execute(TABLE)
    counting = Counting(pool)
    portl.migrate(job(source, destination, chunk_rows=ROWS), executor=counting)
    assert counting.names == []
    whole(source, destination)


def test_of_many_tables_those_with_several_chunks_go_to_the_executor(
    source: Db, destination: Db, executor: Executor
) -> None:
    source.execute(
        f"{TABLE}; ALTER TABLE t ADD PRIMARY KEY (id);"
        " CREATE TABLE u AS SELECT id, y AS x FROM t; CREATE INDEX ON u (x); CREATE TABLE small AS SELECT 1 AS n;"
        " ALTER TABLE u ADD FOREIGN KEY (id) REFERENCES t"
    )
    config = {
        "source": source.end(),
        "destination": destination.end(),
        "tables": "all",
        "parallel": 2,
        "retry": FEW,
        "chunk_rows": ROWS // 4,
    }
    counting = Counting(executor)
    result = portl.migrate(config, executor=counting)
    chunks = [name for name in counting.names if name.startswith("move_chunk")]
    assert len(chunks) == 8
    assert {name.rsplit(" ", 1)[-1] for name in chunks} == {"public.t>)", "public.u>)"}
    assert result.rows_inserted == 2 * ROWS + 1
    for table in ("t", "u", "small"):
        assert rows(destination, table) == rows(source, table)
    keys = "contype IN ('p', 'f') AND conrelid IN ('t'::regclass, 'u'::regclass)"
    assert destination.value(f"SELECT count(*) FROM pg_constraint WHERE {keys}") == 2
    nothing_left(destination)
    nothing_left(source)


def test_chunks_of_many_tables_that_are_moved_twice_arrive_once(source: Db, destination: Db) -> None:
    source.execute(f"{TABLE}; CREATE TABLE u AS TABLE t")
    config = {"source": source.end(), "destination": destination.end(), "tables": "all", "chunk_rows": ROWS // 4}
    with Elsewhere(times=2) as twice:
        portl.migrate({**config, "parallel": 2, "retry": FEW}, executor=twice)
    for table in ("t", "u"):
        assert rows(destination, table) == rows(source, table)


def test_nothing_is_imported_for_executors_without_one() -> None:
    code = "import portl.execution.engine, sys; print('portl.execution.workers.executor' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("name", ["process_pool", "dask_cluster"])
def test_the_example_runs_as_a_program(source: Db, destination: Db, name: str, tmp_path: Path) -> None:
    source.execute(TABLE)
    path = tmp_path / "job.json"  # JSON is YAML
    path.write_text(json.dumps(job(source, destination)), encoding="utf-8")
    call = [sys.executable, str(Path(__file__).parents[2] / "examples" / f"{name}.py"), str(path)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.stdout == f"{ROWS:,} rows read, {ROWS:,} inserted\n", done.stderr
    whole(source, destination)
