"""How rows are delivered, looked at with distrust: what is kept, counted, tried again and told when something fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import portl
from portl.execution.chunks import load as chunkload
from tests.jobs import Once, job_of, nothing_left, rows, through
from tests.servers import Db

ROWS = 2000
TABLE = f"CREATE TABLE t AS SELECT g AS id, repeat('r', g % 60) AS y FROM generate_series(1, {ROWS}) AS g"
KEYED = f"{TABLE}; ALTER TABLE t ADD PRIMARY KEY (id)"
#: A trigger that fails once, whatever is rolled back: sequences are not.
ONCE = """
CREATE SEQUENCE calls;
CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF nextval('calls') {when} THEN RAISE EXCEPTION 'once more, please' USING ERRCODE = '{code}'; END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER fails BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION fails();
"""


#: Ends all sessions of the database but this one.
CUT_OFF = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
#: The main worker stays at the second chunk for a while.
SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id = 600) EXECUTE FUNCTION slow();
"""


def once(when: str, code: str = "40001") -> str:
    return ONCE.format(when=when, code=code)


def counts(result: portl.Result) -> tuple[int, int, int]:
    return result.rows_read, result.rows_inserted, result.rows_rejected


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("after", [True, False], ids=["carried out", "not carried out"])
def test_a_last_commit_whose_answer_is_lost_does_not_make_the_run_begin_anew(
    source: Db, destination: Db, after: bool, parallel: int
) -> None:
    source.execute(TABLE)
    with through(destination) as (proxy, there):
        last = Once(4, lambda: proxy.cut_at_commit(after=after))
        result = portl.migrate(job_of(source.end(), there, parallel=parallel), observers=[last])
        assert proxy.cut_commits == 1
    assert rows(destination, "t") == rows(source, "t")
    assert counts(result) == (ROWS, ROWS, 0)
    (run,) = portl.status(job_of(source.end(), destination.end())).runs
    assert run.state.value == "done"
    nothing_left(destination)


@pytest.mark.parametrize("number", [3, 4, 5])
@pytest.mark.parametrize("parallel", [1, 2])
@pytest.mark.parametrize("after", [True, False], ids=["carried out", "not carried out"])
def test_a_commit_of_what_came_before_a_bad_row_is_not_repeated_when_its_answer_is_lost(
    source: Db, destination: Db, after: bool, parallel: int, number: int
) -> None:
    source.execute(TABLE)
    destination.execute("CREATE TABLE t (id int CHECK (id <> 1250), y text)")
    destination.execute(SLOW)  # so that it is another worker than the main one that meets the bad row
    with through(destination) as (proxy, there):
        proxy.cut_at_commit(after=after, number=number)
        job = job_of(source.end(), there, parallel=parallel)
        with pytest.raises(portl.DataError, match="t_id_check"):
            portl.migrate(job)
    kept = destination.value("SELECT count(*) FROM t")
    assert destination.value("SELECT count(DISTINCT id) FROM t") == kept
    destination.execute("ALTER TABLE t DROP CONSTRAINT t_id_check")
    result = portl.migrate(job_of(source.end(), destination.end(), parallel=parallel))
    assert rows(destination, "t") == rows(source, "t")
    assert counts(result) == (ROWS, ROWS, 0)
    assert result.tables[0].rows_before == kept


def test_rows_that_are_written_again_after_a_retry_are_counted_once(
    source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunkload, "PIECE_SECONDS", 0.0)
    source.execute(KEYED)
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, y text)")
    destination.execute(once("= 1350"))
    seen: list[portl.Event] = []
    job = job_of(source.end(), destination.end(), conflict="overwrite", ledger={"mode": "off"})
    result = portl.migrate(job, observers=[seen.append])
    assert rows(destination, "t") == rows(source, "t")
    table = result.tables[0]
    assert table.rows_read == ROWS
    assert table.rows_inserted + table.rows_unchanged + table.rows_updated == ROWS
    assert table.retries == 1
    assert [e.total_rows for e in seen if isinstance(e, portl.BatchCommitted)][-1] == ROWS


