"""Write a job down as a file for people: commented, with ``${NAME}`` in place of every secret."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

from portl.values.secrets import Secret
from portl.values.text import printable

#: How a connector's keys that hold secrets are called in the environment: SOURCE_PASSWORD.
_ENDS = ("source", "destination")


def job_text(
    job: Mapping[str, Any],
    *,
    comments: Mapping[str, Iterable[str]],
    head: Iterable[str] = (),
    schema: str | None = None,
) -> str:
    """Return the YAML of a job.

    Args:
        job: plain data as ``portl.migrate`` takes it; the secrets in it are of the type ``Secret`` and are left out.
        comments: lines of comment above a key of the job, by the key.
        head: lines of comment on top.
        schema: the path of the JSON Schema that editors should check it by.
    """
    parts = [f"# yaml-language-server: $schema={schema}\n"] if schema else []
    parts.append(_comment(head))
    for key, value in job.items():
        parts.append(_comment(comments.get(key, ())) + _dumped({key: _without_secrets(value, key.upper())}))
    return "\n".join(part for part in parts if part)


def variables(job: Mapping[str, Any]) -> list[str]:
    """Return the variables of the environment that stand for a job's secrets in the text."""
    return [f"{end}_{key}".upper() for end in _ENDS for key, value in job[end].items() if isinstance(value, Secret)]


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
    yaml.width = 10_000  # names are not broken
    stream = io.StringIO()
    yaml.dump(dict(value), stream)
    return stream.getvalue()
