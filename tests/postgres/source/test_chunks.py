"""A source in chunks: every row is in exactly one, and what is left of a chunk goes on where it stopped."""

from __future__ import annotations

import pickle
import threading
from collections import Counter
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import portl
from portl import Chunk, ChunkLine, ChunkState, Reading, RowBatch, Run, Severity, Split, Splitting
from portl_postgres.source.source import PostgresSource
from portl_postgres.sql.text import literal, quoted
from tests.servers import Db
from tests.sessions import config, opened, reader

MIB = 1024 * 1024


def fields(source: PostgresSource) -> tuple[portl.Field, ...]:
    columns = source.describe().columns
    return tuple(portl.Field(source=c, sent=c, target=c, conversion=portl.Conversion.of()) for c in columns)


def split(source: PostgresSource, **keys: Any) -> Split:
    return source.split(Splitting(fields=fields(source), **{"chunk_bytes": 24 * MIB, **keys}))


def reading(source: PostgresSource, chunk: Chunk, rows: int = 7) -> Reading:
    return Reading(fields=fields(source), format=portl.ROWS, chunk=chunk, batch_rows=rows)


def rows_of(source: PostgresSource, chunk: Chunk) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for batch in source.read(reading(source, chunk)):
        assert isinstance(batch, RowBatch)
        found += batch.data
    return found


def sizes(source: PostgresSource, found: Split) -> list[int]:
    return [len(rows_of(source, chunk)) for chunk in found.chunks]


def numbers(db: Db, rows: int, definition: str = "id int PRIMARY KEY, v text") -> None:
    db.execute(f"CREATE TABLE t ({definition})")
    db.execute(f"INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, {rows}) AS g")


def test_a_table_with_a_key_is_cut_into_ranges_of_exactly_the_rows_asked_for(source: Db) -> None:
    numbers(source, 1010)
    with reader(source, table="t") as src:
        found = split(src, chunk_rows=100)
        assert (found.by, found.resumable, found.divisible) == ("key ranges of id", True, True)
        assert sizes(src, found) == [100] * 10 + [10]
        assert [chunk.number for chunk in found.chunks] == list(range(1, 12))
        assert [row[0] for chunk in found.chunks for row in rows_of(src, chunk)] == list(range(1, 1011))


def test_a_table_without_a_key_is_cut_by_blocks_in_the_order_of_its_rows(source: Db) -> None:
    numbers(source, 1010, "id int, v text")
    with reader(source, table="t") as src:
        found = split(src, chunk_rows=100)
        assert (found.by, found.reason) == ("block ranges", "it has no usable key")
        assert (found.resumable, found.divisible) == (True, True)
        assert sizes(src, found) == [100] * 10 + [10]
        assert [row[0] for chunk in found.chunks for row in rows_of(src, chunk)] == list(range(1, 1011))


