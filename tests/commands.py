"""The command line, run as a program."""

from __future__ import annotations

import os
import subprocess
import sys
from urllib.parse import quote

from tests.servers import Db


def url(db: Db, *, user: str | None = None, password: str | None = "", scheme: str = "postgresql") -> str:
    """The URL of a database; ``password=None`` leaves it out."""
    at, secret = db.endpoint, db.endpoint.password if password == "" else password
    credentials = quote(user or at.user, safe="") + (f":{quote(secret, safe='')}" if secret is not None else "")
    return f"{scheme}://{credentials}@{at.host}:{at.port}/{db.connection.info.dbname}"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "portl", *map(str, arguments)]


def portl_cli(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    surroundings = {**os.environ, "COLUMNS": "80", **environment}
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, env=surroundings, timeout=120, check=False
    )
