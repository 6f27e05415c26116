"""Convert one value of a job to the type of its field: a string, a number, a boolean, a word of an enum.

The field, not YAML, decides what a plain scalar means: a string takes it as spelled. A value with environment variables
in it may be a secret, so no message repeats it.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from typing import Any

from portl.job import document as written
from portl.job.document import Written
from portl.values.secrets import Secret
from portl.values.text import nearest

_WHOLE = re.compile(rf"\s*[-+]?[0-9]{{1,{written.MAX_DIGITS}}}\s*")


class Mismatch(ValueError):
    """A value does not have the type of its field."""


class FromEnvironment(str):
    """A string that had variables in it: it may be meant as a number, and must not be printed."""

    names: tuple[str, ...] = ()


class Unknown:
    """Stands for a value whose variable is not set, which is reported once, and nothing else about the value."""


class AlreadyReported(ValueError):
    """The problem with a value has already been reported."""


def structure_scalar(value: Any, cls: Any) -> Any:
    """Convert a value to a plain Python type, or to a subclass of one."""
    if is_enum(cls):
        return as_choice(value, cls)
    for kind, convert in ((bool, as_boolean), (int, as_integer), (float, as_number), (str, as_text)):
        if issubclass(cls, kind):
            return cls(convert(value))
    return cls(as_text(value))  # a path


def structure_secret(value: Any) -> Secret:
    """Return a value as a secret; errors do not repeat it."""
    if isinstance(value, Secret):
        return value
    try:
        return Secret(as_text(value))
    except Mismatch:  # its message may repeat the value
        kind = shown(value) if isinstance(value, (Mapping, list, tuple)) else type(value).__name__
        problem = Mismatch(f"expected a string, found {kind}")
    raise problem


def expect_mapping(value: Any) -> None:
    """Raise ``Mismatch`` for anything but a mapping."""
    if not isinstance(value, Mapping):
        raise Mismatch(f"expected a mapping of keys to values, {but(value)}")


def is_enum(cls: Any) -> bool:
    """Return whether a type is an enum."""
    return isinstance(cls, type) and issubclass(cls, enum.Enum)


def but(value: Any) -> str:
    """Return what was found, unless it may be a secret."""
    if isinstance(value, Unknown):
        raise AlreadyReported
    if isinstance(value, FromEnvironment):
        names = ", ".join(f"${{{name}}}" for name in value.names)
        return f"found something else in {names}"
    return f"found {shown(value)}"


def shown(value: Any) -> str:
    """Return a value for a message, cut to a readable length."""
    if value is None:
        return "nothing"
    if isinstance(value, Written):
        return value.text
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, Secret):
        return "a secret"
    return repr(value if not isinstance(value, str) or len(value) <= 60 else value[:57] + "...")


def as_text(value: Any) -> str:
    """Return a string. Raise ``Mismatch`` for anything else."""
    if isinstance(value, Written):
        return value.text
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return str(value)
    raise Mismatch(f"expected a string, {but(value)}")


def as_integer(value: Any) -> int:
    """Return a whole number. Raise ``Mismatch`` for anything else."""
    if isinstance(value, Written) and type(value.value) is int:
        return value.value
    if type(value) is int:
        return value
    if isinstance(value, FromEnvironment) and _WHOLE.fullmatch(value):
        return int(value)
    raise Mismatch(f"expected a whole number, {but(value)}")


def as_number(value: Any) -> float:
    """Return a finite number. Raise ``Mismatch`` for anything else."""
    found = value.value if isinstance(value, Written) else value
    if isinstance(value, FromEnvironment):
        resolved = written.scalar(value.strip())
        found = resolved.value if isinstance(resolved, Written) else None
    if type(found) in (int, float) and math.isfinite(found):
        return float(found)
    raise Mismatch(f"expected a number, {but(value)}")


def as_boolean(value: Any) -> bool:
    """Return true or false. Raise ``Mismatch`` for anything else."""
    if isinstance(value, Written) and type(value.value) is bool:
        return value.value
    if type(value) is bool:
        return value
    if isinstance(value, FromEnvironment) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise Mismatch(f"expected true or false, {but(value)}")


def as_choice(value: Any, cls: Any) -> Any:
    """Return the member of an enum. ``Mismatch`` lists the members and suggests the nearest."""
    if isinstance(value, cls):
        return value
    allowed = [member.value for member in cls]
    text = value.text if isinstance(value, Written) else value
    if isinstance(text, str) and text in allowed:
        return cls(str(text))
    near = nearest(text, allowed) if isinstance(text, str) and not isinstance(value, FromEnvironment) else None
    suggestion = f"; did you mean {near!r}?" if near else ""
    raise Mismatch(f"expected one of {', '.join(allowed)}; {but(value)}{suggestion}")
