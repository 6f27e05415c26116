"""A text that becomes a date or a time is read by the source's settings, when it is copied and when it is compared."""

from __future__ import annotations

import datetime as dt
from typing import Any

import psycopg
import pytest

import portl
from tests.servers import Db

JANUARY, FEBRUARY = dt.date(2024, 1, 2), dt.date(2024, 2, 1)
#: What of each order '01/02/2024' is.
ORDERS = {"MDY": JANUARY, "DMY": FEBRUARY}
OTHER = {"MDY": "DMY", "DMY": "MDY"}


@pytest.fixture(params=list(ORDERS))
def order(request: pytest.FixtureRequest, source: Db, destination: Db) -> str:
    """The source's order; the destination's is the other one."""
    found = str(request.param)
    for db, wanted in ((source, found), (destination, OTHER[found])):
        db.execute(f"ALTER DATABASE {db.connection.info.dbname} SET datestyle = 'ISO, {wanted}'")
    source.execute("CREATE TABLE t (id int PRIMARY KEY, d text, at text, a text[])")
    values = "'01/02/2024', '01/02/2024 03:04', ARRAY['01/02/2024']"
    source.execute(f"INSERT INTO t SELECT g, {values} FROM generate_series(1, 9) AS g")
    return found


def create(destination: Db, check: str = "true") -> None:
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, d date, at timestamp, a date[])")
    destination.execute(f"ALTER TABLE t ADD CONSTRAINT good CHECK ({check})")


def job(source: Db, destination: Db, **keys: Any) -> dict[str, Any]:
    return {"source": source.end(table="t"), "destination": destination.end(table="t"), **keys}


def dates(destination: Db) -> list[tuple[Any, ...]]:
    return destination.execute("SELECT DISTINCT d, at::date, a[1] FROM t")


def insist_on_equality(config: dict[str, Any]) -> None:
    for mode in ("count", "checksum", "full"):
        assert portl.verify(config, mode=mode).equal
    again = portl.migrate({**config, "conflict": "overwrite"}, restart=True)
    assert (again.rows_unchanged, again.rows_read) == (9, 9)


@pytest.mark.parametrize("keys", [{"route": "relay"}, {"route": "rows"}, {"chunk_rows": 3, "parallel": 2}])
@pytest.mark.parametrize("there", [False, True], ids=["straight", "staged"])
def test_the_order_is_the_sources(source: Db, destination: Db, order: str, keys: dict[str, Any], there: bool) -> None:
    create(destination)
    if there:
        destination.execute("INSERT INTO t VALUES (1, '1999-01-01', '1999-01-01', NULL), (2, NULL, NULL, NULL)")
    config = job(source, destination, **keys)
    assert portl.migrate(config).rows_read == 9
    assert dates(destination) == [(ORDERS[order],) * 3]
    insist_on_equality(config)


def test_a_table_that_is_created_gets_the_same_dates(source: Db, destination: Db, order: str) -> None:
    types = {"d": "date", "at": "timestamp", "a": "date[]"}
    config = job(source, destination, types=[{"column": name, "to": to} for name, to in types.items()])
    portl.migrate(config)
    assert dates(destination) == [(ORDERS[order],) * 3]
    insist_on_equality(config)


def test_a_row_that_was_quarantined_is_retried_with_the_same_date(source: Db, destination: Db, order: str) -> None:
    create(destination, "id <> 5")
    config = job(source, destination, on_error="quarantine")
    assert portl.migrate(config).rows_rejected == 1
    destination.execute("ALTER TABLE t DROP CONSTRAINT good")
    assert portl.retry_rejected(config).rows_inserted == 1
    assert dates(destination) == [(ORDERS[order],) * 3]
    insist_on_equality(config)


def test_missing_rows_are_repaired_with_the_same_date(source: Db, destination: Db, order: str) -> None:
    create(destination)
    config = job(source, destination)
    portl.migrate(config)
    destination.execute("DELETE FROM t WHERE id < 4; UPDATE t SET d = d + 1 WHERE id = 7")
    assert portl.verify(config, repair=True).equal
    assert dates(destination) == [(ORDERS[order],) * 3]


def test_inside_one_database_the_order_of_the_sources_connection_decides(source: Db, order: str) -> None:
    source.execute("CREATE TABLE u (id int PRIMARY KEY, d date, at timestamp, a date[])")
    writes = source.end(table="u", params={"options": f"-c datestyle={OTHER[order]}"})
    config = {"source": source.end(table="t"), "destination": writes}
    portl.migrate(config)
    assert source.value("SELECT DISTINCT d FROM u") == ORDERS[order]
    insist_on_equality(config)


@pytest.mark.parametrize("inside", [False, True], ids=["idle", "in a transaction"])
def test_a_caller_supplied_connection_gets_its_order_back(
    source: Db, destination: Db, order: str, inside: bool
) -> None:
    create(destination)
    end = destination.endpoint
    with psycopg.connect(
        host=end.host,
        port=end.port,
        user=end.user,
        password=end.password,
        dbname=destination.connection.info.dbname,
        autocommit=not inside,
    ) as found:
        before = found.execute("SHOW datestyle").fetchone()
        portl.migrate(job(source, destination), destination=found)
        assert found.execute("SHOW datestyle").fetchone() == before == (f"ISO, {OTHER[order]}",)
        found.commit()
    assert dates(destination) == [(ORDERS[order],) * 3]
