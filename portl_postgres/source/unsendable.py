"""Name the row that the source's server cannot send because a value is too large in text form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import portl
from portl import Field, Reading
from portl_postgres.catalog.tables import details
from portl_postgres.session.session import Session
from portl_postgres.source.selection import Selection
from portl_postgres.sql.text import literal, quoted
from portl_postgres.wire.copy_out import CopyOut

#: The server's error for a value or row that it cannot build.
TOO_LARGE = ("XX000", "54000")
#: The largest bytea with a text form, which is twice as long and must stay below the server's limit of 1 GB.
PRINTABLE_BYTES = 536_870_900


@contextmanager
def named(session: Session, selection: Selection, reading: Reading, copy: CopyOut) -> Iterator[None]:
    """Name the row in an error that the server raises inside this context."""
    try:
        yield
    except portl.DataError as error:
        if error.sqlstate in TOO_LARGE:
            error.row = copy.arrived + 1
            _describe(error, session, selection, reading)
        raise


def _describe(error: portl.DataError, session: Session, selection: Selection, reading: Reading) -> None:
    """Say which value of which row is too large to be sent, by asking the server over another connection."""
    key = selection.table.primary_key
    by_name = {field.source.name: field for field in reading.fields}
    large = [field for field in reading.fields if _is_bytea(field)]
    if not large or key is None or not set(key.columns) <= set(by_name):
        return
    sizes = " ".join(
        f"WHEN octet_length({quoted(f.source.name)}) > {PRINTABLE_BYTES}"
        f" THEN {literal(f.source.name)} || ' has ' || octet_length({quoted(f.source.name)}) || ' bytes'"
        for f in large
    )
    texts = ", ".join(f"{quoted(column)}::text" for column in key.columns)
    found = session.vigil.ask(
        f"SELECT * FROM (SELECT {texts}, CASE {sizes} END FROM {selection.rows(session)}) AS portl_rows"
        f" WHERE {quoted('case')} IS NOT NULL LIMIT 1"
    )
    if found:
        *values, size = (value.decode(errors="replace") if value is not None else None for value in found[0])
        error.values = {by_name[column].target.name: value for column, value in zip(key.columns, values, strict=True)}
        error.message = f"{size}: {error.message}"


def _is_bytea(field: Field) -> bool:
    found = details(field.source)
    return found is not None and found.pg.root.name == "bytea"