def test_a_job_that_gets_no_further_gives_up(source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunkload, "PIECE_SECONDS", 0.0)
    source.execute(KEYED)
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, y text)")
    destination.execute(once("% 1050 = 0"))
    seen: list[portl.Event] = []
    retry = {"attempts": 3, "max_delay": 0.01}
    job = job_of(source.end(), destination.end(), conflict="fail", retry=retry, chunk_rows=None, atomic=True)
    with pytest.raises(portl.OperationError, match="once more, please"):
        portl.migrate(job, observers=[seen.append])
    assert len([e for e in seen if isinstance(e, portl.Retrying)]) == 2


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError, portl.OperationError])
def test_what_other_workers_have_committed_is_told_when_the_caller_ends_the_run(
    source: Db, destination: Db, failure: type[BaseException]
) -> None:
    source.execute(TABLE)
    waiting: list[portl.Event] = []

    def observer(event: portl.Event) -> None:
        if isinstance(event, portl.BatchCommitted) and event.chunk > 1 and not waiting:
            waiting.append(event)
            while destination.value("SELECT count(*) FROM t") < ROWS:
                pass
            raise failure("enough")

    job = job_of(source.end(), destination.end(), parallel=3)
    with pytest.raises((portl.Error, ValueError)) as caught:
        portl.migrate(job, observers=[observer])
    if isinstance(caught.value, portl.Error):
        assert caught.value.committed is not None
        assert caught.value.committed.rows_inserted == ROWS
    result = portl.migrate(job)
    assert counts(result) == (ROWS, ROWS, 0)
    assert rows(destination, "t") == rows(source, "t")
    nothing_left(destination)


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("kind", [portl.BatchCommitted, portl.TableDone, portl.Done])
@pytest.mark.parametrize("failure", [portl.ConnectionFailed, portl.DataError, KeyboardInterrupt])
def test_what_an_observer_raises_ends_the_run_and_brings_no_row_again(
    source: Db, destination: Db, kind: type[portl.Event], failure: type[BaseException], parallel: int
) -> None:
    source.execute(TABLE)
    seen: list[portl.Event] = []

    def observer(event: portl.Event) -> None:
        seen.append(event)
        if isinstance(event, kind):
            # What an observer has tried with portl, and what failed there, is no failure of this run.
            raised = failure("enough")
            if isinstance(raised, portl.Error):
                raised.transient = True
            raise raised

    job = job_of(source.end(), destination.end(), parallel=parallel)
    with pytest.raises((portl.Error, KeyboardInterrupt)) as caught:
        portl.migrate(job, observers=[observer])
    assert isinstance(caught.value, portl.Interrupted if failure is KeyboardInterrupt else failure)
    assert isinstance(caught.value, portl.Error)
    assert caught.value.committed is not None
    assert caught.value.committed.rows_read == destination.value("SELECT count(*) FROM t")
    assert not any(isinstance(event, portl.Retrying) for event in seen)
    nothing_left(destination)
    if kind is portl.BatchCommitted:
        assert portl.migrate(job).tables[0].attempt == 2
    assert rows(destination, "t") == rows(source, "t")


@pytest.mark.parametrize("verify", ["count", "full"])
@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_connection_that_is_lost_while_rows_are_compared_does_not_bring_them_again(
    source: Db, destination: Db, side: str, verify: str
) -> None:
    source.execute(TABLE)
    lost = source if side == "source" else destination
    seen: list[portl.Event] = []

    def observer(event: portl.Event) -> None:
        seen.append(event)
        if isinstance(event, portl.TableDone):
            lost.execute(CUT_OFF)

    job = job_of(source.end(), destination.end(), verify=verify)
    result = portl.migrate(job, observers=[observer])
    assert counts(result) == (ROWS, ROWS, 0)
    assert result.verification is not None
    assert result.verification.equal
    names = [type(event).__name__ for event in seen]
    assert [names.count(name) for name in ("Started", "Retrying", "TableDone", "Done")] == [1, 1, 1, 1]
    (warned,) = (e for e in seen if isinstance(e, portl.Warned) and e.where == "verify")
    assert warned.message.startswith(
        "compares with the source as it is now: the snapshot that was read was lost with a"
    )
    assert rows(destination, "t") == rows(source, "t")
    (run,) = portl.status(job).runs
    assert run.state.value == "done"
    nothing_left(destination)


def test_a_comparison_that_cannot_be_made_says_that_all_rows_are_there(source: Db, destination: Db) -> None:
    source.execute(TABLE)

    def observer(event: portl.Event) -> None:
        if isinstance(event, portl.TableDone):
            source.execute(CUT_OFF)

    job = job_of(source.end(), destination.end(), verify="count", retry={"attempts": 1})
    with pytest.raises(portl.ConnectionFailed, match=r"^all rows are there, but comparing them failed") as caught:
        portl.migrate(job, observers=[observer])
    assert caught.value.committed is not None
    assert caught.value.committed.rows_inserted == ROWS
    assert rows(destination, "t") == rows(source, "t")


def test_the_events_are_complete_and_the_rows_compared_where_the_answer_to_the_last_commit_is_lost(
    source: Db, destination: Db
) -> None:
    source.execute(TABLE)
    seen: list[portl.Event] = []
    with through(destination) as (proxy, there):
        last = Once(4, lambda: proxy.cut_at_commit(after=True))
        result = portl.migrate(job_of(source.end(), there, verify="count"), observers=[last, seen.append])
        assert proxy.cut_commits == 1
    assert [type(event).__name__ for event in seen][-2:] == ["Warned", "Done"]
    assert sum(isinstance(event, portl.TableDone) for event in seen) == 1
    assert result.verification is not None
    assert result.verification.equal


def by_delete(db: Db) -> None:
    db.execute("DELETE FROM t")


def by_truncate(db: Db) -> None:
    db.execute("TRUNCATE t")


def by_replacement(db: Db) -> None:
    db.execute("DROP TABLE t; CREATE TABLE t (id int, y text)")


