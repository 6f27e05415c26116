"""Checks that several models share, and the error that a check raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


class FieldError(ValueError):
    """One field of a model is wrong; raised by a validator, several of them in an ``ExceptionGroup``.

    Write every check of a model as an attrs validator, even one that looks at other fields: all validators run, so that
    all errors in a job are reported at once. ``__attrs_post_init__`` runs only if nothing else is wrong.

    Args:
        field: the field's name, or the path to what is wrong inside it; ``()`` is the model itself.
        text: what was expected and what was found.
    """

    def __init__(self, field: str | tuple[str | int, ...], text: str) -> None:
        self.path = (field,) if isinstance(field, str) else field
        self.field = ".".join(map(str, self.path))
        super().__init__(f"{self.field}: {text}" if self.path else text)
        self.text = text


def key_of(field: attrs.Attribute[Any]) -> str:
    """Return a field's key in a job file: a trailing underscore only avoids Python's keywords."""
    return field.name.removesuffix("_")


def not_empty(instance: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    """Refuse an empty string."""
    if value is not None and not value.strip():
        raise FieldError(attribute.name, "expected a string, found an empty one")


def positive(instance: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    """Refuse zero and negative numbers."""
    if value is not None and value <= 0:
        raise FieldError(attribute.name, f"expected a number greater than zero, found {value:g}")


def not_negative(instance: object, attribute: attrs.Attribute[Any], value: int | None) -> None:
    """Refuse negative numbers."""
    if value is not None and value < 0:
        raise FieldError(attribute.name, f"expected zero or more, found {value}")


def some_once(instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...] | None) -> None:
    """Refuse an empty list of columns, and a column named twice."""
    if value is None:
        return
    if not value:
        raise FieldError(attribute.name, "expected at least one column, found an empty list")
    once(instance, attribute, value)


def once(instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    """Refuse a column named twice."""
    twice = next((name for name in value if value.count(name) > 1), None)
    if twice is not None:
        raise FieldError(attribute.name, f"names the column {twice!r} twice")


def to_different_columns(instance: object, attribute: attrs.Attribute[Any], value: Mapping[str, str]) -> None:
    """Refuse a mapping of two columns to one, or of a column to nothing."""
    errors, seen = [], dict[str, str]()
    for source, target in value.items():
        if not target:
            errors.append(FieldError((attribute.name, source), "expected the name of a column, found an empty string"))
        elif target in seen:
            errors.append(
                FieldError((attribute.name, source), f"goes to the column {target!r}, and so does {seen[target]!r}")
            )
        else:
            seen[target] = source
    if errors:
        raise ExceptionGroup(attribute.name, errors)