def test_rows_that_must_keep_their_order_are_cut_by_blocks_although_there_is_a_key(source: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT 1000 - g FROM generate_series(1, 300) g")
    with reader(source, table="t") as src:
        found = split(src, chunk_rows=100, any_order=False)
        assert (found.by, found.reason) == ("block ranges", "its rows must keep their order")
        assert [row[0] for chunk in found.chunks for row in rows_of(src, chunk)] == [1000 - g for g in range(1, 301)]


def test_a_small_table_is_one_chunk_in_the_order_of_its_rows_and_can_be_resumed(source: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (3), (1), (2)")
    with reader(source, table="t") as src:
        found = split(src)
        assert (len(found.chunks), found.by, found.resumable, found.divisible) == (1, "block ranges", True, True)
        assert rows_of(src, found.chunks[0]) == [(3,), (1,), (2,)]


@pytest.mark.parametrize(
    ("keys", "statement", "reason"),
    [
        (
            {"query": "SELECT * FROM t"},
            "SELECT 1",
            "a query has no key to range over; `split_by` names a column that can stand in for one",
        ),
        (
            {"table": "v"},
            "CREATE VIEW v AS SELECT * FROM t",
            "a view has no key to range over; `split_by` names a column that can stand in for one",
        ),
        ({"table": "t", "limit": 5}, "SELECT 1", "`limit` takes rows in no stable order"),
        ({"table": "t"}, "CREATE TABLE c () INHERITS (t)", "it has child tables, over which no key is unique"),
        (
            {"table": "p"},
            "CREATE TABLE p (id int) PARTITION BY RANGE (id)",
            "it has no unique key without NULLs to range over; `split_by` names a column that can stand in for one",
        ),
    ],
)
def test_what_cannot_be_cut_is_read_whole_and_says_why(
    source: Db, keys: dict[str, Any], statement: str, reason: str
) -> None:
    numbers(source, 10)
    source.execute(statement)
    with reader(source, **keys) as src:
        found = split(src, chunk_rows=3)
        assert (found.chunks, found.by, found.reason) == ((Chunk(),), "the whole", reason)
        assert (found.resumable, found.divisible) == (False, False)


def test_a_partitioned_table_is_cut_by_its_key_and_never_by_blocks(source: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY) PARTITION BY HASH (id)")
    for part in range(3):
        source.execute(f"CREATE TABLE t{part} PARTITION OF t FOR VALUES WITH (MODULUS 3, REMAINDER {part})")
    source.execute("INSERT INTO t SELECT generate_series(1, 500)")
    with reader(source, table="t") as src:
        assert sizes(src, split(src, chunk_rows=100)) == [100] * 5
        one = split(src)
        assert (one.by, one.divisible) == ("key ranges of id", True)
        assert rows_of(src, one.chunks[0]) == [(g,) for g in range(1, 501)]
        assert split(src, any_order=False).by == "the whole"


@pytest.mark.parametrize(
    ("definition", "by"),
    [
        ("id int UNIQUE NOT NULL", "key ranges of id"),
        ("id int UNIQUE", "block ranges"),
        ("id int NOT NULL UNIQUE DEFERRABLE", "block ranges"),
        ("id money PRIMARY KEY", "block ranges"),
    ],
)
def test_only_a_unique_key_without_nulls_that_is_checked_at_once_is_ranged_over(
    source: Db, definition: str, by: str
) -> None:
    source.execute(f"CREATE TABLE t ({definition}); INSERT INTO t SELECT g::numeric::text::money FROM"
                   f" generate_series(1, 30) AS g" if "money" in definition else
                   f"CREATE TABLE t ({definition}); INSERT INTO t SELECT generate_series(1, 30)")  # fmt: skip
    with reader(source, table="t") as src:
        assert split(src, chunk_rows=10).by == by


@pytest.mark.parametrize("option", ['(v COLLATE "C")', "(v text_pattern_ops)", "(lower(v))", "(v) WHERE v > 'a'"])
def test_an_index_that_orders_or_equates_otherwise_than_the_column_is_no_key(source: Db, option: str) -> None:
    source.execute(f"CREATE TABLE t (v text NOT NULL); CREATE UNIQUE INDEX ON t {option}")
    source.execute("INSERT INTO t SELECT 'v' || g FROM generate_series(1, 30) AS g")
    with reader(source, table="t") as src:
        assert split(src, chunk_rows=10).by == "block ranges"


def test_a_key_of_an_extension_outside_the_search_path_keeps_its_own_order(source: Db) -> None:
    if not source.value("SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'"):
        pytest.skip("this server has no citext")
    source.execute("CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE TABLE t (v ext.citext PRIMARY KEY)")
    source.execute("INSERT INTO t SELECT CASE WHEN g % 2 = 0 THEN 'A' ELSE 'b' END || g FROM generate_series(1, 90) g")
    with reader(source, table="t") as src:
        found = split(src, chunk_rows=10)
        assert (found.by, sizes(src, found)) == ("key ranges of v", [10] * 9)


NAMES = ["a", "select", 'he said "no"', "Ä b", "x'y", "x;--", "c%s"]
TYPES = {
    "int": st.integers(-(2**31), 2**31 - 1).map(str),
    "text": st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=6),
    'text COLLATE "C"': st.text("aAbB-_ 1é", max_size=4),
    "uuid": st.uuids().map(str),
    "timestamptz": st.sampled_from(["-infinity", "2024-01-01 00:00:00.000001+14", "0044-03-15 BC", "infinity"]),
    "numeric": st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-9, max_value=9).map(str),
    "char(3)": st.text("ab ", max_size=3),
    "bytea": st.binary(max_size=3).map(lambda b: "\\x" + b.hex()),
    "bool": st.sampled_from(["t", "f"]),
    "float8": st.sampled_from(["NaN", "-Infinity", "0.1", "-0", "1e-300"]),
    "int[]": st.sampled_from(["{}", "{1,NULL}", "{1}", "{2,1}"]),
}


