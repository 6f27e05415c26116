"""What becomes of columns that are new at the source, that have grown, or that are gone (``on_schema_change``)."""

from __future__ import annotations

from typing import Any

import pytest

import portl
from portl.schema import conversions
from tests.servers import Db

TABLE = "CREATE TABLE t (id int PRIMARY KEY, n int, name varchar(5), price numeric(6, 2), gone text)"
TYPES = (
    "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute"
    " WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY 1"
)
CHANGE = """
    ALTER TABLE t ALTER n TYPE bigint, ALTER name TYPE varchar(20), ALTER price TYPE numeric(12, 2), DROP gone,
    ADD added uuid DEFAULT gen_random_uuid();
    INSERT INTO t (id, n, name, price) VALUES (3, 5000000000, 'a longer name', 1234567.89)
"""


@pytest.fixture
def changed(source: Db, destination: Db) -> None:
    """A table that was copied once, and has changed since."""
    source.execute(f"{TABLE}; INSERT INTO t VALUES (1, 1, 'one', 1.5, 'x'), (2, 2, 'two', 2.5, 'y')")
    portl.migrate({"source": source.end(table="t"), "destination": destination.end(table="t")})
    source.execute(CHANGE)


def job(source: Db, destination: Db, change: str, **keys: Any) -> dict[str, Any]:
    ends = {"source": source.end(table="t"), "destination": destination.end(table="t")}
    return {**ends, "on_schema_change": change, **keys}


@pytest.mark.usefixtures("changed")
def test_by_default_what_does_not_fit_is_said_in_the_plan(source: Db, destination: Db) -> None:
    plan = portl.plan(job(source, destination, "fail"))
    assert [str(found) for found in plan.problems] == [
        "column 'added': the destination public.t has no such column -> map it in `schema_mapping`, exclude it in"
        " `source.exclude_columns`, or set `on_schema_change: add_columns`, or `ignore`"
    ]
    said = "\n".join(map(str, plan.warnings))
    assert (
        "column 'name': character varying(20) to character varying(5): a value too long for the destination is refused"
        in said
    )
    assert "column 'n': bigint to integer: a number that is too large for the destination is refused" in said
    assert "column 'gone': not filled by this job" in str(plan)


@pytest.mark.usefixtures("changed")
@pytest.mark.parametrize("mode", ["full", "mirror", "replace", "incremental"])
def test_columns_are_added_and_widened(source: Db, destination: Db, mode: str) -> None:
    keys = {"incremental": {"cursor": "id"}} if mode == "incremental" else {}
    wanted = job(source, destination, "add_columns", mode=mode, **keys)
    plan = portl.plan(wanted)
    assert not plan.problems
    assert "column 'n': integer becomes bigint" in str(plan)
    assert any("ALTER COLUMN" in statement for statement in plan.tables[0].examination.before)
    assert portl.migrate(wanted).rows_inserted == 1
    kept = [("gone", "text")]
    assert destination.execute(TYPES) == sorted([*kept, *(row for row in source.execute(TYPES) if "." not in row[0])])
    columns = "id, n, name, price, added"
    assert destination.execute(f"SELECT {columns} FROM t ORDER BY id") == source.execute(
        f"SELECT {columns} FROM t ORDER BY id"
    )
    assert "becomes bigint" not in str(portl.plan(wanted))


@pytest.mark.usefixtures("changed")
def test_what_the_destination_lacks_can_be_ignored(source: Db, destination: Db) -> None:
    source.execute("DELETE FROM t WHERE id = 3")
    wanted = job(source, destination, "ignore")
    assert ("added", "the destination has no such column") in portl.plan(wanted).tables[0].ignored
    assert portl.migrate(wanted).rows_unchanged == 2
    assert [name for name, _ in destination.execute(TYPES)] == ["gone", "id", "n", "name", "price"]


@pytest.mark.usefixtures("changed")
def test_a_type_that_others_depend_on_stops_the_run_before_any_row(source: Db, destination: Db) -> None:
    destination.execute("CREATE VIEW v AS SELECT name FROM t")
    with pytest.raises(portl.Error, match="cannot alter type of a column used by a view"):
        portl.migrate(job(source, destination, "add_columns"))
    assert destination.value("SELECT count(*) FROM t") == 2


@pytest.mark.parametrize(
    ("narrow", "wide", "widens"),
    [
        ("int", "bigint", True),
        ("bigint", "int", False),
        ("int", "text", False),
        ("int", "decimal(20, 0)", False),
        ("varchar(5)", "text", True),
        ("text", "varchar(5)", False),
        ("decimal(6, 2)", "decimal(12, 2)", True),
        ("decimal(6, 2)", "decimal(6, 4)", False),
        ("float", "double", True),
        ("timestamp", "timestamptz", False),
        ("int", "int", False),
    ],
)
def test_only_types_of_one_family_are_widened(narrow: str, wide: str, widens: bool) -> None:
    assert conversions.widens(portl.Type.parse(narrow), portl.Type.parse(wide)) is widens
