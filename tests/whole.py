"""A database with everything in it, and what tells whether it has arrived elsewhere."""

from __future__ import annotations

import difflib
import subprocess
from pathlib import Path

from portl_postgres.demo.server import embedded_binaries
from tests.servers import Db

EVERYTHING = (Path(__file__).parent / "postgres" / "objects" / "everything.sql").read_text(encoding="utf-8")

ROWS = """
INSERT INTO sales.customer (note, name, addr, addrs, credit)
SELECT g::text, 'n' || g, ROW('s', 1, 'z')::sales.address, ARRAY[ROW('t', 2, 'q')::sales.address], 5
  FROM generate_series(1, 600) AS g;
INSERT INTO sales."order" (customer, total) SELECT 10 * g, -g FROM generate_series(1, 500) AS g;
INSERT INTO events SELECT g, '2023-02-01'::timestamptz + g * interval '1 hour', 'k' || g % 3
  FROM generate_series(1, 9000) AS g;
INSERT INTO animal VALUES (1, 'a');
INSERT INTO dog VALUES (2, 'd', 'b');
INSERT INTO scratch SELECT g, g, 'c' FROM generate_series(1, 3000) AS g;
INSERT INTO nothing SELECT FROM generate_series(1, 7);
INSERT INTO cyc_a SELECT g FROM generate_series(1, 5) AS g;
INSERT INTO cyc_b SELECT g, g FROM generate_series(1, 5) AS g;
UPDATE cyc_a SET b = id;
INSERT INTO "We""ird schema"."ta'ble %s" VALUES (1, NULL, E'tab\\there');
SELECT nextval('free_seq'), setval('sales.code_seq', 5000, false);
REFRESH MATERIALIZED VIEW sales.m;
ANALYZE;
"""


def dump(db: Db, *more: str) -> list[str]:
    """Return what pg_dump prints of a database's objects, without the ledger and what always differs."""
    call = [
        str(embedded_binaries() / "pg_dump"),
        "--schema-only",
        "--no-owner",
        "--no-privileges",
        "-N",
        "portl",
        *more,
    ]
    environment = {"PGPASSWORD": db.endpoint.password, "LD_LIBRARY_PATH": str(embedded_binaries().parent / "lib")}
    where = ["-h", db.endpoint.host, "-p", str(db.endpoint.port), "-U", db.endpoint.user, db.connection.info.dbname]
    text = subprocess.run([*call, *where], env=environment, capture_output=True, text=True, check=True).stdout
    return [line for line in text.splitlines() if not line.startswith(("--", "\\restrict", "\\unrestrict"))]


def differences(one: Db, other: Db) -> list[str]:
    """Return the lines in which the dumps of two databases differ."""
    return [*difflib.unified_diff(dump(one), dump(other), lineterm="", n=1)]


def positions(db: Db) -> list[tuple[object, ...]]:
    """Return where the sequences are."""
    query = "SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2"
    return db.execute(query)


def job_of(source: Db, destination: Db, **keys: object) -> dict[str, object]:
    """Return a job for the whole database."""
    sides = {"source": source.end(), "destination": destination.end()}
    return {"name": "whole", **sides, "tables": "all", "objects": "all", **keys}


def owned(db: Db, table: str = "t") -> dict[str, str]:
    """Return what belongs to a table, by name: the server's words."""
    return dict(
        db.execute(
            "SELECT conname::text, pg_get_constraintdef(oid) FROM pg_constraint"
            f" WHERE conrelid = '{table}'::regclass AND contype <> 'n' UNION ALL"
            " SELECT c.relname::text, pg_get_indexdef(c.oid) FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid"
            f" WHERE indrelid = '{table}'::regclass AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = c.oid"
            " AND contype IN ('p', 'u', 'x')) UNION ALL SELECT stxname::text, pg_get_statisticsobjdef(oid)"
            f" FROM pg_statistic_ext WHERE stxrelid = '{table}'::regclass"
        )
    )