@attrs.frozen
class Case:
    """A table of two columns with a few rows, and how it is asked for."""

    name: str
    columns: tuple[str, str]
    types: tuple[str, str]
    keyed: str
    values: list[tuple[str | None, str | None]]
    deleted: set[int]
    where: bool
    chunk_rows: int
    split_by: bool


@st.composite
def cases(draw: st.DrawFn) -> Case:
    types = (draw(st.sampled_from(sorted(TYPES))), draw(st.sampled_from(sorted(TYPES))))
    keyed = draw(st.sampled_from(["none", "first", "both"]))
    nullable = keyed == "none"
    pairs = st.tuples(*(st.none() | TYPES[t] if nullable else TYPES[t] for t in types))
    first, second = draw(st.permutations(NAMES))[:2]
    return Case(
        name=draw(st.sampled_from(NAMES)),
        columns=(first, second),
        types=types,
        keyed=keyed,
        values=draw(st.lists(pairs, max_size=25)),
        deleted=draw(st.sets(st.integers(0, 24), max_size=8)),
        where=draw(st.booleans()),
        chunk_rows=draw(st.integers(1, 9)),
        split_by=draw(st.booleans()),
    )


def build(db: Db, case: Case) -> None:
    table, columns = quoted(case.name), [quoted(name) for name in case.columns]
    db.execute("DROP SCHEMA IF EXISTS g CASCADE; CREATE SCHEMA g")
    key = {"none": "", "first": f", PRIMARY KEY ({columns[0]})", "both": f", UNIQUE ({columns[1]}, {columns[0]})"}
    constraint = " NOT NULL" if case.keyed == "both" else ""
    defined = ", ".join(f"{c} {t}{constraint}" for c, t in zip(columns, case.types, strict=True))
    db.execute(f"CREATE TABLE g.{table} ({defined}, portl_n int{key[case.keyed]})")
    for number, pair in enumerate(case.values):
        texts = ", ".join("NULL" if value is None else literal(value) for value in pair)
        db.execute(f"INSERT INTO g.{table} VALUES ({texts}, {number}) ON CONFLICT DO NOTHING")
    if case.deleted:
        db.execute(f"DELETE FROM g.{table} WHERE portl_n IN ({', '.join(map(str, case.deleted))})")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases())
def test_every_row_is_in_exactly_one_chunk_and_the_rest_of_each_goes_on_exactly(source: Db, case: Case) -> None:
    build(source, case)
    condition = "portl_n % 3 <> 1 -- not these"
    keys: dict[str, Any] = {"where": condition} if case.where else {}
    if case.split_by:
        keys["split_by"] = case.columns[0]
    with reader(source, schema="g", table=case.name, **keys) as src:
        found = split(src, chunk_rows=case.chunk_rows)
        given_ = source.execute(
            f"SELECT portl_n FROM g.{quoted(case.name)}" + (f" WHERE {condition}" if case.where else "")
        )
        chunks = [[row[-1] for row in rows_of(src, chunk)] for chunk in found.chunks]
        assert Counter(n for chunk in chunks for n in chunk) == Counter(n for (n,) in given_)
        if not case.split_by or case.keyed == "first":
            assert all(len(chunk) <= case.chunk_rows for chunk in chunks)
            assert found.divisible
        for chunk, rows in zip(found.chunks, chunks, strict=True):
            if not found.divisible:
                break
            for done in range(len(rows) + 1):
                rest = src.rest(reading(src, chunk), done)
                assert (rest is None) == (done == len(rows))
                assert rest is None or rest.number == chunk.number
                assert ([row[-1] for row in rows_of(src, rest)] if rest else []) == rows[done:]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases())
