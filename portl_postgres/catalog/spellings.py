"""The generic types and the names under which SQL knows them: ``numeric(12,2)``, ``double precision``, ``int[]``."""

from __future__ import annotations

import re
from collections.abc import Mapping

import portl
from portl import Kind, Type
from portl_postgres.catalog.types import KINDS

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
_ALIASES: Mapping[str, Kind] = {
    **KINDS,
    **{spelling: kind for kind, spelling in _SPELLINGS.items()},
    "int": Kind.INT,
    "decimal": Kind.DECIMAL,
    "char": Kind.CHAR,
    "time": Kind.TIME,
    "timestamp": Kind.TIMESTAMP,
    "dec": Kind.DECIMAL,
    "float": Kind.DOUBLE,
    "char varying": Kind.VARCHAR,
    "serial": Kind.INT,
    "bigserial": Kind.BIGINT,
    "smallserial": Kind.SMALLINT,
}


class PostgresTypeMapper(portl.TypeMapper):
    """Map the name of a built-in type to the generic type and back."""

    _SPELLING = re.compile(
        r"""
        \s* (?P<name> "[^"]+" | [a-z_0-9.]+ (?:\s+ (?:precision | varying))? )
        (?P<fields> (?:\s+ (?:year | month | day | hour | minute | second | to))* )
        \s* (?: \( \s* (?P<p>\d+) \s* (?: , \s* (?P<s>-?\d+) \s* )? \) )?
        \s* (?P<zone> with(?:out)? \s+ time \s+ zone )?
        \s* (?P<array> (?: \[ \d* \] \s* | array \b \s* )* )
        """,
        re.VERBOSE,
    )

    def generic(self, native: str) -> Type:
        """See ``TypeMapper.generic``."""
        match = self._SPELLING.fullmatch(native.lower())
        if match is None:
            return Type(kind=Kind.TEXT)
        name = " ".join(f"{match['name'].removeprefix('pg_catalog.')} {match['zone'] or ''}".split())
        found = self._with_parameters(name, match["p"], match["s"])
        return Type(kind=Kind.ARRAY, element=found) if match["array"] else found

    @staticmethod
    def _with_parameters(name: str, first: str | None, second: str | None) -> Type:
        kind = _ALIASES.get(name)
        if kind is None:
            return Type(kind=Kind.TEXT)
        if name == "float":
            # Up to 24 bits of the significand are a real (manual, 8.1.3).
            return Type(kind=Kind.FLOAT if first and int(first) <= 24 else Kind.DOUBLE)
        if kind is Kind.CHAR:
            return Type(kind=kind, length=int(first) if first else None if name == "bpchar" else 1)
        if first is None:
            return Type(kind=kind)
        if kind is Kind.VARCHAR:
            return Type(kind=kind, length=int(first))
        if kind is Kind.DECIMAL:
            return Type(kind=kind, precision=int(first), scale=int(second or 0))
        return Type(kind=kind, precision=int(first))

    def native(self, type: Type) -> str:
        """See ``TypeMapper.native``."""
        if type.kind is Kind.ARRAY:
            element = type.element or Type(kind=Kind.TEXT)
            return f"{self.native(element)}[]" if element.kind is not Kind.ARRAY else self.native(element)
        if type.kind is Kind.CHAR and type.length is None:
            return "bpchar"  # character without a length would be one of a single character
        spelling = _SPELLINGS[type.kind]
        parameters = [str(p) for p in (type.length, type.precision, type.scale) if p is not None]
        if not parameters:
            return spelling
        head, _, tail = spelling.partition(" with")
        return f"{head}({','.join(parameters)}){f' with{tail}' if tail else ''}"
