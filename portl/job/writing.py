"""Write a job as a commented YAML file, with ``${NAME}`` for every secret."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

from portl.values.secrets import Secret
from portl.values.text import printable

#: The sides of a job; a side's secret becomes a variable such as SOURCE_PASSWORD.
_SIDES = ("source", "destination")


def job_text(
    job: Mapping[str, Any],
    *,
    comments: Mapping[str, Iterable[str]],
    head: Iterable[str] = (),
    schema: str | None = None,
) -> str:
    """Return the YAML of a job.

    Args:
        job: plain data, as for ``portl.migrate``; values of type ``Secret`` become variables.
        comments: comment lines above each key of the job.
        head: comment lines at the top.
        schema: the path of the JSON Schema for editors.
    """
    parts = [f"# yaml-language-server: $schema={schema}\n"] if schema else []
    parts.append(_comment(head))
    for key, value in job.items():
        parts.append(_comment(comments.get(key, ())) + _dumped({key: _without_secrets(value, key.upper())}))
    return "\n".join(part for part in parts if part)


def variables(job: Mapping[str, Any]) -> list[str]:
    """Return the environment variables that replace a job's secrets in the file."""
    return [f"{side}_{key}".upper() for side in _SIDES for key, value in job[side].items() if isinstance(value, Secret)]


def _comment(lines: Iterable[str]) -> str:
    return "".join(f"# {printable(line)}".rstrip() + "\n" for line in lines)


def _without_secrets(value: Any, name: str) -> Any:
    if isinstance(value, Secret):
        return f"${{{name}}}"
    if isinstance(value, Mapping):
        return {key: _without_secrets(item, f"{name}_{str(key).upper()}") for key, item in value.items()}
    return value


def _dumped(value: Mapping[str, Any]) -> str:
    from ruamel.yaml import YAML

    yaml = YAML(pure=True)
    yaml.default_flow_style = False
    yaml.width = 10_000  # do not wrap names
    stream = io.StringIO()
    yaml.dump(dict(value), stream)
    return stream.getvalue()