def test_every_row_of_a_query_is_in_exactly_one_chunk_and_ties_are_together(source: Db, case: Case) -> None:
    case = attrs.evolve(case, keyed="none")
    build(source, case)
    column = case.columns[0]
    query = f"SELECT *, portl_n AS again FROM g.{quoted(case.name)}"
    with reader(source, query=query, split_by=column) as src:
        found = split(src, chunk_rows=case.chunk_rows)
        assert (found.by, found.resumable, found.divisible) == (f"ranges of {column}", True, False)
        chunks = [[row[-1] for row in rows_of(src, chunk)] for chunk in found.chunks]
    everything = source.execute(f"SELECT portl_n, {quoted(column)} IS NULL FROM g.{quoted(case.name)}")
    assert sorted(n for chunk in chunks for n in chunk) == sorted(n for n, _ in everything)
    ties = source.execute(f"SELECT array_agg(portl_n) FROM g.{quoted(case.name)} GROUP BY {quoted(column)}")
    for (group,) in ties:
        assert len([chunk for chunk in chunks if set(chunk) & set(group)]) == 1
    nulls = {n for n, is_null in everything if is_null}
    if nulls and len(chunks) > 1:
        assert set(chunks[-1]) == nulls


def test_a_big_table_is_cut_evenly_from_a_sample_however_skewed_its_key_is(source: Db) -> None:
    # Half of the keys lie within one millionth of the range; nothing was analyzed.
    source.execute("CREATE TABLE t (id bigint PRIMARY KEY, filler char(200) DEFAULT '')")
    source.execute(
        "INSERT INTO t SELECT CASE WHEN g <= 20000 THEN g ELSE g::bigint * 1000000 END"
        " FROM generate_series(1, 40000) AS g"
    )
    with reader(source, table="t") as src:
        found = split(src, chunk_rows=4000)
        assert found.by == "key ranges of id"
        got = sizes(src, found)
    assert sum(got) == 40000
    assert 8 <= len(got) <= 13
    assert max(got) < 8000


def test_a_big_table_whose_keys_are_scattered_over_it_is_cut_by_blocks(source: Db) -> None:
    source.execute("CREATE TABLE t (id uuid PRIMARY KEY, filler char(200) DEFAULT '')")
    source.execute("INSERT INTO t SELECT md5(g::text)::uuid FROM generate_series(1, 20000) AS g")
    with reader(source, table="t") as src:
        found = split(src, chunk_rows=2000)
        assert (found.by, found.reason) == (
            "block ranges",
            "the order of its key id is not the physical order of its rows",
        )
        got = sizes(src, found)
    assert (sum(got), len(got) in range(9, 13)) == (20000, True)
    assert max(got) < 3000


def test_chunks_of_the_default_size_hold_about_as_many_bytes_as_asked_for(source: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, filler char(400) DEFAULT '')")
    source.execute("INSERT INTO t SELECT generate_series(1, 20000)")
    with reader(source, table="t") as src:
        got = sizes(src, split(src, chunk_bytes=MIB))
    assert (sum(got), 7 <= len(got) <= 13, max(got) < 5000) == (20000, True, True)


