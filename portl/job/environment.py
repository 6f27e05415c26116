"""Expand environment variables in the strings of a job.

``${NAME}`` and ``${NAME:-default}`` are expanded, and ``$${`` is a literal ``${``. Nothing else is special: ``$1``,
dollar signs in passwords and PostgreSQL's dollar quotes stay as they are.

Values from the environment are never parsed as YAML and never printed, because they may be secrets.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from portl.job.document import Path
from portl.job.scalars import FromEnvironment, Unknown

_VARIABLE = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}]*)?\}|[^}]*\}?)")


def interpolated(value: Any, path: Path, report: Callable[[Path, str], None]) -> Any:
    """Return a part of a job with the variables in its strings expanded.

    Args:
        value: plain data; the keys of mappings are left alone.
        path: where it is in the job.
        report: called with the path and the message of each problem; an ``Unknown`` then stands for the value.
    """
    if isinstance(value, dict):
        return {key: interpolated(item, (*path, key), report) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item, (*path, index), report) for index, item in enumerate(value)]
    if not isinstance(value, str) or isinstance(value, enum.Enum) or "${" not in value:
        return value
    return _expanded(value, path, report)


def escaped(value: Any) -> Any:
    """Return plain data, escaped so that ``interpolated`` returns the original."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, Mapping):
        return {key: escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escaped(item) for item in value]
    return value


def _expanded(text: str, path: Path, report: Callable[[Path, str], None]) -> Any:
    problems: list[str] = []
    names: list[str] = []

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        name, default = match["name"], match["default"]
        if name is None:
            problems.append("expected ${NAME} or ${NAME:-default}; write $${ for a literal ${")
            return ""
        names.append(name)
        value = os.environ.get(name)
        if default is not None:
            return value or default[2:]
        if value is None:
            problems.append(
                f"the environment variable {name} is not set; set it, or write a default: ${{{name}:-default}}"
            )
        return value or ""

    result = _VARIABLE.sub(replace, text)
    for problem in problems:
        report(path, problem)
    if problems:
        return Unknown()
    if not names:
        return result
    found = FromEnvironment(result)
    found.names = tuple(dict.fromkeys(names))
    return found
