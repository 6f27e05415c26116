"""Which column goes where: renames, choices and exclusions, against a model of a few lines."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import portl
from portl.testing import memory
from tests.servers import Db

NUMBERS = count()

# Names as people should not choose them, and do.
ODD = ("id", "Name", "order", "a b", 'quo"te', "dot.ted", "grün", "данные", "%s", "$1", "x'y", "{b}", "tab\there")
NAMES = st.sampled_from([*ODD, "q" * 63])


@st.composite
def jobs(draw: st.DrawFn) -> dict[str, Any]:
    columns = draw(st.lists(NAMES, min_size=2, max_size=6, unique=True))
    renamed = draw(st.lists(st.sampled_from(columns), unique=True))
    mapping = {name: f"{name[:50]} neu" for name in renamed}
    if len(renamed) >= 2 and draw(st.booleans()):
        # Two columns change places: a rename one by one would lose one of them.
        first, second = renamed[:2]
        mapping[first], mapping[second] = second, first
    kept = draw(st.none() | st.lists(st.sampled_from(columns), min_size=1, unique=True))
    excluded = draw(
        st.lists(st.sampled_from([c for c in columns if c not in (kept or [])] or [columns[0]]), unique=True)
    )
    excluded = [name for name in excluded if name not in (kept or [])]
    return {"columns": columns, "mapping": mapping, "kept": kept, "excluded": excluded}


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=jobs(), existing=st.booleans(), route=st.sampled_from(["relay", "rows"]))
def test_each_value_arrives_under_the_name_it_should(
    source: Db, destination: Db, case: dict[str, Any], existing: bool, route: str
) -> None:
    columns, mapping = case["columns"], case["mapping"]
    chosen = [name for name in (case["kept"] or columns) if name not in case["excluded"]]
    table = f"t {next(NUMBERS)}"
    source.execute(f"CREATE TABLE {quote(table)} ({', '.join(f'{quote(c)} text' for c in columns)})")
    values = ", ".join(f"'value of ' || {number}" for number in range(len(columns)))
    source.execute(f"INSERT INTO {quote(table)} SELECT {values}")
    targets = {mapping.get(name, name): f"value of {columns.index(name)}" for name in chosen}
    if existing:
        # In another order, and with a column more.
        definitions = ", ".join(f"{quote(name)} text" for name in ["extra", *sorted(targets)])
        destination.execute(f"CREATE TABLE {quote(table)} ({definitions})")
    job = {
        "source": source.end(table=table, columns=case["kept"], exclude_columns=case["excluded"]),
        "destination": destination.end(table=table),
        "schema_mapping": mapping,
        "conflict": "fail",
        "route": route,
    }
    if not targets:
        with pytest.raises(portl.PlanError, match="no column is left to copy"):
            portl.migrate(job)
        return
    assert portl.migrate(job).rows_inserted == 1
    cursor = destination.connection.execute(f"SELECT * FROM {quote(table)}".encode())
    names = [column.name for column in cursor.description or ()]
    (row,) = cursor.fetchall()
    arrived = dict(zip(names, row, strict=True))
    assert arrived.pop("extra", None) is None
    assert arrived == targets


def test_two_columns_cannot_go_to_one_place(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (a int, b int)")
    job = {"source": source.end(table="t"), "destination": destination.end(table="t"), "schema_mapping": {"a": "b"}}
    with pytest.raises(portl.PlanError, match="two columns would be called 'b' -> map 'b' to another name"):
        portl.migrate(job)


def test_a_name_that_is_not_there_is_a_problem_with_a_suggestion(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (user_id int)")
    ends = {"source": source.end(table="t"), "destination": destination.end(table="t")}
    plan = portl.plan({**ends, "schema_mapping": {"userid": "id"}})
    assert [str(p) for p in plan.problems] == [
        "schema_mapping: the source has no column 'userid' -> did you mean 'user_id'?"
    ]


def test_a_source_of_another_kind_that_knows_no_columns_is_a_problem(destination: Db) -> None:
    memory.database("bare").create("t", [])
    source = {"type": "memory", "database": "bare", "table": "t"}
    plan = portl.plan({"source": source, "destination": destination.end(table="t")})
    assert [str(p) for p in plan.problems] == ["source.columns: no column is left to copy"]
    memory.forget("bare")