@pytest.mark.parametrize("conflict", ["fail", "overwrite"])
@pytest.mark.parametrize("emptied", [by_delete, by_truncate, by_replacement])
def test_a_destination_that_was_emptied_between_two_attempts_is_noticed(
    source: Db, destination: Db, emptied: Callable[[Db], None], conflict: str
) -> None:
    source.execute(KEYED)
    key = ", PRIMARY KEY (id)" if conflict == "overwrite" else ""
    destination.execute(f"CREATE TABLE t (id int CHECK (id <> 1300), y text{key})")
    job = job_of(source.end(), destination.end(), conflict=conflict)
    with pytest.raises(portl.DataError):
        portl.migrate(job)
    emptied(destination)
    destination.execute("ALTER TABLE t DROP CONSTRAINT IF EXISTS t_id_check")
    if key and emptied is by_replacement:
        destination.execute("ALTER TABLE t ADD PRIMARY KEY (id)")
    found = "has been replaced by another" if emptied is by_replacement else "is empty"
    with pytest.raises(portl.PlanError, match=rf"1,200 rows in 2 of 4 chunks done, and the table public\.t {found}"):
        portl.migrate(job)
    assert destination.value("SELECT count(*) FROM t") == 0
    assert counts(portl.migrate(job, restart=True)) == (ROWS, ROWS, 0)
    assert rows(destination, "t") == rows(source, "t")


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_quarantine_that_is_full_can_be_enlarged_and_the_job_goes_on(
    source: Db, destination: Db, parallel: int, tmp_path: Path
) -> None:
    source.execute(TABLE)
    destination.execute("CREATE TABLE t (id int CHECK (id % 100 <> 50), y text)")
    file = tmp_path / "rejected.jsonl"

    def job(limit: int) -> dict[str, Any]:
        quarantine = {"limit": limit, "file": str(file)}
        return job_of(source.end(), destination.end(), parallel=parallel, on_error="quarantine", quarantine=quarantine)

    with pytest.raises(portl.OperationError, match="more than 12 rows rejected") as caught:
        portl.migrate(job(12))
    kept = destination.value("SELECT count(*) FROM t")
    quarantined = destination.value("SELECT count(*) FROM t__rejected")
    assert caught.value.committed is not None
    assert counts(caught.value.committed) == (kept + quarantined, kept, quarantined)
    result = portl.migrate(job(20))
    assert counts(result) == (ROWS, ROWS - 20, 20)
    assert destination.value("SELECT count(*) FROM t") == ROWS - 20
    assert destination.value("SELECT count(DISTINCT \"row\"->>'id') FROM t__rejected") == 20
    assert destination.value("SELECT count(*) FROM t__rejected") == 20
    assert len(file.read_text().splitlines()) == 20
    assert result.rows_rejected == 20


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("bad", [1, 500, 501, 1250, ROWS])
def test_a_bad_row_anywhere_stops_the_run_and_a_repair_lets_it_end_exactly(
    source: Db, destination: Db, bad: int, parallel: int
) -> None:
    source.execute(TABLE)
    destination.execute(f"CREATE TABLE t (id int CHECK (id <> {bad}), y text)")
    job = job_of(source.end(), destination.end(), parallel=parallel)
    for _ in range(3):  # a part that is left is resumed, and fails, more than once
        with pytest.raises(portl.DataError) as caught:
            portl.migrate(job)
        chunk, row = (bad - 1) // 500 + 1, (bad - 1) % 500 + 1
        assert f"row {row} of chunk {chunk} (batch {(row - 1) // 100 + 1})" in str(caught.value)
        assert (caught.value.chunk, caught.value.row) == (chunk, row)
        assert caught.value.committed is not None
        kept = destination.value("SELECT count(*) FROM t") if bad > 100 else 0
        assert caught.value.committed.rows_inserted == kept
    destination.execute("ALTER TABLE t DROP CONSTRAINT t_id_check")
    assert counts(portl.migrate(job)) == (ROWS, ROWS, 0)
    assert rows(destination, "t") == rows(source, "t")


@pytest.mark.parametrize("bad", [150, 950, 1999])
def test_an_atomic_job_with_a_bad_row_leaves_neither_table_nor_run(
    source: Db, destination: Db, bad: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunkload, "GROUP_BYTES", 4000)
    source.execute(TABLE)
    source.execute(f"UPDATE t SET y = 'bad' WHERE id = {bad}")
    destination.execute("CREATE DOMAIN good AS text CHECK (VALUE <> 'bad')")
    job = job_of(source.end(), destination.end(), atomic=True, types=[{"column": "y", "to": "good"}])
    with pytest.raises(portl.DataError) as caught:
        portl.migrate(job)
    assert caught.value.committed is not None
    assert counts(caught.value.committed) == (0, 0, 0)
    assert destination.value("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    assert portl.status(job).runs == ()
    result = portl.migrate({**job, "on_error": "quarantine"})
    assert counts(result) == (ROWS, ROWS - 1, 1)
    assert destination.value("SELECT \"row\"->>'id' FROM t__rejected") == str(bad)
