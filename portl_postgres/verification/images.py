"""Images of values: bytes or text that are equal, on both sides, exactly if the values print alike."""

from __future__ import annotations

import enum

from portl import Column, Field, Risk
from portl_postgres.catalog.tables import details
from portl_postgres.catalog.types import PgType, is_text
from portl_postgres.sql.text import literal
from portl_postgres.wire import select_list

#: The versions that introduced hash_record_extended and pg_input_is_valid.
HASHES_RECORDS, JUDGES_INPUT = 14, 16

#: Types whose 64-bit hash distinguishes all values.
_AS_THEY_ARE = {"bool", "int2", "int4", "date", "oid", "uuid", "bytea"}
_BY_BINARY_FORM = {
    "int8": "int8send",
    "numeric": "numeric_send",
    "time": "time_send",
    "timetz": "timetz_send",
    "timestamp": "timestamp_send",
    "timestamptz": "timestamptz_send",
    "interval": "interval_send",
    "bpchar": "bpcharsend",  # its hash, and its cast to text, ignore trailing spaces
    "money": "cash_send",  # its text depends on lc_monetary
}
#: NaN has several binary forms, which print alike.
_FLOATS = {"float4": "float4send", "float8": "float8send"}


def native(column: Column) -> str:
    """Return a column's type as the server spells it, below all domains."""
    found = details(column)
    spelled, pg = column.native, found.pg if found else None
    while pg is not None and pg.domain is not None:
        spelled, pg = pg.domain.native, pg.domain.base
    return spelled


class Way(enum.Enum):
    """How the source's value is converted to the destination's form."""

    #: It already has the destination's type.
    SAME = enum.auto()
    #: A cast that never refuses a row.
    CAST = enum.auto()
    #: By its text; if the destination refuses that, the text itself is compared, as such a row is missing or differs.
    TRIED = enum.auto()
    #: Only texts are compared, because the type, or its binary form, differs on the other side.
    TEXT = enum.auto()


#: Risks for which the destination refuses a value.
_REFUSES = {Risk.OVERFLOW, Risk.FORM, Risk.TRUNCATION}


def way(field: Field, version: int) -> Way:
    """Return how a field is converted to the destination's form.

    Args:
        field: the field.
        version: the version of the source's server.
    """
    sent, target = details(field.sent), details(field.target)
    assert target is not None  # compared in the servers only if both sides are PostgreSQL
    root = target.pg.root
    if not root.builtin or is_foreign(root):
        return Way.TEXT
    if sent is not None and sent.pg.root.same_as(root) and native(field.sent) == native(field.target):
        return Way.SAME
    refuses = select_list.item(field).obstacle is not None or bool(_REFUSES & set(field.conversion.risks))
    return Way.TRIED if refuses and version >= JUDGES_INPUT else Way.CAST


def produced(field: Field, version: int) -> str:
    """Return the source's expression for the value that the destination should hold. Takes the arguments of ``way``."""
    found, value = way(field, version), select_list.item(field).sql
    if found is Way.SAME:
        return value
    if found is Way.TEXT:
        return f"CAST({value} AS text)"
    wanted = native(field.target)
    if found is Way.CAST:
        return f"CAST({value} AS {wanted})"
    text = f"CAST({value} AS text)"
    valid = f"pg_catalog.pg_input_is_valid({text}, {literal(wanted)})"
    return f"CASE WHEN {valid} THEN CAST(CAST({text} AS {wanted}) AS text) ELSE {text} END"


def judged_by_text(field: Field, version: int) -> bool:
    """Return whether ``produced`` returns text instead of the destination's type. Takes the arguments of ``way``."""
    return way(field, version) in (Way.TRIED, Way.TEXT)


def is_foreign(pg: PgType) -> bool:
    """Return whether values refer to objects of their own database, so that only their text is portable."""
    return not all(part.builtin for part in pg.parts()) or not pg.binary(HASHES_RECORDS)


def has_floats(pg: PgType) -> bool:
    """Return whether a type is a float, or made of floats."""
    return any(part.root.name in _FLOATS or part.schema != "pg_catalog" for part in pg.parts())


def image(value: str, pg: PgType, *, by_text: bool, scaled: bool = False) -> str:
    """Return what is hashed of a value.

    Args:
        value: an expression.
        pg: its type.
        by_text: True if its text is to be taken.
        scaled: True for a numeric of a fixed scale: there 1.0 and 1.00 do not both occur.
    """
    root = pg.root
    if not by_text and scaled and root.builtin and root.name == "numeric":
        return value
    if not by_text and root.builtin and root.kind == "b":
        if root.name in _AS_THEY_ARE:
            return value
        if root.name in _BY_BINARY_FORM:
            return f"pg_catalog.{_BY_BINARY_FORM[root.name]}({value})"
        if root.name in _FLOATS:
            return f"CASE WHEN {value} = 'NaN' THEN '\\x'::bytea ELSE pg_catalog.{_FLOATS[root.name]}({value}) END"
        if root.name in ("point", "line", "lseg", "box", "path", "polygon", "circle"):
            by_text = True  # made of floats
    if by_text or is_text(root) or root.name in ("json", "jsonb", "xml") or is_foreign(root) or has_floats(root):
        return f'CAST({value} AS text) COLLATE "C"'
    if root.kind == "A":
        return f"pg_catalog.array_send({value})"
    # The row's binary form contains the oid of the type, which is built in.
    return f"CASE WHEN {value} IS NOT NULL THEN pg_catalog.record_send(ROW({value})) END"


def shown(value: str, pg: PgType, *, by_text: bool) -> str:
    """Return the expression for a value's text, for display and for comparison in the client."""
    root = pg.root
    if not by_text and root.builtin and root.name == "bpchar":
        return f"pg_catalog.convert_from(pg_catalog.bpcharsend({value}), 'UTF8')"
    if not by_text and root.builtin and root.name == "money":
        return f"CAST(CAST({value} AS numeric) AS text)"
    return f"CAST({value} AS text)"
