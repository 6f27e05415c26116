"""The command line, run as a program.

Python takes half a second to start and to import all that a command needs, and the tests run commands by the hundred.
So most of them run in processes that are forked from one that has imported it already; ``command`` starts one anew.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import portl
import portl_postgres
from portl.cli import main
from tests.servers import Db

# The connector in memory would be one that is installed.
for folder in (Path(portl.__file__).parent, Path(portl_postgres.__file__).parent):
    for file in folder.rglob("*.py"):
        if "testing" not in file.parts and not file.stem.startswith("__"):
            importlib.import_module(".".join(file.relative_to(folder.parent).with_suffix("").parts))

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["tests.commands"])


def url(db: Db, *, user: str | None = None, password: str | None = "", scheme: str = "postgresql") -> str:
    """The URL of a database; ``password=None`` leaves it out."""
    at, secret = db.endpoint, db.endpoint.password if password == "" else password
    credentials = quote(user or at.user, safe="") + (f":{quote(secret, safe='')}" if secret is not None else "")
    return f"{scheme}://{credentials}@{at.host}:{at.port}/{db.connection.info.dbname}"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "portl", *map(str, arguments)]


def portl_cli(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return portl_cli_in(Path.cwd(), *arguments, **environment)


def portl_cli_in(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return _run(None, list(map(str, arguments)), folder, {"COLUMNS": "80", **environment})


def python(code: str, *arguments: object, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program as ``python -c`` does, with a text as its input."""
    return _run(code, ["-c", *map(str, arguments)], Path.cwd(), {}, text)


def _run(
    code: str | None, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], text: str = ""
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as kept:
        (Path(kept) / "0").write_text(text, encoding="utf-8")
        process = _FORKING.Process(
            target=_become, args=(code, arguments, str(folder), {**os.environ, **environment}, kept)
        )
        process.start()
        process.join(120)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(list(arguments), 120)
        out, err = ((Path(kept) / name).read_text(encoding="utf-8") for name in "12")
        return subprocess.CompletedProcess(arguments, process.exitcode, out, err)


def _become(code: str | None, arguments: Sequence[str], folder: str, environment: Mapping[str, str], kept: str) -> None:
    """Become the program: what is forked has the files, the surroundings and the arguments of what forked it."""
    for descriptor, flags in enumerate((os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT] * 2)):
        opened = os.open(Path(kept) / str(descriptor), flags)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if code is None:
        sys.argv = ["portl", *arguments]
        main()
    else:
        sys.argv = list(arguments)
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
