"""Keys that are equal without being the same: which row is meant, what becomes of its key, and what verify says."""

from __future__ import annotations

from typing import Any

import attrs
import psycopg
import pytest

import portl
from tests.postgres.destination.test_conflicts import counts, rows, run
from tests.servers import Db


@attrs.frozen
class Case:
    """A type of key, and two of its values that are equal and print differently."""

    here: str
    there: str
    ours: str
    theirs: str
    prepare: str = ""
    #: Another value, smaller than these.
    other: str = "0.5"


CASES = {
    "citext": Case("citext", "citext", "Abc", "ABC", "CREATE EXTENSION citext"),
    "text to citext": Case("text", "citext", "Abc", "ABC", "CREATE EXTENSION citext"),
    "numeric": Case("numeric", "numeric", "1.0", "1.00"),
    "text to numeric": Case("text", "numeric", "1.0", "1.00"),
    "float": Case("float8", "float8", "0", "-0"),
    "interval": Case("interval", "interval", "1 mon", "30 days", other="1 sec"),
    "bpchar": Case("bpchar", "bpchar", "a", "a  "),
    "jsonb": Case("jsonb", "jsonb", '{"a": 1.0}', '{"a": 1.00}'),
    "numeric[]": Case("numeric[]", "numeric[]", "{1.0}", "{1.00}", other="{}"),
    "numrange": Case("numrange", "numrange", "[1.0,2)", "[1.00,2)", other="empty"),
}
KINDS = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
ROUTES = pytest.mark.parametrize("route", ["relay", "rows"])


def prepare(source: Db, destination: Db, case: Case, key: str = "PRIMARY KEY") -> None:
    """Make both tables: the row at the destination has a key that equals the source's and is not the same."""
    for db in (source, destination):
        db.execute(case.prepare or "SELECT 1")
    source.execute(f"CREATE TABLE t (k {case.here} PRIMARY KEY, v int); INSERT INTO t VALUES ('{case.ours}', 1)")
    destination.execute(f"CREATE TABLE t (k {case.there} {key}, v int); INSERT INTO t VALUES ('{case.theirs}', 1)")


def job(source: Db, destination: Db, **keys: Any) -> dict[str, Any]:
    return {"source": source.end(table="t"), "destination": destination.end(table="t"), **keys}


def found(verification: portl.Verification) -> tuple[bool, int, int, int, int]:
    table = verification.tables[0]
    return verification.equal, table.missing, table.different, table.extra, table.repeated


MODES = ("checksum", "full")


@KINDS
@ROUTES
def test_overwrite_leaves_the_row_as_the_source_has_it_its_key_included(
    source: Db, destination: Db, case: Case, route: str
) -> None:
    prepare(source, destination, case)
    assert counts(run(source, destination, route=route)) == {"updated": 1}
    assert rows(destination, "SELECT format('%s', k), v FROM t") == [(case.ours, 1)]
    assert counts(run(source, destination, route=route)) == {"unchanged": 1}
    for mode in MODES:
        assert found(portl.verify(job(source, destination), mode=mode)) == (True, 0, 0, 0, 0)


@pytest.mark.parametrize("key", ["PRIMARY KEY DEFERRABLE", "PRIMARY KEY) PARTITION BY RANGE (k"])
@pytest.mark.parametrize("kind", ["citext", "numeric"])
def test_a_deferrable_key_and_a_partitioned_table_take_the_sources_key_too(
    source: Db, destination: Db, kind: str, key: str
) -> None:
    case = CASES[kind]
    destination.execute(case.prepare or "SELECT 1")
    source.execute(case.prepare or "SELECT 1")
    source.execute(f"CREATE TABLE t (v int, k {case.here} PRIMARY KEY); INSERT INTO t VALUES (1, '{case.ours}')")
    destination.execute(f"CREATE TABLE t (v int, k {case.there} {key})")
    if "PARTITION" in key:
        destination.execute("CREATE TABLE t0 PARTITION OF t DEFAULT")
    destination.execute(f"INSERT INTO t VALUES (1, '{case.theirs}')")
    assert counts(run(source, destination)) == {"updated": 1}
    assert rows(destination, "SELECT format('%s', k), v FROM t") == [(case.ours, 1)]
    assert counts(run(source, destination)) == {"unchanged": 1}


def test_inside_one_database_overwrite_takes_the_sources_key_too(destination: Db) -> None:
    destination.execute("CREATE TABLE s (k numeric PRIMARY KEY, v int); INSERT INTO s VALUES (1.0, 1), (2, 1)")
    destination.execute("CREATE TABLE t (k numeric PRIMARY KEY, v int); INSERT INTO t VALUES (1.00, 1)")
    result = run(destination, destination, reading={"table": "s"})
    assert (result.tables[0].route, counts(result)) == ("server", {"inserted": 1, "updated": 1})
    assert rows(destination, "SELECT format('%s', k) FROM t ORDER BY k") == [("1.0",), ("2",)]


