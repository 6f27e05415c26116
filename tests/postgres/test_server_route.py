"""Both sides are one database: rows stay inside the server, and come out as if they had left it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool

import portl
from tests.killing import Victim
from tests.servers import Db

TABLE = """
CREATE TABLE t (id int PRIMARY KEY, n int, name text, at timestamptz, data jsonb, tags text[]);
INSERT INTO t SELECT g, g % 7, 'name ' || g, '2024-01-01 00:00+00'::timestamptz + g * interval '1 hour',
    jsonb_build_object('a', g), ARRAY['x', g::text, NULL] FROM generate_series(1, 500) AS g;
"""

#: Of the 500 rows 100 stand there alike, 100 differ, and 100 rows are its own.
THERE = """
CREATE TABLE {table} (id int PRIMARY KEY, n int, name text, at timestamptz, data jsonb, tags text[]);
INSERT INTO {table} SELECT * FROM t WHERE id <= 100;
INSERT INTO {table} SELECT id, n + 1, NULL, at, '{{"b": 1}}', ARRAY['y'] FROM t WHERE id BETWEEN 101 AND 200;
INSERT INTO {table} SELECT id + 1000, n, name, at, data, tags FROM t WHERE id <= 100;
"""


def job(db: Db, table: str, **keys: Any) -> dict[str, Any]:
    """Return a job inside one database; ``source`` and ``destination`` in ``keys`` add to the two sides."""
    source = db.end(**{"table": "t", **keys.pop("source", {})})
    destination = db.end(**{"table": table, **keys.pop("destination", {})})
    return {"source": source, "destination": destination, **keys}


def counts(result: portl.Result) -> tuple[int, ...]:
    t = result.tables[0]
    return (t.rows_read, t.rows_inserted, t.rows_updated, t.rows_unchanged, t.rows_skipped, t.rows_rejected)


def rows(db: Db, table: str) -> list[tuple[Any, ...]]:
    return db.execute(f"SELECT x::text FROM {table} AS x ORDER BY 1")


def task(job: dict[str, Any]) -> portl.TableTask:
    return portl.plan(job).tables[0]


def both(db: Db, prepare: str = "", *, ends_by: str = "server", **keys: Any) -> tuple[portl.Result, portl.Result]:
    """Run a job inside the server and by relay, into tables that are prepared alike; compare the rows.

    ``ends_by`` is the route that the former ends with: one that refuses a row gives way to the relay.
    """
    results = []
    for table, route in (("direct", "auto"), ("relayed", "relay")):
        if prepare:
            db.execute(prepare.format(table=table))
        given = {key: dict(value) if isinstance(value, dict) else value for key, value in keys.items()}
        results.append(portl.migrate(job(db, table, route=route, **given)))
    assert results[0].tables[0].route == ends_by
    assert results[1].tables[0].route == "relay"
    assert rows(db, "direct") == rows(db, "relayed")
    assert counts(results[0]) == counts(results[1])
    return results[0], results[1]


@pytest.fixture
def db(source: Db) -> Db:
    source.execute(TABLE)
    return source


STRATEGIES: dict[str, Any] = {
    "overwrite": "overwrite",
    "skip": "skip",
    "merge": "merge",
    "merge with words": {
        "strategy": "merge",
        "columns": {"n": "sum", "name": "keep", "data": "json", "tags": "union", "at": "greatest"},
    },
    "merge with an expression": {
        "strategy": "merge",
        "columns": {"n": "source.n * 10 + destination.n", "name": "coalesce"},
    },
    "merge the newest": {"strategy": "merge", "newest_by": "n"},
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("prepare", ["", THERE], ids=["new", "existing"])
def test_every_strategy_does_what_it_does_by_relay(db: Db, strategy: str, prepare: str) -> None:
    direct, _ = both(db, prepare, conflict=STRATEGIES[strategy])
    assert direct.tables[0].bytes == 0


def test_fail_fills_a_table_that_is_empty(db: Db) -> None:
    both(db, "CREATE TABLE {table} (LIKE t INCLUDING ALL)", conflict="fail")


def test_a_second_run_changes_nothing(db: Db) -> None:
    portl.migrate(job(db, "u"))
    before = db.execute("SELECT ctid, * FROM u ORDER BY id")
    assert counts(portl.migrate(job(db, "u"))) == (500, 0, 0, 500, 0, 0)
    assert db.execute("SELECT ctid, * FROM u ORDER BY id") == before


def test_a_new_table_has_its_key_and_an_empty_source_makes_an_empty_table(db: Db) -> None:
    db.execute("DELETE FROM t")
    both(db)
    assert db.value("SELECT count(*) FROM pg_constraint WHERE conrelid = 'direct'::regclass AND contype = 'p'") == 1


@pytest.mark.parametrize("strategy", ["overwrite", "skip", "merge"])
def test_rows_with_one_key_follow_each_other_as_by_relay(db: Db, strategy: str) -> None:
    db.execute(
        "CREATE TABLE log (k int, v int);"
        " INSERT INTO log SELECT g % 10, nullif(g, 95) FROM generate_series(1, 100) AS g"
    )
    prepare = "CREATE TABLE {table} (k int PRIMARY KEY, v int); INSERT INTO {table} VALUES (5, -1), (77, 0)"
    both(db, prepare, source={"table": "log"}, conflict=strategy)


def test_a_deferrable_key_and_a_partitioned_table_are_met_as_by_relay(db: Db) -> None:
    deferrable = "CREATE TABLE {table} (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, n int, name text,"
    deferrable += " at timestamptz, data jsonb, tags text[]); INSERT INTO {table} SELECT id, 0 FROM t WHERE id < 50"
    both(db, deferrable)
    db.execute("DROP TABLE direct, relayed")
    parts = "CREATE TABLE {table} (LIKE t, PRIMARY KEY (id)) PARTITION BY RANGE (id);"
    parts += " CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES FROM (0) TO (250);"
    parts += " CREATE TABLE {table}_2 PARTITION OF {table} DEFAULT; INSERT INTO {table} SELECT id FROM t WHERE id > 400"
    both(db, parts)


READINGS: dict[str, dict[str, Any]] = {
    "where": {"source": {"where": "n > 2 -- and so on"}},
    "limit": {"source": {"limit": 123}},
    "no row": {"source": {"limit": 0}},
    "some columns": {"source": {"columns": ["id", "n"]}},
    "other names": {"schema_mapping": {"n": "number", "name": "Na me"}},
    "casts": {"types": [{"column": "n", "to": "bigint"}, {"column": "at", "to": "text"},
                        {"type": "integer", "to": "numeric(9,2)"}]},
    "an expression": {"types": [{"column": "name", "to": "text", "using": "upper(name) || n"}]},
    "query": {"source": {"table": None, "query": "SELECT n AS id, count(*) AS c, max(at) AS last FROM t GROUP BY n;"},
              "destination": {"primary_key": ["id"]}},
    "query cut by values": {"source": {"table": None, "query": "SELECT id, n FROM t", "split_by": "id"},
                            "destination": {"primary_key": ["id"]}},
    "view": {"source": {"table": "v"}, "destination": {"primary_key": ["id"]}},
}  # fmt: skip


@pytest.mark.parametrize("reading", READINGS)
def test_what_is_read_is_what_is_read_by_relay(db: Db, reading: str) -> None:
    db.execute("CREATE VIEW v AS SELECT id, n * 2 AS n, now() > at AS past FROM t WHERE n < 5")
    both(db, **READINGS[reading])


def test_a_query_onto_rows_that_are_there(db: Db) -> None:
    both(db, THERE, source={"table": None, "query": "SELECT * FROM t WHERE id % 2 = 0"})


def test_identities_and_generated_columns_and_sequences(db: Db) -> None:
    db.execute("""CREATE TABLE g (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int, twice int GENERATED ALWAYS AS
        (v * 2) STORED); INSERT INTO g (v) SELECT g FROM generate_series(1, 40) AS g; DELETE FROM g WHERE id > 30""")
    prepare = """CREATE TABLE {table} (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int, twice int GENERATED
        ALWAYS AS (v * 2) STORED, d text DEFAULT 'default'); INSERT INTO {table} (v) VALUES (-1), (-2)"""
    both(db, prepare, source={"table": "g"})
    for table in ("direct", "relayed"):
        assert db.value(f"INSERT INTO {table} (v) VALUES (7) RETURNING id") == 41


def test_types_without_a_portable_binary_form_stay_on_the_server_too(db: Db) -> None:
    db.execute(
        "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TABLE odd (id int PRIMARY KEY, c regclass, m mood, a aclitem)"
    )
    db.execute("INSERT INTO odd VALUES (1, 't', 'bad', '=r/postgres'), (2, NULL, NULL, NULL)")
    both(db, source={"table": "odd"})


def test_the_plan_says_so_and_shows_the_statement(db: Db) -> None:
    plan = portl.plan(job(db, "u"))
    assert plan.tables[0].route == "server"
    assert "route     server: both sides are one database, and rows stay inside the server" in str(plan)
    assert plan.tables[0].examination.write[0].startswith('INSERT INTO "public"."u" AS destination ("id", "n",')
    assert 'FROM "public"."t"' in plan.tables[0].examination.write[0]


def test_a_route_that_the_job_names_is_taken(db: Db) -> None:
    assert task(job(db, "u", route="server")).intent.format.reason == "the job asks for it: server"
    for route in ("relay", "rows"):
        assert portl.migrate(job(db, route, route=route)).tables[0].route == route


def test_the_name_by_which_a_server_is_reached_does_not_matter(db: Db) -> None:
    assert db.endpoint.host == "127.0.0.1"
    assert portl.migrate(job(db, "u", destination={"host": "localhost"})).tables[0].route == "server"


def test_another_database_of_the_server_is_another(db: Db, destination: Db) -> None:
    sides = {"source": db.end(table="t"), "destination": destination.end(table="t")}
    assert task(sides).route == "relay"
    plan = portl.plan({**sides, "route": "server"})
    assert [f.message for f in plan.problems] == [
        "not server: source and destination are not the same database of one running server"
    ]


def refused(db: Db, expected: str, table: str = "u", **keys: Any) -> None:
    """Insist that the server's route is not taken, with the reason, and that the job can be done."""
    found = task(job(db, table, **keys))
    assert (found.route, f"not server: {expected}" in found.intent.format.reason) == ("relay", True), (
        found.intent.format
    )
    problems = [f.message for f in portl.plan(job(db, table, route="server", **keys)).problems]
    assert problems == [f"not server: {expected}"]


