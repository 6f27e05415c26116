"""A query as the source: any that reads, and none that writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import portl
from portl_postgres.sql.text import Unbalanced, check_expression, first_word, without_end
from tests.servers import Db


@pytest.fixture
def users(source: Db) -> Db:
    source.execute("CREATE TABLE users (id int PRIMARY KEY, name text, seen timestamptz, balance numeric(8,2))")
    source.execute("INSERT INTO users VALUES (1, 'a;b', '2024-01-01 12:00Z', 1.50), (2, 'it''s', NULL, NULL)")
    source.execute("CREATE SEQUENCE numbers; CREATE TABLE log (x int)")
    return source


def job(source: Db, destination: Db, query: str, **keys: Any) -> dict[str, Any]:
    ends = {key: keys.pop(key) for key in ("where", "columns", "exclude_columns", "limit", "schema") if key in keys}
    return {"source": source.end(query=query, **ends), "destination": destination.end(table="t"), **keys}


READING = {
    "select": "SELECT id, name FROM users",
    "semicolon": "SELECT id, name FROM users;",
    "semicolons and space": "SELECT id, name FROM users ; ;\n",
    "line comment at the end": "SELECT id, name FROM users -- all of them",
    "semicolon before a comment": "SELECT id, name FROM users; -- all; of them",
    "block comment at the end": "SELECT id, name FROM users /* a /* nested */ one */",
    "comments before": "-- first\n/* second ; */ SELECT id, name FROM users",
    "parenthesis in a comment": "SELECT id, name FROM users -- )\n/* ) */",
    "with": "WITH u AS (SELECT * FROM users) SELECT id, name FROM u",
    "recursive": "WITH RECURSIVE r(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM r WHERE id < 2)"
    " SELECT r.id, name FROM r JOIN users USING (id)",
    "values": "VALUES (1, 'a;b'), (2, 'it''s')",
    "table": "TABLE users",
    "parentheses": "((SELECT id, name FROM users))",
    "union": "SELECT id, name FROM users WHERE id = 1 UNION ALL SELECT id, name FROM users WHERE id = 2",
    "order and limit": "SELECT id, name FROM users ORDER BY id DESC LIMIT 2 OFFSET 0",
    "dollar quotes": "SELECT id, CASE id WHEN 1 THEN $$a;b$$ ELSE $q$it's$q$ END AS name FROM users",
    "escape string": "SELECT id, CASE id WHEN 1 THEN 'a;b' ELSE E'it\\'s' END AS name FROM users",
    "quoted name": 'SELECT id, "na;me)" AS name FROM (SELECT id, name AS "na;me)" FROM users) AS x',
    "lower case": "select id, name from users",
    "window": "SELECT id, name, row_number() OVER (ORDER BY id) AS n FROM users",
    "into inside a string": "SELECT id, name FROM users WHERE name <> 'SELECT 1 INTO x'",
    "dollar in a name": "SELECT id, name FROM users AS u$1",
}


def test_any_query_that_reads_is_copied(users: Db, destination: Db) -> None:
    for name, query in READING.items():
        assert portl.migrate(job(users, destination, query)).rows_inserted == 2, name
        columns = "column1, column2" if query.startswith("VALUES") else "id, name"
        assert destination.execute(f"SELECT {columns} FROM t ORDER BY 1") == [(1, "a;b"), (2, "it's")], name
        destination.execute("DROP TABLE t")


def state(db: Db) -> list[tuple[Any, ...]]:
    """Return what a query that writes could have changed."""
    return db.execute(
        "SELECT (SELECT array_agg(u ORDER BY id)::text FROM users AS u), (SELECT count(*) FROM log),"
        " (SELECT last_value || is_called::text FROM numbers),"
        " (SELECT array_agg(oid ORDER BY oid) FROM pg_class WHERE relnamespace = 'public'::regnamespace),"
        " (SELECT count(*) FROM pg_largeobject_metadata)"
    )


SYNTAX = "cannot insert multiple commands into a prepared statement"
WRITING = {
    "INSERT INTO log VALUES (1) RETURNING x": "it begins with 'INSERT'",
    "UPDATE users SET name = '' RETURNING id": "it begins with 'UPDATE'",
    "DELETE FROM users RETURNING id": "it begins with 'DELETE'",
    "WITH d AS (DELETE FROM users RETURNING id) SELECT * FROM d": "data-modifying statement must be at the top level",
    "WITH i AS (INSERT INTO log VALUES (1) RETURNING x) TABLE i": "data-modifying statement must be at the top level",
    "SELECT nextval('numbers') AS n": "cannot execute nextval() in a read-only transaction",
    "SELECT setval('numbers', 7) AS n": "cannot execute setval() in a read-only transaction",
    "SELECT lo_create(0)::text AS n": "cannot execute lo_create() in a read-only transaction",
    "SELECT 1 AS a INTO made": "it returns no columns",
    "CREATE TABLE made AS SELECT 1 AS a": "it returns no columns",
    "SELECT id FROM users FOR UPDATE": "cannot execute SELECT FOR UPDATE in a read-only transaction",
    "SELECT id FROM users; COMMIT; CREATE TABLE made (x int)": SYNTAX,
    "SELECT 1 AS x; DROP TABLE users; --": SYNTAX,
    "COMMIT": "it returns no columns",
    "SELECT id FROM users) TO STDOUT; DROP TABLE users; --": 'syntax error at or near ")"',
    "SELECT id FROM users) AS x, (SELECT 1": 'syntax error at or near ")"',
    "SELECT 1 AS x) AS q; COMMIT; DROP TABLE users; SELECT * FROM (SELECT 1": 'syntax error at or near ")"',
    "COPY users TO PROGRAM 'touch {file}'": "it returns no columns",
    "SELECT id FROM users) TO PROGRAM 'touch {file}' --": 'syntax error at or near ")"',
    "COPY (SELECT 1) TO STDOUT": "it returns no columns",
    "EXPLAIN SELECT 1": "it begins with 'EXPLAIN'",
    "EXPLAIN ANALYZE DELETE FROM users": "it begins with 'EXPLAIN'",
    "SHOW server_version": "it begins with 'SHOW'",
    "FETCH ALL FROM c": "it returns no columns",
    "DO $x$ BEGIN DELETE FROM users; END $x$": "it returns no columns",
    "CALL p()": "procedure p() does not exist",
    "-- nothing": "it returns no columns",
    ";": "it returns no columns",
    "SELECT FROM users": "it returns no columns",
    "SELEC id FROM users": 'syntax error at or near "SELEC"',
    "SELECT nonsense FROM users": 'column "nonsense" does not exist',
    "SELECT 'open FROM users": "unterminated quoted string",
    "SELECT 1 /* open": "unterminated /* comment",
    "SELECT id AS a, name AS a FROM users": "it returns two columns called 'a'; give one another name with AS",
    "SELECT * FROM users AS a JOIN users AS b USING (name)": "it returns two columns called 'balance'",
}


@pytest.mark.parametrize("call", [portl.plan, portl.migrate])
def test_a_query_that_does_not_just_read_is_refused_and_changes_nothing(
    call: Callable[[dict[str, Any]], object], users: Db, destination: Db, tmp_path: Path
) -> None:
    before = state(users)
    file = tmp_path / "made"
    tmp_path.chmod(0o777)
    for query, words in WRITING.items():
        config = job(users, destination, query.replace("{file}", str(file)))
        with pytest.raises(portl.QueryError) as caught:
            call(config)
        assert words in caught.value.message, query
        assert caught.value.hint
        assert state(users) == before, query
        assert not file.exists()
    assert destination.value("SELECT to_regclass('t')") is None


def test_a_function_that_writes_is_refused_whatever_it_does_first(users: Db, destination: Db) -> None:
    users.execute(
        "CREATE FUNCTION sneaky() RETURNS int LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM set_config('transaction_read_only', 'off', false);"
        " INSERT INTO log VALUES (1); RETURN 1; END $$"
    )
    before = state(users)
    with pytest.raises(portl.Error, match="read-write mode"):
        portl.migrate(job(users, destination, "SELECT sneaky() AS x"))
    assert state(users) == before


def test_an_empty_query_is_a_mistake_in_the_job(users: Db, destination: Db) -> None:
    with pytest.raises(portl.ConfigError, match=r"source.query: must not be empty"):
        portl.plan(job(users, destination, "  \n"))


def test_an_error_in_the_middle_of_the_rows_is_told_and_undone(users: Db, destination: Db) -> None:
    with pytest.raises(portl.Error, match=r"source .*reading: division by zero \(SQLSTATE 22012\)"):
        portl.migrate(job(users, destination, "SELECT 1 / (2 - id) AS x FROM users ORDER BY id"))
    assert destination.value("SELECT to_regclass('t')") is None


def test_names_are_looked_up_in_schema_first_and_then_as_in_psql(users: Db, destination: Db) -> None:
    users.execute('CREATE SCHEMA "Sales"; CREATE TABLE "Sales".users (id int); INSERT INTO "Sales".users VALUES (77)')
    config = job(users, destination, "SELECT u.id, (SELECT count(*) FROM log) AS n FROM users AS u", schema="Sales")
    portl.migrate(config)
    assert destination.execute("SELECT id, n FROM t") == [(77, 0)]
    path = "SELECT current_setting('search_path') AS path, current_schemas(true)::text AS schemas"
    destination.execute("DROP TABLE t")
    portl.migrate(job(users, destination, path, schema="Sales"))
    assert destination.execute("SELECT * FROM t") == [
        ('"Sales", "$user", public', '{pg_catalog,Sales,public}')
    ]  # fmt: skip


@pytest.fixture
def abroad(users: Db) -> Db:
    name = users.connection.info.dbname
    users.execute(f"ALTER DATABASE {name} SET TimeZone = 'Asia/Tokyo'")
    users.execute(f"ALTER DATABASE {name} SET DateStyle = 'German, DMY'")
    users.execute(f"ALTER DATABASE {name} SET search_path = 'elsewhere', public")
    users.execute(f"ALTER DATABASE {name} SET extra_float_digits = -5")
    users.execute(f"ALTER DATABASE {name} SET bytea_output = 'escape'")
    users.execute(f"ALTER DATABASE {name} SET IntervalStyle = 'sql_standard'")
    return users


@pytest.mark.parametrize("route", ["relay", "rows"])
def test_what_decides_the_meaning_of_a_query_is_left_and_what_decides_its_print_is_not(
    route: str, abroad: Db, destination: Db
) -> None:
    query = (
        "SELECT '03.02.2024'::date AS d, '2024-01-01 00:00'::timestamptz AS z, date_trunc('day', seen)::text AS day,"
        " current_setting('search_path') AS path, pi() AS pi, '\\x00ff'::bytea AS b, '-1 2:3:4'::interval AS i"
        " FROM users WHERE id = 1"
    )
    portl.migrate(job(abroad, destination, query, route=route))
    assert destination.execute("SELECT d::text, z AT TIME ZONE 'UTC', day, path, pi = pi(), b::text FROM t") == [
        (
            "2024-02-03",
            destination.value("SELECT '2023-12-31 15:00'::timestamp"),
            "2024-01-01 00:00:00+09",
            "public, elsewhere, public",
            True,
            "\\x00ff",
        )
    ]
    # Read by sql_standard's rule all of it would be negative; how an interval is read goes with how it is printed.
    assert destination.value("SELECT i = '-1 day +2:3:4'::interval FROM t") is True


def test_what_is_read_is_one_state(users: Db, destination: Db) -> None:
    users.execute("INSERT INTO users SELECT g, 'more' FROM generate_series(3, 5000) AS g")
    added = []

    def add(event: portl.Event) -> None:
        if isinstance(event, portl.TableStarted):
            users.execute("INSERT INTO users VALUES (-1, 'late'); DELETE FROM users WHERE id = 4000")
            added.append(event)

    result = portl.migrate(job(users, destination, "SELECT id, name FROM users"), observers=[add])
    assert len(added) == 1
    assert result.rows_read == 5000
    assert destination.execute("SELECT id FROM t WHERE id IN (-1, 4000)") == [(4000,)]


def test_a_superuser_is_warned_of_and_another_role_is_not(users: Db, destination: Db) -> None:
    text = "the query runs as a superuser, who can reach the server's files even in a read-only transaction"
    plan = portl.plan(job(users, destination, "SELECT id FROM users"))
    assert [w.message for w in plan.warnings if w.where == "source"] == [text]
    users.execute("DROP ROLE IF EXISTS portl_plain; CREATE ROLE portl_plain LOGIN PASSWORD 'pw'")
    users.execute("GRANT SELECT ON users TO portl_plain")
    try:
        config = job(users, destination, "SELECT id FROM users")
        config["source"].update(username="portl_plain", password="pw")
        assert [w for w in portl.plan(config).warnings if w.where == "source"] == []
    finally:
        users.execute("DROP OWNED BY portl_plain; DROP ROLE portl_plain")


def test_where_columns_and_limit_apply_to_a_query(users: Db, destination: Db) -> None:
    query = "SELECT id, name, id * 2 AS twice, balance FROM users ORDER BY id DESC"
    keys: dict[str, Any] = {"where": "twice > 0 OR false -- all", "exclude_columns": ["balance"], "limit": 1}
    assert portl.migrate(job(users, destination, query, **keys)).rows_read == 1
    assert destination.execute("SELECT * FROM t") == [(2, "it's", 4)]
    destination.execute("DROP TABLE t")
    assert portl.migrate(job(users, destination, query, columns=["twice", "id"], where="id = 1")).rows_read == 1
    assert destination.execute("SELECT twice, id FROM t") == [(2, 1)]
    assert portl.plan(job(users, destination, query, limit=0)).tables[0].count == portl.RowCount(rows=0, exact=True)


CONDITIONS = {
    "id = 1) OR (true": "a ) has no (",
    "id = 1; DROP TABLE log": "a ; has no place in an expression",
    "(id = 1": "a ( is not closed",
    "name = 'open": "a ' is not closed",
    "nonsense = 1": 'column "nonsense" does not exist',
    "WHERE id = 1": 'syntax error at or near "WHERE"',
    "id": "argument of WHERE must be type boolean, not type integer",
}


def test_a_bad_condition_is_a_problem_of_the_plan(users: Db, destination: Db) -> None:
    for where, words in CONDITIONS.items():
        (problem,) = portl.plan(job(users, destination, "SELECT id, name FROM users", where=where)).problems
        assert problem.where == "source.where"
        assert words in problem.message
        assert problem.remedy == "write one condition, without the word WHERE"


def test_types_come_with_their_modifiers_from_the_servers_description(users: Db, destination: Db) -> None:
    query = "SELECT id, balance, name::varchar(7) AS short, ARRAY[seen]::timestamptz(3)[] AS seen FROM users"
    portl.migrate(job(users, destination, query))
    rows = destination.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum"
    )
    assert rows == [
        ("id", "integer"),
        ("balance", "numeric(8,2)"),
        ("short", "character varying(7)"),
        ("seen", "timestamp(3) with time zone[]"),
    ]


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("SELECT 1; ", "SELECT 1"),
        ("SELECT ';' ; -- ';'", "SELECT ';'"),
        ("SELECT $a$;$a$;;/* ; */", "SELECT $a$;$a$"),
        ("SELECT 1 /* in -- the */ + 1 -- end /* ", "SELECT 1 /* in -- the */ + 1"),
        ('SELECT 1 AS ";" ;', 'SELECT 1 AS ";"'),
        (" ; ", ""),
    ],
)
def test_the_end_of_a_query_is_found(query: str, kept: str) -> None:
    assert without_end(query) == kept


@pytest.mark.parametrize("text", ["'", '"', "$$ $a$", "/* /* */", "E'\\'"])
def test_what_is_not_closed_is_noticed(text: str) -> None:
    with pytest.raises(Unbalanced, match="is not closed"):
        without_end(text)
    with pytest.raises(Unbalanced, match="is not closed"):
        check_expression(text)


def test_the_first_word_is_found_behind_comments_and_parentheses() -> None:
    assert first_word("/* a */ ( -- b\n (SELECT 1))") == "SELECT"
    assert first_word("'x'") == first_word("") == ""
