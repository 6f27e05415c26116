"""A connector that says no more than what its rows are can be verified, alone and with PostgreSQL at the other side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import pytest

import portl
from tests.servers import Db
from tests.tiny import CALLS, STORE, TinyDestination, job, some

pytestmark = pytest.mark.usefixtures("tiny")


def readable(monkeypatch: pytest.MonkeyPatch) -> None:
    def stored(self: TinyDestination, fields: Sequence[portl.Field]) -> Iterable[tuple[Any, ...]]:
        return iter(STORE[self.config.table])

    monkeypatch.setattr(TinyDestination, "stored", stored)


@pytest.mark.parametrize("mode", ["count", "checksum", "full"])
def test_rows_of_a_plain_connector_are_compared(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    readable(monkeypatch)
    STORE["a"] = some(3000)
    portl.migrate(job())
    STORE["b"].reverse()
    found = portl.verify(job(), mode=mode)
    assert (found.equal, found.tables[0].rows_destination) == (True, 3000)
    del STORE["b"][0]
    assert portl.verify(job(), mode=mode).tables[0].missing == 1


def test_what_differs_is_named_and_what_is_missing_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    readable(monkeypatch)
    STORE["a"] = some(10)
    STORE["b"] = [(1, "name 1", Decimal("0.750")), (11, None, None), *some(10)[2:]]
    found = portl.verify(job()).tables[0]
    assert {(row.kind, row.key["id"]): dict(row.columns) for row in found.rows} == {
        ("different", "1"): {"price": ("0.25", "0.75")},
        ("missing", "2"): {},
        ("extra", "11"): {},
    }
    STORE["b"][0] = some(1)[0]
    CALLS.clear()
    repaired = portl.verify(job(), repair=True)
    assert (repaired.equal, repaired.repaired, CALLS) == (True, 1, ["begin", "write", "commit"])
    assert STORE["b"][-1] == some(2)[1]


def test_a_destination_that_cannot_be_read_back_says_so() -> None:
    STORE["a"] = some(3)
    portl.migrate(job())
    with pytest.raises(portl.OperationError, match="cannot be read back, so it cannot be verified"):
        portl.verify(job())


def test_rows_of_a_plain_connector_are_compared_with_a_table(destination: Db) -> None:
    STORE["a"] = some(3000)
    config = job(destination=destination.end(table="t", primary_key=["id"]))
    portl.migrate(config)
    assert portl.verify(config).equal
    destination.execute("UPDATE t SET price = price + 1, name = NULL WHERE id = 7; DELETE FROM t WHERE id = 8")
    found = portl.verify(config).tables[0]
    assert {(row.kind, row.key["id"]): dict(row.columns) for row in found.rows} == {
        ("different", "7"): {"price": ("1.75", "2.75"), "name": ("name 7", None)},
        ("missing", "8"): {},
    }
    assert portl.verify(config, repair=True).equal


def test_numbers_that_are_equal_are_one_key_whichever_connector_they_come_from(destination: Db) -> None:
    STORE["a"] = [(1, "a", Decimal("1.0")), (2, "b", Decimal("2.50"))]
    destination.execute("CREATE TABLE t (price numeric PRIMARY KEY, id int, name text)")
    destination.execute("INSERT INTO t VALUES (1.00, 1, 'a'), (3.0, 3, 'c')")
    config = job(destination=destination.end(table="t"), conflict="overwrite")
    found = portl.verify(config).tables[0]
    assert (found.missing, found.different, found.extra) == (1, 1, 1)
    portl.migrate(config)
    assert destination.execute("SELECT price::text FROM t ORDER BY id") == [("1.0",), ("2.50",), ("3.0",)]
    assert portl.verify(config).equal
