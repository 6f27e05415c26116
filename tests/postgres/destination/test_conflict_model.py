"""Conflict strategies against a small model of what must come out, for random rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

import portl
from portl.execution.chunks import load as chunkload
from tests.servers import Db

#: k is the key; a row is (k, a, b, c, j).
NAMES = ("k", "a", "b", "c", "j")
Row = tuple[Any, ...]
Rule = Callable[[Any, Any], Any]


def either(rule: Rule) -> Rule:
    """Return a rule that is asked only where both values are there."""
    return lambda old, new: new if old is None else old if new is None else rule(old, new)


def union(old: Sequence[Any], new: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys([*old, *new]))


def deep(old: Any, new: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    both = {name: deep(old[name], new[name]) if name in old and name in new else {**old, **new}[name] for name in old}
    return {**new, **both}


WORDS: dict[str, Rule] = {
    "keep": lambda old, new: old,
    "replace": lambda old, new: new,
    "coalesce": lambda old, new: old if new is None else new,
    "greatest": either(max),
    "least": either(min),
    "sum": either(lambda old, new: old + new),
    "append": either(lambda old, new: old + new),
    "union": either(union),
    "json": either(deep),
    "destination.a * 2 - source.a": lambda old, new: None if old is None or new is None else old * 2 - new,
    "upper(source.b) || coalesce(destination.b, '-')": lambda old, new: (
        None if new is None else new.upper() + ("-" if old is None else old)
    ),
}
ANY = ["keep", "replace", "coalesce"]
SUITABLE = {
    "a": [*ANY, "greatest", "least", "sum", "destination.a * 2 - source.a"],
    "b": [*ANY, "greatest", "least", "append", "upper(source.b) || coalesce(destination.b, '-')"],
    "c": [*ANY, "append", "union"],
    "j": [*ANY, "json"],
}


@attrs.frozen
class Job:
    strategy: str
    columns: dict[str, str]
    newest_by: str | None
    nulls_equal: bool
    deferrable: bool
    batch_size: int
    group_bytes: int
    before: list[Row]
    sent: list[Row]

    @property
    def conflict(self) -> dict[str, object]:
        found: dict[str, object] = {"strategy": self.strategy, "key": ["k"]}
        if self.columns:
            found["columns"] = self.columns
        if self.newest_by:
            found["newest_by"] = self.newest_by
        return found


@attrs.define
class Outcome:
    rows: list[Row]
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    #: The position of the row that stops the run, from 1.
    refused: int | None = None


def model(job: Job) -> Outcome:
    """Say what must come out."""
    out = Outcome(list(job.before))
    for position, new in enumerate(job.sent):
        same = [i for i, old in enumerate(out.rows) if old[0] == new[0] and (new[0] is not None or job.nulls_equal)]
        if not same:
            out.rows.append(new)
            out.inserted += 1
        elif job.strategy == "fail":
            kept = position // job.batch_size * job.batch_size
            return Outcome(job.before + job.sent[:kept], inserted=kept, refused=position + 1)
        elif job.strategy == "skip":
            out.skipped += 1
        else:
            old = out.rows[same[0]]
            out.rows[same[0]] = found = resolved(job, old, new)
            out.updated += found != old
            out.unchanged += found == old
    return out


def resolved(job: Job, old: Row, new: Row) -> Row:
    if job.strategy == "overwrite":
        return new
    if job.newest_by:
        before, after = (row[NAMES.index(job.newest_by)] for row in (old, new))
        return new if after is not None and (before is None or after > before) else old
    rules = [WORDS[job.columns.get(name, "coalesce")] for name in NAMES[1:]]
    return (old[0], *(rule(was, now) for rule, was, now in zip(rules, old[1:], new[1:], strict=True)))


small = st.integers(-3, 3)
json_values = st.recursive(
    small, lambda inner: st.dictionaries(st.sampled_from("xyz"), inner, max_size=3), max_leaves=6
)
rows = st.tuples(
    st.none() | st.integers(1, 4),
    st.none() | small,
    st.none() | st.text("abC", max_size=3),
    st.none() | st.lists(st.none() | small, max_size=3),
    st.none() | json_values,
)


@st.composite
def jobs(draw: st.DrawFn, strategy: str) -> Job:
    nulls_equal = draw(st.booleans())
    columns: dict[str, str] = {}
    newest_by = None
    if strategy == "merge":
        newest_by = draw(st.none() | st.sampled_from(["a", "b"]))
        if newest_by is None:
            pairs = st.fixed_dictionaries({}, optional={name: st.sampled_from(SUITABLE[name]) for name in SUITABLE})
            columns = draw(pairs)
    before = draw(st.lists(rows, max_size=4))
    seen: dict[object, Row] = {}
    for index, row in enumerate(before):
        seen.setdefault(row[0] if row[0] is not None or nulls_equal else ("null", index), row)
    return Job(
        strategy,
        columns,
        newest_by,
        nulls_equal,
        draw(st.booleans()),
        draw(st.integers(1, 7)),
        draw(st.sampled_from([1, 100, 1 << 20])),
        list(seen.values()),
        draw(st.lists(rows, max_size=10)),
    )


def fill(db: Db, table: str, found: Sequence[Row]) -> None:
    with db.connection.cursor() as cursor:
        values = [(*row[:4], None if row[4] is None else Jsonb(row[4])) for row in found]
        cursor.executemany(f"INSERT INTO {table} ({', '.join(NAMES)}) VALUES (%s, %s, %s, %s, %s)".encode(), values)


def canonical(row: Row) -> str:
    """Return a text by which rows sort the same whatever the order of the keys in their JSON."""
    return repr((*row[:4], json.dumps(row[4], sort_keys=True)))


def check(source: Db, destination: Db, job: Job, route: str) -> None:
    columns = 'k int, a int, b text COLLATE "C", c int[], j jsonb'
    nulls = "NULLS NOT DISTINCT" if job.nulls_equal else ""
    deferrable = "DEFERRABLE" if job.deferrable else ""
    source.execute(f"DROP TABLE IF EXISTS t; CREATE TABLE t (n serial, {columns})")
    destination.execute(f"DROP TABLE IF EXISTS t; CREATE TABLE t ({columns}, UNIQUE {nulls} (k) {deferrable})")
    fill(source, "t", job.sent)
    fill(destination, "t", job.before)
    expected = model(job)
    config = {
        # Without a key it is read in the order of its rows, and what comes before a refused row is kept.
        "source": source.end(table="t", exclude_columns=["n"]),
        "destination": destination.end(table="t"),
        "conflict": job.conflict,
        "batch_size": job.batch_size,
        "route": route,
    }
    refused = None
    try:
        result: Any = portl.migrate(config, restart=True)
    except portl.ConflictError as error:
        refused, result = error.row, error.committed
    assert refused == expected.refused
    found = destination.execute(f"SELECT {', '.join(NAMES)} FROM t")
    assert sorted(found, key=canonical) == sorted(expected.rows, key=canonical)
    rest = result.rows_updated + result.rows_unchanged
    assert result.rows_read == result.rows_inserted + rest + result.rows_skipped + result.rows_rejected
    assert result.rows_read == (len(job.sent) if refused is None else expected.inserted)
    assert (result.rows_inserted, result.rows_skipped) == (expected.inserted, expected.skipped)
    # Under overwrite the first of two rows with one key need not be written at all, so it counts as updated.
    assert rest == expected.updated + expected.unchanged
    assert result.rows_updated >= 0
    assert result.rows_unchanged >= 0
    if job.strategy != "overwrite" or len({row[0] for row in job.sent}) == len(job.sent):
        assert result.rows_updated == expected.updated


@pytest.mark.parametrize("examples", [12, pytest.param(100, marks=pytest.mark.faults)], ids=["few", "many"])
@pytest.mark.parametrize("route", ["relay", "rows"])
@pytest.mark.parametrize("strategy", ["overwrite", "skip", "fail", "merge"])
def test_what_comes_out_is_what_the_model_says(
    source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch, strategy: str, route: str, examples: int
) -> None:
    @settings(max_examples=2 * examples if strategy == "merge" else examples, deadline=None, database=None)
    @given(jobs(strategy))
    def run(job: Job) -> None:
        monkeypatch.setattr(chunkload, "GROUP_BYTES", job.group_bytes)
        check(source, destination, job, route)

    run()


def test_the_order_of_keys_in_json_makes_no_two_rows_differ(source: Db, destination: Db) -> None:
    # Two rows with a NULL key sort by their JSON alone, and the server orders its keys in its own way.
    before = [(None, None, None, None, {"y": 0, "x": 1}), (None, None, None, None, {"x": 2})]
    check(source, destination, Job("merge", {}, None, False, False, 1, 1, before, []), "relay")
