"""Digests of each kind tell rows apart that differ as little as rows can, whether there is a key or not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import portl
from portl.testing import memory
from portl_postgres.verification import comparer
from tests.servers import Db
from tests.typed_values import QUICK

Row = tuple[int | None, int | None, str | None, str | None, float | None, bytes | None]
TYPES = {"a": "bigint", "b": "bigint", "t": "text", "u": "text", "d": "double", "y": "binary"}
DDL = "a int8, b int8, t text, u text, d float8, y bytea"

NUMBERS = st.none() | st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, -1, 2**32, -(2**32), 2**32 + 1])
TEXTS = st.none() | st.text("ab, \\N\"(){}'\x01é", max_size=6)
FLOATS = st.none() | st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
ROWS = st.tuples(NUMBERS, NUMBERS, TEXTS, TEXTS, FLOATS, st.none() | st.binary(max_size=6))


def one_bit(number: int, bit: int) -> int:
    return (number ^ (1 << bit)) if bit < 63 else -number - 1


#: What makes a row another; each takes a number that says where.
CHANGES: list[Callable[[Row, int], Row]] = [
    lambda row, n: (one_bit(row[0] or 0, n % 64), *row[1:]),
    lambda row, n: (*row[:4], math.nextafter(row[4] or 0.0, math.inf), row[5]),
    lambda row, n: (*row[:5], bytes([row[5][0] ^ (1 << n % 8)]) + row[5][1:] if row[5] else b"\0"),
    lambda row, n: (*row[:5], (row[5] or b"") + b"\0"),
    lambda row, n: (*row[:2], "" if row[2] is None else None, *row[3:]),
    lambda row, n: (*row[:2], None, *row[3:]) if row[2] == "" else (*row[:2], "", *row[3:]),
    lambda row, n: (0 if row[0] is None else None, *row[1:]),
    lambda row, n: (row[1], row[0], *row[2:]),
    lambda row, n: (*row[:2], row[3], row[2], *row[4:]),
    lambda row, n: (*row[:2], (row[2] or "") + (row[3] or "")[:1], (row[3] or "")[1:], *row[4:]),
    lambda row, n: (*row[:2], (row[2] or "") + " ", *row[3:]),
]
MIRROR = {"mode": "mirror", "mirror": {"max_deletes": "100%"}, "conflict": "overwrite"}
PAIRS = st.lists(st.tuples(ROWS, st.sampled_from(CHANGES), st.integers(0, 63)), min_size=10, max_size=30)


def fill(db: Db, rows: list[tuple[Any, ...]], *, key: bool) -> None:
    db.execute(f"DROP TABLE IF EXISTS t; CREATE TABLE t (k int {'PRIMARY KEY' if key else ''}, {DDL})")
    with db.connection.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (%s, %s, %s, %s, %s, %s, %s)", rows)


def tell_apart(source: Db, destination: Db, key: bool, digest: str, pairs: list[Any], rotated: bool) -> None:
    old = [(n if key else 0, *row) for n, (row, _, _) in enumerate(pairs)]
    new = [(n if key else 0, *change(row, where)) for n, (row, change, where) in enumerate(pairs)]
    if rotated:  # the same values, each in another row
        new = [(row[0], *other[1:]) for row, other in zip(old, [*old[1:], old[0]], strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        if digest == "md5":
            patch.setattr(comparer, "HASHES_RECORDS", 10**9)
        fill(destination, old, key=key)
        end: dict[str, Any] = source.end(table="t")
        if digest == "python":
            end = {"type": "memory", "database": "digests", "table": "t"}
            columns = [memory.column("k", "int", nullable=not key), *(memory.column(*item) for item in TYPES.items())]
            memory.database("digests").create("t", columns, key=["k"] if key else [])
            memory.database("digests").insert("t", new)
        else:
            fill(source, new, key=key)
        config = {"source": end, "destination": destination.end(table="t"), "conflict": "overwrite" if key else "fail"}
        differ = sum((Counter(new) - Counter(old)).values())
        found = portl.verify(config).tables[0]
        assert (found.different, found.missing) == ((differ, 0) if key else (0, differ))
        result = portl.migrate({**config, **MIRROR})
        assert (result.rows_inserted + result.rows_updated, result.rows_deleted) == (differ, 0 if key else differ)
        assert portl.verify(config, mode="full").equal


@pytest.mark.parametrize(("digest", "key"), [("hash", True), ("md5", False), ("python", True)])
@settings(QUICK, max_examples=2)
@given(pairs=PAIRS, rotated=st.booleans())
def test_rows_that_nearly_agree_are_told_apart(source: Db, destination: Db, key: bool, digest: str, **how: Any) -> None:
    tell_apart(source, destination, key, digest, **how)


@pytest.mark.parametrize("digest", ["hash", "md5"])
@pytest.mark.parametrize("key", [True, False])
@pytest.mark.faults
@settings(QUICK, max_examples=60)
@given(pairs=PAIRS, rotated=st.booleans())
def test_many_rows_that_nearly_agree(source: Db, destination: Db, key: bool, digest: str, **how: Any) -> None:
    tell_apart(source, destination, key, digest, **how)
