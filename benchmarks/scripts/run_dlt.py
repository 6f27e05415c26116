"""Copy one table with dlt: SOURCE TARGET TABLE BACKEND FORMAT. Prints the seconds."""

from __future__ import annotations

import importlib
import json
import sys
import time

source, target, table, backend, load = sys.argv[1:]
dlt = importlib.import_module("dlt")
sql = importlib.import_module("dlt.sources.sql_database")

began = time.perf_counter()
pipeline = dlt.pipeline("bench", destination=dlt.destinations.postgres(target), dataset_name="bench_dlt")
options = {} if backend == "connectorx" else {"chunk_size": 100_000}
rows = sql.sql_table(credentials=source, table=table, schema="public", backend=backend, **options)
pipeline.run(rows, write_disposition="append", loader_file_format=load).raise_on_failed_jobs()
print(json.dumps(time.perf_counter() - began))