REFUSALS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "triggers": (
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        " CREATE TABLE u (id int PRIMARY KEY, n int); CREATE TRIGGER tr BEFORE INSERT ON u"
        " FOR EACH ROW EXECUTE FUNCTION f()",
        "public.u has triggers (tr), which may leave rows out",
        {"source": {"columns": ["id", "n"]}},
    ),
    "rules": (
        "CREATE TABLE u (id int PRIMARY KEY, n int); CREATE RULE ru AS ON INSERT TO u DO ALSO NOTHING",
        "public.u has rules (ru), which COPY ignores",
        {"source": {"columns": ["id", "n"]}, "conflict": "fail"},
    ),
    "texts to be read": (
        "CREATE TABLE u (id int PRIMARY KEY, name int)",
        "'name' becomes integer at the destination, from its text",
        {"source": {"columns": ["id", "name"]}},
    ),
    "volatile": (
        "",
        "the function random is volatile, and a source is only read",
        {"source": {"table": None, "query": "SELECT id, random() AS n FROM t"}},
    ),
    "own volatile function": (
        "CREATE FUNCTION w(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END'",
        "the function w is volatile, and a source is only read",
        {"source": {"where": "w(n)"}},
    ),
    "chunks": ("", "`chunk_rows` asks for chunks, which have to read one state", {"chunk_rows": 100}),
    "verify": ("", "`verify` compares with the state that the source had at the beginning", {"verify": "count"}),
    "settings": (
        "",
        "the setting TimeZone differs between the two sides",
        {"types": {"timestamptz": "text"}, "destination": {"params": {"options": "-c timezone=Asia/Tokyo"}}},
    ),
    "schemas": (
        "CREATE SCHEMA other",
        "names in the query are looked up in other schemas at the destination",
        {"source": {"where": "id > 3"}, "destination": {"params": {"options": "-c search_path=other"}}},
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_it_is_left_out_with_the_reason(db: Db, refusal: str) -> None:
    prepare, expected, keys = REFUSALS[refusal]
    if prepare:
        db.execute(prepare)
    refused(db, expected, **keys)


def test_a_table_onto_itself_goes_by_relay(db: Db) -> None:
    refused(db, "public.t is also what is read", table="t")


def test_a_query_that_writes_changes_nothing(db: Db) -> None:
    db.execute("CREATE SEQUENCE s")
    with pytest.raises(portl.QueryError, match="nextval"):
        portl.migrate(job(db, "u", source={"table": None, "query": "SELECT id, nextval('s') AS n FROM t"}))
    assert db.value("SELECT is_called FROM s") is False


@pytest.fixture
def writer(db: Db) -> Iterator[str]:
    """A role that may write to schema ``own`` and, so far, read nothing else."""
    db.execute("CREATE ROLE portl_direct LOGIN PASSWORD 'w'; CREATE SCHEMA own AUTHORIZATION portl_direct")
    db.execute(
        "DO $$ BEGIN"
        " EXECUTE format('GRANT CREATE, TEMPORARY ON DATABASE %I TO portl_direct', current_database()); END $$"
    )
    yield "portl_direct"
    db.execute("DROP OWNED BY portl_direct CASCADE; DROP ROLE portl_direct")


def test_a_role_that_may_not_read_the_source_gets_the_rows_by_relay(db: Db, writer: str) -> None:
    side = {"schema": "own", "username": writer, "password": "w"}
    found = task(job(db, "u", destination=side))
    assert found.route == "relay"
    assert "not server: the destination's role may not read it: " in found.intent.format.reason
    assert "permission denied for table t" in found.intent.format.reason
    assert portl.migrate(job(db, "u", destination=side)).tables[0].rows_inserted == 500


def test_a_role_that_may_read_the_source_keeps_rows_on_the_server_but_not_a_query(db: Db, writer: str) -> None:
    db.execute(f"GRANT SELECT ON t TO {writer}")
    side = {"schema": "own", "username": writer, "password": "w"}
    assert portl.migrate(job(db, "u", destination=side)).tables[0].route == "server"
    assert db.value("SELECT count(*) FROM own.u") == 500
    said = "what is read may depend on the role, and the destination's is 'portl_direct', not 'postgres'"
    refused(db, said, source={"where": "id > 3"}, destination=side)


def test_row_security_that_hides_rows_from_the_destinations_role_is_seen(db: Db, writer: str) -> None:
    db.execute(f"GRANT SELECT ON t TO {writer}; ALTER TABLE t ENABLE ROW LEVEL SECURITY;")
    db.execute("CREATE POLICY half ON t USING (id <= 250)")
    found = portl.migrate(job(db, "u", destination={"schema": "own", "username": writer, "password": "w"}))
    assert (found.tables[0].route, found.tables[0].rows_inserted) == ("relay", 500)


def connect(db: Db, **keys: Any) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=db.endpoint.host,
        port=db.endpoint.port,
        user=db.endpoint.user,
        password=db.endpoint.password,
        dbname=db.connection.info.dbname,
        **keys,
    )


