"""The tables of the page on writing a connector are what portl does."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import portl
from portl.testing import memory
from tests.servers import Db

PAGE = (Path(__file__).parents[2] / "docs" / "connectors.md").read_text(encoding="utf-8")
#: Type, SQL expression and Python value, a row of the table of values each.
VALUES = re.findall(r"^\| (\w+(?: of \w+)?) \| `(.+?)` \| `(.+?)` \|", PAGE, re.MULTILINE)


def test_values_cross_as_the_page_says_and_come_back_the_same(source: Db, destination: Db) -> None:
    for db in (source, destination):
        db.execute("SET timezone = 'UTC'; SET intervalstyle = 'postgres'; SET datestyle = 'ISO'")
    assert len(VALUES) > 30
    names = [f"c{number}" for number in range(len(VALUES))]
    query = "SELECT " + ", ".join(f"{sql} AS {name}" for (_, sql, _), name in zip(VALUES, names, strict=True))
    memory.forget("page")
    kept = {"type": "memory", "database": "page", "table": "t"}
    portl.migrate({"source": source.end(query=query), "destination": kept, "conflict": "fail"})
    table = memory.database("page").tables["t"]
    (row,) = table.rows
    columns = table.columns
    crossed = [
        (re.sub(r"\(.*?\)", "", str(column.type)).removesuffix(" "), sql, repr(value))
        for column, (_, sql, _), value in zip(columns, VALUES, row, strict=True)
    ]
    assert crossed == VALUES
    portl.migrate({"source": kept, "destination": destination.end(table="t"), "conflict": "fail"})
    texts = ", ".join(f"{name}::text" for name in names)
    assert destination.execute(f"SELECT {texts} FROM t") == source.execute(f"SELECT {texts} FROM ({query}) AS q")
    memory.forget("page")


def test_the_table_of_values_has_every_type() -> None:
    assert {type.split()[0] for type, _, _ in VALUES} == {kind.value for kind in portl.Kind}


@pytest.mark.parametrize(
    "contract",
    [portl.Side, portl.Source, portl.Destination, portl.Writer],
    ids=lambda contract: contract.__name__,
)
def test_every_method_and_capability_stands_on_the_page(contract: type[Any]) -> None:
    is_public: Callable[[str], bool] = lambda name: not name.startswith("_")  # noqa: E731
    members = [
        name
        for name, member in list(vars(contract).items())
        if is_public(name)
        and (
            inspect.isfunction(member)
            or isinstance(member, (property, classmethod))
            or name in contract.__annotations__
        )
    ]
    section = re.search(rf"^### {contract.__name__}\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE)
    assert section is not None
    listed = re.findall(r"^\| `(\w+)[`(]", section[1], re.MULTILINE)
    assert sorted(listed) == sorted(members)


def test_a_nul_in_a_text_is_refused_by_postgres_and_its_row_named(destination: Db) -> None:
    memory.forget("page")
    shop = memory.database("page")
    shop.create("t", [memory.column("id", "int"), memory.column("name", "text")])
    shop.insert("t", [(1, "fine"), (2, "a\0b")])
    kept = {"type": "memory", "database": "page", "table": "t"}
    with pytest.raises(portl.DataError) as caught:
        portl.migrate({"source": kept, "destination": destination.end(table="t"), "conflict": "fail"})
    assert caught.value.row == 2
    assert caught.value.message.endswith('invalid byte sequence for encoding "UTF8": 0x00 (SQLSTATE 22021)')
    assert destination.value("SELECT to_regclass('t')") is None
    memory.forget("page")
