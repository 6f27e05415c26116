"""Every YAML example of the connector's specification, as it stands there, run between real databases.

Only host, port, database, username and password are replaced by those of the test's servers, or given in the
environment where the example takes them from there; an example that is no whole job is completed into one.
"""

# ruff: noqa: W291  # the examples are kept to the letter, spaces at the ends of lines included

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import portl
from tests.servers import Db

BASIC = """\
source:
  type: postgres
  host: localhost
  port: 5432
  database: mydb
  username: user
  password: password
  schema: public        # Optional, defaults to 'public'
  table: source_table   # Either table OR query, not both

destination:
  type: postgres
  host: localhost
  port: 5432
  database: mydb
  username: user
  password: password
  schema: public
  table: dest_table
"""

QUERY = """\
source:
  type: postgres
  host: localhost
  database: mydb
  username: user
  password: password
  query: |
    SELECT id, email, name, created_at 
    FROM users 
    WHERE active = true 
    AND created_at > '2023-01-01'
"""

ENVIRONMENT = """\
source:
  type: postgres
  host: ${POSTGRES_HOST}
  database: ${POSTGRES_DB}
  username: ${POSTGRES_USER}
  password: ${POSTGRES_PASSWORD}
  table: users
"""

OVERWRITE = """\
conflict: overwrite
"""

SKIP = """\
conflict: skip
"""

FAIL = """\
conflict: fail
"""

MERGE = """\
conflict: merge
"""

MAPPING = """\
schema_mapping:
  user_id: id
  full_name: name
  email_address: email
  registration_date: created_at
"""

BATCH_SIZE = """\
batch_size: 1000  # Default: 1000 rows per batch
"""

SIMPLE = """\
source:
  type: postgres
  host: source-db.example.com
  database: prod_db
  username: readonly_user
  password: ${SOURCE_PASSWORD}
  table: users

destination:
  type: postgres
  host: dest-db.example.com
  database: analytics_db
  username: writer_user
  password: ${DEST_PASSWORD}
  table: user_profiles

conflict: overwrite
batch_size: 1000
"""

QUERY_AND_MAPPING = """\
source:
  type: postgres
  host: localhost
  database: ecommerce
  username: analyst
  password: ${DB_PASSWORD}
  query: |
    SELECT 
      o.id as order_id,
      o.customer_id,
      o.total_amount,
      o.created_at as order_date,
      c.email as customer_email
    FROM orders o
    JOIN customers c ON o.customer_id = c.id
    WHERE o.created_at >= '2023-01-01'

destination:
  type: postgres
  host: localhost
  database: reporting
  username: reporter
  password: ${DB_PASSWORD}
  table: order_summary

schema_mapping:
  order_id: id
  customer_email: email
  order_date: created_at

conflict: skip
batch_size: 500
"""


MINIMAL = """
source:
  type: postgres
  host: localhost
  database: mydb
  username: user
  password: password
  table: users
"""
DESTINATION = """
destination:
  type: postgres
  host: localhost
  database: mydb
  username: user
  password: password
  table: copy
"""

USERS = """
    CREATE TABLE users (id int PRIMARY KEY, email text, name text, active bool, created_at timestamp);
    INSERT INTO users VALUES
        (1, 'a@example.com', 'Ada', true, '2024-01-01'),
        (2, 'b@example.com', 'Ben', false, '2024-01-02'),
        (3, 'c@example.com', NULL, true, '2022-01-01'),
        (4, 'd@example.com', 'Dee', true, '2023-06-01')
"""


