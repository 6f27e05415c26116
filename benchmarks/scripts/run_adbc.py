"""Copy one table with ADBC: SOURCE TARGET TABLE. Prints the seconds."""

from __future__ import annotations

import importlib
import json
import sys
import time

source, target, table = sys.argv[1:]
dbapi = importlib.import_module("adbc_driver_postgresql.dbapi")

began = time.perf_counter()
with dbapi.connect(source) as reading, dbapi.connect(target) as writing:
    with reading.cursor() as origin, writing.cursor() as goal:
        origin.execute(f"SELECT * FROM {table}")
        goal.adbc_ingest(table, origin.fetch_record_batch(), mode="create")
        writing.commit()
print(json.dumps(time.perf_counter() - began))
