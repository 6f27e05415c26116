"""Tables, columns, generic types, and what converts to what.

Rows that cross between connectors are tuples in column order. The Python type of each value is fixed by the generic
type of its column:

========================  =====================================================================================
generic type              Python value (None is NULL everywhere)
========================  =====================================================================================
smallint, int, bigint     int
decimal                   decimal.Decimal, NaN and infinities included
float, double             float
boolean                   bool
char, varchar, text       str
binary                    bytes
date                      datetime.date
time, timetz              datetime.time, aware for timetz
timestamp                 datetime.datetime without a zone
timestamptz               datetime.datetime with a zone
interval                  datetime.timedelta; str where there are months, hours beyond a day, or mixed signs
uuid                      uuid.UUID
json, jsonb               str: the JSON text, so that neither digits nor the order of keys are lost
array                     list of the element's values, nested for more dimensions
========================  =====================================================================================

A value that the Python type cannot hold (a date BC or beyond the year 9999, an infinite timestamp, 24:00, an array
whose subscripts do not begin at 1) crosses as str in the source's own notation, exactly as the source wrote it.
A native type that has no generic type is ``text`` and crosses as str.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any

import attrs


class Kind(enum.StrEnum):
    """The generic types."""

    SMALLINT = "smallint"
    INT = "int"
    BIGINT = "bigint"
    DECIMAL = "decimal"
    FLOAT = "float"
    DOUBLE = "double"
    BOOLEAN = "boolean"
    CHAR = "char"
    VARCHAR = "varchar"
    TEXT = "text"
    BINARY = "binary"
    DATE = "date"
    TIME = "time"
    TIMETZ = "timetz"
    TIMESTAMP = "timestamp"
    TIMESTAMPTZ = "timestamptz"
    INTERVAL = "interval"
    UUID = "uuid"
    JSON = "json"
    JSONB = "jsonb"
    ARRAY = "array"


_SPELLED = re.compile(r"(\w+)(?:\((\d+(?:, ?\d+)?)\))?")


@attrs.frozen(kw_only=True)
class Type:
    """A generic type with its parameters."""

    kind: Kind
    #: Characters, for char and varchar; None is unlimited.
    length: int | None = None
    #: Decimal digits in all, for decimal; digits of the seconds' fraction for times.
    precision: int | None = None
    #: Decimal digits after the point, for decimal.
    scale: int | None = None
    #: The element's type, for array.
    element: Type | None = None

    def __str__(self) -> str:
        if self.kind is Kind.ARRAY:
            return f"array of {self.element}"
        parameters = [str(p) for p in (self.length, self.precision, self.scale) if p is not None]
        return f"{self.kind}({', '.join(parameters)})" if parameters else str(self.kind)

    @classmethod
    def parse(cls, text: str) -> Type:
        """Return the type that ``str`` prints so: ``int``, ``decimal(12, 2)``, ``varchar(20)``, ``array of text``.

        Raises:
            ValueError: names the types that there are.
        """
        if text.startswith("array of "):
            return cls(kind=Kind.ARRAY, element=cls.parse(text.removeprefix("array of ")))
        match = _SPELLED.fullmatch(text.strip())
        if match is None or match[1] not in set(Kind) - {Kind.ARRAY}:
            raise ValueError(f"expected a type such as {', '.join(Kind)} or array of text, found {text!r}")
        kind, numbers = Kind(match[1]), [int(part) for part in match[2].split(",")] if match[2] else []
        if kind in _TEXTS:
            return cls(kind=kind, length=next(iter(numbers), None))
        return cls(kind=kind, precision=next(iter(numbers), None), scale=next(iter(numbers[1:]), None))


@attrs.frozen(kw_only=True)
class Column:
    """A column of a table, or of what a query returns."""

    name: str
    type: Type
    #: The type as the connector's own system spells it, modifiers included: ``numeric(12,2)``.
    native: str
    nullable: bool = True
    #: The default as an expression in the connector's own language.
    default: str | None = None
    #: ``always`` or ``by default`` for an identity column.
    identity: str | None = None
    #: The expression of a generated column. Nobody writes to such a column.
    generated: str | None = None
    collation: str | None = None
    comment: str | None = None
    #: What the connector wants to remember; the core does not look at it.
    details: Any = attrs.field(default=None, repr=False)

    @property
    def writable(self) -> bool:
        """False for a generated column."""
        return self.generated is None

    @property
    def optional(self) -> bool:
        """True if a row may leave the column out."""
        return self.nullable or self.default is not None or self.identity is not None or self.generated is not None


@attrs.frozen(kw_only=True)
class Key:
    """A set of columns whose values the table holds at most once."""

    name: str
    columns: tuple[str, ...]
    primary: bool = False
    #: True if the check may wait until the transaction ends.
    deferrable: bool = False
    #: True if two NULLs count as equal.
    nulls_equal: bool = False


@attrs.frozen(kw_only=True)
class Table:
    """A table, a view or a query, as a connector sees it."""

    #: As a person would write it, schema included.
    name: str
    columns: tuple[Column, ...]
    keys: tuple[Key, ...] = ()
    comment: str | None = None
    #: The language of ``native`` types, defaults and expressions: equal at both ends if they understand each other.
    dialect: str | None = None
    #: table, view, query, partitioned table, …
    kind: str = "table"
    #: What the connector wants to remember; the core does not look at it.
    details: Any = attrs.field(default=None, repr=False)

    @property
    def primary_key(self) -> Key | None:
        """The primary key, if there is one."""
        return next((key for key in self.keys if key.primary), None)

    @property
    def by_name(self) -> Mapping[str, Column]:
        """The columns by their names."""
        return {column.name: column for column in self.columns}


class Verdict(enum.StrEnum):
    """What a conversion does to values."""

    LOSSLESS = "lossless"
    LOSSY = "lossy"
    IMPOSSIBLE = "impossible"


class Risk(enum.StrEnum):
    """What a lossy conversion may do. Overflow, truncation and form stop at the row; the others change the value."""

    OVERFLOW = "overflow"
    TRUNCATION = "truncation"
    PRECISION = "precision"
    ZONE = "zone"
    FORM = "form"


RISK_TEXTS: Mapping[Risk, str] = {
    Risk.OVERFLOW: "a number that is too large for the destination is refused",
    Risk.TRUNCATION: "a value that is too long for the destination is refused, never cut (spaces at its end excepted)",
    Risk.PRECISION: "digits that the destination has no room for are rounded away",
    Risk.ZONE: "the session's time zone decides what instant is meant",
    Risk.FORM: "a value that is not in the form of the destination's type is refused, or loses its own form",
}


@attrs.frozen
class Conversion:
    """The verdict on converting one type to another."""

    verdict: Verdict
    risks: tuple[Risk, ...] = ()

    @property
    def explanation(self) -> str:
        """One sentence for each risk."""
        return "; ".join(RISK_TEXTS[risk] for risk in self.risks)

    @classmethod
    def of(cls, *risks: Risk) -> Conversion:
        """Return the lossless conversion if no risk is named, else a lossy one."""
        return cls(Verdict.LOSSY if risks else Verdict.LOSSLESS, risks)


IMPOSSIBLE = Conversion(Verdict.IMPOSSIBLE)

_INTEGER_DIGITS = {Kind.SMALLINT: 5, Kind.INT: 10, Kind.BIGINT: 19}
_TEXTS = {Kind.CHAR, Kind.VARCHAR, Kind.TEXT}
_REALS = {Kind.FLOAT: 24, Kind.DOUBLE: 53}  # bits of the significand, IEEE 754
_INTEGER_BITS = {Kind.SMALLINT: 15, Kind.INT: 31, Kind.BIGINT: 63}
_JSON = {Kind.JSON, Kind.JSONB}
_CLOCKS = {Kind.TIME, Kind.TIMETZ, Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.INTERVAL}
# The longest text of a value, sign included.
_WIDTHS = {Kind.SMALLINT: 6, Kind.INT: 11, Kind.BIGINT: 20, Kind.BOOLEAN: 5, Kind.UUID: 36}
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


def conversion(source: Type, target: Type) -> Conversion:
    """Return the verdict on writing values of ``source`` into a column of ``target``."""
    if source == target:
        return Conversion.of()
    if target.kind in _TEXTS:
        return _to_text(source, target)
    if source.kind in _TEXTS:
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


def _to_text(source: Type, target: Type) -> Conversion:
    if source.kind is Kind.BINARY:
        return IMPOSSIBLE
    if target.length is None:
        return Conversion.of()
    width = source.length if source.kind in _TEXTS else _WIDTHS.get(source.kind)
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
