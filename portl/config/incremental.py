"""How a job reads only what has changed since its last run (``mode: incremental``)."""

from __future__ import annotations

import enum
import re
from typing import Any

import attrs

from portl.config.validators import FieldError, key_of, not_empty

_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_DURATION = re.compile(rf"(\d+) ?({'|'.join(_UNITS)})")


class By(enum.StrEnum):
    """What tells which rows have changed."""

    #: A column whose values grow.
    CURSOR = "cursor"
    #: The transaction that wrote a row version.
    XMIN = "xmin"
    #: Chosen to suit the table; the plan says why.
    AUTO = "auto"


class Nulls(enum.StrEnum):
    """What happens to rows whose cursor is NULL."""

    FAIL = "fail"
    INCLUDE = "include"
    EXCLUDE = "exclude"


def _for_cursor(instance: IncrementalConfig, attribute: attrs.Attribute[Any], value: str | None) -> None:
    by = instance.by
    if value is None and by is By.CURSOR:
        raise FieldError(attribute.name, "missing; name the column whose values grow, or set `by: xmin` or `by: auto`")
    if value is not None and by is not By.CURSOR:
        raise FieldError(attribute.name, f"needs `by: cursor`, found `by: {by.value}`")


def _with_cursor(instance: IncrementalConfig, attribute: attrs.Attribute[Any], value: object) -> None:
    if value != attribute.default and instance.by is not By.CURSOR:
        raise FieldError(key_of(attribute), f"needs `by: cursor`, found `by: {instance.by.value}`")


def _duration(instance: IncrementalConfig, attribute: attrs.Attribute[Any], value: str) -> None:
    if not _DURATION.fullmatch(value):
        units = ", ".join(_UNITS)
        raise FieldError(attribute.name, f"expected a number with a unit of {units}, such as 5m; found {value!r}")
    _with_cursor(instance, attribute, value)


@attrs.frozen(kw_only=True)
class IncrementalConfig:
    """How a job finds what has changed."""

    #: What tells which rows have changed. cursor: a column whose values grow; xmin: the transactions that PostgreSQL
    #: records in each row version, found by one scan at the source; auto: the source chooses, and the plan says why.
    by: By = By.CURSOR
    #: The source's column whose value grows with every change: a timestamp, a serial number, a version 7 UUID.
    cursor: str | None = attrs.field(default=None, validator=[not_empty, _for_cursor])
    #: How far before the last value reading starts, for timestamps set by other machines' clocks: 30s, 5m, 1h.
    lag: str = attrs.field(default="0s", validator=_duration)
    #: The least value of the cursor; rows below it are never read.
    from_: str | None = attrs.field(default=None, validator=_with_cursor)
    #: Rows whose cursor is NULL. fail: the plan refuses them; include: they are read each time; exclude: never.
    nulls: Nulls = attrs.field(default=Nulls.FAIL, validator=_with_cursor)

    @property
    def lag_microseconds(self) -> int:
        """``lag`` in microseconds."""
        found = _DURATION.fullmatch(self.lag)
        assert found is not None, "it was checked"
        return int(found[1]) * _UNITS[found[2]]
