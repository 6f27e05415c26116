"""A job of many tables: everything arrives as it was, whatever is there already, and whatever fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import portl
from tests.jobs import PATIENT, Once
from tests.servers import Db
from tests.whole import EVERYTHING, ROWS, differences, dump, job_of, positions


@pytest.fixture
def whole(source: Db) -> Db:
    source.execute(EVERYTHING)
    source.execute(ROWS)
    return source


def arrived(source: Db, destination: Db, job: dict[str, Any]) -> None:
    """Check that two databases are the same."""
    assert differences(source, destination) == []
    assert positions(destination) == positions(source)
    found = portl.verify(job)
    assert [table for table in found.tables if not table.equal] == []
    for view in ("sales.m", "sales.v"):
        query = f"SELECT count(*), max(id) FROM {view}"
        assert destination.execute(query) == source.execute(query)


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_whole_database_arrives(whole: Db, destination: Db, parallel: int) -> None:
    job = job_of(whole, destination, parallel=parallel, chunk_rows=1000)
    result = portl.migrate(job)
    arrived(whole, destination, job)
    assert result.tables["sales.order"].rows_read == 500
    rows = {table.destination: table.rows_inserted for table in result.tables}
    assert (rows["public.events"], rows["public.animal"], rows["public.dog"]) == (9000, 1, 1)
    assert rows["public.nothing"] == destination.value("SELECT count(*) FROM nothing") == 7
    (run,) = portl.status(job).runs
    assert (run.state, run.acknowledged) == (portl.RunState.DONE, True)
    assert len(run.tables) == len(result.tables)


def test_what_is_there_is_met_by_the_strategy(source: Db, destination: Db) -> None:
    source.execute(
        "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);"
        "INSERT INTO a SELECT g, 'new' FROM generate_series(1, 300) AS g; INSERT INTO b SELECT id, id FROM a"
    )
    job = job_of(source, destination)
    assert portl.migrate(job).rows_inserted == 600
    again = portl.migrate(job)
    assert (again.rows_read, again.rows_unchanged) == (600, 600)
    destination.execute("UPDATE a SET v = 'old' WHERE id <= 10; DELETE FROM b WHERE id = 7")
    third = portl.migrate(job)
    assert (third.rows_updated, third.rows_inserted, third.rows_unchanged) == (10, 1, 589)
    assert portl.verify(job).equal


def test_a_database_that_has_half_of_it_gets_the_rest(source: Db, destination: Db) -> None:
    tables = "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a)"
    source.execute(f"{tables}; CREATE INDEX ON a (v); CREATE INDEX ON b (a)")
    source.execute("INSERT INTO a SELECT g, 'x' FROM generate_series(1, 50) AS g; INSERT INTO b SELECT id, id FROM a")
    destination.execute("CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'old'), (99, 'own')")
    job = job_of(source, destination)
    portl.migrate(job)
    assert destination.value("SELECT v FROM a WHERE id = 1") == "x"
    assert destination.value("SELECT count(*) FROM a") == 51
    indexes = destination.execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")
    assert indexes == [("a_pkey",), ("b_a_idx",), ("b_pkey",)]  # nothing is created for a table that was there
    assert destination.value("SELECT count(*) FROM pg_constraint WHERE contype = 'f'") == 1


def test_entries_have_jobs_of_their_own(source: Db, destination: Db) -> None:
    source.execute(
        "CREATE SCHEMA sales; CREATE TABLE users (id int PRIMARY KEY, name text);"
        "CREATE TABLE sales.orders (id int PRIMARY KEY, n int); CREATE TABLE sales.order_tmp (id int);"
        "CREATE TABLE events (id int PRIMARY KEY, at date); INSERT INTO users VALUES (1, 'a');"
        "INSERT INTO sales.orders SELECT g, g FROM generate_series(1, 20) AS g;"
        "INSERT INTO events SELECT g, date '2024-01-01' + g FROM generate_series(1, 20) AS g"
    )
    tables = [
        "users",
        "sales.order*",
        {"table": "events", "where": "id > 15", "conflict": "skip", "destination": {"table": "events_hot"}},
        {"query": "SELECT id, n * 2 AS n FROM sales.orders", "destination": {"table": "report", "primary_key": ["id"]}},
    ]
    job = job_of(source, destination, tables=tables, exclude=["*_tmp"], schemas={"sales": "shop"})
    result = portl.migrate(job)
    rows = {table.destination: table.rows_inserted for table in result.tables}
    assert rows == {"public.users": 1, "shop.orders": 20, "public.events_hot": 5, "public.report": 20}
    assert destination.value("SELECT sum(n) FROM report") == 420
    assert destination.value("SELECT count(*) FROM pg_index WHERE indisprimary AND indrelid::regclass::text = 'report'")
    again = portl.migrate(job)
    assert (again.rows_unchanged, again.rows_skipped) == (41, 5)
    assert portl.verify(job).equal


def test_schemas_are_renamed_with_all_that_is_in_them(source: Db, destination: Db) -> None:
    source.execute(
        "CREATE SCHEMA \"a b\"; CREATE TYPE \"a b\".mood AS ENUM ('x', 'y');"
        "CREATE TABLE \"a b\".t (id serial PRIMARY KEY, m \"a b\".mood DEFAULT 'y', note text DEFAULT 'a b.t');"
        'CREATE INDEX ON "a b".t (lower(note)) WHERE note <> \'"a b".t\';'
        'CREATE VIEW "a b".v AS SELECT t.id, t.m FROM "a b".t WHERE t.m = \'y\'::"a b".mood;'
        'INSERT INTO "a b".t (id) SELECT nextval(\'"a b".t_id_seq\') FROM generate_series(1, 30)'
    )
    job = job_of(source, destination, schemas={"a b": "other"})
    portl.migrate(job)
    assert destination.value("SELECT count(*) FROM other.v") == 30
    assert destination.value("INSERT INTO other.t DEFAULT VALUES RETURNING id") == 31
    assert destination.value("SELECT note FROM other.t WHERE id = 31") == "a b.t"
    assert destination.value("SELECT to_regnamespace('\"a b\"')") is None


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ("none", {"p", "c"}),
        (["indexes"], {"p", "c", "i"}),
        (["constraints", "foreign_keys"], {"p", "c", "f", "u"}),
        ("all", {"p", "c", "i", "f", "u", "t", "v"}),
    ],
)
def test_objects_come_as_the_job_says(source: Db, destination: Db, objects: Any, expected: set[str]) -> None:
    source.execute(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TABLE a (id int PRIMARY KEY, n int CHECK (n > 0), u int UNIQUE, r int REFERENCES a);"
        "CREATE INDEX named ON a (n); CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION f();"
        "CREATE VIEW v AS SELECT id FROM a; INSERT INTO a VALUES (1, 1, 1, 1)"
    )
    portl.migrate(job_of(source, destination, objects=objects))
    found = {
        kind
        for (kind,) in destination.execute("SELECT contype::text FROM pg_constraint WHERE conrelid = 'a'::regclass")
    }
    found -= {"n"}
    found |= {"i"} if destination.value("SELECT to_regclass('named')") else set()
    found |= {"v"} if destination.value("SELECT to_regclass('v')") else set()
    found |= {"t"} if destination.value("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") else set()
    assert found == expected
    assert destination.value("SELECT count(*) FROM a") == 1


def test_a_foreign_key_to_a_table_that_does_not_come_is_left_out_with_a_word(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a)")
    plan = portl.plan(job_of(source, destination, tables=["b"]))
    assert plan.problems == ()
    (warned,) = plan.warnings
    assert warned.message == (
        "foreign key public.b_a_fkey on b is left out: the destination has no table public.a, and the job does not "
        "create it"
    )
    portl.migrate(job_of(source, destination, tables=["b"]))
    assert destination.value("SELECT count(*) FROM pg_constraint WHERE contype = 'f'") == 0


@pytest.mark.parametrize("on_table_error", ["stop", "continue"])
def test_one_table_fails(source: Db, destination: Db, on_table_error: str) -> None:
    source.execute(
        "CREATE TABLE good (id int PRIMARY KEY); INSERT INTO good SELECT generate_series(1, 5000);"
        "CREATE TABLE bad (id int PRIMARY KEY, v int); INSERT INTO bad VALUES (1, 1), (2, -1)"
    )
    destination.execute("CREATE TABLE bad (id int PRIMARY KEY, v int CHECK (v > 0))")
    job = job_of(source, destination, on_table_error=on_table_error)
    if on_table_error == "stop":
        with pytest.raises(portl.DataError, match=r"public\.bad|id = 2"):
            portl.migrate(job)
    else:
        result = portl.migrate(job)
        errors = {table.destination: table.error is not None for table in result.tables}
        assert errors == {"public.bad": True, "public.good": False}
        assert "public.bad failed: " in str(result)
        assert destination.value("SELECT count(*) FROM good") == 5000
        assert portl.status(job).runs[0].state is portl.RunState.FAILED
    destination.execute("ALTER TABLE bad DROP CONSTRAINT bad_v_check")
    result = portl.migrate(job)
    assert {table.error for table in result.tables} == {None}
    assert result.tables[0].attempt == 2
    assert portl.verify(job).equal
    assert len(portl.status(job).runs) == 1


def test_bad_rows_are_quarantined_table_by_table(source: Db, destination: Db) -> None:
    source.execute(
        "CREATE TABLE a (id int PRIMARY KEY, v int); INSERT INTO a SELECT g, g - 3 FROM generate_series(1, 9) g"
    )
    source.execute("CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (1)")
    destination.execute("CREATE TABLE a (id int PRIMARY KEY, v int CHECK (v > 0))")
    job = job_of(source, destination, on_error="quarantine")
    result = portl.migrate(job)
    assert (result.rows_rejected, result.rows_inserted) == (3, 7)
    assert destination.value("SELECT count(*) FROM a__rejected") == 3
    destination.execute("ALTER TABLE a DROP CONSTRAINT a_v_check")
    assert portl.retry_rejected(job).rows_inserted == 3
    assert portl.verify(job).equal


@pytest.fixture
def reader(source: Db) -> Iterator[str]:
    source.execute("CREATE ROLE whole_reader LOGIN PASSWORD 'r'")
    yield "whole_reader"
    source.execute("DROP OWNED BY whole_reader; DROP ROLE whole_reader")


def test_a_role_that_may_only_read_is_enough_at_the_source(source: Db, destination: Db, reader: str) -> None:
    source.execute(
        "CREATE SCHEMA s; CREATE TABLE s.t (id serial PRIMARY KEY, v text); INSERT INTO s.t (v) VALUES ('a'), ('b')"
    )
    source.execute(f"GRANT USAGE ON SCHEMA s TO {reader}; GRANT SELECT ON ALL TABLES IN SCHEMA s TO {reader}")
    source.execute(f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA s TO {reader}")
    job = job_of(source, destination)
    job["source"] = source.end(username=reader, password="r")
    portl.migrate(job)
    assert destination.value("INSERT INTO s.t (v) VALUES ('c') RETURNING id") == 3


def test_a_table_that_the_role_may_not_read_is_a_problem(source: Db, destination: Db, reader: str) -> None:
    source.execute("CREATE TABLE open (id int PRIMARY KEY); CREATE TABLE closed (id int PRIMARY KEY)")
    source.execute(f"GRANT SELECT ON open TO {reader}")
    job = {**job_of(source, destination), "source": source.end(username=reader, password="r")}
    (found,) = portl.plan(job).problems
    assert (found.message, found.remedy) == (
        "the role may not read public.closed",
        'GRANT SELECT ON "public"."closed" TO the role',
    )
    assert portl.plan({**job, "exclude": ["closed"]}).problems == ()


def test_a_plan_names_what_the_job_does_not_ask_for(source: Db, destination: Db) -> None:
    source.execute("""
        CREATE TABLE a (id int PRIMARY KEY);
        CREATE VIEW v AS SELECT * FROM a; CREATE VIEW w AS SELECT * FROM v;
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
        CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION f();
    """)
    said = "objects: not created, because `objects` does not ask for them: "
    asked: tuple[Any, ...] = (["indexes"], ["views"], "all", "none")
    found = [[str(f) for f in portl.plan(job_of(source, destination, objects=objects)).findings] for objects in asked]
    assert found == [[f"{said}1 function, 2 views, 1 trigger"], [f"{said}1 function, 1 trigger"], [], []]


def test_a_role_that_may_create_nothing_is_told_so_once(source: Db, destination: Db, reader: str) -> None:
    source.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
    job = {**job_of(source, destination), "destination": destination.end(username=reader, password="r")}
    assert [str(problem) for problem in portl.plan(job).problems] == [
        "ledger: many tables need a ledger: none can be kept: the role may not create the schema 'portl'; the role may"
        " not create tables in schema 'public' -> GRANT CREATE ON DATABASE … TO the role; or GRANT CREATE, USAGE ON"
        ' SCHEMA "public" TO the role',
        "destination: the role may not create tables in the schema 'public' -> GRANT CREATE ON SCHEMA \"public\" TO the"
        " role",
    ]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"tables": ["nothing_*"]}, "tables[0]: no table matches 'nothing_*'"),
        ({"tables": ["userz"]}, "there is no table 'userz' -> did you mean 'public.users'?"),
        ({"tables": ["users", "public.users"]}, "tables[1]: public.users is named twice"),
        (
            {"tables": ["users", {"table": "other", "destination": {"table": "users"}}]},
            "public.users and public.other both go to public.users",
        ),
        ({"ledger": {"mode": "off"}}, "many tables need a ledger"),
        ({"atomic": True}, "many tables are not copied in one transaction"),
        ({"exclude": ["*"]}, "tables[0]: no table matches"),
    ],
)
def test_a_plan_says_what_is_wrong(source: Db, destination: Db, keys: dict[str, Any], words: str) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY)")
    found = portl.plan(job_of(source, destination, **keys))
    said = [str(problem).replace("tables: no", "tables[0]: no") for problem in found.problems]
    assert any(words in text for text in said), said
    with pytest.raises(portl.PlanError):
        portl.migrate(job_of(source, destination, **keys))
    assert destination.value("SELECT to_regclass('users')") is None


def test_a_plan_is_readable(whole: Db, destination: Db) -> None:
    found = portl.plan(job_of(whole, destination))
    text = str(found)
    assert "tables    12: 12 new, 0 there already" in text
    assert re.search(r"6\s+foreign\s+keys", text)
    assert text.endswith("ready to run")
    assert max(map(len, text.splitlines())) <= 80
    data = found.to_dict()
    assert len(data["objects"]) == len(found.objects)
    one = found.text(table="sales.customer")
    assert "from      sales.customer (table)" in one
    assert "public.events" not in one
    with pytest.raises(portl.ConfigError, match=r"no table 'sales.custome'; did you mean 'sales.customer'"):
        found.text(table="sales.custome")
    assert "CREATE TABLE" in found.text(sql=True)


def test_a_database_moves_between_versions(system: Db, destination: Db) -> None:
    system.execute(
        "CREATE TABLE a (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text NOT NULL);"
        "CREATE TABLE p (id int, at date) PARTITION BY RANGE (at);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');"
        "INSERT INTO a (v) SELECT 'x' FROM generate_series(1, 100); INSERT INTO p VALUES (1, '2024-05-05')"
    )
    up = job_of(system, destination)
    portl.migrate(up)
    with psycopg.connect(system.connection.info.dsn, password=system.endpoint.password, autocommit=True) as admin:
        admin.execute("CREATE DATABASE back_again")
        try:
            back = {**job_of(destination, system), "destination": {**system.end(), "database": "back_again"}}
            portl.migrate(back)
            assert portl.verify(back).equal
        finally:
            admin.execute("DROP DATABASE back_again WITH (FORCE)")


def test_a_newer_feature_is_a_problem_for_an_older_server(destination: Db, system: Db) -> None:
    if system.connection.info.server_version >= 180000:
        pytest.skip("the system's PostgreSQL is not older")
    destination.execute("CREATE TABLE a (id int PRIMARY KEY, d int GENERATED ALWAYS AS (id * 2) VIRTUAL)")
    (found,) = portl.plan(job_of(destination, system)).problems
    assert "has no virtual generated columns (from version 18 on): table public.a" in found.message


def test_dumps_are_compared_with_something_in_them(whole: Db) -> None:
    assert len(dump(whole)) > 500


@pytest.mark.parametrize("parallel", [1, 3])
def test_tables_that_are_there_get_their_rows_in_the_order_of_their_foreign_keys(
    source: Db, destination: Db, parallel: int
) -> None:
    tables = (
        "CREATE TABLE z_parent (id int PRIMARY KEY);"
        "CREATE TABLE m_child (id int PRIMARY KEY, p int REFERENCES z_parent);"
        "CREATE TABLE a_grandchild (id int PRIMARY KEY, c int REFERENCES m_child, s int REFERENCES a_grandchild)"
    )
    for db in (source, destination):
        db.execute(tables)
    source.execute(
        "INSERT INTO z_parent SELECT generate_series(1, 3000); INSERT INTO m_child SELECT id, id FROM z_parent;"
        "INSERT INTO a_grandchild SELECT id, id, nullif(id - 1, 0) FROM z_parent; ANALYZE"
    )
    job = job_of(source, destination, parallel=parallel, chunk_rows=500)
    assert portl.migrate(job).rows_inserted == 9000
    assert portl.verify(job).equal


@pytest.mark.parametrize("side", ["source", "destination"])
def test_backends_that_are_terminated_are_replaced(whole: Db, destination: Db, side: str) -> None:
    db = {"source": whole, "destination": destination}[side]
    kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'portl'"
    kill += f" AND datname = '{db.connection.info.dbname}'"
    observers = [Once(count, lambda: db.execute(kill)) for count in (2, 6)]
    job = job_of(whole, destination, chunk_rows=1000, parallel=2, retry=PATIENT)
    portl.migrate(job, observers=observers)
    arrived(whole, destination, job)
    (run,) = portl.status(job).runs
    assert run.attempt > 1


def test_a_run_that_is_cancelled_is_resumed(whole: Db, destination: Db) -> None:
    job = job_of(whole, destination, chunk_rows=1000)
    token = portl.CancelToken()
    with pytest.raises(portl.Cancelled) as caught:
        portl.migrate(job, observers=[Once(3, token.cancel)], cancel=token)
    assert caught.value.hint == "run the job again to go on from there"
    (run,) = portl.status(job).runs
    assert run.state is portl.RunState.CANCELLED
    result = portl.migrate(job)
    assert result.tables[0].attempt == 2
    assert "attempt   2: " in str(result)
    arrived(whole, destination, job)


def test_a_table_that_is_new_at_the_source_is_for_the_next_run(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT generate_series(1, 5000); ANALYZE")
    job = job_of(source, destination, chunk_rows=500, parallel=1)
    token = portl.CancelToken()
    with pytest.raises(portl.Cancelled):
        portl.migrate(job, observers=[Once(3, token.cancel)], cancel=token)
    source.execute("CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (1)")
    found = portl.plan(job)
    assert any("1 table is new at the source" in finding.message for finding in found.findings)
    assert [table.destination for table in portl.migrate(job).tables] == ["public.a"]
    assert portl.migrate(job).rows_inserted == 1
    assert portl.verify(job).equal


def test_a_result_that_was_never_delivered_is_reported(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE a (id int); INSERT INTO a VALUES (1), (2)")
    job = job_of(source, destination)
    portl.migrate(job)
    destination.execute("UPDATE portl.migrations SET acknowledged = NULL")
    again = portl.migrate(job)
    assert (again.reported, again.rows_inserted) == (True, 2)
    assert destination.value("SELECT count(*) FROM a") == 2


def test_a_run_with_an_id_is_done_once(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1), (2)")
    job = job_of(source, destination, run_id="night 1")
    portl.migrate(job)
    source.execute("INSERT INTO a VALUES (3)")
    assert portl.migrate(job).reported
    assert portl.migrate(job, run_id="night 2").rows_inserted == 1


@pytest.mark.parametrize("how", ["DROP TABLE a", "TRUNCATE a"])
def test_rows_of_a_run_that_are_gone_keep_it_from_being_resumed(source: Db, destination: Db, how: str) -> None:
    source.execute("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT generate_series(1, 5000); ANALYZE")
    job = job_of(source, destination, chunk_rows=500, parallel=1)
    token = portl.CancelToken()
    with pytest.raises(portl.Cancelled):
        portl.migrate(job, observers=[Once(3, token.cancel)], cancel=token)
    destination.execute(how)
    with pytest.raises(portl.PlanError, match=r"the table public\.a is (gone|empty), "):
        portl.migrate(job)
    if "TRUNCATE" in how:
        with pytest.raises(
            portl.PlanError, match=r"has created public\.a, but not its key -> resume that run; or drop"
        ):
            portl.migrate(job, restart=True)
        cleaned = portl.clean(job, table=True)
        assert (cleaned.leftover, cleaned.removed) == ("1 table that the run has created: public.a", True)
        assert destination.value("SELECT to_regclass('a')") is None
    assert portl.migrate(job, restart=True).rows_inserted == 5000
    assert portl.verify(job).equal


def test_a_sequence_that_was_used_is_not_moved_back(source: Db, destination: Db) -> None:
    source.execute("CREATE SEQUENCE s; CREATE SEQUENCE down INCREMENT -1; CREATE TABLE a (id int PRIMARY KEY)")
    source.execute("SELECT setval('s', 50), setval('down', -50)")
    job = job_of(source, destination)
    portl.migrate(job)
    assert destination.execute("SELECT nextval('s'), nextval('down')") == [(51, -51)]
    destination.execute("SELECT setval('s', 70), setval('down', -70)")
    portl.migrate(job)
    assert destination.execute("SELECT nextval('s'), nextval('down')") == [(71, -71)]
    source.execute("SELECT setval('s', 90), setval('down', -90)")
    portl.migrate(job)
    assert destination.execute("SELECT nextval('s'), nextval('down')") == [(91, -91)]


def test_problems_of_many_tables_are_told_once(source: Db, destination: Db) -> None:
    for db in (source, destination):
        db.execute("; ".join(f"CREATE TABLE t{number} (id int)" for number in range(9)))
    with pytest.raises(portl.PlanError) as caught:
        portl.migrate(job_of(source, destination))
    head, *told = str(caught.value).splitlines()
    assert head == "the plan has 9 problems; nothing was written"
    (line,) = [text for text in told if text.startswith("  conflict: ")]
    assert "the table has no primary key (public.t0, public.t1, public.t2, public.t3 and 5 more)" in line


def test_plans_and_results_show_themselves_in_a_notebook(source: Db, destination: Db) -> None:
    source.execute('CREATE TABLE "<b>" (id int PRIMARY KEY)')
    job = job_of(source, destination)
    shown = [portl.plan(job)._repr_html_(), portl.migrate(job)._repr_html_()]
    for text in shown:
        assert text.startswith("<pre")
        assert "public.&quot;&lt;b&gt;&quot;" in text


def connection_to(db: Db) -> psycopg.Connection[Any]:
    info = db.connection.info
    return psycopg.connect(
        host=info.host, port=info.port, user=info.user, dbname=info.dbname, password=db.endpoint.password
    )


def test_caller_supplied_connections_do_as_well(whole: Db, destination: Db) -> None:
    job = job_of(whole, destination, parallel=4)
    with connection_to(whole) as reading, connection_to(destination) as writing:
        portl.migrate(job, source=reading, destination=writing)
    arrived(whole, destination, job)


def test_a_run_verifies_all_tables_if_the_job_says_so(source: Db, destination: Db) -> None:
    source.execute(
        "CREATE TABLE a (id int PRIMARY KEY, v int); CREATE TABLE b (id int PRIMARY KEY);"
        "INSERT INTO a SELECT g, g FROM generate_series(1, 100) AS g; INSERT INTO b VALUES (1)"
    )
    result = portl.migrate(job_of(source, destination, verify="checksum"))
    checked = [table.verification for table in result.tables]
    assert [found is not None and (found.mode, found.equal) for found in checked] == [("checksum", True)] * 2
    assert "verified  by checksum: 2 tables are as they should be" in str(result)
    destination.execute(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := 0; RETURN NEW; END';"
        "CREATE TRIGGER t BEFORE INSERT OR UPDATE ON a FOR EACH ROW EXECUTE FUNCTION f()"
    )
    source.execute("INSERT INTO a VALUES (101, 101)")
    with pytest.raises(portl.VerificationFailed, match=r"1 table is not .* public\.a"):
        portl.migrate(job_of(source, destination, verify="checksum"))


def test_foreign_keys_are_created_without_looking_at_rows_and_validated_at_the_same_time(
    source: Db, destination: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.execute(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, r int REFERENCES a);"
        "CREATE TABLE c (id int PRIMARY KEY, r int REFERENCES b, s int REFERENCES a DEFERRABLE);"
        "ALTER TABLE c ADD CONSTRAINT loose FOREIGN KEY (id) REFERENCES a NOT VALID;"
        "INSERT INTO a SELECT generate_series(1, 900); INSERT INTO b SELECT id, id FROM a;"
        "INSERT INTO c SELECT id, id, id FROM a; ANALYZE"
    )
    monkeypatch.setattr("portl.execution.database.run.LARGE_ROWS", 100)
    plan = portl.plan(job_of(source, destination, parallel=3))
    keys = {o.name: o.statements[0] for o in plan.objects if o.kind == "foreign key"}
    assert all(text.endswith(" NOT VALID") for text in keys.values()), keys
    validated = [o.name for o in plan.objects if o.kind == "validation"]
    assert sorted(validated) == ["public.b_r_fkey on b", "public.c_r_fkey on c", "public.c_s_fkey on c"]
    plan.execute()
    assert differences(source, destination) == []