def test_rows_inserted_below_and_above_all_bounds_are_in_the_first_and_the_last_chunk(source: Db) -> None:
    numbers(source, 300)
    with reader(source, table="t") as src:
        chunks = pickle.loads(pickle.dumps(split(src, chunk_rows=100).chunks))
    source.execute("INSERT INTO t VALUES (-5, ''), (9999, '')")
    with reader(source, table="t") as later:
        assert [len(rows_of(later, chunk)) for chunk in chunks] == [101, 100, 101]


@pytest.mark.parametrize("definition", ["id int PRIMARY KEY, v text", "id int, v text"])
@pytest.mark.parametrize("format_", ["rows", "relay"])
def test_a_chunk_left_in_the_middle_leaves_the_state_readable(source: Db, definition: str, format_: str) -> None:
    numbers(source, 50_000, definition)
    with reader(source, table="t") as src:
        chunk = split(src).chunks[0]
        asked = reading(src, chunk, rows=10)
        if format_ == "relay":
            asked = attrs.evolve(asked, format=src.formats(asked.fields)[0])
        batches = src.read(asked)
        next(batches)
        batches.close()  # type: ignore[attr-defined]
        assert src.holds()
        rest = src.rest(asked, 10)
        assert rest is not None
        assert [row[0] for row in rows_of(src, rest)] == list(range(11, 50_001))


def test_worker_sessions_read_one_state_at_the_same_time_while_others_write(source: Db) -> None:
    numbers(source, 4000)
    with reader(source, table="t") as src:
        chunks = split(src, chunk_rows=500).chunks
        besides = [src.for_worker(), src.for_worker()]
        source.execute(
            "DELETE FROM t WHERE id <= 1000; INSERT INTO t SELECT g, 'new' FROM generate_series(5001, 6000) g"
        )
        found: list[list[int]] = [[], []]

        def work(number: int) -> None:
            beside = besides[number]
            assert beside is not None
            with opened(beside) as own:
                for chunk in chunks[number::2]:
                    found[number] += [row[0] for row in rows_of(own, chunk)]
                    source_writes.wait(timeout=20)

        source_writes = threading.Barrier(3)
        threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for _ in chunks[::2]:
            source.execute("UPDATE t SET v = v || '!'")
            source_writes.wait(timeout=20)
        for thread in threads:
            thread.join()
        assert sorted(found[0] + found[1]) == list(range(1, 4001))
        assert (len(found[0]), len(found[1])) == (2000, 2000)
        assert src.holds()


def test_a_worker_session_travels_in_a_pickle_without_the_password(source: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers(source, 10)
    monkeypatch.setenv("PGPASSWORD", source.endpoint.password)
    with reader(source, table="t", password=None) as src:
        beside = src.for_worker()
        source.execute("DELETE FROM t")
        text = pickle.dumps(beside)
        assert source.endpoint.password.encode() not in text
        with opened(pickle.loads(text)) as own:
            assert len(rows_of(own, split(own).chunks[0])) == 10


def test_a_connection_of_the_callers_has_no_worker_sessions(source: Db) -> None:
    numbers(source, 10)
    own = PostgresSource(config(source, table="t"), source.connection)
    with opened(own) as src:
        assert src.for_worker() is None


def test_a_lost_snapshot_is_noticed_and_named(source: Db) -> None:
    numbers(source, 10)
    with reader(source, table="t") as src:
        beside = src.for_worker()
        assert beside is not None
        assert src.holds()
        source.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'portl'"
        )
        with (
            pytest.raises(portl.ConnectionFailed, match="the snapshot that all connections read is lost") as caught,
            opened(beside),
        ):
            pass
        assert (caught.value.sqlstate, caught.value.transient) == ("22023", True)
        assert not beside.holds()
        assert not src.holds()


def test_a_failed_transaction_does_not_hold(source: Db) -> None:
    numbers(source, 10)
    with reader(source, table="t") as src:
        with pytest.raises(portl.Error):
            src._session.query("SELECT 1/0")
        assert not src.holds()