def test_what_refers_to_the_key_follows_it_or_stays(source: Db, destination: Db) -> None:
    prepare(source, destination, CASES["citext"])
    for action in ("NO ACTION", "CASCADE"):
        name = action.split()[0].lower()
        destination.execute(f"CREATE TABLE {name} (k citext REFERENCES t ON UPDATE {action})")
        destination.execute(f"INSERT INTO {name} VALUES ('abC')")
    run(source, destination)
    assert rows(destination, "SELECT format('%s', k) FROM t") == [("Abc",)]
    assert rows(destination, "SELECT format('%s', k) FROM no") == [("abC",)]
    assert rows(destination, "SELECT format('%s', k) FROM cascade") == [("Abc",)]


@KINDS
def test_skip_leaves_the_row_and_verify_calls_it_different(source: Db, destination: Db, case: Case) -> None:
    prepare(source, destination, case)
    assert counts(run(source, destination, "skip")) == {"skipped": 1}
    assert rows(destination, "SELECT format('%s', k), v FROM t") == [(case.theirs, 1)]
    for mode in MODES:
        verification = portl.verify(job(source, destination, conflict="skip"), mode=mode)
        assert found(verification) == (True, 0, 1, 0, 0)
        (row,) = verification.tables[0].rows
        assert (row.kind, dict(row.columns)) == ("different", {"k": (case.ours, case.theirs)})


@KINDS
def test_verify_finds_the_row_and_repair_makes_it_the_sources(source: Db, destination: Db, case: Case) -> None:
    prepare(source, destination, case)
    destination.execute(f"INSERT INTO t VALUES ('{case.other}', 7)")
    for mode in MODES:
        verification = portl.verify(job(source, destination), mode=mode)
        assert found(verification) == (False, 0, 1, 1, 0)
        assert {row.kind for row in verification.tables[0].rows} == {"different", "extra"}
    repaired = portl.verify(job(source, destination), repair=True)
    assert (repaired.repaired, found(repaired)) == (1, (True, 0, 0, 1, 0))
    assert rows(destination, "SELECT format('%s', k) FROM t WHERE v = 1") == [(case.ours,)]


@pytest.mark.parametrize(
    ("rule", "key"),
    [
        ({"strategy": "merge"}, "ABC"),
        ({"strategy": "merge", "columns": {"v": "sum"}}, "ABC"),
        ({"strategy": "merge", "newest_by": "v"}, "Abc"),
    ],
)
def test_merge_finds_the_row_and_only_a_newer_row_brings_its_key(
    source: Db, destination: Db, rule: dict[str, Any], key: str
) -> None:
    prepare(source, destination, CASES["citext"])
    source.execute("UPDATE t SET v = 2")
    assert counts(run(source, destination, rule)) == {"updated": 1}
    assert rows(destination, "SELECT format('%s', k), v FROM t") == [(key, 3 if "columns" in rule else 2)]
    assert found(portl.verify(job(source, destination, conflict=rule)))[:2] == (True, 0)


SHARED = {
    "citext": ("text", "citext", ("ABC", "abc", "Abc"), "CREATE EXTENSION citext"),
    "numeric": ("text", "numeric", ("1", "1.0", "1.00"), ""),
}


@pytest.mark.parametrize("kind", SHARED)
@pytest.mark.parametrize(("strategy", "kept"), [("overwrite", 2), ("skip", 0), ("merge", 0)])
@pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
def test_of_source_rows_whose_keys_are_equal_one_counts(
    source: Db, destination: Db, kind: str, strategy: str, kept: int, there: bool
) -> None:
    here, type, keys, before = SHARED[kind]
    destination.execute(before or "SELECT 1")
    source.execute(f"CREATE TABLE t (k {here} PRIMARY KEY, v int)")
    destination.execute(f"CREATE TABLE t (k {type} PRIMARY KEY, v int)")
    for number, key in enumerate(keys):
        source.execute("INSERT INTO t VALUES (%s, %s)", key, number)
    if there:
        destination.execute("INSERT INTO t VALUES (%s, 9)", keys[1])
        kept = {"overwrite": 2, "skip": 1, "merge": 1}[strategy]
    value = 9 if there and strategy == "skip" else 0 if strategy == "skip" else 2
    run(source, destination, strategy)
    assert rows(destination, "SELECT format('%s', k), v FROM t") == [(keys[kept], value)]
    again = counts(run(source, destination, strategy))
    assert again.get("inserted", 0) == 0
    assert rows(destination, "SELECT format('%s', k), v FROM t") == [(keys[kept], value)]
    for mode in MODES:
        equal, missing, _, extra, repeated = found(portl.verify(job(source, destination, conflict=strategy), mode=mode))
        assert (equal, missing, extra, repeated) == (True, 0, 0, 2)
    if strategy == "overwrite":
        destination.execute("UPDATE t SET k = %s, v = 0", keys[0])  # as the first of them is: the wrong one
        for mode in MODES:
            assert found(portl.verify(job(source, destination), mode=mode)) == (False, 0, 1, 0, 2)
        assert portl.verify(job(source, destination), repair=True).equal
        assert rows(destination, "SELECT format('%s', k), v FROM t") == [(keys[2], 2)]


