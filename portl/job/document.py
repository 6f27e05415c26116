"""A job as it was written: every scalar with its own text, every key with its line. ``portl.job.yaml`` reads it."""

from __future__ import annotations

import re
from typing import Any

import attrs

#: Python refuses to read longer numbers than 4,300 digits; no number of a job comes near this.
MAX_DIGITS = 100

Path = tuple[str | int, ...]

# The core schema of YAML 1.2, chapter 10.3.2.
_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(rf"[-+]?[0-9]{{1,{MAX_DIGITS}}}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


class YAMLProblem(ValueError):
    """The text cannot be read. ``line`` counts from 1, 0 where it is unknown."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


@attrs.frozen
class Written:
    """A plain scalar that means something other than its text: a number or a truth value."""

    text: str
    value: bool | int | float


@attrs.define
class Tree:
    """A document: plain dicts, lists, strings, None and ``Written``, and the line of each path."""

    root: Any = attrs.field(default=None, repr=False)  # may hold passwords
    lines: dict[Path, int] = attrs.Factory(dict)
    #: What is wrong but does not keep the rest from being read.
    problems: list[YAMLProblem] = attrs.Factory(list)


def scalar(text: str) -> Any:
    """Resolve a plain scalar by the core schema of YAML 1.2."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return Written(text, bool(_TRUE.fullmatch(text)))
    if _INT.fullmatch(text):
        return Written(text, int(text))
    if _FLOAT.fullmatch(text):
        return Written(text, float(text))
    return text
