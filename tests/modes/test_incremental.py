"""``mode: incremental``: each run reads what has changed since the one before, and misses nothing that commits late."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

import portl
from portl.cli.text import render_status
from portl_postgres.source import increments
from tests.commands import portl_cli
from tests.killing import Victim
from tests.servers import Db

TABLE = "CREATE TABLE t (id serial PRIMARY KEY, v text, at timestamptz NOT NULL DEFAULT now()); CREATE INDEX ON t (at)"


def job(source: Db, destination: Db, **keys: Any) -> dict[str, Any]:
    """Return an incremental job from t to t; ``incremental`` has its keys, by default the cursor ``at``."""
    wanted = keys.pop("incremental", {"cursor": "at"})
    src = keys.pop("src", {"table": "t"})
    return {
        "source": source.end(**src),
        "destination": destination.end(table="t"),
        "mode": "incremental",
        "incremental": wanted,
        **keys,
    }


def held(db: Db) -> list[Any]:
    return db.execute("SELECT t::text FROM t ORDER BY 1")


def filled(db: Db, rows: int = 50) -> None:
    db.execute(f"{TABLE}; INSERT INTO t (v) SELECT 'v' || g FROM generate_series(1, {rows}) AS g")
    db.execute("UPDATE t SET at = now() - interval '1 day' + id * interval '1 second'")


@contextmanager
def session(db: Db) -> Iterator[psycopg.Connection[Any]]:
    """Open another session, in a transaction."""
    info = db.connection.info
    with psycopg.connect(info.dsn, password=info.password) as connection:
        yield connection


def read(result: portl.Result) -> tuple[int, int, int, int]:
    return result.rows_read, result.rows_inserted, result.rows_updated, result.rows_unchanged


def said(plan: portl.Plan) -> list[str]:
    return [f"{finding.where}: {finding.message}" for finding in plan.tables[0].findings]


def refused(config: dict[str, Any]) -> list[str]:
    return [str(problem) for problem in portl.plan(config).problems]


def test_a_run_reads_what_has_changed_since_the_one_before(source: Db, destination: Db) -> None:
    filled(source)
    config = job(source, destination)
    first = portl.migrate(config)
    assert read(first) == (50, 50, 0, 0)
    assert first.tables[0].watermark_before is None
    portl.migrate(config)
    source.execute("UPDATE t SET v = 'new', at = now() WHERE id <= 3; INSERT INTO t (v) VALUES ('more')")
    found = portl.migrate(config)
    assert (found.rows_inserted, found.rows_updated) == (1, 3)
    assert found.rows_read < 50
    assert found.tables[0].watermark_before == first.tables[0].watermark
    assert found.tables[0].watermark == source.value("SELECT to_json(max(at)) #>> '{}' FROM t")
    assert held(source) == held(destination)
    assert portl.status(config).runs[0].to_dict()["watermark"] == found.tables[0].watermark


@pytest.mark.parametrize("savepoint", [False, True], ids=["", "in a savepoint"])
@pytest.mark.parametrize("cursor", ["id", "at"])
def test_what_commits_late_is_read_by_the_next_run(source: Db, destination: Db, cursor: str, savepoint: bool) -> None:
    filled(source)
    config = job(source, destination, incremental={"cursor": cursor})
    with session(source) as one, session(source) as other:
        for connection in (one, other):
            connection.execute("INSERT INTO t (v) VALUES ('begun')")  # it has its number before the others
            if savepoint:
                connection.execute("SAVEPOINT s")
            connection.execute("INSERT INTO t (v) VALUES ('late')")
            connection.execute(
                "UPDATE t SET v = 'changed late', at = now() WHERE id = %s", [1 if connection is one else 2]
            )
        source.execute("INSERT INTO t (v) SELECT 'early' FROM generate_series(1, 5)")
        portl.migrate(config)
        one.commit()
        portl.migrate(config)
        assert held(source) == held(destination)
        source.execute("INSERT INTO t (v) SELECT 'between' FROM generate_series(1, 5)")
        portl.migrate(config)
        other.commit()
    portl.migrate(config)
    assert held(source) == held(destination)


def test_numbers_that_a_session_has_cached_are_not_missed(source: Db, destination: Db) -> None:
    filled(source)
    source.execute("ALTER SEQUENCE t_id_seq CACHE 20")
    config = job(source, destination, incremental={"cursor": "id"})
    with session(source) as one:
        one.execute("INSERT INTO t (v) VALUES ('takes twenty')")
        one.commit()
        source.execute("INSERT INTO t (v) VALUES ('takes the next twenty')")
        portl.migrate(config)
        one.execute("INSERT INTO t (v) VALUES ('a lower number, and committed later')")
        one.commit()
    assert portl.migrate(config).rows_inserted == 1
    assert held(source) == held(destination)


def test_an_index_on_a_timestamp_bounds_the_look_back(source: Db, destination: Db, monkeypatch: Any) -> None:
    monkeypatch.setattr(increments, "_OPEN", increments._OPEN.replace(increments.MARGIN, "interval '0'"))
    filled(source)
    config = job(source, destination)
    for _ in range(3):
        portl.migrate(config)
        source.execute("INSERT INTO t (v) VALUES ('x')")
    plan = portl.plan(config)
    assert any("looked for from at = " in text for text in said(plan)), said(plan)
    with session(source) as late:
        late.execute("SELECT now()")  # it has begun, and written nothing: no snapshot lists it
        for _ in range(3):
            source.execute("INSERT INTO t (v) VALUES ('y')")
            portl.migrate(config)
        late.execute("INSERT INTO t (v) VALUES ('late')")
        late.commit()
    assert portl.migrate(config).rows_inserted == 1
    assert held(source) == held(destination)
    source.execute("DROP INDEX t_at_idx")
    assert any("found by one scan" in text for text in said(portl.plan(config)))


@pytest.mark.parametrize("by", ["xmin", "auto"])
def test_xmin_finds_every_change_without_a_column_for_it(source: Db, destination: Db, by: str) -> None:
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, '' FROM generate_series(1, 9) g"
    )
    config = job(source, destination, incremental={"by": by})
    assert read(portl.migrate(config)) == (9, 9, 0, 0)
    with session(source) as late:
        late.execute("SAVEPOINT s")
        late.execute("UPDATE t SET v = 'late' WHERE id = 1")
        source.execute("UPDATE t SET v = 'now' WHERE id = 2")
        source.execute("VACUUM (FREEZE) t")
        assert portl.migrate(config).rows_updated == 1
        late.commit()
    assert portl.migrate(config).rows_updated == 1
    source.execute("VACUUM (FREEZE) t")
    assert portl.migrate(config).rows_updated == 0
    assert held(source) == held(destination)
    assert ("it sees every change" in " ".join(said(portl.plan(config)))) is (by == "auto")


def test_nulls_are_refused_or_read_each_time_or_never(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, at timestamptz); INSERT INTO t VALUES (1, now()), (2, NULL)")
    assert refused(job(source, destination)) == [
        "incremental.nulls: 'at' is NULL in 1 row -> set `incremental.nulls` to include (they are read each time) or"
        " exclude (never)"
    ]
    assert portl.migrate(job(source, destination, incremental={"cursor": "at", "nulls": "exclude"})).rows_inserted == 1
    include = job(source, destination, incremental={"cursor": "at", "nulls": "include"}, name="include")
    assert portl.migrate(include).rows_inserted == 1
    assert portl.migrate(include).rows_read == 2


def test_from_and_lag_move_where_reading_begins(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, at timestamp NOT NULL)")
    source.execute(
        "INSERT INTO t SELECT g, '2024-01-01'::timestamp + g * interval '1 hour' FROM generate_series(0, 99) g"
    )
    config = job(source, destination, incremental={"cursor": "at", "from": "2024-01-02", "lag": "3h"})
    assert portl.migrate(config).rows_read == 76
    source.execute("VACUUM FREEZE t")
    with session(source):
        assert portl.migrate(config).rows_read >= 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DROP TABLE t; {TABLE}", "t is another table than that of"),
        ("ALTER TABLE t ALTER at TYPE timestamp", "'at' was timestamp with time zone and is timestamp without"),
        ("ALTER TABLE t ADD COLUMN n int DEFAULT 5", "the job has changed since the run of"),
    ],
)
def test_a_watermark_that_says_nothing_of_the_source_is_told_apart(
    source: Db, destination: Db, change: str, words: str
) -> None:
    filled(source)
    config = job(source, destination)
    portl.migrate(config)
    source.execute(change.replace("{TABLE}", TABLE))
    destination.execute("ALTER TABLE t ADD COLUMN IF NOT EXISTS n int")
    problems = refused(config)
    assert any(words in text for text in problems), problems
    assert any("`--full-refresh` reads all rows again" in text for text in problems)
    if "DROP" not in change:
        found = portl.migrate(config, full_refresh=True)
        assert found.rows_read == 50
        assert found.tables[0].watermark_before is None
        assert portl.plan(config).problems == ()


def forged(destination: Db, name: str, value: str) -> None:
    """Change what the ledger says of the state that the last run has read."""
    destination.execute(
        "UPDATE portl.migrations SET snapshots = jsonb_set(snapshots::jsonb, %s::text[], %s::jsonb)::json",
        ["1", "watermark", name],
        value,
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DROP TABLE t", "public.t is gone since the run of"),
        ("ALTER TABLE t RENAME TO old; CREATE TABLE t (LIKE old INCLUDING ALL)", "has been replaced by another table"),
        ("TRUNCATE t", "public.t has been emptied since the run of"),
    ],
)
def test_a_destination_that_lost_its_rows_is_told_apart(source: Db, destination: Db, change: str, words: str) -> None:
    filled(source)
    config = job(source, destination)
    portl.migrate(config)
    destination.execute(change)
    assert any(words in text for text in refused(config)), refused(config)
    restarted = [str(problem) for problem in portl.plan(config, restart=True).problems]
    assert any(words in text for text in restarted), restarted
    assert portl.migrate(config, full_refresh=True).rows_inserted == 50
    assert held(source) == held(destination)


def test_another_server_is_told_apart(source: Db, destination: Db) -> None:
    filled(source)
    config = job(source, destination)
    portl.migrate(config)
    forged(destination, "system", '["9", "elsewhere"]')
    assert any("is another server or database" in text for text in refused(config))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("timeline", '"ff"', "the server has failed over since"),
        ("floor", "-2147483648", "more than two billion transactions have passed"),
    ],
)
def test_numbers_of_transactions_that_mean_nothing_any_more_have_all_rows_read_once(
    source: Db, destination: Db, name: str, value: str, words: str
) -> None:
    filled(source)
    config = job(source, destination)
    portl.migrate(config)
    forged(destination, name, value)
    assert any(words in text for text in said(portl.plan(config)))
    assert portl.migrate(config).rows_read == 50
    assert portl.plan(config).warnings == ()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"incremental": {"cursor": "nope"}}, "incremental.cursor: public.t has no column 'nope'"),
        ({"incremental": {"cursor": "id", "lag": "5m"}}, "only a timestamp can lag"),
        ({"conflict": "fail"}, "does not go with `conflict: fail`"),
        ({"mask": ["at"]}, "'at' is masked, and the watermark, which is one of its values, is shown"),
        ({"atomic": True}, "atomic: an incremental job records its watermark"),
        ({"ledger": {"mode": "off"}}, "without a ledger, nothing remembers the watermark"),
    ],
)
def test_what_does_not_go_with_it_is_refused(source: Db, destination: Db, keys: dict[str, Any], words: str) -> None:
    filled(source)
    assert any(words in text for text in refused(job(source, destination, **keys))), words


def test_a_full_refresh_is_for_incremental_jobs(source: Db, destination: Db) -> None:
    filled(source)
    config = job(source, destination, mode="full")
    del config["incremental"]
    with pytest.raises(portl.ConfigError, match="needs `mode: incremental`, found `mode: full`"):
        portl.migrate(config, full_refresh=True)


def test_a_table_without_a_key_is_refused(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (id serial, at timestamptz DEFAULT now() NOT NULL)")
    assert any("needs a key" in text for text in refused(job(source, destination)))


@pytest.mark.parametrize(
    ("incremental", "words"),
    [
        ({}, "incremental.cursor: missing; name the column whose values grow, or set `by: xmin` or `by: auto`"),
        ({"by": "xmin", "cursor": "at"}, "incremental.cursor: needs `by: cursor`, found `by: xmin`"),
        ({"by": "xmin", "from": "1"}, "incremental.from: needs `by: cursor`, found `by: xmin`"),
        ({"cursor": "at", "lag": "5 minutes"}, "incremental.lag: expected a number with a unit of us, ms, s, m, h, d"),
        (None, "incremental: missing; `mode: incremental` needs a cursor"),
    ],
)
def test_a_job_that_is_wrong_is_refused_with_the_key(
    source: Db, destination: Db, incremental: dict[str, Any] | None, words: str
) -> None:
    config = job(source, destination, incremental=incremental)
    if incremental is None:
        del config["incremental"]
    with pytest.raises(portl.ConfigError) as caught:
        portl.plan(config)
    assert words in str(caught.value)


def test_a_query_is_read_by_its_cursor_with_a_warning(source: Db, destination: Db) -> None:
    filled(source)
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, at timestamptz)")
    config = job(source, destination, src={"query": "SELECT id, at FROM t"}, incremental={"cursor": "at", "lag": "1h"})
    assert any("has no xmin" in text for text in said(portl.plan(config)))
    portl.migrate(config)
    source.execute("INSERT INTO t (v) VALUES ('x')")
    assert portl.migrate(config).rows_inserted == 1


@pytest.mark.parametrize("table", ["t", "w"], ids=["a table", "a view"])
def test_ties_at_the_watermark_are_read_again_and_a_cursor_that_goes_backwards_is_told(
    source: Db, destination: Db, table: str
) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL); INSERT INTO t VALUES (1, 10), (2, 20)")
    source.execute("CREATE VIEW w AS TABLE t")
    destination.execute("CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL)")
    config = job(source, destination, src={"table": table}, incremental={"cursor": "n"})
    assert portl.migrate(config).rows_read == 2
    source.execute("INSERT INTO t VALUES (3, 20)")
    assert portl.migrate(config).rows_inserted == 1
    assert held(source) == held(destination)
    source.execute("DELETE FROM t WHERE n = 20")
    warned = "the greatest 'n' was 20 and is now 10: rows were deleted or changed"
    assert any(warned in text for text in said(portl.plan(config)))
    by_xmin = job(source, destination, src={"table": table}, incremental={"by": "xmin"}, name="by xmin")
    assert refused(by_xmin) == (
        []
        if table == "t"
        else [
            "incremental.by: a view has no xmin: its rows do not say which transaction wrote them -> name a column with"
            " `incremental.cursor`"
        ]
    )


def test_a_dump_that_is_restored_into_the_same_table_is_read_as_a_whole(source: Db, destination: Db) -> None:
    filled(source)
    config = job(source, destination)
    for _ in range(3):
        portl.migrate(config)  # so that an index bounds the look back
    source.execute("CREATE TABLE dump AS SELECT id, v || ' of the dump' AS v, at FROM t WHERE id <= 40")
    source.execute("BEGIN; TRUNCATE t; INSERT INTO t TABLE dump; COMMIT")
    found = portl.migrate(config)
    assert (found.rows_read, found.rows_updated) == (40, 40)
    assert source.execute("TABLE t ORDER BY id") == destination.execute("SELECT * FROM t WHERE id <= 40 ORDER BY id")


def test_a_killed_run_is_resumed_from_where_the_one_before_it_ended(
    source: Db, destination: Db, victim: Victim
) -> None:
    filled(source, 400)
    config = job(source, destination, chunk_rows=50, batch_size=10)
    portl.migrate(config)
    source.execute("UPDATE t SET v = v || '!', at = now() WHERE id <= 300")
    statements = victim.run({**config, "name": "measured", "destination": destination.end(table="u")})["statements"]
    for n in range(3, statements, 17):
        source.execute("UPDATE t SET v = v || '.', at = now() WHERE id % 7 = 0")
        victim.run(config, statement=n)
    # What has changed since the last kill may be in chunks that were done before it: the next run reads it.
    portl.migrate(config)
    portl.migrate(config)
    assert held(source) == held(destination)


def test_the_command_line_refreshes_and_shows_the_watermark(source: Db, destination: Db, tmp_path: Any) -> None:
    filled(source)
    file = tmp_path / "job.yaml"
    file.write_text(json.dumps({**job(source, destination), "verify": "full"}))
    assert portl_cli("run", file).returncode == 0
    again = portl_cli("run", file, "--full-refresh")
    assert again.returncode == 0, again.stderr
    assert "(everything)" in again.stdout
    said = " ".join(portl_cli("status", file).stdout.split())
    assert "1 of 1 chunks, 50 rows, up to 20" in said
    assert "beyond the watermark, the source has 0 rows" in said


def test_status_says_how_far_the_source_is_beyond_the_watermark(
    source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(source)
    config = job(source, destination)
    assert portl.status(config).behind is None
    portl.migrate(config)
    assert portl.status(config).behind == portl.Behind(rows=0)
    source.execute("INSERT INTO t (v, at) SELECT 'x', max(at) + interval '90 minutes' FROM t RETURNING at")
    source.execute("INSERT INTO t (v, at) SELECT 'y', at - interval '1 minute' FROM t ORDER BY at DESC LIMIT 1")
    found = portl.status(config)
    last = source.value("SELECT to_json(max(at)) #>> '{}' FROM t")
    assert found.behind == portl.Behind(rows=2, value=last, seconds=5400.0)
    assert found.to_dict()["behind"] == {"rows": 2, "more": False, "value": last, "seconds": 5400.0}
    assert f"the source has 2 rows, up to {last} (1:30:00 later)" in " ".join(
        line.text for line in render_status(found, 200)
    )
    monkeypatch.setattr(increments, "MOST_BEHIND", 1)
    by_id = job(source, destination, incremental={"cursor": "id"}, name="by id")
    portl.migrate(by_id)
    source.execute("INSERT INTO t (v) VALUES ('a'), ('b'), ('c')")
    found = portl.status(by_id)
    assert found.behind is not None
    assert (found.behind.rows, found.behind.more, found.behind.seconds) == (1, True, None)
    away = portl.status({**config, "source": source.end(table="t", port=1)})
    assert (away.behind, len(away.runs)) == (None, 1)
    assert "port 1" in (away.unknown or "") or "refused" in (away.unknown or ""), away.unknown
