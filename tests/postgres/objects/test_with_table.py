"""A job of one table brings what belongs to it, as far as that fits the table that it makes."""

from __future__ import annotations

from typing import Any

import pytest

import portl
from tests.servers import Db
from tests.whole import owned

OWNED = """
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE t (id int PRIMARY KEY, mail text NOT NULL, n int, p int REFERENCES parent, boss int REFERENCES t,
    CONSTRAINT positive CHECK (n > 0), CONSTRAINT "a mail" UNIQUE (mail));
CREATE INDEX by_n ON t (n DESC NULLS LAST) INCLUDE (mail) WHERE n <> 7;
CREATE INDEX by_lower ON t (lower(mail));
CREATE STATISTICS together ON n, p FROM t;
COMMENT ON INDEX by_n IS 'the n'; COMMENT ON CONSTRAINT positive ON t IS 'more than none'; COMMENT ON TABLE t IS 'own';
INSERT INTO parent SELECT generate_series(1, 5);
INSERT INTO t SELECT g, 'm' || g, g, g % 5 + 1, nullif(g - 1, 0) FROM generate_series(1, 60) AS g;
"""


def job_of(source: Db, destination: Db, **keys: Any) -> dict[str, Any]:
    there = {**destination.end(), "table": "t", **keys.pop("to", {})}
    return {"name": "one", "source": {**source.end(), "table": "t"}, "destination": there, **keys}


def warned(plan: portl.Plan) -> list[str]:
    return [warning.message for warning in plan.warnings if warning.where == "objects"]


def test_a_table_brings_what_belongs_to_it(source: Db, destination: Db) -> None:
    source.execute(OWNED)
    destination.execute("CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent SELECT generate_series(1, 5)")
    job = job_of(source, destination)
    assert warned(portl.plan(job)) == []
    portl.migrate(job)
    assert owned(destination) == owned(source)
    comments = "SELECT obj_description('by_n'::regclass), obj_description('t'::regclass), obj_description(oid)"
    told = destination.execute(f"{comments} FROM pg_constraint WHERE conname = 'positive'")
    assert told == [("the n", "own", "more than none")]
    assert portl.migrate(job).rows_unchanged == 60


def test_what_the_destination_cannot_have_is_left_out_with_a_word(source: Db, destination: Db) -> None:
    source.execute(OWNED)
    destination.execute("CREATE TABLE other (a int); CREATE INDEX by_n ON other (a)")
    plan = portl.plan(job_of(source, destination))
    assert sorted(warned(plan)) == [
        "foreign key public.t_p_fkey on t is left out: it needs table public.parent, which the destination does not "
        "have",
        "index public.by_n is left out: the destination has another public.by_n",
    ]
    plan.execute()
    assert set(owned(source)) - set(owned(destination)) == {"by_n", "t_p_fkey"}
    destination.execute("DROP TABLE t; CREATE TABLE parent (id int, note text)")
    assert warned(portl.plan(job_of(source, destination))) == [
        "index public.by_n is left out: the destination has another public.by_n",
        "foreign key public.t_p_fkey on t is left out: public.parent has no unique key (id) at the destination",
    ]


def test_what_belongs_to_a_table_follows_it_under_other_names(source: Db, destination: Db) -> None:
    source.execute(OWNED)
    destination.execute("CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent SELECT generate_series(1, 5)")
    mapping = {"id": "n", "n": "id", "mail": "e mail", "p": "of"}
    job = job_of(source, destination, schema_mapping=mapping, to={"schema": "S x", "table": "un"})
    assert warned(portl.plan(job)) == []
    portl.migrate(job)
    found = owned(destination, '"S x".un')
    assert found["by_n"] == (
        'CREATE INDEX by_n ON "S x".un USING btree (id DESC NULLS LAST) INCLUDE ("e mail") WHERE (id <> 7)'
    )
    assert found["by_lower"] == 'CREATE INDEX by_lower ON "S x".un USING btree (lower("e mail"))'
    assert found["positive"] == "CHECK ((id > 0))"
    assert found["a mail"] == 'UNIQUE ("e mail")'
    assert found["t_p_fkey"] == "FOREIGN KEY (of) REFERENCES parent(id)"
    assert found["t_boss_fkey"] == 'FOREIGN KEY (boss) REFERENCES "S x".un(n)'
    assert "together" in found
    assert destination.execute('SELECT n, id FROM "S x".un WHERE "e mail" = \'m9\'') == [(9, 9)]