def test_the_identity_is_the_database_and_what_is_read_of_it_however_it_is_reached(source: Db) -> None:
    numbers(source, 10)
    with reader(source, table="t", where="id > 1", columns=("id",)) as src:
        first = src.identity()
    with reader(source, table="t", where="id > 1", columns=("id",), application_name="other", lock_timeout=5.0) as src:
        assert src.identity() == first
    assert source.endpoint.password not in str(first)
    assert first == {
        "system": source.value("SELECT system_identifier::text FROM pg_control_system()"),
        "database": source.connection.info.dbname,
        "schema": "public",
        "table": "t",
        "query": None,
        "where": "id > 1",
        "columns": ["id"],
        "exclude_columns": [],
        "limit": None,
        "split_by": None,
        "row_security": "off",
    }


def done(found: Split, before: Any) -> tuple[list[ChunkLine], Run]:
    """Return the lines of a run of which the first two chunks are done."""
    lines = [
        ChunkLine(number=c.number, bounds=c.bounds, attempt=int(c.number < 3), state=ChunkState.DONE)
        if c.number < 3
        else ChunkLine(number=c.number, bounds=c.bounds)
        for c in found.chunks
    ]
    return lines, Run(id="r", job="j", identity={}, snapshots={1: before})


def interrupted(db: Db, **keys: Any) -> tuple[list[ChunkLine], Run]:
    with reader(db, table="t", **keys) as src:
        return done(split(src, chunk_rows=100), src.snapshot())


def said(db: Db, state: tuple[list[ChunkLine], Run], *, repeatable: bool = False) -> list[tuple[Severity, str]]:
    with reader(db, table="t") as src:
        return [(f.severity, str(f)) for f in src.resumable(*state, repeatable=repeatable)]


def settled(db: Db) -> None:
    """Bring the counters of this session to where others see them."""
    if db.connection.info.server_version >= 150000:
        db.execute("SELECT pg_stat_force_next_flush()")
    db.execute("SELECT 1")


def test_the_same_snapshot_is_resumed_without_a_word(source: Db) -> None:
    numbers(source, 500)
    with reader(source, table="t") as src:
        lines, run = done(split(src, chunk_rows=100), src.snapshot())
        assert src.resumable(lines, run, repeatable=False) == []


def test_chunks_of_an_older_state_are_named(source: Db) -> None:
    numbers(source, 500)
    state = interrupted(source)
    source.execute("INSERT INTO t VALUES (1000, '')")
    ((severity, text),) = said(source, state)
    taken = state[1].snapshots[1]["taken"]
    assert severity is Severity.WARNING
    assert text == (
        f"source: chunks 1 to 2 were copied from the state of {taken}; what the source changed since is not in what was"
        " copied then -> `resume: recopy` copies it again"
    )


@pytest.mark.parametrize("statement", ["TRUNCATE t", "VACUUM FULL t", "ALTER TABLE t ALTER v TYPE varchar(9)"])
def test_block_ranges_of_a_rewritten_table_are_refused(source: Db, statement: str) -> None:
    numbers(source, 500, "id int, v text")
    state = interrupted(source)
    source.execute(statement)
    ((severity, text),) = said(source, state, repeatable=True)
    assert severity is Severity.PROBLEM
    assert "public.t was rewritten or created again since the run began" in text
    assert text.endswith("-> run the job with `--restart` to begin again")


def test_key_ranges_of_a_rewritten_table_still_hold(source: Db) -> None:
    numbers(source, 500)
    state = interrupted(source)
    source.execute("VACUUM FULL t")
    assert [severity for severity, _ in said(source, state)] in ([Severity.WARNING], [])


def test_block_ranges_are_refused_after_an_update_unless_rows_may_be_written_twice(source: Db) -> None:
    numbers(source, 500, "id int, v text")
    settled(source)
    state = interrupted(source)
    source.execute("UPDATE t SET v = 'x' WHERE id = 250")
    ((severity, text),) = said(source, state)
    assert severity is Severity.PROBLEM
    assert "1 row version of public.t may be younger than the state of" in text
    assert "`--restart`" in text
    assert [found for found, _ in said(source, state, repeatable=True)] == [Severity.WARNING]


