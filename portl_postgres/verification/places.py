"""The places of rows that a mirror fetches, kept in a file so that memory does not grow with the changes."""

from __future__ import annotations

import tempfile
import threading

import attrs

from portl_postgres.sql.text import literal

#: Bytes kept in memory before a file is opened: tables with few changes need none.
MEMORY_BYTES = 1024 * 1024


@attrs.frozen(kw_only=True)
class Place:
    """The rows of one part."""

    #: An array, as printed by the server.
    values: str
    #: The oid of their partition; 0 if the table has none.
    relation: int = 0


class Places:
    """The places of all parts. Several threads read them."""

    def __init__(self) -> None:
        #: The expression to search by, in a query over the source, and its type.
        self.looked_for = "", ""
        self._file = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115  # ``close`` follows
        self._parts: dict[int, tuple[int, int, int]] = {}
        self._lock = threading.Lock()

    def put(self, part: int, place: Place) -> None:
        """Store the place of a part."""
        data = place.values.encode()
        with self._lock:
            self._file.seek(0, 2)
            start = self._file.tell()
            self._file.write(data)
            self._parts[part] = start, len(data), place.relation

    def condition(self, part: int) -> str:
        """Return the condition for the rows of a part."""
        with self._lock:
            start, length, relation = self._parts[part]
            self._file.seek(start)
            values = self._file.read(length).decode()
        expression, type = self.looked_for
        found = f"{expression} = ANY ({literal(values)}::{type}[])"
        return f"tableoid = {relation}::pg_catalog.oid AND {found}" if relation else found

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
