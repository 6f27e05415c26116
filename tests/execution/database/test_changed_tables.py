"""Tables of a job of many that get other names, or other columns, bring what fits them."""

from __future__ import annotations

import random

import portl
from tests.killing import Victim
from tests.servers import Db
from tests.whole import job_of, owned

SOURCE = """
CREATE SCHEMA sales; CREATE FUNCTION sales.ok(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0';
CREATE TYPE sales.state AS ENUM ('a', 'b');
CREATE TABLE sales.customer (id int PRIMARY KEY, mail text UNIQUE, s sales.state);
CREATE TABLE sales.event (id int PRIMARY KEY, s sales.state CHECK (s <> 'b'), n int CHECK (n > 0), kind text,
    c int REFERENCES sales.customer, before int REFERENCES sales.event, CONSTRAINT own CHECK (sales.ok(n)));
CREATE INDEX event_kind ON sales.event (kind) WHERE n > 3; CREATE STATISTICS sales.st ON n, kind FROM sales.event;
COMMENT ON INDEX sales.event_kind IS 'the kind'; ALTER TABLE sales.event REPLICA IDENTITY FULL;
CREATE TABLE sales.log (id int PRIMARY KEY, e int REFERENCES sales.event);
CREATE VIEW sales.v AS SELECT event.id FROM sales.event;
INSERT INTO sales.customer SELECT g, 'm' || g, 'b' FROM generate_series(1, 9) AS g;
INSERT INTO sales.event SELECT g, 'a', g, 'k' || g % 3, g % 9 + 1, nullif(g - 1, 0) FROM generate_series(1, 3000) AS g;
INSERT INTO sales.log SELECT g, g FROM generate_series(1, 500) AS g;
ANALYZE
"""
#: An entry that gives a table another name and other columns.
HOT = {"table": "sales.event", "schema_mapping": {"id": "number", "kind": "id"}, "destination": {"table": "hot"}}


def job(source: Db, destination: Db, **keys: object) -> dict[str, object]:
    return job_of(source, destination, tables=["sales.*", HOT], schemas={"sales": "shop"}, **keys)


def arrived(source: Db, destination: Db) -> None:
    """Check that the table has what fits it, under its names."""
    found = owned(destination, "shop.hot")
    assert set(found) - {"hot_pkey"} == set(owned(source, "sales.event")) - {"event_pkey"}
    assert found["event_kind"] == "CREATE INDEX event_kind ON shop.hot USING btree (id) WHERE (n > 3)"
    assert found["event_before_fkey"] == "FOREIGN KEY (before) REFERENCES shop.hot(number)"
    assert found["event_c_fkey"] == "FOREIGN KEY (c) REFERENCES shop.customer(id)"
    assert found["own"] == "CHECK (shop.ok(n))"
    assert owned(destination, "shop.log")["log_e_fkey"] == "FOREIGN KEY (e) REFERENCES shop.hot(number)"
    assert destination.value("SELECT obj_description('shop.event_kind'::regclass)") == "the kind"
    assert destination.value("SELECT relreplident::text FROM pg_class WHERE oid = 'shop.hot'::regclass") == "f"


def test_a_table_with_other_names_brings_what_fits(source: Db, destination: Db) -> None:
    source.execute(SOURCE)
    plan = portl.plan(job(source, destination))
    assert [str(warning) for warning in plan.warnings if "sequence" not in warning.message] == [
        "objects: view sales.v is left out: it reads tables by name, and sales.event goes to shop.hot"
    ]
    portl.migrate(job(source, destination))
    arrived(source, destination)
    assert portl.verify(job(source, destination)).equal
    assert portl.migrate(job(source, destination)).rows_unchanged == 3509


def test_what_uses_a_column_that_changes_is_left_out_with_a_word(source: Db, destination: Db) -> None:
    source.execute(SOURCE)
    entry = {"table": "sales.event", "types": {"integer": "bigint"}, "exclude_columns": ["before"]}
    changed = job_of(source, destination, tables=["sales.customer", entry], objects=["indexes", "foreign_keys"])
    plan = portl.plan(changed)
    assert sorted(warning.message for warning in plan.warnings) == [
        "foreign key sales.event_before_fkey on event is left out: the column 'before' of sales.event is not copied",
        "foreign key sales.event_c_fkey on event is left out: the column 'c' of sales.event becomes bigint",
        "index sales.event_kind is left out: the column 'n' of sales.event becomes bigint",
    ]
    portl.migrate(changed)
    assert set(owned(destination, "sales.event")) == {"event_pkey"}


def test_a_job_that_is_killed_brings_what_fits(source: Db, destination: Db, victim: Victim) -> None:
    source.execute(SOURCE)
    killed = job(source, destination, chunk_rows=500, parallel=2)
    statements = victim.run(killed)["statements"]
    draw = random.Random(7)
    for _ in range(2):
        destination.execute("DROP SCHEMA portl, shop CASCADE")
        at = draw.randint(statements // 3, statements * 9 // 10)
        assert victim.run(killed, statement=at)["killed"], at
        assert victim.run(killed)["error"] is None, at
        arrived(source, destination)
        assert portl.verify(killed).equal
