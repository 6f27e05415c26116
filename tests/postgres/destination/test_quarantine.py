"""Rows that the destination refuses are quarantined, without the good ones being lost, and can be brought back."""

from __future__ import annotations

import json
import logging
import struct
from pathlib import Path
from typing import Any

import pytest

import portl
from portl.execution.rejected import retry_rejected
from portl_postgres.wire.batches import TEXT, CopyBatch
from tests.servers import Db
from tests.sessions import writing


def job(source: Db, destination: Db, **keys: object) -> dict[str, Any]:
    ends = {"source": source.end(table="t"), "destination": destination.end(table="t")}
    return {"name": "move", **ends, "on_error": "quarantine", "quarantine": {"limit": 10_000}, **keys}


def rejected(destination: Db, columns: str = "reason, sqlstate, constraint_name, row") -> list[tuple[Any, ...]]:
    return destination.execute(f"SELECT {columns} FROM t__rejected ORDER BY id")


def statements(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was sent to the destination."""
    return [
        r.getMessage() for r in caplog.records if r.name == "portl.postgres.sql" and "destination " in r.getMessage()
    ]


EVERY_1000TH = list(range(1000, 5001, 1000))


@pytest.mark.parametrize(
    ("route", "bad"),
    [("relay", [1]), ("relay", [5000]), ("relay", [1, 5000]), ("relay", EVERY_1000TH), ("rows", EVERY_1000TH)],
)
def test_bad_rows_are_quarantined_and_the_good_ones_arrive(
    source: Db, destination: Db, route: str, bad: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, a int, b text)")
    source.execute("INSERT INTO t SELECT g, g, 'b' || g FROM generate_series(1, 5000) AS g")
    source.execute("UPDATE t SET a = -id WHERE id = ANY(%s)", bad)
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, a int CHECK (a > 0), b text)")
    with caplog.at_level(logging.DEBUG, "portl.postgres.sql"):
        result = portl.migrate(job(source, destination, route=route))
    assert (result.rows_read, result.rows_inserted, result.rows_rejected) == (5000, 5000 - len(bad), len(bad))
    found = rejected(destination, "row, constraint_name, sqlstate, job")
    wanted = [{"id": str(n), "a": str(-n), "b": f"b{n}"} for n in bad]
    assert found == [(row, "t_a_check", "23514", "move") for row in wanted]
    assert destination.execute("SELECT count(*), min(a) FROM t") == [(5000 - len(bad), min({1, 2} - set(bad)))]
    # Each bad row costs a path of halves: 13 of them, with about 6 statements for a half.
    assert len(statements(caplog)) < 120 + 100 * len(bad)


CASES = [
    # what the destination has for v, the bad value, SQLSTATE, constraint, column
    ("text NOT NULL", "text", "NULL", None, "23502", None, "v"),
    ("text CONSTRAINT c CHECK (v <> 'bad')", "text", "'bad'", "bad", "23514", "c", None),
    ("domain_of_3", "text", "'abcd'", "abcd", "23514", "domain_of_3_check", None),
    ("int REFERENCES other", "int", "7", "7", "23503", "t_v_fkey", None),
    ("int REFERENCES other DEFERRABLE INITIALLY DEFERRED", "int", "7", "7", "23503", "t_v_fkey", None),
    ("varchar(3)", "text", "'abcd'", "abcd", "22001", None, None),
    ("int", "bigint", "5000000000", "5000000000", "22003", None, None),
    ("smallint", "int", "40000", "40000", "22003", None, None),
    ("numeric(4,2)", "numeric", "123.456", "123.456", "22003", None, None),
    ("json", "text", "'{]'", "{]", "22P02", None, None),
    ("date", "text", "'2023-02-30'", "2023-02-30", "22008", None, None),
    ("bytea CHECK (length(v) < 2)", "bytea", r"'\x0001ff'", r"\x0001ff", "23514", "t_v_check", None),
    ("double precision CHECK (v < 1)", "double precision", "1.1", "1.1", "23514", "t_v_check", None),
    ("char(4) CHECK (v <> 'x')", "char(4)", "'x'", "x   ", "23514", "t_v_check", None),
    ("text[] CHECK (v[1] <> 'x y')", "text[]", "ARRAY['x y', NULL]", '{"x y",NULL}', "23514", "t_v_check", None),
    ("interval CHECK (v < '1 day')", "interval", "'1 mon -1 day'", "1 mon -1 days", "23514", "t_v_check", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("here", "there", "value", "text", "state", "constraint", "column"), CASES, ids=[f"{c[0]} {c[2]}" for c in CASES]
)
def test_each_kind_of_refusal_is_told_with_the_row_as_text(
    source: Db,
    destination: Db,
    here: str,
    there: str,
    value: str,
    text: str | None,
    state: str,
    constraint: str | None,
    column: str | None,
) -> None:
    source.execute(f"CREATE TABLE t (id int PRIMARY KEY, v {there}); INSERT INTO t VALUES (1, {value})")
    destination.execute("CREATE DOMAIN domain_of_3 AS text CHECK (length(value) <= 3)")
    destination.execute(f"CREATE TABLE other (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY, v {here})")
    for route in ("relay", "rows"):
        result = portl.migrate(job(source, destination, route=route))
        assert (result.rows_inserted, result.rows_rejected) == (0, 1)
    found = rejected(destination, "sqlstate, constraint_name, column_name, row->>'v', source_position, row_number")
    assert found == [(state, constraint, column, text, "row 1 of the source (batch 1)", 1)] * 2


POLICIES = """
CREATE POLICY "small ones" ON t USING (true) WITH CHECK (id < 10);
CREATE POLICY mine ON t USING (true) WITH CHECK (v = 'mine');
CREATE POLICY "no secrets" ON t AS RESTRICTIVE USING (true) WITH CHECK (v <> 'secret');
CREATE POLICY reading ON t FOR SELECT USING (true);
CREATE POLICY others ON t TO pg_monitor USING (true) WITH CHECK (true);
"""


@pytest.mark.parametrize("strategy", ["overwrite", "skip", "merge", "fail"])
def test_a_row_that_a_policy_refuses_is_quarantined_with_the_policy_named(
    source: Db, destination: Db, strategy: str
) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    source.execute("INSERT INTO t VALUES (1, 'a'), (2, 'secret'), (3, 'c'), (11, 'mine'), (12, 'd'), (13, NULL)")
    destination.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t ENABLE ROW LEVEL SECURITY;{POLICIES}"
    )
    if strategy != "fail":
        destination.execute("INSERT INTO t VALUES (1, 'old'), (12, 'old')")
    role = f"portl_rls_{destination.connection.info.dbname}"
    destination.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'rls-1'; GRANT ALL ON t TO {role}")
    destination.execute(f"GRANT ALL ON SCHEMA public TO {role}; GRANT {role} TO CURRENT_USER")
    try:
        config = job(source, destination, conflict=strategy, ledger={"mode": "off"})
        config["destination"] |= {"username": role, "password": "rls-1"}
        refused = {"2": "no secrets", "12": "mine, small ones", "13": "mine, small ones"}
        result = portl.migrate(config)
        assert result.rows_rejected == len(refused)
        found = rejected(destination, "row->>'id', constraint_name, sqlstate, reason")
        assert {id: name for id, name, _, _ in found} == refused
        assert {state for *_, state, _ in found} == {"42501"}
        for id, name, _, reason in found:
            assert "new row violates row-level security policy" in reason
            assert (f'"{name}"' if id == "2" else f"no policy allows the row: {name}") in reason
        there = dict(destination.execute("SELECT id, v FROM t"))
        assert (there[3], there[11]) == ("c", "mine")
        assert there.get(1) == ("old" if strategy == "skip" else "a")
        assert 2 not in there
        destination.execute("ALTER TABLE t DISABLE ROW LEVEL SECURITY")
        assert retry_rejected(config).rows_rejected == 0
        with pytest.raises(portl.DataError) as error:
            destination.execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY; DELETE FROM t")
            portl.migrate(config | {"on_error": "fail"})
        assert (error.value.row, error.value.constraint) == (2, "no secrets")
    finally:
        destination.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.slow
def test_a_value_that_the_source_cannot_print_is_named_with_its_row(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v bytea); INSERT INTO t VALUES (1, ''), (2, 'x')")
    source.execute("INSERT INTO t VALUES (3, convert_to(repeat('x', 540000000), 'UTF8')), (4, 'y')")
    for on_error in ("fail", "quarantine"):
        with pytest.raises(portl.OperationError) as refused:
            portl.migrate(job(source, destination, route="rows", on_error=on_error))
        error = refused.value
        assert (error.sqlstate, error.transient) == ("XX000", False)
        assert error.message.startswith("row 3 of the source with id = 3: v has 540000000 bytes: source ")
        assert error.hint is not None
        assert "bytea as text takes twice its size: leave the column out (`exclude_columns`), or use" in error.hint
    with pytest.raises(portl.OperationError) as masked:
        portl.migrate(job(source, destination, route="rows", mask=["id"]))
    assert masked.value.message.startswith("row 3 of the source with id = ********: v has 540000000 bytes: source ")


def test_a_refused_row_that_is_too_large_for_the_quarantine_is_named(
    source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portl_postgres.destination.quarantine.table.LARGEST_ROW", 1000)
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    source.execute("INSERT INTO t VALUES (1, 'a'), (2, repeat('x', 1000)), (3, repeat('y', 900))")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, v text CHECK (length(v) < 900))")
    with pytest.raises(portl.OperationError) as refused:
        portl.migrate(job(source, destination))
    assert refused.value.message.startswith(
        "row 2 of the source (batch 1) is too large for the quarantine, which keeps a row as text: 1,"
    )
    assert "t_v_check" in refused.value.message
    source.execute("DELETE FROM t WHERE id = 2")
    assert portl.migrate(job(source, destination)).rows_rejected == 1


def test_unique_and_exclusion_violations_leave_the_first_row(source: Db, destination: Db) -> None:
    source.execute(
        "CREATE TABLE t (id int, r int4range); INSERT INTO t VALUES (1, '[1,5)'), (2, '[4,9)'), (1, '[20,30)')"
    )
    destination.execute("CREATE TABLE t (id int UNIQUE, r int4range, EXCLUDE USING gist (r WITH &&))")
    result = portl.migrate(job(source, destination, conflict="fail"))
    assert (result.rows_inserted, result.rows_rejected) == (1, 2)
    assert [(state, row) for _, state, _, row in rejected(destination)] == [
        ("23P01", {"id": "2", "r": "[4,9)"}),
        ("23505", {"id": "1", "r": "[20,30)"}),
    ]


def binary_row(*values: bytes | None) -> bytes:
    lengths = [(-1 if value is None else len(value), value or b"") for value in values]
    return struct.pack("!h", len(values)) + b"".join(struct.pack("!i", length) + value for length, value in lengths)


@pytest.mark.parametrize("route", ["binary", "text", "rows"])
def test_bytes_that_are_no_text_stand_in_hexadecimal(source: Db, destination: Db, route: str) -> None:
    columns = "id int PRIMARY KEY, v text, w varchar(5), n numeric"
    source.execute(f"CREATE TABLE t ({columns})")
    destination.execute(f"CREATE TABLE t ({columns})")
    config = job(source, destination, route="rows" if route == "rows" else "relay")
    lines = {
        "binary": [
            binary_row(b"\0\0\0\1", b"a\0b", b"a\tb", None),
            binary_row(b"\0\0\0\2", b"b\xe4d", b"\xff", struct.pack("!6h", 2, 0, 0, 2, 1, 5000)),
            binary_row(b"\0\0\0\3", b"fine", b"fine", None),
        ],
        "text": [b"1\ta\0b\ta\\tb\t\\N\n", b"2\tb\xe4d\t\xff\t1.50\n", b"3\tfine\tfine\t\\N\n"],
    }
    data = [(1, "a\0b", "a\tb", None), (2, "b\udce4d", "\udcff", "1.50"), (3, "fine", "fine", None)]
    keys = {name: value for name, value in config.items() if name not in ("source", "destination")}
    with writing(source, destination, format=TEXT if route == "text" else None, **keys) as (writer, _):
        batches: list[portl.Batch] = [
            portl.RowBatch(number=1, first_row=n, rows=1, size=10, data=[row])
            if route == "rows"
            else CopyBatch(
                number=1, first_row=n, rows=1, size=10, binary=route == "binary", pieces=[lines[route][n - 1]]
            )
            for n, row in enumerate(data, start=1)
        ]
        writer.begin()
        writer.save()
        rejections = []
        for batch in batches[:2]:
            with pytest.raises(portl.DataError) as refused:
                writer.write(batch)
                writer.check()
            writer.restore()
            rejections.append(portl.Rejection(row=batch, error=refused.value, chunk=3, position="here"))
        writer.write(batches[2])
        writer.check()
        writer.reject(rejections)
        writer.commit()
    first = {"id": "1", "v": {"hex": "610062"}, "w": "a\tb", "n": None}
    second = {"id": "2", "v": {"hex": "62e464"}, "w": {"hex": "ff"}, "n": "1.50"}
    expected = [("22021", 3, first), ("22021", 3, second)]
    assert rejected(destination, "sqlstate, chunk, row") == expected
    again = retry_rejected(config)
    assert (again.rows_read, again.rows_rejected) == (2, 2)  # refused for the same reason: nothing was repaired
    assert rejected(destination, "sqlstate, chunk, row") == expected
    good = [{"hex": b"b\xc3\xa4d".hex()}, "ÿ"]
    for name, value in zip(("v", "w"), good, strict=True):
        change = "UPDATE t__rejected SET row = jsonb_set(row::jsonb, %s, %s::jsonb)::json WHERE row->>'id' = '2'"
        destination.execute(change, [name], json.dumps(value))
    assert retry_rejected(config).rows_rejected == 1
    assert destination.execute("SELECT id, v, w, n::text FROM t ORDER BY id") == [
        (2, "bäd", "ÿ", "1.50"),
        (3, "fine", "fine", None),
    ]


def test_a_repair_lets_the_rows_through_and_out_of_the_quarantine(source: Db, destination: Db) -> None:
    source.execute(r"CREATE TABLE t (id int PRIMARY KEY, v text, j jsonb, b bytea, d date, f float8)")
    values = r"""repeat('x', g), '{"a": [1, null]}'::jsonb, '\x00ff'::bytea, '0044-03-15 BC'::date, 'NaN'::float8"""
    source.execute(f"INSERT INTO t SELECT g, {values} FROM generate_series(1, 6) AS g")
    source.execute(r"INSERT INTO t VALUES (7, E'\\N \t\n\r\\ ''{}é', NULL, NULL, NULL, '-0')")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, v varchar(3), j jsonb, b bytea, d date, f float8)")
    config = job(source, destination)
    assert portl.migrate(config).rows_rejected == 4
    first = retry_rejected(config)
    assert (first.rows_read, first.rows_inserted, first.rows_rejected) == (4, 0, 4)
    destination.execute("ALTER TABLE t ALTER v TYPE varchar(5)")
    second = retry_rejected(config)
    assert (second.rows_read, second.rows_inserted, second.rows_rejected) == (4, 2, 2)
    assert rejected(destination, "row->>'id'") == [("6",), ("7",)]
    destination.execute("ALTER TABLE t ALTER v TYPE text")
    assert (retry_rejected(config).rows_rejected, retry_rejected(config).rows_read) == (0, 0)
    query = "SELECT id, v, j::text, b, d::text, f::text FROM t ORDER BY id"
    assert destination.execute(query) == source.execute(query)
    assert rejected(destination) == []


def test_a_row_that_was_edited_goes_as_it_stands_and_nonsense_stays_with_a_reason(source: Db, destination: Db) -> None:
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT g, -g FROM generate_series(1, 5) g"
    )
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, v int CHECK (v > 0))")
    config = job(source, destination)
    assert portl.migrate(config).rows_rejected == 5
    for number, row in enumerate(
        [
            '{"id": "1", "v": "10"}',
            '{"id": 2, "v": 20}',
            '{"id": "3"}',
            '{"id": "4", "v": [1]}',
            '{"id": "5", "v": "x"}',
        ],
        start=1,
    ):
        destination.execute("UPDATE t__rejected SET row = %s::json WHERE row->>'id' = %s", row, str(number))
    result = retry_rejected(config)
    assert (result.rows_inserted, result.rows_rejected) == (2, 3)
    assert destination.execute("SELECT * FROM t ORDER BY id") == [(1, 10), (2, 20)]
    reasons = [reason for (reason,) in rejected(destination, "reason")]
    assert reasons[:2] == [
        "`row` lacks 'v'; write null for NULL",
        '`row` has for \'v\' neither a text, nor null, nor {"hex": "…"}',
    ]
    assert 'invalid input syntax for type integer: "x"' in reasons[2]


def test_the_strategy_of_the_job_holds_for_rows_that_come_back(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, -1), (2, -2)")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, v int CHECK (v > 0)); INSERT INTO t VALUES (1, 5)")
    config = job(source, destination)
    portl.migrate(config)
    destination.execute("ALTER TABLE t DROP CONSTRAINT t_v_check")
    result = retry_rejected(config)
    assert (result.rows_inserted, result.rows_updated, result.rows_rejected) == (1, 1, 0)
    assert destination.execute("SELECT * FROM t ORDER BY id") == [(1, -1), (2, -2)]


def test_masked_values_stand_in_the_row_alone(source: Db, destination: Db, tmp_path: Path) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, mail text, n text)")
    source.execute("INSERT INTO t VALUES (1, 'ann@example.com', '5'), (2, 'bob@example.com', 'x')")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, mail text CHECK (mail !~ 'ann'), n int)")
    file = tmp_path / "rejected.jsonl"
    keys = {"quarantine": {"file": str(file)}, "mask": ["mail", "n"]}
    assert portl.migrate(job(source, destination, **keys)).rows_rejected == 2
    for reason, _, _, row in rejected(destination):
        assert "example.com" not in reason
        assert '"x"' not in reason
        assert "********" in reason
        assert row["mail"] in ("ann@example.com", "bob@example.com")
    assert [json.loads(line)["row"] for line in file.read_text().splitlines()] == [
        row for *_, row in rejected(destination)
    ]
    with pytest.raises(portl.DataError) as refused:
        portl.migrate(job(source, destination, on_error="fail", mask=["mail", "n"]))
    assert "example.com" not in str(refused.value)
    assert refused.value.values == {"id": "1", "mail": "********", "n": "********"}


def test_what_masks_covers() -> None:
    def said(message: str, detail: str | None = None) -> str:
        error = portl.DataError(message, hint="see ann@example.com")
        error.detail = detail
        error.values = {"mail": "ann@example.com", "n": "7", "id": "77"}
        found = portl.masked(error, None, {"mail", "n"})
        assert found.hint == "see ********"
        assert found.values == {"mail": "********", "n": "********", "id": "77"}
        assert found.args == (found.message,)
        return found.message

    key = "Key (lower(mail))=(ANN@EXAMPLE.COM) already exists."
    assert said(f"duplicate; {key} (SQLSTATE 23505)", key) == "duplicate; ******** (SQLSTATE 23505)"
    other = "Key (id)=(77) already exists."
    assert said(f"duplicate; {other}", other) == f"duplicate; {other}"
    row = "Failing row contains (77, Ann@Example.Com)."
    assert said(f"violates; {row}", row) == "violates; ********"
    assert said('bad value "7" in row 77') == 'bad value "********" in row 77'
    assert said('token "example" is invalid') == 'token "********" is invalid'
    assert portl.masked(portl.DataError("7"), {"n": "7"}, ()).message == "7"


def test_the_plan_says_where_rejected_rows_go(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY)")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY)")
    assert portl.plan(job(source, destination)).tables[0].rejected_to == "public.t__rejected"
    named = portl.plan(job(source, destination, quarantine={"table": "Bad Rows"}))
    assert named.tables[0].rejected_to == 'public."Bad Rows"'
    assert portl.plan(job(source, destination, on_error="fail")).tables[0].rejected_to is None
    assert destination.value("SELECT to_regclass('t__rejected')") is None


def test_a_name_that_would_be_too_long_is_shortened_the_same_each_time(source: Db, destination: Db) -> None:
    name = "ö" * 31
    source.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    destination.execute(f'CREATE TABLE "{name}" (id int PRIMARY KEY CHECK (id > 1))')
    config = job(source, destination) | {"destination": destination.end(table=name)}
    for _ in range(2):
        assert portl.migrate(config).rows_rejected == 1
    found = destination.execute("SELECT relname FROM pg_class WHERE relname LIKE '%\\_\\_rejected'")
    assert len(found) == 1
    assert len(found[0][0].encode()) <= 63
    assert found[0][0].startswith("ööö")
    assert destination.value(f'SELECT count(*) FROM "{found[0][0]}"') == 2


def problems(config: dict[str, Any]) -> list[str]:
    return [str(problem) for problem in portl.plan(config).problems]


def test_what_keeps_rows_from_being_quarantined_is_a_problem_of_the_plan(
    source: Db, destination: Db, tmp_path: Path
) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY)")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE mine (id bigint, note text)")
    (text,) = problems(job(source, destination, quarantine={"table": "mine"}))
    assert text.startswith(
        "quarantine.table: public.mine is not a quarantine of portl's: it lacks job text, run text, "
    )
    assert text.endswith("-> name another table in `quarantine.table`, or rename this one")
    (text,) = problems(job(source, destination, quarantine={"file": str(tmp_path / "no" / "file")}))
    assert text.endswith("cannot be written -> name a file in a folder that is there")
    (text,) = problems(job(source, destination, quarantine={"table": "x" * 64}))
    assert text.startswith("quarantine.table: ")
    destination.execute("DROP ROLE IF EXISTS portl_writer; CREATE ROLE portl_writer LOGIN PASSWORD 'w'")
    destination.execute("GRANT SELECT, INSERT, UPDATE ON t TO portl_writer; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    try:
        config = job(source, destination, ledger={"mode": "off"})
        config["destination"] |= {"username": "portl_writer", "password": "w"}
        assert problems(config) == [
            "quarantine: the role may not create the table public.t__rejected, where rejected rows go"
            ' -> GRANT CREATE ON SCHEMA "public" TO the role'
        ]
    finally:
        destination.execute("DROP OWNED BY portl_writer; DROP ROLE portl_writer")


@pytest.mark.system
def test_an_older_server_keeps_a_quarantine_too(source: Db, system: Db) -> None:
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v numeric, b char(3)); INSERT INTO t VALUES (1, 1.50, 'a'), (2, 2, 'b')"
    )
    system.execute("CREATE TABLE t (id int PRIMARY KEY, v numeric CHECK (v > 1.7), b char(3))")
    config = job(source, system)
    assert portl.migrate(config).rows_rejected == 1
    assert rejected(system, "row") == [({"id": "1", "v": "1.50", "b": "a  "},)]
    system.execute("ALTER TABLE t DROP CONSTRAINT t_v_check")
    assert retry_rejected(config).rows_inserted == 1
    assert system.execute("SELECT v::text, b FROM t WHERE id = 1") == [("1.50", "a  ")]