def test_block_ranges_hold_after_inserts_alone(source: Db) -> None:
    numbers(source, 500, "id int, v text")
    settled(source)
    state = interrupted(source)
    source.execute("INSERT INTO t VALUES (501, ''), (502, '')")
    settled(source)
    assert [found for found, _ in said(source, state)] == [Severity.WARNING]


def test_an_update_that_the_counters_do_not_tell_of_is_found(source: Db) -> None:
    numbers(source, 500, "id int, v text")
    settled(source)
    state = interrupted(source)
    source.execute("UPDATE t SET v = 'x' WHERE id = 250")
    settled(source)
    source.execute("SELECT pg_stat_reset_single_table_counters('t'::regclass)")
    assert [found for found, _ in said(source, state)] == [Severity.PROBLEM]


def test_bounds_over_a_key_whose_type_has_changed_are_refused(source: Db) -> None:
    numbers(source, 500)
    with reader(source, table="t") as src:
        chunk = split(src, chunk_rows=100).chunks[1]
    source.execute("ALTER TABLE t ALTER id TYPE text")
    with reader(source, table="t") as src, pytest.raises(portl.SchemaError) as caught:
        rows_of(src, chunk)
    assert "cut into ranges of id as integer, and the type is text by now" in caught.value.message
    assert caught.value.hint == "run the job with `--restart` to begin again"


def test_split_by_is_checked_before_anything_is_read(source: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, doc json)")

    def problems(split_by: str) -> list[str]:
        with reader(source, table="t", split_by=split_by) as src:
            return [str(f) for f in src.examine(fields(src)) if f.severity is Severity.PROBLEM]

    assert problems("idd") == ["source.split_by: public.t has no column 'idd' -> did you mean 'id'?"]
    (text,) = problems("doc")
    assert "could not identify an ordering operator for type json" in text
    assert problems("id") == []


@pytest.mark.system
def test_an_older_server_is_cut_read_and_resumed_the_same(system: Db) -> None:
    numbers(system, 1010)
    with reader(system, table="t") as src:
        assert sizes(src, split(src, chunk_rows=100)) == [100] * 10 + [10]
        beside = src.for_worker()
        assert beside is not None
        with opened(beside) as own:
            assert len(rows_of(own, split(own).chunks[0])) == 1010
        state = done(split(src, chunk_rows=100, any_order=False), src.snapshot())
        lost = src.for_worker()
    assert lost is not None
    with pytest.raises(portl.ConnectionFailed, match="the snapshot that all connections read is lost"), opened(lost):
        pass
    system.execute("UPDATE t SET v = 'x' WHERE id = 250")
    assert [found for found, _ in said(system, state)] == [Severity.PROBLEM]
    system.execute("VACUUM FULL t")
    ((_, text),) = said(system, state)
    assert "was rewritten" in text


def test_a_plan_shows_the_statement_of_the_whole(source: Db, destination: Db) -> None:
    numbers(source, 1010)
    job = {"source": source.end(table="t"), "destination": destination.end(table="t"), "chunk_rows": 100}
    task = portl.plan(job).tables[0]
    assert len(task.split.chunks) == 11
    assert task.read == 'COPY (SELECT "id", "v" FROM "public"."t") TO STDOUT (FORMAT binary)'


def plan_of(db: Db, source: PostgresSource, chunk: Chunk) -> str:
    statement = source._selection.select(source._session, fields(source), chunk.bounds)
    return "\n".join(line for (line,) in db.execute(f"EXPLAIN {statement}"))


