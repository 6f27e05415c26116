"""Generic types by the names that SQL has for them."""

from __future__ import annotations

import re

from portl import Kind, Type
from portl_postgres.catalog.spellings import spelled
from portl_postgres.catalog.types import KINDS

_NAMES = {
    **KINDS,
    **{spelled(Type(kind=kind)): kind for kind in Kind if kind is not Kind.ARRAY},
    "int": Kind.INT,
    "char": Kind.CHAR,
    "time": Kind.TIME,
    "timestamp": Kind.TIMESTAMP,
}


def generic(name: str) -> Type:
    """Return the generic type of a built-in one; text for what has none."""
    if name.endswith("[]"):
        return Type(kind=Kind.ARRAY, element=generic(name[:-2]))
    head, *numbers = re.split(r"[(,)]+", name.rstrip(")"))
    kind = _NAMES.get(head, Kind.TEXT)
    if kind in (Kind.CHAR, Kind.VARCHAR):
        return Type(kind=kind, length=int(numbers[0]) if numbers else None)
    precision, scale = [*map(int, numbers), None, None][:2]
    return Type(kind=kind, precision=precision, scale=scale)