@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_callers_transaction_is_seen_by_nobody_else(db: Db, side: str) -> None:
    with connect(db) as supplied:
        supplied.execute("SELECT 1")
        given: dict[str, Any] = {side: supplied}
        found = portl.plan(job(db, "u"), **given).tables[0]
        assert found.route == "relay"
        assert f"not server: the {side}'s connection is inside a transaction" in found.intent.format.reason


def test_a_callers_connection_or_pool_without_a_transaction_will_do(db: Db) -> None:
    with (
        connect(db, autocommit=True) as supplied,
        ConnectionPool(db.connection.info.dsn, kwargs={"password": db.endpoint.password}) as pool,
    ):
        result = portl.migrate(job(db, "u"), source=supplied, destination=pool)
        assert result.tables[0].route == "server"
        assert supplied.execute("SHOW synchronize_seqscans").fetchone() == ("on",)


def test_a_temporary_table_of_a_callers_session_goes_by_relay(db: Db) -> None:
    with connect(db, autocommit=True) as supplied:
        supplied.execute("CREATE TEMPORARY TABLE t (id int, n int)")
        supplied.execute("INSERT INTO t VALUES (1, 1)")
        found = job(db, "u", source={"table": None, "query": "SELECT * FROM t"}, conflict="fail")
        assert portl.migrate(found, source=supplied).tables[0].route == "relay"
        assert db.execute("SELECT * FROM u") == [(1, 1)]


