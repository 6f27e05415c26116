"""The core knows no database: a tiny connector over Python lists, with the least that its author must write."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import portl
from portl.execution.chunks import load as chunkload
from tests import tiny
from tests.servers import Db
from tests.tiny import CALLS, STORE, TinySource, job, some

pytestmark = pytest.mark.usefixtures("tiny")


def test_the_least_that_an_author_writes_moves_rows() -> None:
    STORE["a"] = some(2500)
    seen: list[portl.Event] = []
    result = portl.migrate(job(), observers=[seen.append])
    assert STORE["b"] == STORE["a"]
    assert (result.rows_read, result.rows_inserted, result.tables[0].route) == (2500, 2500, "rows")
    assert (result.tables[0].batches, result.bytes > 0) == (3, True)
    assert CALLS == ["begin", "write", "write", "write", "commit"]
    assert [type(e).__name__ for e in seen] == [
        "Warned",
        "Started",
        "TableStarted",
        "BatchCommitted",
        "ChunkMoved",
        "TableDone",
        "Done",
    ]
    assert isinstance(seen[0], portl.Warned)
    assert seen[0].message.startswith("an interrupted run leaves rows behind, which the next one writes again")
    assert result.tables[0].to_dict()["source"] == "a"


def test_a_plan_shows_it_all_and_writes_nothing() -> None:
    STORE["a"] = some(10)
    plan = portl.plan(job())
    assert plan.problems == ()
    assert "b" not in STORE
    assert CALLS == []
    text = str(plan)
    assert "name 1" in text
    assert "decoded Python rows, which every connector understands" in text
    plan.execute()
    assert STORE["b"] == STORE["a"]


def test_columns_limit_and_names_are_the_cores_own_work() -> None:
    STORE["a"] = [(1, "x", Decimal(1)), (2, "y", None), (3, "z", None)]
    source = {"type": "tiny", "table": "a", "limit": 2, "columns": ["price", "name", "id"]}
    portl.migrate(job(source=source))
    assert STORE["b"] == [(1, "x", Decimal(1)), (2, "y", None)]
    swapped = portl.plan(job(schema_mapping={"id": "nope"}))
    assert [str(p).split(" -> ")[0] for p in swapped.problems] == [
        "column 'nope': the destination b has no such column",
        "column 'id': b requires a value (NOT NULL, no default), and the job provides none",
    ]


def test_a_batch_is_told_when_it_is_written_the_second_time_too() -> None:
    STORE["a"] = some(3)
    source = {"type": "tiny", "table": "a", "lets_go": True}
    portl.migrate(job(source=source, batch_size=2))
    written = ["write", "release 1", "write", "release 2"]
    assert [*CALLS] == ["begin", *written, "commit"]
    CALLS.clear()
    STORE["a"] = [*some(5)[3:], (4, "again", None)]
    with pytest.raises(portl.ConflictError):
        portl.migrate(job(source=source, batch_size=2))
    assert [call for call in CALLS if call.startswith("release")][:3] == ["release 1", "release 2", "release 1"]
    assert CALLS[CALLS.index("rollback") :][1:4] == ["begin", "write", "release 1"]


@pytest.mark.parametrize("strategy", ["overwrite", "skip", "merge"])
def test_a_strategy_that_the_destination_lacks_is_a_problem(strategy: str) -> None:
    STORE["a"] = some(1)
    with pytest.raises(portl.PlanError) as caught:
        portl.migrate(job(conflict=strategy))
    assert f"conflict: the destination does not support {strategy} -> it supports: fail" in str(caught.value)
    assert "b" not in STORE


@pytest.mark.parametrize("group_bytes", [1, 1 << 30])
@pytest.mark.parametrize("size", [1, 4, 7, 100])
@pytest.mark.parametrize("where", ["write", "commit"])
def test_a_batch_that_fails_is_rolled_back_and_its_row_is_named(
    monkeypatch: pytest.MonkeyPatch, group_bytes: int, size: int, where: str
) -> None:
    monkeypatch.setattr(chunkload, "GROUP_BYTES", group_bytes)
    for bad in (1, 4, 5, 14, 20):
        STORE["a"], STORE["b"] = some(20), [(99, None, None)]
        STORE["a"][bad - 1] = (-1 if where == "write" else 99, "bad", None)
        CALLS.clear()
        seen: list[portl.Event] = []
        with pytest.raises(portl.DataError) as caught:
            portl.migrate(job(batch_size=size), observers=[seen.append])
        error = caught.value
        batch = (bad - 1) // size + 1
        said = "a negative id" if where == "write" else "an id twice"
        name = "-1" if where == "write" else "99"
        assert error.message == f"row {bad} of the source (batch {batch}) with id = {name}: {said}"
        assert (error.row, error.batch) == (bad, batch)
        assert error.values == {"id": name, "name": "bad", "price": None}
        kept = (batch - 1) * size
        assert STORE["b"][1:] == STORE["a"][:kept]
        assert error.committed is not None
        assert error.committed.rows_inserted == error.committed.rows_read == kept
        assert sum(event.rows for event in seen if isinstance(event, portl.BatchCommitted)) == kept
        # Every transaction is closed once.
        assert CALLS.count("rollback") + len(committed_ones(CALLS)) == CALLS.count("begin")


def committed_ones(calls: list[str]) -> list[str]:
    """The commits that were not refused: a refused one is followed by a rollback."""
    return [c for c, after in zip(calls, [*calls[1:], ""], strict=True) if c == "commit" and after != "rollback"]


def test_the_first_bad_row_costs_a_few_trials_not_one_a_row() -> None:
    STORE["a"] = some(1000)
    STORE["a"][700] = (-1, None, None)
    with pytest.raises(portl.DataError) as caught:
        portl.migrate(job())
    assert caught.value.row == 701
    assert CALLS.count("begin") <= 16


def test_a_cancelled_run_rolls_back_what_is_open_and_keeps_what_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunkload, "GROUP_BYTES", 1)
    STORE["a"] = some(100)
    token = portl.CancelToken()

    def observe(event: portl.Event) -> None:
        if isinstance(event, portl.BatchCommitted) and event.last_batch == 3:
            token.cancel()

    with pytest.raises(portl.Cancelled, match="committed before this: 30 rows read, 30 inserted"):
        portl.migrate(job(batch_size=10), observers=[observe], cancel=token)
    assert STORE["b"] == STORE["a"][:30]


def test_ctrl_c_ends_a_run_in_the_same_orderly_way(monkeypatch: pytest.MonkeyPatch) -> None:
    STORE["a"] = some(100)

    def rows(source: TinySource) -> Iterator[tuple[Any, ...]]:
        yield from STORE["a"][:50]
        raise KeyboardInterrupt

    monkeypatch.setattr(TinySource, "rows", rows)
    with pytest.raises(portl.Interrupted, match="interrupted by Ctrl-C") as caught:
        portl.migrate(job(batch_size=10))
    assert isinstance(caught.value, KeyboardInterrupt)
    assert STORE["b"] == []
    assert CALLS[-1] == "rollback"


def test_a_failure_that_is_none_of_portls_rolls_back_and_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    STORE["a"] = some(10)

    def rows(source: TinySource) -> Iterator[tuple[Any, ...]]:
        yield from STORE["a"][:5]
        raise ZeroDivisionError("the source's own")

    monkeypatch.setattr(TinySource, "rows", rows)
    with pytest.raises(ZeroDivisionError, match="the source's own"):
        portl.migrate(job(batch_size=2))
    assert CALLS[-1] == "rollback"
    assert STORE["b"] == []


def test_tiny_rows_arrive_in_postgres(destination: Db) -> None:
    STORE["a"] = some(2500)
    result = portl.migrate(job(destination=destination.end(table="t"), conflict="overwrite"))
    assert result.tables[0].route == "rows"
    assert destination.execute("SELECT * FROM t ORDER BY id") == STORE["a"]
    found = destination.execute(
        "SELECT attname::text, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute"
        " WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum"
    )
    assert found == [("id", "integer", True), ("name", "text", False), ("price", "numeric(8,2)", False)]
    assert destination.value("SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass AND indisprimary") == 1
    STORE["a"][0] = (1, "changed", None)
    again = portl.migrate(job(destination=destination.end(table="t"), conflict="overwrite"))
    assert (again.rows_updated, again.rows_unchanged) == (1, 2499)


def test_postgres_rows_arrive_in_tiny(source: Db) -> None:
    source.execute("CREATE TABLE t (price numeric, id int PRIMARY KEY, full_name text)")
    source.execute("INSERT INTO t VALUES (1.50, 1, 'a'), (NULL, 2, NULL)")
    result = portl.migrate(job(source=source.end(table="t"), schema_mapping={"full_name": "name"}))
    assert result.tables[0].route == "rows"
    assert sorted(STORE["b"]) == [(1, "a", Decimal("1.50")), (2, None, None)]


def test_a_bad_row_on_its_way_between_two_systems_is_named(source: Db, destination: Db) -> None:
    STORE["a"] = some(20)
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, name text, price numeric(8,2) CHECK (price < 4))")
    with pytest.raises(portl.DataError) as caught:
        portl.migrate(job(destination=destination.end(table="t"), batch_size=5, conflict="overwrite"))
    assert (caught.value.row, caught.value.batch, caught.value.values) == (
        16, 4, {"id": "16", "name": "name 16", "price": "4"},
    )  # fmt: skip
    assert destination.value("SELECT count(*) FROM t") == 15
    source.execute("CREATE TABLE t (id int, name text, price numeric); INSERT INTO t VALUES (1), (2), (-3)")
    with pytest.raises(portl.DataError) as caught:
        portl.migrate(job(source=source.end(table="t"), batch_size=2))
    assert (caught.value.row, caught.value.batch, caught.value.message) == (
        3, 2, "row 3 of the source (batch 2) with id = -3: a negative id",
    )  # fmt: skip
    assert [row[0] for row in STORE["b"]] == [1, 2]


def test_moving_rows_between_others_never_loads_postgres(tmp_path: Path) -> None:
    """Neither the plugin nor its driver: in a fresh interpreter."""
    (tmp_path / "tiny_alone.py").write_text(Path(tiny.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "portl_tiny-1.0.dist-info" / "entry_points.txt").write_text("[portl]\ntiny = tiny_alone\n")
    program = textwrap.dedent("""
        import sys
        sys.path.insert(0, sys.argv[1])
        import portl, tiny_alone
        tiny_alone.STORE["a"] = tiny_alone.some(5)
        assert portl.migrate(tiny_alone.job()).rows_inserted == 5
        print(sorted(name for name in sys.modules if name.split(".")[0] in ("psycopg", "portl_postgres")))
    """)
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout == "[]\n"
