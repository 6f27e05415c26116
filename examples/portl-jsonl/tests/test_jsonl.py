"""The connector passes portl's suite for connectors."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from portl_jsonl.connector import JsonLinesSource
from portl_jsonl.values import dumped, loader

import portl
from portl import Kind, Type
from portl.testing import memory
from portl.testing.conformance import DestinationConformance, Fill, SourceConformance, Target
from portl.testing.values import VALUES

#: All values but documents whose numbers JSON's readers would write in another way, and the document null: it is None.
TYPES = {**VALUES, Type(kind=Kind.JSON): ('{"b": 1, "a": [null, "ä"]}', '"text"', "{}")}


def types(columns: Any) -> dict[str, str]:
    return {column.name: str(column.type) for column in columns}


def write(path: Path, columns: Any, rows: Any) -> None:
    lines = [{c.name: dumped(value, c.type) for c, value in zip(columns, row, strict=True)} for row in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Path]:
    return (tmp_path / f"t{number}.jsonl" for number in itertools.count())


class TestSource(SourceConformance):
    types = TYPES

    @pytest.fixture
    def fill(self, paths: Iterator[Path]) -> Fill:
        def fill(columns: Any, rows: Any, key: Any = ()) -> dict[str, Any]:
            path = next(paths)
            write(path, columns, rows)
            return {"type": "jsonl", "path": str(path), "types": types(columns)}

        return fill


class TestDestination(DestinationConformance):
    types = TYPES

    @pytest.fixture
    def place(self, paths: Iterator[Path]) -> Callable[..., Target]:
        def place(columns: Any = None, rows: Any = (), key: Any = ()) -> Target:
            path = next(paths)
            end: dict[str, Any] = {"type": "jsonl", "path": str(path)}
            if columns is not None:
                write(path, columns, rows)
                end["types"] = types(columns)

            def stored(wanted: Any) -> list[tuple[Any, ...]]:
                text = path.read_text(encoding="utf-8") if path.exists() else ""
                rows = map(json.loads, text.splitlines())
                return [tuple([loader(c.type)(row[c.name]) for c in wanted]) for row in rows]

            return Target(destination=end, rows=stored)

        return place


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": 1, "more": 2}', "'more' is in none of the first 1000 lines: name it in `types`"),
        ('{"id": 1.5}', "expected int, found Decimal('1.5')"),
        ('{"id": tr', "Expecting value: line 1 column 8 (char 7)"),
    ],
)
def test_a_late_line_that_does_not_fit_ends_the_run(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "late.jsonl"
    head = '{"id": 1}\n' * 1000
    path.write_text(f"{head}{line}\n", encoding="utf-8")
    target = {"type": "memory", "database": "late", "table": "t"}
    with pytest.raises(portl.SchemaError) as caught:
        portl.migrate({"source": {"type": "jsonl", "path": str(path)}, "destination": target, "conflict": "fail"})
    assert caught.value.message.endswith(f"late.jsonl, the line at byte {len(head)}: {reason}")
    memory.forget("late")


def test_values_of_mixed_kinds_stay_json(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_text('{"v": "a"}\n{"v": {"b": true}}\n{"v": 1.10}\n{"v": null}\n', encoding="utf-8")
    target = {"type": "memory", "database": "mixed", "table": "t"}
    portl.migrate({"source": {"type": "jsonl", "path": str(path)}, "destination": target, "conflict": "fail"})
    assert memory.database("mixed").rows("t") == [("a",), ('{"b": true}',), ("1.10",), (None,)]
    memory.forget("mixed")


def test_a_file_that_a_failed_run_has_left_empty_takes_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.touch()
    store = memory.database("shop")
    store.create("t", [memory.column("id", "int")])
    store.insert("t", [(1,)])
    source = {"type": "memory", "database": "shop", "table": "t"}
    portl.migrate({"source": source, "destination": {"type": "jsonl", "path": str(path)}, "conflict": "fail"})
    assert path.read_text(encoding="utf-8") == '{"id": 1}\n'
    memory.forget("shop")


def test_the_files_of_a_folder_are_its_tables(tmp_path: Path) -> None:
    write(tmp_path / "users.jsonl", [memory.column("id", "int")], [(1,), (2,)])
    job = portl.job_from_urls(f"jsonl://{tmp_path}", "memory://folder", table="users")
    assert portl.migrate({**job, "conflict": "fail"}).rows_inserted == 2
    back = portl.job_from_urls("memory://folder", f"jsonl://{tmp_path}", table="users", to_table="again")
    portl.migrate({**back, "conflict": "fail"})
    assert (tmp_path / "again.jsonl").read_text(encoding="utf-8") == '{"id": 1}\n{"id": 2}\n'
    found = JsonLinesSource.tables({"folder": str(tmp_path)}, portl.Context())
    assert [entry.name for entry in found] == ["again", "users"]
    memory.forget("folder")
