"""The in-memory connector passes the suite that every connector should pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from portl.testing import memory
from portl.testing.conformance import Change, DestinationConformance, Fill, SourceConformance, Target


class TestSource(SourceConformance):
    @pytest.fixture
    def fill(self) -> Fill:
        numbers = itertools.count()
        store = memory.database("store")

        def fill(columns: Any, rows: Any, key: Any = ()) -> dict[str, Any]:
            name = f"t{next(numbers)}"
            store.create(name, columns, key=key)
            store.insert(name, rows)
            return {"type": "memory", "database": "store", "table": name}

        return fill

    @pytest.fixture
    def change(self) -> Change:
        def change(keys: Any, gone: Any, rows: Any) -> None:
            store = memory.database("store")
            store.delete(keys["table"], lambda row: row[0] in gone)
            store.insert(keys["table"], rows)

        return change


class TestDestination(DestinationConformance):
    @pytest.fixture
    def place(self) -> Callable[..., Target]:
        numbers = itertools.count()

        def place(columns: Any = None, rows: Any = (), key: Any = ()) -> Target:
            name = f"t{next(numbers)}"
            found = memory.database("target")
            if columns is not None:
                found.create(name, columns, key=key)
                found.insert(name, rows)
            return Target(
                destination={"type": "memory", "database": "target", "table": name},
                rows=lambda columns: found.rows(name),
                rejected=lambda: [entry["row"] for entry in found.tables[name].rejected],
            )

        return place
