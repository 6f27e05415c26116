"""Merge what has changed in a table with dlt: SOURCE TARGET TABLE CURSOR. Prints the seconds."""

from __future__ import annotations

import importlib
import json
import sys
import time

source, target, table, cursor = sys.argv[1:]
dlt = importlib.import_module("dlt")
sql = importlib.import_module("dlt.sources.sql_database")

began = time.perf_counter()
# What the last run has read up to is kept at the destination, from where a fresh folder gets it.
pipeline = dlt.pipeline("bench_nightly", destination=dlt.destinations.postgres(target), dataset_name="bench_nightly")
rows = sql.sql_table(
    credentials=source,
    table=table,
    schema="public",
    backend="pyarrow",
    chunk_size=100_000,
    incremental=dlt.sources.incremental(cursor),
)
rows.apply_hints(primary_key="id")
pipeline.run(rows, write_disposition="merge", loader_file_format="parquet").raise_on_failed_jobs()
print(json.dumps(time.perf_counter() - began))
