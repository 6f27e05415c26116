"""Connections to a file, and SQLite's errors as portl's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import portl
from portl_sqlite.catalog import OLDEST

#: Milliseconds that a statement waits for another process's transaction.
BUSY_MILLISECONDS = 30_000


def connected(path: Path, mode: str) -> sqlite3.Connection:
    """Connect to a file.

    Args:
        path: the file.
        mode: ro, rw, or rwc, which creates it.

    Raises:
        SchemaError: there is no such file.
        OperationError: it cannot be opened, or SQLite is too old.
    """
    if sqlite3.sqlite_version_info < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise portl.OperationError(f"Python's SQLite is {sqlite3.sqlite_version}; portl needs {wanted} or later")
    if mode != "rwc" and not path.is_file():
        raise portl.SchemaError(f"there is no file {str(path)!r}")
    with failure(str(path)):
        # Transactions are opened and ended here, by name; worker threads take turns.
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def failure(label: str) -> Iterator[None]:
    """Raise SQLite's errors as portl's."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise _refused(str(error)) from error
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            hint = "change the permissions of the file and its folder"
            raise portl.PermissionDenied(f"{label}: {error}", hint=hint) from error
        busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        raise portl.OperationError(f"{label}: {error}", transient=busy) from error
    except (sqlite3.Error, OverflowError) as error:
        raise portl.DataError(f"{label}: {error}") from error


def _refused(text: str) -> portl.DataError:
    """Return the error for a row that a constraint refuses: ``UNIQUE constraint failed: t.a, t.b``."""
    what, _, where = text.partition(": ")
    if what == "UNIQUE constraint failed":
        return portl.ConflictError(text, constraint=where)
    column = where.rpartition(".")[2] if what == "NOT NULL constraint failed" else None
    return portl.DataError(text, column=column, constraint=where or None)