BAD = "CREATE TABLE {table} (LIKE t INCLUDING ALL, CHECK (id <> 333))"


def test_a_refused_row_is_named_and_the_batches_before_it_are_kept(db: Db) -> None:
    found = []
    for table, route in (("direct", "server"), ("relayed", "relay")):
        db.execute(BAD.format(table=table))
        with pytest.raises(portl.DataError) as caught:
            portl.migrate(job(db, table, route=route, batch_size=50, mask=["name"]))
        error = caught.value
        assert error.committed is not None
        found.append((str(error).replace(table, ""), error.row, error.batch, counts(error.committed)))
    assert found[0] == found[1]
    assert "row 333 of the source (batch 7) with id = 333" in found[0][0]
    assert rows(db, "direct") == rows(db, "relayed")
    assert db.value("SELECT count(*) FROM direct") == 300
    db.execute("ALTER TABLE direct DROP CONSTRAINT direct_id_check")
    assert portl.migrate(job(db, "direct", route="server", batch_size=50)).tables[0].rows_inserted == 500
    assert rows(db, "direct") == rows(db, "t")


@pytest.mark.parametrize("atomic", [False, True])
def test_a_refused_row_is_quarantined(db: Db, atomic: bool) -> None:
    direct, _ = both(db, BAD, ends_by="relay", on_error="quarantine", atomic=atomic)
    assert direct.tables[0].rows_rejected == 1
    assert db.execute("SELECT row->>'id' FROM direct__rejected") == [("333",)]


