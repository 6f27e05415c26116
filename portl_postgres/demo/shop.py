"""Fill the demo's source, write its job files, and compare both sides."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import attrs
import psycopg

from portl_postgres.demo.server import Server

SOURCE, DESTINATION = "shop", "warehouse"
#: Owns both databases and has no other privileges, as recommended for such jobs; its password is the server's.
ROLE = "demo"
PORT_VARIABLE, PASSWORD_VARIABLE = "PORTL_DEMO_PORT", "PORTL_DEMO_PASSWORD"

_JOB = """\
# {title}
source:
  type: postgres
  host: {host}
  port: {port}
  database: {source}
  username: {user}
  password: ${{{variable}}}
{what}
destination:
  type: postgres
  host: {host}
  port: {port}
  database: {destination}
  username: {user}
  password: ${{{variable}}}
  table: {table}
{rest}"""

_REPORT = """\
  query: |
    SELECT c.id AS customer_id, c.full_name, count(*) AS orders,
           sum(o.total) AS revenue, max(o.placed_at) AS last_order
      FROM customers AS c
      JOIN orders AS o ON o.customer_id = c.id
     GROUP BY c.id, c.full_name
"""


@attrs.frozen(kw_only=True)
class Job:
    """One of the demo's jobs."""

    title: str
    table: str
    #: The keys of ``source`` that say what to read.
    what: str
    #: More keys of the destination and of the job.
    rest: str = ""
    #: A query on the source that returns the rows that the destination must contain.
    expected: str


JOBS = (
    Job(title="Every customer: a new table", table="customers", what="  table: customers", expected="TABLE customers"),
    Job(
        title="Every order: a new table, and the enum that it needs",
        table="orders",
        what="  table: orders",
        expected="TABLE orders",
    ),
    Job(
        title="Order items, the generated column included",
        table="order_items",
        what="  table: order_items",
        expected="TABLE order_items",
    ),
    Job(
        title="A report from a query, with other names for its columns",
        table="customer_report",
        what=_REPORT.rstrip("\n"),
        rest="  primary_key: [id]\n\nschema_mapping:\n  customer_id: id\n  full_name: name\n",
        expected=_REPORT.split("|\n", 1)[1],
    ),
)


def fill(server: Server, orders: int) -> None:
    """Create the two databases and the shop in the first."""
    with _connect(server, "postgres", server.user) as connection:
        connection.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{server.password}'".encode())
        for name in (SOURCE, DESTINATION):
            connection.execute(f"CREATE DATABASE {name} OWNER {ROLE}".encode())
    script = files("portl_postgres.demo").joinpath("shop.sql").read_text(encoding="utf-8")
    with _connect(server, SOURCE) as connection:
        connection.execute(script.replace("{orders}", str(orders)).encode())
        connection.execute("ANALYZE")


def write_jobs(server: Server, folder: Path) -> Iterator[tuple[Job, Path]]:
    """Write the job files and yield each with its job."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, job in enumerate(JOBS, 1):
        path = folder / f"{number}-{job.table}.yaml"
        path.write_text(
            _JOB.format(
                title=job.title,
                host=server.host,
                port=server.port,
                user=ROLE,
                variable=PASSWORD_VARIABLE,
                source=SOURCE,
                destination=DESTINATION,
                what=job.what,
                table=job.table,
                rest=job.rest,
            ),
            encoding="utf-8",
        )
        yield job, path


def change(server: Server) -> None:
    """Change some orders in the shop and add new ones."""
    with _connect(server, SOURCE) as connection:
        connection.execute("UPDATE orders SET status = 'returned', note = 'came back' WHERE id % 100 = 0")
        connection.execute(
            "INSERT INTO orders SELECT max(id) + n, 1, 'new', 9.99, NULL, now(), NULL"
            " FROM orders, generate_series(1, 50) AS n GROUP BY n"
        )


def same(server: Server, job: Job) -> bool:
    """Return whether the destination has the expected rows, by counts and hashes from both sides."""
    return bool(_digest(server, SOURCE, job.expected) == _digest(server, DESTINATION, f"TABLE {job.table}"))


def _digest(server: Server, database: str, query: str) -> Any:
    # A sum of hashes does not depend on row order.
    statement = f"SELECT count(*), sum(hashtextextended(ROW(r.*)::text, 0)::numeric) FROM ({query}) AS r"
    with _connect(server, database) as connection:
        return connection.execute(statement.encode()).fetchone()


def _connect(server: Server, database: str, user: str = ROLE) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=server.host,
        port=server.port,
        user=user,
        password=server.password,
        dbname=database,
        autocommit=True,
    )
