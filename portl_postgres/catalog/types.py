"""PostgreSQL's types: their components, generic types, and whether their binary form is portable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from portl import Kind, Type

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
#: Types whose binary form contains an oid of one database (manual, 8.19), or that have no binary form. Also vectors and
#: tsquery, whose receive functions refuse the empty value that their send functions write (int.c, oid.c, tsquery.c).
_NOT_BINARY = {
    "regclass", "regproc", "regprocedure", "regoper", "regoperator", "regtype", "regrole", "regnamespace",
    "regconfig", "regdictionary", "regcollation", "regdatabase", "aclitem", "int2vector", "oidvector", "tsquery",
}  # fmt: skip
_TEXTS = {"text", "varchar", "bpchar", "name"}


@attrs.frozen(kw_only=True)
class Domain:
    """The base type of a domain, and what the domain adds to it."""

    base: PgType
    #: The base type's modifier.
    modifier: int
    #: The base type as the server prints it, modifier included.
    native: str
    not_null: bool
    default: str | None
    #: As the server prints them: ``CHECK (VALUE > 0)``.
    checks: tuple[str, ...]

    @property
    def constrained(self) -> bool:
        """True if it refuses values that its base type accepts."""
        return self.not_null or bool(self.checks)

    def refuses_more_than(self, other: Domain) -> bool:
        """Return whether it may refuse a value that ``other`` accepts."""
        return bool(set(self.checks) - set(other.checks)) or self.not_null > other.not_null


@attrs.frozen(kw_only=True)
class PgType:
    """A type from the catalog, with its component types."""

    oid: int
    schema: str
    name: str
    #: As printed by the server, with the schema unless it is built in.
    spelled: str
    #: b base, c composite, d domain, e enum, p pseudo, r range, m multirange; A array.
    kind: str
    element: PgType | None = None
    domain: Domain | None = None
    #: For a range: the type of its bounds.
    subtype: PgType | None = None
    #: True if it has a send and a receive function.
    sendable: bool = True
    labels: tuple[str, ...] = ()
    #: For a composite: name, type, and the type as the server prints it, modifier included.
    attributes: tuple[tuple[str, PgType, str], ...] = ()
    extension: str | None = None
    #: What separates elements in the text form of the array that it is, or of an array of it.
    delimiter: str = ","

    @property
    def base(self) -> PgType | None:
        """The type that a domain is made from; None for any other type."""
        return self.domain.base if self.domain is not None else None

    @property
    def builtin(self) -> bool:
        """True if it has the same oid on every server."""
        return self.oid < FIRST_USER_OID and self.schema == "pg_catalog"

    def is_builtin(self, name: str) -> bool:
        """Return whether it is the built-in type of this name in pg_type."""
        return self.name == name and self.schema == "pg_catalog"

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
        """Return whether both are the same built-in type, or user-defined ones of the same name and makeup."""
        if self.builtin or other.builtin:
            return self.oid == other.oid and self.builtin == other.builtin
        if self.kind == "A" and other.kind == "A" and self.element and other.element:
            return self.element.same_as(other.element)
        if self.base is not None and other.base is not None and not self.base.same_as(other.base):
            return False
        return self.name == other.name and self.kind == other.kind and self.extension == other.extension

    def binary(self, version: int) -> bool:
        """Return whether its binary form means the same on another server of at least this major ``version``."""
        if (self.name in _NOT_BINARY and self.schema == "pg_catalog") or not self.sendable:
            return False
        if self.base is not None:
            return self.base.binary(version)
        inner = [t for t in (self.element, self.subtype, *(a for _, a, _ in self.attributes)) if t is not None]
        if self.kind in ("A", "c") and version < 14 and any(not part.builtin for part in inner):
            return False  # before version 14, array_recv and record_recv insist on equal oids of user-defined types
        return all(part.binary(version) for part in inner)

    @property
    def makeup(self) -> tuple[tuple[str, str], ...]:
        """The names and types of the attributes of a composite, or of an array's composite elements."""
        if self.root.kind == "A" and self.root.element is not None:
            return self.root.element.makeup
        return tuple((name, attribute.name) for name, attribute, _ in self.root.attributes)


def generic(type: PgType, modifier: int) -> Type:
    """Return the generic type, ``text`` if there is none."""
    if type.domain is not None:
        return generic(type.domain.base, type.domain.modifier)
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
    """Return whether ``type`` has a generic type of its own, rather than ``text`` as a substitute."""
    root = type.root
    if root.kind == "A" and root.element is not None:
        return has_generic(root.element)
    return root.schema == "pg_catalog" and root.name in KINDS


def is_text(type: PgType) -> bool:
    """Return whether values are character strings: text, varchar, char, name, and domains over them."""
    return type.root.schema == "pg_catalog" and type.root.name in _TEXTS
