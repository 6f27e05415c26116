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
}
#: Types whose binary form holds an oid of this very database (manual, 8.19), or that have none.
_OID_BEARERS = {
    "regclass", "regproc", "regprocedure", "regoper", "regoperator", "regtype", "regrole", "regnamespace",
    "regconfig", "regdictionary", "regcollation", "regdatabase", "aclitem",
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
        """Tell whether two ends mean the same type: the same built-in, or user-made with the same name and make-up."""
        if self.builtin or other.builtin:
            return self.oid == other.oid and self.builtin == other.builtin
        if self.kind == "A" and other.kind == "A" and self.element and other.element:
            return self.element.same_as(other.element)
        return self.name == other.name and self.kind == other.kind and self.extension == other.extension

    def binary(self, version: int) -> bool:
        """Tell whether its binary form means the same at another server of at least ``version``."""
        if (self.name in _OID_BEARERS and self.schema == "pg_catalog") or not self.sendable:
            return False
        if self.base is not None:
            return self.base.binary(version)
        inner = [t for t in (self.element, self.subtype, *(a for _, a, _ in self.attributes)) if t is not None]
        if self.kind in ("A", "c") and version < 14 and any(not part.builtin for part in inner):
            return False  # array_recv and record_recv insist on equal oids of user-made types before version 14
        return all(part.binary(version) for part in inner)


def generic(type: PgType, modifier: int) -> Type:
    """Return the generic type; ``text`` for what has none."""
    if type.base is not None:
        return generic(type.base, type.base_modifier)
    if type.kind == "A" and type.element is not None:
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


def conversion(source: PgType, source_type: Type, target: PgType, target_type: Type) -> Conversion:
    """Return the verdict on values of one PostgreSQL type in a column of another."""
    if source.same_as(target):
        return _same_name(source, source_type, target, target_type)
    if source.kind == "d" and source.root.same_as(target):
        return portl.conversion(source_type, target_type)
    if target.kind == "d":
        inner = conversion(source, source_type, target.root, target_type)
        return _also(inner, Risk.FORM) if target.checks or target.not_null else inner
    if is_text(target):
        return portl.conversion(Type(kind=Kind.TEXT) if not has_generic(source) else source_type, target_type)
    if is_text(source):
        return Conversion.of(Risk.FORM)
    if has_generic(source) and has_generic(target):
        return portl.conversion(source_type, target_type)
    pair = (source.root.name, target.root.name)
    return _CASTS.get(pair, Conversion(Verdict.IMPOSSIBLE))


#: Conversions between types without a generic one, by their text forms.
_CASTS: Mapping[tuple[str, str], Conversion] = {
    ("cidr", "inet"): Conversion.of(),
    ("inet", "cidr"): Conversion.of(Risk.FORM),
    ("bit", "varbit"): Conversion.of(),
    ("varbit", "bit"): Conversion.of(Risk.FORM),
    ("macaddr", "macaddr8"): Conversion.of(Risk.FORM),
    ("int4", "oid"): Conversion.of(Risk.OVERFLOW),
    ("int8", "oid"): Conversion.of(Risk.OVERFLOW),
    ("oid", "int8"): Conversion.of(),
    ("oid", "int4"): Conversion.of(Risk.OVERFLOW),
    ("xid", "int8"): Conversion.of(),
    ("regclass", "oid"): Conversion(Verdict.IMPOSSIBLE),
}


def _also(verdict: Conversion, risk: Risk) -> Conversion:
    if verdict.verdict is Verdict.IMPOSSIBLE or risk in verdict.risks:
        return verdict
    return Conversion.of(*verdict.risks, risk)


def _same_name(source: PgType, source_type: Type, target: PgType, target_type: Type) -> Conversion:
    verdict = portl.conversion(source_type, target_type) if has_generic(source) else Conversion.of()
    if not set(source.labels) <= set(target.labels):
        return _also(verdict, Risk.FORM)
    if [(name, t.name) for name, t, _ in source.attributes] != [(name, t.name) for name, t, _ in target.attributes]:
        return _also(verdict, Risk.FORM)
    if target.kind == "d" and (set(target.checks) - set(source.checks) or target.not_null > source.not_null):
        return _also(verdict, Risk.FORM)
    return verdict


class PostgresTypeMapper(portl.TypeMapper):
    """Maps the spelling of a built-in type to the generic type and back."""

    _SPELLING = re.compile(
        r"^\s*(?P<name>[^(\[]+?)\s*(?:\((?P<p>\d+)(?:\s*,\s*(?P<s>-?\d+))?\))?(?P<rest>[^(\[]*?)(?P<a>(\[\d*\])*)\s*$"
    )

    def generic(self, native: str) -> Type:
        """See ``TypeMapper.generic``."""
        match = self._SPELLING.match(native.lower())
        if match is None:
            return Type(kind=Kind.TEXT)
        name = " ".join(f"{match['name']} {match['rest']}".split())
        kind = _ALIASES.get(name)
        if kind is None:
            found = Type(kind=Kind.TEXT)
        else:
            found = self._with_parameters(kind, match["p"], match["s"])
        return Type(kind=Kind.ARRAY, element=found) if match["a"] else found

    @staticmethod
    def _with_parameters(kind: Kind, first: str | None, second: str | None) -> Type:
        if first is None:
            return Type(kind=kind, length=1) if kind is Kind.CHAR else Type(kind=kind)
        if kind in (Kind.CHAR, Kind.VARCHAR):
            return Type(kind=kind, length=int(first))
        if kind is Kind.DECIMAL:
            return Type(kind=kind, precision=int(first), scale=int(second or 0))
        return Type(kind=kind, precision=int(first))

    def native(self, type: Type) -> str:
        """See ``TypeMapper.native``."""
        if type.kind is Kind.ARRAY:
            element = type.element or Type(kind=Kind.TEXT)
            return f"{self.native(element)}[]" if element.kind is not Kind.ARRAY else self.native(element)
        spelling = _SPELLINGS[type.kind]
        parameters = [str(p) for p in (type.length, type.precision, type.scale) if p is not None]
        if not parameters:
            return spelling
        head, _, tail = spelling.partition(" with")
        return f"{head}({','.join(parameters)}){f' with{tail}' if tail else ''}"
