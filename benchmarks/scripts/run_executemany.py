"""Copy one table with psycopg's executemany, 1000 rows at a time: SOURCE TARGET TABLE. Prints the seconds."""

from __future__ import annotations

import json
import sys
import time

import psycopg
from psycopg.types.json import Jsonb

source, target, table = sys.argv[1:]

began = time.perf_counter()
with psycopg.connect(source) as reading, psycopg.connect(target) as writing:
    with reading.cursor("rows") as origin, writing.cursor() as goal:
        origin.itersize = 1000
        origin.execute(f"SELECT * FROM {table}".encode())
        assert origin.description is not None
        wraps = [Jsonb if column.type_code == 3802 else None for column in origin.description]
        insert = f"INSERT INTO {table} VALUES ({', '.join(['%s'] * len(wraps))})".encode()
        while rows := origin.fetchmany(1000):
            wrapped = [[w(v) if w and v is not None else v for w, v in zip(wraps, row, strict=True)] for row in rows]
            goal.executemany(insert, wrapped)
            writing.commit()
print(json.dumps(time.perf_counter() - began))
