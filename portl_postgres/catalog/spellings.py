"""The SQL names of the generic types: ``numeric(12,2)``, ``double precision``, ``integer[]``."""

from __future__ import annotations

from collections.abc import Mapping

from portl import Kind, Type

_SPELLINGS: Mapping[Kind, str] = {
    Kind.SMALLINT: "smallint",
    Kind.INT: "integer",
    Kind.BIGINT: "bigint",
    Kind.DECIMAL: "numeric",
    Kind.FLOAT: "real",
    Kind.DOUBLE: "double precision",
    Kind.BOOLEAN: "boolean",
    Kind.CHAR: "character",
    Kind.VARCHAR: "character varying",
    Kind.TEXT: "text",
    Kind.BINARY: "bytea",
    Kind.DATE: "date",
    Kind.TIME: "time without time zone",
    Kind.TIMETZ: "time with time zone",
    Kind.TIMESTAMP: "timestamp without time zone",
    Kind.TIMESTAMPTZ: "timestamp with time zone",
    Kind.INTERVAL: "interval",
    Kind.UUID: "uuid",
    Kind.JSON: "json",
    Kind.JSONB: "jsonb",
}


def spelled(type: Type) -> str:
    """Return the name of the built-in type that holds every value of a generic one."""
    if type.kind is Kind.ARRAY:
        element = type.element or Type(kind=Kind.TEXT)
        return f"{spelled(element)}[]" if element.kind is not Kind.ARRAY else spelled(element)
    if type.kind is Kind.CHAR and type.length is None:
        return "bpchar"  # character without a length would mean a single character
    spelling = _SPELLINGS[type.kind]
    parameters = [str(p) for p in (type.length, type.precision, type.scale) if p is not None]
    if not parameters:
        return spelling
    head, _, tail = spelling.partition(" with")
    return f"{head}({','.join(parameters)}){f' with{tail}' if tail else ''}"
