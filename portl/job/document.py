"""A parsed job file, as made by ``portl.job.yaml``: every scalar as written, every key with its line."""

from __future__ import annotations

import re
from typing import Any

import attrs

#: Python refuses to parse numbers of more than 4,300 digits; no number in a job comes close.
MAX_DIGITS = 100

Path = tuple[str | int, ...]

# The core schema of YAML 1.2, chapter 10.3.2.
_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(rf"[-+]?[0-9]{{1,{MAX_DIGITS}}}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


class YAMLProblem(ValueError):
    """The text cannot be parsed. ``line`` counts from 1; 0 if it is unknown."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


@attrs.frozen
class Written:
    """A plain scalar that is a number or a boolean, with its original spelling."""

    text: str
    value: bool | int | float


@attrs.define
class Tree:
    """A document as plain dicts, lists, strings, None and ``Written``, and the line of each path."""

    root: Any = attrs.field(default=None, repr=False)  # may hold passwords
    lines: dict[Path, int] = attrs.Factory(dict)
    #: Problems that did not prevent the rest from being parsed.
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
