"""The documentation of a job's keys, read from the comments in the models' source."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import cache

import attrs


@cache
def field_docs(model: type) -> Mapping[str, str]:
    """Return the documentation of a model's fields, from the comments above them in its source.

    The ``#:`` comments are the only place where a key is explained; the docs and ``portl explain`` read them from here.
    """
    docs: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not attrs.has(cls):
            continue
        pending: list[str] = []
        for line in inspect.getsource(cls).splitlines():
            text = line.strip()
            if text.startswith("#:"):
                pending.append(text[2:].strip())
                continue
            if pending and (match := re.match(r"(\w+):", text)):
                docs[match[1]] = " ".join(pending)
            pending = []
    return docs
