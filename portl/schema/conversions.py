"""Decide whether the values of one type survive conversion to another."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs

from portl.schema.types import TEXTS, Kind, Type


class Verdict(enum.StrEnum):
    """What a conversion does to values."""

    LOSSLESS = "lossless"
    LOSSY = "lossy"
    IMPOSSIBLE = "impossible"


class Risk(enum.StrEnum):
    """What a lossy conversion may do. Overflow, truncation and form get the row refused; others change the value."""

    OVERFLOW = "overflow"
    TRUNCATION = "truncation"
    PRECISION = "precision"
    ZONE = "zone"
    FORM = "form"


_RISK_WORDS: Mapping[Risk, str] = {
    Risk.OVERFLOW: "a number that is too large for the destination is refused",
    Risk.TRUNCATION: "a value too long for the destination is refused, never truncated (trailing spaces excepted)",
    Risk.PRECISION: "digits that do not fit the destination are rounded",
    Risk.ZONE: "the session's time zone decides which instant is meant",
    Risk.FORM: "a value that does not have the form of the destination's type is refused, or loses its form",
}


@attrs.frozen
class Conversion:
    """The verdict on converting one type to another."""

    verdict: Verdict
    risks: tuple[Risk, ...] = ()

    @property
    def explanation(self) -> str:
        """One sentence for each risk."""
        return "; ".join(_RISK_WORDS[risk] for risk in self.risks)

    @classmethod
    def of(cls, *risks: Risk) -> Conversion:
        """Return a lossless conversion if no risk is given, otherwise a lossy one."""
        return cls(Verdict.LOSSY if risks else Verdict.LOSSLESS, risks)


IMPOSSIBLE = Conversion(Verdict.IMPOSSIBLE)

_INTEGER_DIGITS = {Kind.SMALLINT: 5, Kind.INT: 10, Kind.BIGINT: 19}
_REALS = {Kind.FLOAT: 24, Kind.DOUBLE: 53}  # bits of the significand, IEEE 754
_INTEGER_BITS = {Kind.SMALLINT: 15, Kind.INT: 31, Kind.BIGINT: 63}
_JSON = {Kind.JSON, Kind.JSONB}
_CLOCK_RISKS: Mapping[tuple[Kind, Kind], tuple[Risk, ...]] = {
    (Kind.DATE, Kind.TIMESTAMP): (),
    (Kind.DATE, Kind.TIMESTAMPTZ): (Risk.ZONE,),
    (Kind.TIMESTAMP, Kind.TIMESTAMPTZ): (Risk.ZONE,),
    (Kind.TIMESTAMPTZ, Kind.TIMESTAMP): (Risk.ZONE,),
    (Kind.TIMESTAMP, Kind.DATE): (Risk.PRECISION,),
    (Kind.TIMESTAMPTZ, Kind.DATE): (Risk.PRECISION, Risk.ZONE),
    (Kind.TIMESTAMP, Kind.TIME): (Risk.PRECISION,),
    (Kind.TIMESTAMPTZ, Kind.TIME): (Risk.PRECISION, Risk.ZONE),
    (Kind.TIME, Kind.TIMETZ): (Risk.ZONE,),
    (Kind.TIMETZ, Kind.TIME): (Risk.ZONE,),
    (Kind.TIME, Kind.INTERVAL): (),
}
_CLOCKS = {Kind.TIME, Kind.TIMETZ, Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.INTERVAL}
# The most characters that a value takes as text, including the sign.
_WIDTHS = {Kind.SMALLINT: 6, Kind.INT: 11, Kind.BIGINT: 20, Kind.BOOLEAN: 5, Kind.UUID: 36}


def conversion(source: Type, target: Type) -> Conversion:
    """Return the verdict on writing values of ``source`` into a column of ``target``."""
    if source == target:
        return Conversion.of()
    if target.kind in TEXTS:
        return _to_text(source, target)
    if source.kind in TEXTS:
        return _from_text(target)
    if Kind.ARRAY in (source.kind, target.kind):
        if source.element is None or target.element is None:
            return IMPOSSIBLE
        return conversion(source.element, target.element)
    if source.kind in _INTEGER_DIGITS:
        return _from_integer(source, target)
    if source.kind is Kind.DECIMAL:
        return _from_decimal(source, target)
    if source.kind in _REALS:
        return _from_real(source, target)
    if source.kind in _JSON and target.kind in _JSON:
        return Conversion.of(Risk.FORM) if target.kind is Kind.JSONB else Conversion.of()
    return _clocks(source, target)


#: Types of one family differ in how much they hold.
_FAMILIES: tuple[set[Kind], ...] = (set(_INTEGER_DIGITS), set(_REALS), {Kind.DECIMAL}, {Kind.VARCHAR, Kind.TEXT})


def widens(narrow: Type, wide: Type) -> bool:
    """Return whether ``wide`` holds every value of ``narrow`` in the same way, and more: bigint after int."""
    related = any({narrow.kind, wide.kind} <= family for family in _FAMILIES)
    there, back = conversion(narrow, wide), conversion(wide, narrow)
    return related and there.verdict is Verdict.LOSSLESS and back.verdict is Verdict.LOSSY


def _to_text(source: Type, target: Type) -> Conversion:
    if source.kind is Kind.BINARY:
        return IMPOSSIBLE
    if target.length is None:
        return Conversion.of()
    width = source.length if source.kind in TEXTS else _WIDTHS.get(source.kind)
    return Conversion.of() if width is not None and width <= target.length else Conversion.of(Risk.TRUNCATION)


def _from_text(target: Type) -> Conversion:
    rounds = target.kind in _REALS or target.precision is not None
    return Conversion.of(Risk.FORM, Risk.PRECISION) if rounds else Conversion.of(Risk.FORM)


def _from_integer(source: Type, target: Type) -> Conversion:
    digits = _INTEGER_DIGITS[source.kind]
    if target.kind in _INTEGER_DIGITS:
        return Conversion.of(*([Risk.OVERFLOW] if digits > _INTEGER_DIGITS[target.kind] else []))
    if target.kind is Kind.DECIMAL:
        risks = []
        if target.precision is not None and target.precision - (target.scale or 0) < digits:
            risks.append(Risk.OVERFLOW)
        if (target.scale or 0) < 0:
            risks.append(Risk.PRECISION)
        return Conversion.of(*risks)
    if target.kind in _REALS:
        exact = _INTEGER_BITS[source.kind] <= _REALS[target.kind]
        return Conversion.of() if exact else Conversion.of(Risk.PRECISION)
    return IMPOSSIBLE


def _from_decimal(source: Type, target: Type) -> Conversion:
    if target.kind in _REALS:
        return Conversion.of(Risk.PRECISION, Risk.OVERFLOW)
    if target.kind in _INTEGER_DIGITS:
        risks = [Risk.OVERFLOW]
        if source.precision is None or (source.scale or 0) > 0:
            risks.append(Risk.PRECISION)
        return Conversion.of(*risks)
    if target.kind is not Kind.DECIMAL:
        return IMPOSSIBLE
    if target.precision is None:
        return Conversion.of()
    if source.precision is None:
        return Conversion.of(Risk.OVERFLOW, Risk.PRECISION)
    risks = []
    if source.precision - (source.scale or 0) > target.precision - (target.scale or 0):
        risks.append(Risk.OVERFLOW)
    if (source.scale or 0) > (target.scale or 0):
        risks.append(Risk.PRECISION)
    return Conversion.of(*risks)


def _from_real(source: Type, target: Type) -> Conversion:
    if target.kind in _REALS:
        widens = _REALS[source.kind] <= _REALS[target.kind]
        return Conversion.of() if widens else Conversion.of(Risk.PRECISION, Risk.OVERFLOW)
    if target.kind in _INTEGER_DIGITS or target.kind is Kind.DECIMAL:
        return Conversion.of(Risk.PRECISION, Risk.OVERFLOW)
    return IMPOSSIBLE


def _clocks(source: Type, target: Type) -> Conversion:
    if source.kind is target.kind and source.kind in _CLOCKS:
        finest = 6  # microseconds
        loses = (source.precision if source.precision is not None else finest) > (
            target.precision if target.precision is not None else finest
        )
        return Conversion.of(Risk.PRECISION) if loses else Conversion.of()
    risks = _CLOCK_RISKS.get((source.kind, target.kind))
    return IMPOSSIBLE if risks is None else Conversion.of(*risks)