@pytest.mark.system
@pytest.mark.parametrize("here", ["text", "text COLLATE ci"])
def test_a_collation_that_ignores_case_finds_the_row_whether_or_not_the_source_has_it(
    source: Db, system: Db, here: str
) -> None:
    try:
        system.execute("CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("no ICU here")
    left = source if here == "text" else system
    left.execute(f"CREATE TABLE s (k {here} PRIMARY KEY, v int); INSERT INTO s VALUES ('Abc', 1), ('d', 2)")
    system.execute("CREATE TABLE t (k text COLLATE ci PRIMARY KEY, v int); INSERT INTO t VALUES ('ABC', 1), ('e', 3)")
    config = {"source": left.end(table="s"), "destination": system.end(table="t")}
    for mode in MODES:
        assert found(portl.verify(config, mode=mode)) == (False, 1, 1, 1, 0)
    portl.migrate(config)
    assert rows(system, "SELECT k, v FROM t ORDER BY v") == [("Abc", 1), ("d", 2), ("e", 3)]
    assert counts(portl.migrate(config)) == {"unchanged": 2}
    assert found(portl.verify(config)) == (True, 0, 0, 1, 0)
    if here == "text":
        left.execute("INSERT INTO s VALUES ('aBC', 4)")
        assert found(portl.verify(config)) == (False, 0, 1, 1, 1)
        assert counts(portl.migrate(config)) == {"updated": 2, "unchanged": 1}
        assert rows(system, "SELECT k, v FROM t ORDER BY v") == [("d", 2), ("e", 3), ("aBC", 4)]
        assert found(portl.verify(config)) == (True, 0, 0, 1, 1)


def test_many_keys_in_another_form_are_different_rows_and_named_as_such(source: Db, destination: Db) -> None:
    for db in (source, destination):
        db.execute("CREATE EXTENSION citext; CREATE TABLE t (k citext PRIMARY KEY, v int)")
    source.execute("INSERT INTO t SELECT 'Key ' || g, g FROM generate_series(1, 12000) AS g")
    destination.execute("INSERT INTO t SELECT 'KEY ' || g, g FROM generate_series(1, 11000) AS g")
    destination.execute("INSERT INTO t SELECT 'more ' || g, g FROM generate_series(1, 50) AS g")
    verification = portl.verify(job(source, destination), named=20_000)
    assert found(verification) == (False, 1000, 11000, 50, 0)
    assert len(verification.tables[0].rows) == 12050
    assert counts(run(source, destination)) == {"inserted": 1000, "updated": 11000}
    assert found(portl.verify(job(source, destination))) == (True, 0, 0, 50, 0)


def test_a_row_that_shares_its_key_under_fail_is_missing(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (k text PRIMARY KEY); INSERT INTO t VALUES ('a'), ('A'), ('b')")
    destination.execute("CREATE EXTENSION citext; CREATE TABLE t (k citext PRIMARY KEY); INSERT INTO t VALUES ('a')")
    verification = portl.verify(job(source, destination, conflict="fail"))
    assert found(verification) == (False, 2, 0, 0, 0)


def test_a_key_that_no_type_takes_is_missing(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (k text PRIMARY KEY); INSERT INTO t VALUES ('1.0'), ('x'), ('')")
    destination.execute("CREATE TABLE t (k numeric PRIMARY KEY); INSERT INTO t VALUES (1.00)")
    assert found(portl.verify(job(source, destination))) == (False, 2, 1, 0, 0)


def test_a_role_that_may_not_change_the_key_is_told_by_the_plan(source: Db, destination: Db) -> None:
    prepare(source, destination, CASES["numeric"])
    destination.execute("DROP ROLE IF EXISTS portl_writer; CREATE ROLE portl_writer LOGIN PASSWORD 'w'")
    destination.execute("GRANT SELECT, INSERT, UPDATE (v) ON t TO portl_writer")
    try:
        config = job(source, destination, ledger={"mode": "off"})
        config["destination"] |= {"username": "portl_writer", "password": "w"}
        (problem,) = portl.plan(config).problems
        assert problem.message == "the role lacks UPDATE on public.t"
        assert portl.plan(config | {"conflict": "merge"}).problems == ()
    finally:
        destination.execute("DROP OWNED BY portl_writer; DROP ROLE portl_writer")