def test_what_uses_a_column_that_changes_is_left_out_with_a_word(source: Db, destination: Db) -> None:
    source.execute(OWNED)
    job = job_of(source, destination, types=[{"column": "n", "to": "bigint"}])
    job["source"]["exclude_columns"] = ["mail", "p"]
    plan = portl.plan(job)
    assert sorted(warned(plan)) == [
        "check public.positive on t is left out: the column 'n' of public.t becomes bigint",
        "foreign key public.t_p_fkey on t is left out: the column 'p' of public.t is not copied",
        "index public.by_lower is left out: the column 'mail' of public.t is not copied",
        "index public.by_n is left out: the column 'mail' of public.t is not copied",
        "statistics public.together is left out: the column 'n' of public.t becomes bigint",
        "unique public.a mail on t is left out: the column 'mail' of public.t is not copied",
    ]
    plan.execute()
    assert set(owned(destination)) == {"t_pkey", "t_boss_fkey"}


def test_what_an_index_needs_comes_with_it(source: Db, destination: Db) -> None:
    source.execute(
        "CREATE FUNCTION inner_of(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';"
        "CREATE FUNCTION slug(text) RETURNS text LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT inner_of($1); END;"
        "CREATE TYPE mood AS ENUM ('x', 'y');"
        "CREATE TABLE t (id int PRIMARY KEY, v text, m mood, CHECK (m <> 'y'::mood));"
        "CREATE INDEX by_slug ON t (slug(v)); INSERT INTO t VALUES (1, 'A', 'x')"
    )
    plan = portl.plan(job_of(source, destination))
    assert warned(plan) == []
    plan.execute()
    assert set(owned(destination)) == set(owned(source))
    assert destination.value("SELECT slug('Q')") == "q"


def test_the_job_says_what_comes(source: Db, destination: Db) -> None:
    source.execute(OWNED)
    plan = portl.plan(job_of(source, destination, objects="none"))
    assert not any("INDEX" in text for text in plan.tables[0].statements)
    portl.migrate(job_of(source, destination, objects=["indexes"]))
    assert set(owned(destination)) == {"t_pkey", "by_n", "by_lower"}
    query = job_of(source, destination, to={"table": "q", "primary_key": ["id"]})
    query["source"] = {**source.end(), "query": "SELECT * FROM t"}
    notes = [f.message for f in portl.plan(query).tables[0].findings if f.where == "objects"]
    assert notes == ["the rows come from a query: no indexes or constraints come with them"]


def test_a_table_without_a_key_brings_its_indexes(source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE t (a int CHECK (a > 0)); CREATE INDEX by_a ON t (a); INSERT INTO t VALUES (1), (1)")
    portl.migrate(job_of(source, destination, atomic=True))
    assert set(owned(destination)) == {"t_a_check", "by_a"}
    assert destination.value("SELECT obj_description('t'::regclass)") is None
    assert destination.value("SELECT count(*) FROM t") == 2


def test_a_foreign_key_whose_rows_are_missing_fails_at_the_end_and_can_be_left_out(source: Db, destination: Db) -> None:
    source.execute(OWNED)
    destination.execute("CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent SELECT generate_series(1, 3)")
    job = job_of(source, destination)
    with pytest.raises(portl.DataError, match="t_p_fkey") as caught:
        portl.migrate(job)
    assert caught.value.hint == (
        "copy the rows that it refers to, and run the job again; or leave foreign_keys out of `objects`"
    )
    assert set(owned(destination)) == set()
    portl.migrate({**job, "objects": ["indexes", "comments"]})
    assert set(owned(destination)) == {"t_pkey", "by_n", "by_lower"}
    assert destination.value("SELECT obj_description('t'::regclass)") == "own"
    assert destination.value("SELECT count(*) FROM t") == 60


def test_another_run_makes_what_an_interrupted_one_has_left(source: Db, destination: Db) -> None:
    source.execute(OWNED)
    destination.execute("CREATE TABLE parent (id int PRIMARY KEY)")
    job = job_of(source, destination)
    with pytest.raises(portl.DataError, match="t_p_fkey"):
        portl.migrate(job)
    destination.execute("INSERT INTO parent SELECT generate_series(1, 5)")
    portl.migrate(job, restart=True)
    assert owned(destination) == owned(source)