def test_a_chunk_is_read_without_looking_at_the_others(source: Db) -> None:
    source.execute("CREATE TABLE t (a int, b text, filler char(200) DEFAULT '', PRIMARY KEY (a, b))")
    source.execute("INSERT INTO t SELECT g / 10, g FROM generate_series(1, 20000) AS g; ANALYZE t")
    with reader(source, table="t") as src:
        keys, blocks = split(src, chunk_rows=1000), split(src, chunk_rows=1000, any_order=False)
        assert (keys.by, blocks.by) == ("key ranges of a, b", "block ranges")
        by_key, by_block = plan_of(source, src, keys.chunks[5]), plan_of(source, src, blocks.chunks[5])
    assert "Index Scan using t_pkey" in by_key or "Bitmap Index Scan on t_pkey" in by_key
    assert "Seq Scan" not in by_key
    assert by_block.startswith("Tid Range Scan")


def test_a_column_that_is_sent_under_the_name_of_the_key_does_not_change_the_order(source: Db, destination: Db) -> None:
    source.execute(
        "CREATE TABLE t (a int PRIMARY KEY, b int); INSERT INTO t SELECT g, -g FROM generate_series(1, 50) g"
    )
    job = {
        "source": source.end(table="t"),
        "destination": destination.end(table="t", create_table="auto"),
        "schema_mapping": {"a": "b", "b": "a"},
        "chunk_rows": 10,
    }
    plan = portl.plan(job)
    with reader(source, table="t") as src:
        given_ = plan.tables[0].fields
        for chunk in plan.tables[0].split.chunks:
            asked = Reading(fields=given_, format=portl.ROWS, chunk=chunk, batch_rows=100)
            (batch,) = src.read(asked)
            assert isinstance(batch, RowBatch)
            keys = [row[0] for row in batch.data]
            assert (keys, len(keys)) == (sorted(keys), 10)


@pytest.mark.system
def test_text_keys_are_ranged_under_their_own_collation(system: Db) -> None:
    if not system.value("SELECT count(*) FROM pg_collation WHERE collprovider = 'i'"):
        pytest.skip("this server has no ICU")
    system.execute(
        "CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
        " CREATE TABLE t (k text COLLATE folded PRIMARY KEY, n int)"
    )
    words = ["a-b", "A c", "ab", "Äb", "B", "b-", "zz", "Z", "é", "E", "o'", 'O"']
    for number, word in enumerate(words):
        system.execute("INSERT INTO t VALUES (%s, %s)", word, number)
    order = system.execute("SELECT k, n FROM t ORDER BY k")
    with reader(system, table="t") as src:
        found = split(src, chunk_rows=2)
        assert found.by == "key ranges of k"
        assert [row for chunk in found.chunks for row in rows_of(src, chunk)] == order
        assert sizes(src, found) == [2] * 6


def test_a_role_that_may_not_see_the_identifier_goes_by_the_database(source: Db) -> None:
    numbers(source, 3)
    source.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM public")
    source.execute("CREATE ROLE portl_reader LOGIN PASSWORD 'x'; GRANT SELECT (id) ON t TO portl_reader")
    try:
        oid = source.value("SELECT oid FROM pg_database WHERE datname = current_database()")
        with reader(source, table="t", username="portl_reader", password=portl.Secret("x")) as src:
            assert src.identity()["system"] == f"unknown, database {oid}"
            # It may not look at ctid either: what is left is the key.
            found = split(src)
            assert found.by == "key ranges of id"
    finally:
        source.execute("DROP OWNED BY portl_reader; DROP ROLE portl_reader")


def test_a_chunk_is_read_inside_a_transaction_of_the_callers_which_stays_as_it_was(source: Db) -> None:
    numbers(source, 1000)
    before = source.value("SHOW max_parallel_workers_per_gather")
    source.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    with opened(PostgresSource(config(source, table="t"), source.connection)) as src:
        chunk = split(src, chunk_rows=100).chunks[3]
        batches = src.read(reading(src, chunk))
        next(batches)
        batches.close()  # type: ignore[attr-defined]
        assert src.for_worker() is None
        rest = src.rest(reading(src, chunk), 7)
        assert rest is not None
        assert len(rows_of(src, rest)) == 93
    assert source.value("SHOW max_parallel_workers_per_gather") == before
    source.execute("COMMIT")
