"""A run that is killed, and the same job run again."""

from __future__ import annotations

import json
import signal

import pytest

import portl
from tests.commands import python
from tests.servers import Db

# Kills its own process when some batches are committed, and more are on their way.
CHILD = """
import json, os, signal, sys
import portl, portl.execution.chunks.load
portl.execution.chunks.load.GROUP_BYTES = 20_000
seen = 0
def kill(event):
    global seen
    seen += isinstance(event, portl.BatchCommitted)
    if seen == 3:
        os.kill(os.getpid(), signal.SIGKILL)
portl.migrate(json.loads(sys.argv[1]), observers=[kill])
"""


def killed(job: dict[str, object]) -> None:
    done = python(CHILD, json.dumps(job))
    assert done.returncode == -signal.SIGKILL, done.stderr


def filling(source: Db, destination: Db, **keys: object) -> dict[str, object]:
    """A job into a table that it makes; its source is filled."""
    source.execute("CREATE TABLE t (id int PRIMARY KEY, x text); COMMENT ON TABLE t IS 'it''s mine'")
    source.execute("INSERT INTO t SELECT g, 'row ' || g FROM generate_series(1, 20000) AS g")
    return {"source": source.end(table="t"), "destination": destination.end(table="t"), **keys}


def finished(source: Db, destination: Db) -> None:
    """Insist on all rows, the comment and the key."""
    assert destination.execute("SELECT * FROM t ORDER BY id") == source.execute("SELECT * FROM t ORDER BY id")
    assert destination.value("SELECT obj_description('t'::regclass)") == "it's mine"
    assert destination.value("SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass AND indisprimary") == 1


@pytest.mark.parametrize("conflict", ["overwrite", "skip", "merge", "fail"])
def test_a_job_that_was_killed_while_it_filled_a_new_table_is_resumed(
    source: Db, destination: Db, conflict: str
) -> None:
    job = filling(source, destination, conflict=conflict, chunk_rows=2000, parallel=1)
    killed(job)
    begun = destination.value("SELECT count(*) FROM t")
    assert 0 < begun < 20000
    assert "it is resumed" in str(portl.plan(job)).replace("\n    ", " ")
    result = portl.migrate(job)
    assert (result.rows_read, result.rows_inserted, result.tables[0].rows_before) == (20000, 20000, begun)
    finished(source, destination)


@pytest.mark.parametrize("conflict", ["overwrite", "skip"])
def test_without_a_ledger_a_job_that_was_killed_starts_over(source: Db, destination: Db, conflict: str) -> None:
    job = filling(source, destination, conflict=conflict, ledger={"mode": "off"})
    killed(job)
    begun = destination.value("SELECT count(*) FROM t")
    assert 0 < begun < 20000
    assert "without its key, which is built first" in str(portl.plan(job)).replace("\n    ", " ")
    result = portl.migrate(job)
    assert (result.rows_read, result.rows_inserted) == (20000, 20000 - begun)
    finished(source, destination)


@pytest.mark.parametrize("conflict", ["fail", "merge"])
def test_without_a_ledger_a_job_whose_rows_must_not_come_twice_leaves_nothing_when_it_is_killed(
    source: Db, destination: Db, conflict: str
) -> None:
    job = filling(source, destination, conflict=conflict, ledger={"mode": "off"})
    killed(job)
    assert destination.value("SELECT to_regclass('t')") is None
    assert portl.migrate(job).rows_inserted == 20000
    finished(source, destination)


def test_a_comment_that_only_looks_like_the_mark_is_left_alone(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t AS SELECT 1 AS id")
    destination.execute("CREATE TABLE t (id int); COMMENT ON TABLE t IS 'portl is filling this table: or so they say'")
    job = {"source": source.end(table="t"), "destination": destination.end(table="t"), "conflict": "fail"}
    assert portl.migrate(job).rows_inserted == 1
    assert destination.value("SELECT obj_description('t'::regclass)") == "portl is filling this table: or so they say"
