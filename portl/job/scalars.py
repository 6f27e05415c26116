"""Turn one value of a job into what a model wants: a text, a number, a truth value, one of a few words.

What a plain scalar means is decided here, by the model, not by YAML: where a text is wanted, what was written is taken.
A value with variables of the environment in it may be a secret, so it is never repeated in a message.
"""

from __future__ import annotations

import difflib
import enum
import math
import re
from collections.abc import Mapping
from typing import Any

from portl.job import document as written
from portl.job.document import Written
from portl.values.secrets import Secret

_WHOLE = re.compile(rf"\s*[-+]?[0-9]{{1,{written.MAX_DIGITS}}}\s*")


class Mismatch(ValueError):
    """A value is not of the kind that the model wants."""


class FromEnvironment(str):
    """A text with variables in it: it may mean a number, and it must not be printed."""

    names: tuple[str, ...] = ()


class Unknown:
    """Stands for a value whose variable is missing: that is reported once, and nothing follows from it."""


class AlreadyReported(ValueError):
    """Nothing more is to be said of a value: what is wrong with it is reported already."""


def structure_scalar(value: Any, cls: Any) -> Any:
    """Structure a class that is, or derives from, one of Python's plain types."""
    if is_enum(cls):
        return as_choice(value, cls)
    for kind, convert in ((bool, as_truth), (int, as_integer), (float, as_number), (str, as_text)):
        if issubclass(cls, kind):
            return cls(convert(value))
    return cls(as_text(value))  # a path


def structure_secret(value: Any) -> Secret:
    """Return a value as a secret; a refusal does not repeat it."""
    if isinstance(value, Secret):
        return value
    try:
        return Secret(as_text(value))
    except Mismatch:  # which may repeat the value
        kind = shown(value) if isinstance(value, (Mapping, list, tuple)) else type(value).__name__
        problem = Mismatch(f"expected a text, found {kind}")
    raise problem


def expect_mapping(value: Any) -> None:
    """Raise ``Mismatch`` for what is no mapping."""
    if not isinstance(value, Mapping):
        raise Mismatch(f"expected a mapping of keys to values, {but(value)}")


def is_enum(cls: Any) -> bool:
    """Tell whether a class is an enum."""
    return isinstance(cls, type) and issubclass(cls, enum.Enum)


def but(value: Any) -> str:
    """Say what was found, unless it may be a secret."""
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
    """Return what was written. Raise ``Mismatch`` for what is no text."""
    if isinstance(value, Written):
        return value.text
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return str(value)
    raise Mismatch(f"expected a text, {but(value)}")


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


def as_truth(value: Any) -> bool:
    """Return true or false. Raise ``Mismatch`` for anything else."""
    if isinstance(value, Written) and type(value.value) is bool:
        return value.value
    if type(value) is bool:
        return value
    if isinstance(value, FromEnvironment) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise Mismatch(f"expected true or false, {but(value)}")


def as_choice(value: Any, cls: Any) -> Any:
    """Return the member of an enum; a refusal lists them and suggests the nearest."""
    if isinstance(value, cls):
        return value
    allowed = [member.value for member in cls]
    text = value.text if isinstance(value, Written) else value
    if isinstance(text, str) and text in allowed:
        return cls(str(text))
    near = difflib.get_close_matches(text, allowed, n=1) if isinstance(text, str) else []
    suggestion = f"; did you mean {near[0]!r}?" if near and not isinstance(value, FromEnvironment) else ""
    raise Mismatch(f"expected one of {', '.join(allowed)}; {but(value)}{suggestion}")
