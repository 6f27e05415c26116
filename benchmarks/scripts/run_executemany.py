"""Copy one table with psycopg's executemany, 1000 rows at a time: SOURCE TARGET TABLE. Prints the seconds."""

from __future__ import annotations

import json
import sys
import time

import psycopg
from psycopg.types.json import JsonbDumper

source, target, table = sys.argv[1:]

# What psycopg's manual advises for JSON (Adapting basic Python types, JSON adaptation).
psycopg.adapters.register_dumper(dict, JsonbDumper)

began = time.perf_counter()
with psycopg.connect(source) as reading, psycopg.connect(target) as writing:
    with reading.cursor("rows") as origin, writing.cursor() as goal:
        origin.itersize = 1000
        origin.execute(f"SELECT * FROM {table}".encode())
        assert origin.description is not None
        insert = f"INSERT INTO {table} VALUES ({', '.join(['%s'] * len(origin.description))})".encode()
        while rows := origin.fetchmany(1000):
            goal.executemany(insert, rows)
            writing.commit()
print(json.dumps(time.perf_counter() - began))
