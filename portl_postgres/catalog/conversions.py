"""Judge what happens to values of one PostgreSQL type in a column of another, for the plan."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

import portl
from portl import Conversion, Kind, Risk, Type, Verdict
from portl_postgres.catalog.types import PgType, has_generic, is_text

_IMPOSSIBLE = Conversion(Verdict.IMPOSSIBLE)
#: Conversions between types without a generic one, by their text forms. Not integer to oid: oid's input function reads
#: -1 as 4294967295.
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


@attrs.frozen
class Typed:
    """The type of a column, in its three representations."""

    pg: PgType
    type: Type
    #: ``atttypmod``, for the types whose modifiers the generic types do not have; -1 for none.
    modifier: int = -1

    @property
    def base(self) -> Typed | None:
        """The type that a domain is made from; None for any other type."""
        domain = self.pg.domain
        return None if domain is None else Typed(domain.base, self.type, domain.modifier)

    @property
    def element(self) -> Typed | None:
        """The elements of an array; None for any other type."""
        if self.pg.kind != "A" or self.pg.element is None:
            return None
        return Typed(self.pg.element, self.type.element or self.type, self.modifier)


def conversion(source: Typed, target: Typed) -> Conversion:
    """Return the verdict on values of one column in another."""
    if source.pg.same_as(target.pg):
        return _same_type(source, target)
    if (base := source.base) is not None:
        return conversion(base, target)
    if target.pg.domain is not None and (base := target.base) is not None:
        inner = conversion(source, base)
        return _also(inner, Risk.FORM) if target.pg.domain.constrained else inner
    if (elements := source.element) is not None and (room := target.element) is not None:
        return conversion(elements, room)
    if target.pg.is_builtin("char"):
        return _IMPOSSIBLE  # its input function keeps the first byte and silently drops the rest
    if target.pg.is_builtin("name"):
        return _to_name(source.type)
    if is_text(target.pg):
        return portl.conversion(source.type if has_generic(source.pg) else Type(kind=Kind.TEXT), target.type)
    if is_text(source.pg):
        return portl.conversion(source.type, target.type) if has_generic(target.pg) else Conversion.of(Risk.FORM)
    if has_generic(source.pg) and has_generic(target.pg):
        return portl.conversion(source.type, target.type)
    found = _CASTS.get((source.pg.name, target.pg.name), _IMPOSSIBLE)
    return _also(found, *_narrowed(source, target))


def _same_type(source: Typed, target: Typed) -> Conversion:
    """Return the verdict for types of the same name, which may be defined differently on both sides."""
    if (elements := source.element) is not None and (room := target.element) is not None:
        return _same_type(elements, room)
    left, right = source.pg, target.pg
    if [name for name, _ in left.makeup] != [name for name, _ in right.makeup]:
        return _IMPOSSIBLE  # the values of a composite are matched by position
    verdict = portl.conversion(source.type, target.type) if has_generic(left) else Conversion.of()
    if not set(left.labels) <= set(right.labels) or left.makeup != right.makeup:
        return _also(verdict, Risk.FORM)
    if left.domain is not None and right.domain is not None and right.domain.refuses_more_than(left.domain):
        return _also(verdict, Risk.FORM)
    return _also(verdict, *_narrowed(source, target))


def _to_name(source_type: Type) -> Conversion:
    """Return the verdict on a column of type name, whose input function silently truncates at 63 bytes."""
    bytes_per_character = 4 if source_type.kind in (Kind.CHAR, Kind.VARCHAR, Kind.TEXT) else 1
    room = Type(kind=Kind.VARCHAR, length=63 // bytes_per_character)
    fits = portl.conversion(source_type, room).verdict is Verdict.LOSSLESS
    return Conversion.of() if fits else _IMPOSSIBLE


def _also(verdict: Conversion, *risks: Risk) -> Conversion:
    if verdict.verdict is Verdict.IMPOSSIBLE:
        return verdict
    return Conversion.of(*dict.fromkeys((*verdict.risks, *risks)))


def _narrowed(source: Typed, target: Typed) -> list[Risk]:
    """Return what the modifier of a bit string or an interval does to values."""
    before, after = source.modifier, target.modifier
    if target.pg.is_builtin("bit") and before != after:
        return [Risk.FORM]
    if target.pg.is_builtin("varbit") and after >= 0 and not 0 <= before <= after:
        return [Risk.TRUNCATION]
    if target.pg.is_builtin("interval") and _finest(before) > _finest(after):
        return [Risk.PRECISION]
    return []


def _finest(modifier: int) -> int:
    """Return the rank of the finest field that an interval's modifier keeps: 0 year to 5 second.

    The upper half of the modifier has one bit per field (timestamp.h, datetime.h).
    """
    if modifier < 0:
        return 5
    year, month, day, hour, minute, second = 2, 1, 3, 10, 11, 12
    fields = (year, month, day, hour, minute, second)
    return max((rank for rank, bit in enumerate(fields) if modifier >> 16 & 1 << bit), default=5)
