"""The generic types.

Between connectors, rows are tuples in column order. The generic type of a column decides the Python type of its values:

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
json, jsonb               str: the JSON text, so that neither digits nor the order of keys is lost
array                     list of the element's values, nested for more dimensions
========================  =====================================================================================

A value that the Python type cannot represent (a date BC or after the year 9999, an infinite timestamp, 24:00, an array
whose subscripts do not start at 1) is passed as str, exactly as the source wrote it. A native type without a generic
counterpart becomes ``text``, and its values are passed as str.
"""

from __future__ import annotations

import enum
import re

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


TEXTS = {Kind.CHAR, Kind.VARCHAR, Kind.TEXT}
_SPELLED = re.compile(r"(\w+)(?:\((\d+(?:, ?\d+)?)\))?")


@attrs.frozen(kw_only=True)
class Type:
    """A generic type with its parameters."""

    kind: Kind
    #: Characters, for char and varchar; None is unlimited.
    length: int | None = None
    #: Total decimal digits, for decimal; fractional digits of seconds, for times.
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
        """Return the type that ``str`` prints as: ``int``, ``decimal(12, 2)``, ``varchar(20)``, ``array of text``.

        Raises:
            ValueError: the text is not a type; the message lists the types.
        """
        if text.startswith("array of "):
            return cls(kind=Kind.ARRAY, element=cls.parse(text.removeprefix("array of ")))
        match = _SPELLED.fullmatch(text.strip())
        if match is None or match[1] not in set(Kind) - {Kind.ARRAY}:
            raise ValueError(f"expected a type such as {', '.join(Kind)} or array of text, found {text!r}")
        kind, numbers = Kind(match[1]), [int(part) for part in match[2].split(",")] if match[2] else []
        if kind in TEXTS:
            return cls(kind=kind, length=next(iter(numbers), None))
        return cls(kind=kind, precision=next(iter(numbers), None), scale=next(iter(numbers[1:]), None))
