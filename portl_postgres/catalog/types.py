"""PostgreSQL's types: what each is made of, its generic type, and whether it can travel in binary form."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import attrs

import portl
from portl import Conversion, Kind, Risk, Type, Verdict

#: Oids below are built in and the same on every server (manual, 52.64 and src/include/access/transam.h).
FIRST_USER_OID = 16384

#: Generic types by the names of pg_type.
KINDS: Mapping[str, Kind] = {
    "int2": Kind.SMALLINT,
    "int4": Kind.INT,
    "int8": Kind.BIGINT,
    "numeric": Kind.DECIMAL,
    "float4": Kind.FLOAT,
    "float8": Kind.DOUBLE,
    "bool": Kind.BOOLEAN,
    "bpchar": Kind.CHAR,
    "varchar": Kind.VARCHAR,
    "text": Kind.TEXT,
    "name": Kind.TEXT,
    "bytea": Kind.BINARY,
    "date": Kind.DATE,
    "time": Kind.TIME,
    "timetz": Kind.TIMETZ,
    "timestamp": Kind.TIMESTAMP,
    "timestamptz": Kind.TIMESTAMPTZ,
    "interval": Kind.INTERVAL,
    "uuid": Kind.UUID,
    "json": Kind.JSON,
    "jsonb": Kind.JSONB,
}
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
#: Types whose binary form holds an oid of this very database (manual, 8.19), or that have none. Then vectors and
#: tsquery: their receive functions refuse the empty value that their send functions write (int.c, oid.c, tsquery.c).
_NOT_BINARY = {
    "regclass", "regproc", "regprocedure", "regoper", "regoperator", "regtype", "regrole", "regnamespace",
    "regconfig", "regdictionary", "regcollation", "regdatabase", "aclitem", "int2vector", "oidvector", "tsquery",
}  # fmt: skip
_TEXTS = {"text", "varchar", "bpchar", "name"}


@attrs.frozen(kw_only=True)
class PgType:
    """A type as the catalog has it, with the types that it is made of."""

    oid: int
    schema: str
    name: str
    #: As the server prints it, with the schema unless it is built in.
    spelled: str
    #: b base, c composite, d domain, e enum, p pseudo, r range, m multirange; A array.
    kind: str
    element: PgType | None = None
    #: For a domain: the type it is made from, and its modifier.
    base: PgType | None = None
    base_modifier: int = -1
    #: The base type as the server prints it, modifier included.
    base_native: str | None = None
    subtype: PgType | None = None
    #: True if it has a send and a receive function.
    sendable: bool = True
    labels: tuple[str, ...] = ()
    #: For a composite: name, type, and the type as the server prints it, modifier included.
    attributes: tuple[tuple[str, PgType, str], ...] = ()
    not_null: bool = False
    default: str | None = None
    checks: tuple[str, ...] = ()
    extension: str | None = None
    #: What separates the elements in the text form of an array of it, or of the array that it is.
    delimiter: str = ","

    @property
    def builtin(self) -> bool:
        """True if every server has it under the same oid."""
        return self.oid < FIRST_USER_OID and self.schema == "pg_catalog"

    @property
    def root(self) -> PgType:
        """The type below all domains."""
        return self.base.root if self.base is not None else self

    def parts(self) -> Iterator[PgType]:
        """Yield the types that must exist before this one, and then this one."""
        for part in (self.element, self.base, self.subtype, *(inner for _, inner, _ in self.attributes)):
            if part is not None:
                yield from part.parts()
        yield self

    def same_as(self, other: PgType) -> bool:
        """Tell whether two sides mean the same type: the same built-in, or user-made with the same name and make-up."""
        if self.builtin or other.builtin:
            return self.oid == other.oid and self.builtin == other.builtin
        if self.kind == "A" and other.kind == "A" and self.element and other.element:
            return self.element.same_as(other.element)
        if self.base is not None and other.base is not None and not self.base.same_as(other.base):
            return False
        return self.name == other.name and self.kind == other.kind and self.extension == other.extension

    def binary(self, version: int) -> bool:
        """Tell whether its binary form means the same at another server of at least ``version``."""
        if (self.name in _NOT_BINARY and self.schema == "pg_catalog") or not self.sendable:
            return False
        if self.base is not None:
            return self.base.binary(version)
        inner = [t for t in (self.element, self.subtype, *(a for _, a, _ in self.attributes)) if t is not None]
        if self.kind in ("A", "c") and version < 14 and any(not part.builtin for part in inner):
            return False  # array_recv and record_recv insist on equal oids of user-made types before version 14
        return all(part.binary(version) for part in inner)

    @property
    def makeup(self) -> tuple[tuple[str, str], ...]:
        """The names and types of a composite's attributes, or of those of an array's elements."""
        if self.root.kind == "A" and self.root.element is not None:
            return self.root.element.makeup
        return tuple((name, attribute.name) for name, attribute, _ in self.root.attributes)


def generic(type: PgType, modifier: int) -> Type:
    """Return the generic type; ``text`` for what has none."""
    if type.base is not None:
        return generic(type.base, type.base_modifier)
    if type.kind == "A" and type.element is not None:
        if type.delimiter != "," or type.element.root.kind == "A":
            # Nested lists could not tell an array of arrays-in-a-domain from one of two dimensions.
            return Type(kind=Kind.TEXT)
        return Type(kind=Kind.ARRAY, element=generic(type.element, modifier))
    kind = KINDS.get(type.name) if type.schema == "pg_catalog" else None
    if kind is None:
        return Type(kind=Kind.TEXT)
    if kind is Kind.DECIMAL and modifier >= 4:
        packed = modifier - 4
        # numeric.c: the precision in the upper half, the scale in 11 bits with a sign.
        return Type(kind=kind, precision=(packed >> 16) & 0xFFFF, scale=((packed & 0x7FF) ^ 1024) - 1024)
    if kind in (Kind.CHAR, Kind.VARCHAR) and modifier >= 4:
        return Type(kind=kind, length=modifier - 4)
    if kind in (Kind.TIME, Kind.TIMETZ, Kind.TIMESTAMP, Kind.TIMESTAMPTZ) and modifier >= 0:
        return Type(kind=kind, precision=modifier)
    if kind is Kind.INTERVAL and modifier >= 0 and modifier & 0xFFFF != 0xFFFF:
        return Type(kind=kind, precision=modifier & 0xFFFF)
    return Type(kind=kind)


def has_generic(type: PgType) -> bool:
    """Tell whether a type has a generic one of its own, or is text itself."""
    root = type.root
    if root.kind == "A" and root.element is not None:
        return has_generic(root.element)
    return root.schema == "pg_catalog" and root.name in KINDS


def is_text(type: PgType) -> bool:
    """Tell whether values are character strings: text, varchar, char, name, and domains over them."""
    return type.root.schema == "pg_catalog" and type.root.name in _TEXTS


def conversion(
    source: PgType,
    source_type: Type,
    target: PgType,
    target_type: Type,
    modifiers: tuple[int, int] = (-1, -1),
) -> Conversion:
    """Return the verdict on values of one PostgreSQL type in a column of another.

    Args:
        source: the type of the values.
        source_type: its generic type.
        target: the type of the column.
        target_type: its generic type.
        modifiers: those of both, for the types whose modifiers the generic types do not have.
    """
    if source.same_as(target):
        return _same_name(source, source_type, target, target_type, modifiers)
    if source.kind == "d" and source.base is not None:
        return conversion(source.base, source_type, target, target_type, (source.base_modifier, modifiers[1]))
    if target.kind == "d" and target.base is not None:
        inner = conversion(source, source_type, target.base, target_type, (modifiers[0], target.base_modifier))
        return _also(inner, Risk.FORM) if target.checks or target.not_null else inner
    if source.kind == "A" and target.kind == "A" and source.element and target.element:
        elements = (source_type.element or source_type, target_type.element or target_type)
        return conversion(source.element, elements[0], target.element, elements[1], modifiers)
    if _is(target, "char"):
        return _IMPOSSIBLE  # its input function takes the first byte and drops the rest without a word
    if _is(target, "name"):
        return _to_name(source_type)
    if is_text(target):
        return portl.conversion(Type(kind=Kind.TEXT) if not has_generic(source) else source_type, target_type)
    if is_text(source):
        return portl.conversion(source_type, target_type) if has_generic(target) else Conversion.of(Risk.FORM)
    if has_generic(source) and has_generic(target):
        return portl.conversion(source_type, target_type)
    found = _CASTS.get((source.name, target.name), _IMPOSSIBLE)
    return found if found.verdict is Verdict.IMPOSSIBLE else _also(found, *_narrowed(target, modifiers))


_IMPOSSIBLE = Conversion(Verdict.IMPOSSIBLE)
#: Conversions between types without a generic one, by their text forms. Not integer to oid: what reads an oid takes
#: -1 for 4294967295.
_CASTS: Mapping[tuple[str, str], Conversion] = {
    ("cidr", "inet"): Conversion.of(),
    ("inet", "cidr"): Conversion.of(Risk.FORM),
    ("bit", "varbit"): Conversion.of(),
    ("varbit", "bit"): Conversion.of(Risk.FORM),
    ("macaddr", "macaddr8"): Conversion.of(Risk.FORM),
    ("oid", "int8"): Conversion.of(),
    ("oid", "int4"): Conversion.of(Risk.OVERFLOW),
    ("xid", "int8"): Conversion.of(),
}


def _is(type: PgType, name: str) -> bool:
    return type.name == name and type.schema == "pg_catalog"


def _to_name(source_type: Type) -> Conversion:
    """Return the verdict on a column of type name: what reads it cuts at 63 bytes without a word."""
    bytes_per_character = 4 if source_type.kind in (Kind.CHAR, Kind.VARCHAR, Kind.TEXT) else 1
    room = Type(kind=Kind.VARCHAR, length=63 // bytes_per_character)
    fits = portl.conversion(source_type, room).verdict is Verdict.LOSSLESS
    return Conversion.of() if fits else _IMPOSSIBLE


def _also(verdict: Conversion, *risks: Risk) -> Conversion:
    if verdict.verdict is Verdict.IMPOSSIBLE:
        return verdict
    return Conversion.of(*dict.fromkeys((*verdict.risks, *risks)))


def _narrowed(target: PgType, modifiers: tuple[int, int]) -> list[Risk]:
    """Return what the modifier of a bit string's or an interval's column does to values."""
    before, after = modifiers
    if _is(target, "bit") and before != after:
        return [Risk.FORM]
    if _is(target, "varbit") and after >= 0 and not 0 <= before <= after:
        return [Risk.TRUNCATION]
    if _is(target, "interval") and _finest(before) > _finest(after):
        return [Risk.PRECISION]
    return []


def _finest(modifier: int) -> int:
    """Return the rank of the finest field that an interval's modifier keeps: 0 year to 5 second.

    The upper half of the modifier has one bit a field (timestamp.h, datetime.h).
    """
    if modifier < 0:
        return 5
    year, month, day, hour, minute, second = 2, 1, 3, 10, 11, 12
    fields = (year, month, day, hour, minute, second)
    return max((rank for rank, bit in enumerate(fields) if modifier >> 16 & 1 << bit), default=5)


def _same_name(
    source: PgType, source_type: Type, target: PgType, target_type: Type, modifiers: tuple[int, int]
) -> Conversion:
    if source.kind == "A" and source.element and target.element:
        elements = (source_type.element or source_type, target_type.element or target_type)
        return _same_name(source.element, elements[0], target.element, elements[1], modifiers)
    if [name for name, _ in source.makeup] != [name for name, _ in target.makeup]:
        return _IMPOSSIBLE  # the values of a row go by place
    verdict = portl.conversion(source_type, target_type) if has_generic(source) else Conversion.of()
    if not set(source.labels) <= set(target.labels) or source.makeup != target.makeup:
        return _also(verdict, Risk.FORM)
    if target.kind == "d" and (set(target.checks) - set(source.checks) or target.not_null > source.not_null):
        return _also(verdict, Risk.FORM)
    return _also(verdict, *_narrowed(target, modifiers))


class PostgresTypeMapper(portl.TypeMapper):
    """Maps the spelling of a built-in type to the generic type and back."""

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
