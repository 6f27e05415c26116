"""The optional file beside the quarantine's table: the same rows, one JSON object per line.

It is written after the COMMIT. A process that dies in between omits lines, so the table is authoritative.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import portl
from portl import Finding


def writable(file: str | None) -> list[Finding]:
    """Return what prevents the file from being written."""
    if file is None:
        return []
    path = Path(file)
    if os.access(path if path.exists() else path.parent, os.W_OK) and not path.is_dir():
        return []
    return [portl.problem("quarantine.file", f"{file!r} cannot be written", "name a file in a folder that is there")]


def append_lines(file: str, lines: Sequence[str], context: portl.Context) -> None:
    """Append to the quarantine's file; a failure is only a warning, as the rows are safe in the table."""
    data = "".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace")
    try:
        with Path(file).open("ab") as stream:
            stream.write(data)
    except OSError as error:
        text = f"{len(lines)} rejected row(s) could not be written to {file!r}: {error.strerror}"
        context.emit(portl.Warned(where="quarantine.file", message=text, remedy="they stand in the quarantine's table"))
