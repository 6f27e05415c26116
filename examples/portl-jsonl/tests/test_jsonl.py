"""The connector passes portl's suite for connectors."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from portl_jsonl.values import dumped, loader

from portl import Kind, Type
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

            return Target(end=end, rows=stored)

        return place
