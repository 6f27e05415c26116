"""The other tools, one function each, which copies one table into one that the tool creates.

Tools that are Python packages run in the Python given by ``--peers-python``, so that their dependencies do not mix with
portl's; time is measured there, after imports. Nothing but telemetry is switched off.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from benchmarks.measuring import Missing
from benchmarks.servers import Bench, environment, execute, url

SCRIPTS = Path(__file__).parent / "scripts"


@attrs.frozen(kw_only=True)
class Peer:
    """A tool that copies a whole table."""

    name: str
    #: Copies the table of this name; returns the seconds it took, or None to be measured from outside.
    run: Callable[[Bench, str], float | None]
    #: What it does less than portl, or differently.
    note: str


def dlt(bench: Bench, table: str, backend: str, load: str) -> float:
    """Copy with dlt: its SQL source with one of its backends, its Postgres destination with one of its file formats."""
    return _script(bench, "dlt", "run_dlt.py", table, backend, load)


def adbc(bench: Bench, table: str) -> float:
    """Copy with ADBC: the reader of one connection is ingested by another."""
    return _script(bench, "adbc_driver_postgresql", "run_adbc.py", table)


def adbc_with_key(bench: Bench, table: str) -> float:
    """Copy with ADBC; then build the key and gather statistics, as portl does."""
    seconds = adbc(bench, table)
    began = time.perf_counter()
    execute(bench.target, f"ALTER TABLE {table} ADD PRIMARY KEY (id)", f"ANALYZE {table}")
    return seconds + time.perf_counter() - began


def executemany(bench: Bench, table: str) -> float:
    """Copy with psycopg, in batches of 1000 rows, into an existing table."""
    return _script(bench, "psycopg", "run_executemany.py", table)


def dlt_incremental(bench: Bench, table: str, cursor: str) -> float:
    """Merge what has changed since the last call with dlt."""
    return _script(bench, "dlt", "run_dlt_incremental.py", table, cursor)


def sling(bench: Bench, table: str) -> None:
    """Copy with sling."""
    _sling(bench, table, "--mode", "full-refresh")


def sling_incremental(bench: Bench, table: str, cursor: str) -> None:
    """Take over what has changed since the last call with sling."""
    _sling(bench, table, "--mode", "incremental", "--primary-key", "id", "--update-key", cursor)


def _sling(bench: Bench, table: str, *how: str) -> None:
    binary = shutil.which("sling") if not _has(bench, "sling_linux_amd64") else None
    if binary is None:
        folder = _folder_of(bench, "sling_linux_amd64")
        binary = next((str(path) for path in sorted((folder / "bin").glob("sling*"))), None) if folder else None
    if binary is None:
        raise Missing("no binary of sling: pip install sling-linux-amd64")
    with tempfile.TemporaryDirectory(prefix="portl-bench-") as home:
        own = {
            "SOURCE": f"{url(bench.source)}?sslmode=disable",
            "TARGET": f"{url(bench.target)}?sslmode=disable",
            "SLING_DISABLE_TELEMETRY": "true",
            "SLING_HOME_DIR": home,
        }
        call = [binary, "run", "--src-conn", "SOURCE", "--src-stream", f"public.{table}", "--tgt-conn", "TARGET"]
        _call([*call, "--tgt-object", f"public.{table}", *how], {**os.environ, **own})


def pgcopydb(bench: Bench, table: str) -> None:
    """Copy with pgcopydb, which copies databases: this one table is all that its filter lets through."""
    if shutil.which("pgcopydb") is None:
        raise Missing("pgcopydb is not on the PATH")
    with tempfile.TemporaryDirectory(prefix="portl-bench-") as folder:
        filters = Path(folder) / "filters"
        filters.write_text(f"[include-only-table]\npublic.{table}\n")
        call = ["pgcopydb", "clone", "--dir", f"{folder}/work", "--filters", str(filters), "--no-owner", "--no-acl"]
        call += ["--source", url(bench.source), "--target", url(bench.target), "--table-jobs", "2"]
        _call(call, environment(bench.source))


def pgcopydb_whole(bench: Bench, database: str) -> None:
    """Copy a whole database with pgcopydb."""
    if shutil.which("pgcopydb") is None:
        raise Missing("pgcopydb is not on the PATH")
    with tempfile.TemporaryDirectory(prefix="portl-bench-") as folder:
        call = ["pgcopydb", "clone", "--dir", f"{folder}/work", "--no-owner", "--no-acl", "--table-jobs", "2"]
        call += ["--index-jobs", "2", "--source", url(bench.source, database), "--target", url(bench.target, database)]
        _call(call, environment(bench.source))


PEERS = (
    Peer(name="pgcopydb", run=pgcopydb, note="the same table; two workers"),
    Peer(
        name="dlt (pyarrow, parquet)",
        run=lambda bench, table: dlt(bench, table, "pyarrow", "parquet"),
        note="no key; int becomes bigint, uuid text, arrays jsonb",
    ),
    Peer(
        name="dlt (connectorx, csv)",
        run=lambda bench, table: dlt(bench, table, "connectorx", "csv"),
        note="no key; takes no arrays",
    ),
    Peer(name="sling", run=sling, note="no key; arrays become text"),
    Peer(name="ADBC", run=adbc, note="no key; numeric becomes text, jsonb json"),
    Peer(name="ADBC, and the key", run=adbc_with_key, note="what portl does beside the rows is done too"),
)


def forget(bench: Bench, table: str) -> None:
    """Drop what the tools leave at the destination, and at the source what pgcopydb would take along."""
    execute(bench.source, "SET client_min_messages = warning", "DROP SCHEMA IF EXISTS portl CASCADE")
    execute(
        bench.target,
        "SET client_min_messages = warning",
        f"DROP TABLE IF EXISTS {table}",
        "DROP SCHEMA IF EXISTS bench_dlt, bench_dlt_staging CASCADE",
    )


def _script(bench: Bench, package: str, script: str, *arguments: str) -> float:
    if not _has(bench, package):
        raise Missing(f"{package} is not installed in {Path(bench.python).name} of the peers")
    with tempfile.TemporaryDirectory(prefix="portl-bench-") as folder:
        call = [bench.python, str(SCRIPTS / script), url(bench.source), url(bench.target), *arguments]
        own = {
            "DLT_DATA_DIR": folder,
            "DLT_PROJECT_DIR": folder,
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "RUNTIME__LOG_LEVEL": "CRITICAL",
        }
        said = _call(call, {**os.environ, **own}, folder)
    return float(json.loads(said.strip().splitlines()[-1]))


def _call(call: list[str], env: dict[str, str], folder: str | None = None) -> str:
    # In a separate process group: pgcopydb ends every process of its group when it fails.
    done = subprocess.run(
        call, env=env, cwd=folder, capture_output=True, text=True, check=False, start_new_session=True
    )
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip() or "no words").splitlines()
        telling = [line.strip() for line in words if re.match(r"[\w.]*(Error|Exception|InvalidDataItem)\b", line)]
        telling += [line.strip() for line in words if re.search(r"error|cannot|fatal", line, re.IGNORECASE)]
        raise RuntimeError(f"exit code {done.returncode}: {(telling or words)[0][:300]}")
    return done.stdout


def _folder_of(bench: Bench, package: str) -> Path | None:
    code = f"import importlib.util as u; s = u.find_spec({package!r}); print(s.origin if s else '')"
    found = subprocess.run([bench.python, "-c", code], capture_output=True, text=True, check=False).stdout.strip()
    return Path(found).parent if found else None


def _has(bench: Bench, package: str) -> bool:
    return _folder_of(bench, package) is not None