@pytest.mark.parametrize("keys", [{"atomic": True}, {"ledger": {"mode": "off"}}], ids=["atomic", "no ledger"])
@pytest.mark.parametrize("strategy", ["overwrite", "skip", "merge"])
def test_other_ways_of_delivery_end_alike(db: Db, keys: dict[str, Any], strategy: str) -> None:
    both(db, THERE, conflict=strategy, **keys)


def test_an_atomic_job_of_which_a_row_is_refused_leaves_nothing(db: Db) -> None:
    db.execute(BAD.format(table="u"))
    with pytest.raises(portl.DataError, match="with id = 333"):
        portl.migrate(job(db, "u", atomic=True))
    assert db.value("SELECT count(*) FROM u") == 0


def test_it_is_one_chunk_however_many_workers_there_are(db: Db) -> None:
    result = portl.migrate(job(db, "u", parallel=3))
    assert (result.tables[0].chunks, result.tables[0].rows_inserted) == (1, 500)
    assert db.execute("SELECT count(*), sum(rows) FROM portl.chunks") == [(1, 500)]


def test_a_run_in_chunks_that_was_interrupted_goes_on_in_chunks(db: Db) -> None:
    db.execute(BAD.format(table="u"))
    keys = {"chunk_rows": 100, "route": "relay"}
    with pytest.raises(portl.DataError):
        portl.migrate(job(db, "u", **keys))
    db.execute("ALTER TABLE u DROP CONSTRAINT u_id_check")
    found = task(job(db, "u"))
    assert (found.route, "the run that is resumed is cut into 5 chunks" in found.intent.format.reason) == (
        "relay",
        True,
    )
    portl.migrate(job(db, "u"))
    assert rows(db, "u") == rows(db, "t")


@pytest.mark.parametrize("step", [14, pytest.param(2, marks=pytest.mark.faults)], ids=["some", "many"])
def test_killed_before_any_statement_it_ends_with_the_right_rows(db: Db, victim: Victim, step: int) -> None:
    total = victim.run(job(db, "u"))["statements"]
    for strategy, prepare in (("overwrite", ""), ("merge", THERE)):
        for statement in range(total, 10, -step):
            db.execute("DROP TABLE u")
            if prepare:
                db.execute(prepare.format(table="u"))
            found = job(db, "u", conflict=strategy)
            victim.run(found, statement=statement)
            again = victim.run(found)
            assert again["error"] is None
            db.execute("DROP TABLE IF EXISTS calm")
            if prepare:
                db.execute(prepare.format(table="calm"))
            portl.migrate(job(db, "calm", conflict=strategy, route="relay"))
            assert rows(db, "u") == rows(db, "calm")