class Runner:
    """Writes an example to a file, with the test's servers in it, and runs the file."""

    def __init__(self, source: Db, destination: Db, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._source = source
        self._destination = destination
        self._path = folder / "my_migration.yaml"
        monkeypatch.setenv("PGPORT", str(source.endpoint.port))  # for the examples that give no port
        for name in ("SOURCE_PASSWORD", "DEST_PASSWORD", "DB_PASSWORD", "POSTGRES_PASSWORD"):
            monkeypatch.setenv(name, source.endpoint.password)
        monkeypatch.setenv("POSTGRES_HOST", source.endpoint.host)
        monkeypatch.setenv("POSTGRES_USER", source.endpoint.user)
        monkeypatch.setenv("POSTGRES_DB", source.connection.info.dbname)

    def path(self, text: str) -> Path:
        ends = re.split(r"(?m)^(?=destination:)", text)
        assert len(ends) == 2
        self._path.write_text("".join(map(self._placed, ends, (self._source, self._destination))))
        return self._path

    def __call__(self, text: str) -> portl.Result:
        return portl.migrate(self.path(text))

    @staticmethod
    def _placed(text: str, end: Db) -> str:
        """Replace what the example says of the server; what it takes from the environment stays."""
        values = {
            "host": end.endpoint.host,
            "port": end.endpoint.port,
            "database": end.connection.info.dbname,
            "username": end.endpoint.user,
            "password": end.endpoint.password,
        }
        for key, value in values.items():
            text = re.sub(rf"(?m)^(  {key}: )(?!\$\{{).*$", rf"\g<1>{value}", text)
        return text


@pytest.fixture
def run(source: Db, destination: Db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(source, destination, tmp_path, monkeypatch)


def rows(db: Db, table: str, order: str = "1") -> list[tuple[Any, ...]]:
    return db.execute(f"SELECT * FROM {table} ORDER BY {order}")


def test_the_basic_configuration_copies_a_table(run: Runner, source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE source_table (id int PRIMARY KEY, v text); INSERT INTO source_table VALUES (1, 'a')")
    assert run(BASIC).rows_inserted == 1
    assert rows(destination, "public.dest_table") == [(1, "a")]


def test_a_custom_query_copies_its_rows(run: Runner, source: Db, destination: Db) -> None:
    source.execute(USERS)
    run(QUERY + DESTINATION)
    assert destination.execute("SELECT id, email, name, created_at::text FROM copy ORDER BY id") == [
        (1, "a@example.com", "Ada", "2024-01-01 00:00:00"),
        (4, "d@example.com", "Dee", "2023-06-01 00:00:00"),
    ]


def test_the_environment_says_where_the_database_is(run: Runner, source: Db, destination: Db) -> None:
    source.execute(USERS)
    text = ENVIRONMENT + DESTINATION
    assert "  host: ${POSTGRES_HOST}\n" in run.path(text).read_text()
    assert run(text).rows_inserted == 4
    assert rows(destination, "copy") == rows(source, "users")


@pytest.fixture
def conflicting(source: Db, destination: Db) -> None:
    """A destination that has the row 1 already, otherwise, and a row 9 of its own."""
    source.execute(USERS)
    destination.execute(
        "CREATE TABLE copy (id int PRIMARY KEY, email text, name text, active bool, created_at timestamp, extra int);"
        "INSERT INTO copy VALUES (1, 'old', 'Old', false, NULL, 7), (3, NULL, 'Kept', NULL, NULL, 8), "
        "(9, 'x', NULL, NULL, NULL, NULL)"
    )


@pytest.mark.usefixtures("conflicting")
@pytest.mark.parametrize(
    ("example", "expected", "counts"),
    [
        (
            OVERWRITE,
            [(1, "a@example.com", "Ada", 7), (2, "b@example.com", "Ben", None), (3, "c@example.com", None, 8),
             (4, "d@example.com", "Dee", None), (9, "x", None, None)],
            (2, 2, 0),
        ),
        (
            SKIP,
            [(1, "old", "Old", 7), (2, "b@example.com", "Ben", None), (3, None, "Kept", 8),
             (4, "d@example.com", "Dee", None), (9, "x", None, None)],
            (2, 0, 2),
        ),
        (
            MERGE,
            [(1, "a@example.com", "Ada", 7), (2, "b@example.com", "Ben", None), (3, "c@example.com", "Kept", 8),
             (4, "d@example.com", "Dee", None), (9, "x", None, None)],
            (2, 2, 0),
        ),
    ],
    ids=["overwrite", "skip", "merge"],
)  # fmt: skip
def test_each_conflict_strategy_does_what_it_says(
    run: Runner, destination: Db, example: str, expected: list[tuple[Any, ...]], counts: tuple[int, int, int]
) -> None:
    result = run(MINIMAL + DESTINATION + example)
    assert destination.execute("SELECT id, email, name, extra FROM copy ORDER BY id") == expected
    assert (result.rows_inserted, result.rows_updated, result.rows_skipped) == counts


@pytest.mark.usefixtures("conflicting")
def test_overwrite_is_the_default(run: Runner, destination: Db) -> None:
    result = run(MINIMAL + DESTINATION)
    assert (result.rows_inserted, result.rows_updated) == (2, 2)
    assert destination.value("SELECT email FROM copy WHERE id = 1") == "a@example.com"


@pytest.mark.usefixtures("conflicting")
def test_fail_stops_at_a_conflict(run: Runner, destination: Db) -> None:
    before = rows(destination, "copy")
    with pytest.raises(portl.ConflictError, match=r"row 1 of the source .*Key \(id\)=\(1\) already exists"):
        run(MINIMAL + DESTINATION + FAIL)
    assert rows(destination, "copy") == before


def test_fail_copies_what_does_not_conflict(run: Runner, source: Db, destination: Db) -> None:
    source.execute(USERS)
    assert run(MINIMAL + DESTINATION + FAIL).rows_inserted == 4
    assert rows(destination, "copy") == rows(source, "users")


def test_the_schema_mapping_renames_columns(run: Runner, source: Db, destination: Db) -> None:
    source.execute(
        "CREATE TABLE users (user_id int PRIMARY KEY, full_name text, email_address text, registration_date date);"
        "INSERT INTO users VALUES (1, 'Ada', 'a@example.com', '2024-01-01')"
    )
    run(MINIMAL + DESTINATION + MAPPING)
    assert destination.execute("SELECT id, name, email, created_at::text FROM copy") == [
        (1, "Ada", "a@example.com", "2024-01-01")
    ]


def test_the_batch_size_is_how_many_rows_make_a_batch(run: Runner, source: Db, destination: Db) -> None:
    source.execute("CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users SELECT generate_series(1, 2500)")
    assert run(MINIMAL + DESTINATION + BATCH_SIZE).tables[0].batches == 3
    assert destination.value("SELECT count(*) FROM copy") == 2500


def test_the_simple_migration(run: Runner, source: Db, destination: Db) -> None:
    source.execute(USERS)
    assert run(SIMPLE).rows_inserted == 4
    assert rows(destination, "user_profiles") == rows(source, "users")
    source.execute("UPDATE users SET name = 'Eve' WHERE id = 2")
    again = run(SIMPLE)
    assert (again.rows_updated, again.rows_unchanged) == (1, 3)
    assert rows(destination, "user_profiles") == rows(source, "users")


ORDERS = """
    CREATE TABLE customers (id int PRIMARY KEY, email text);
    CREATE TABLE orders (
        id int PRIMARY KEY, customer_id int REFERENCES customers, total_amount numeric(10,2), created_at timestamptz
    );
    INSERT INTO customers VALUES (7, 'a@example.com'), (8, 'b@example.com');
    INSERT INTO orders VALUES
        (1, 7, 9.90, '2023-05-01T12:00:00Z'), (2, 8, 5, '2022-12-31T12:00:00Z'), (3, 8, 0.10, '2024-02-29T12:00:00Z')
"""


def test_the_query_with_a_mapping_fills_a_table_that_is_missing(run: Runner, source: Db, destination: Db) -> None:
    source.execute(ORDERS)
    assert run(QUERY_AND_MAPPING).rows_inserted == 2
    assert destination.execute(
        "SELECT id, customer_id, total_amount::text, extract(year FROM created_at)::int, email FROM order_summary "
        "ORDER BY id"
    ) == [(1, 7, "9.90", 2023, "a@example.com"), (3, 8, "0.10", 2024, "b@example.com")]


def test_the_query_with_a_mapping_skips_rows_that_are_there(run: Runner, source: Db, destination: Db) -> None:
    source.execute(ORDERS)
    destination.execute(
        "CREATE TABLE order_summary (id int PRIMARY KEY, customer_id int, total_amount numeric, "
        "created_at timestamptz, email text); INSERT INTO order_summary VALUES (1, 0, 0, NULL, 'kept')"
    )
    result = run(QUERY_AND_MAPPING)
    assert (result.rows_inserted, result.rows_skipped) == (1, 1)
    assert destination.execute("SELECT id, email FROM order_summary ORDER BY id") == [(1, "kept"), (3, "b@example.com")]


def test_the_plan_of_an_example_changes_nothing(run: Runner, source: Db, destination: Db) -> None:
    source.execute(USERS)
    plan = portl.plan(run.path(SIMPLE))
    assert plan.problems == ()
    assert plan.tables[0].count == portl.RowCount(rows=4, exact=True)
    assert destination.value("SELECT count(*) FROM pg_class WHERE relname = 'user_profiles'") == 0
