"""Explain the keys of the job file, using the comments in the models."""

from __future__ import annotations

import difflib
import enum
import types
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs

from portl.config.documentation import field_docs
from portl.config.models import Auto, MigrationConfig, TableChoice
from portl.config.validators import key_of
from portl.connectors import registry
from portl.values.errors import ConfigError
from portl.values.secrets import Secret


@attrs.frozen(kw_only=True)
class Explanation:
    """The explanation of a key."""

    #: Its dotted path: ``source.table``.
    key: str
    #: The connector that it belongs to; None if every job has it.
    connector: str | None
    meaning: str
    #: The kind of value it takes, for display.
    takes: str
    #: The words it takes, if there is a fixed set.
    choices: tuple[str, ...] = ()
    #: The default, as spelled in a job file; None if there is none or it is empty.
    default: str | None = None
    required: bool = False
    #: The keys below it.
    keys: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return attrs.asdict(self)


def explain(key: str) -> list[Explanation]:
    """Return the explanations of a key, one for each connector that has it.

    Args:
        key: its dotted path, as in ``--set``, or just the last part of it.

    Raises:
        ConfigError: no installed connector has it; the message names similar keys.
    """
    known = list(every())
    exact = [found for found in known if found.key == key] or [f for f in known if f.key.rsplit(".", 1)[-1] == key]
    if exact:
        return exact
    near = _near(key, [found.key for found in known])
    advice = f"did you mean {' or '.join(map(repr, near))}?" if near else "`portl explain` without a key lists all"
    raise ConfigError([f"there is no key {key!r}: {advice}"], origin="explain")


def every() -> list[Explanation]:
    """Return all keys of all installed connectors."""
    sides = []
    for name in sorted(entry.name for entry in registry.installed() if entry.error is None):
        connector = registry.load(name)
        for side, model in (("source", connector.source_config), ("destination", connector.destination_config)):
            if model is not None:
                sides += _below(model, f"{side}.", name)
    return [_with_keys_of(sides, item) for item in _below(MigrationConfig, "", None)] + sides


def _with_keys_of(sides: list[Explanation], found: Explanation) -> Explanation:
    """Return ``source`` or ``destination`` with the keys of all connectors; any other key unchanged."""
    keys = dict.fromkeys(item.key for item in sides if item.key.startswith(f"{found.key}."))
    return attrs.evolve(found, keys=found.keys or tuple(keys))


def _near(key: str, known: list[str]) -> list[str]:
    """Return keys that are similar in the whole path or in its last part."""
    parts = difflib.get_close_matches(key, {path.rsplit(".", 1)[-1] for path in known}, n=1)
    alike = [path for path in known if path.rsplit(".", 1)[-1] in parts] if "." not in key else []
    return list(dict.fromkeys([*alike, *difflib.get_close_matches(key, known, n=3, cutoff=0.7)]))[:3]


def _below(model: type, prefix: str, connector: str | None) -> list[Explanation]:
    docs = field_docs(model)
    hints = get_type_hints(model)
    found = []
    for field in attrs.fields(model):
        nested = next((kind for kind in _kinds(hints[field.name]) if attrs.has(kind) and kind is not TableChoice), None)
        of_a_connector = field.name in ("source", "destination") and connector is None
        below = _below(nested, f"{prefix}{key_of(field)}.", connector) if nested and not of_a_connector else []
        short = next((item for item in below if item.key.endswith(f".{getattr(nested, 'SHORTHAND', '')}")), None)
        found.append(
            Explanation(
                key=f"{prefix}{key_of(field)}",
                connector=connector,
                meaning=docs.get(field.name, ""),
                takes=f"{short.takes}, or a mapping" if short else _takes(hints[field.name]),
                choices=short.choices if short else _choices(hints[field.name]),
                default=short.default if short else _default(field.default),
                required=field.default is attrs.NOTHING,
                keys=tuple(item.key for item in below),
            )
        )
        found += below
    return found


def _kinds(hint: Any) -> list[Any]:
    """Return the types in an annotation, including those inside unions and tuples."""
    if get_origin(hint) in (Union, types.UnionType, tuple):
        return [kind for part in get_args(hint) for kind in _kinds(part)]
    return [hint]


def _choices(hint: Any) -> tuple[str, ...]:
    if Auto in _kinds(hint):
        return ()
    enums = [kind for kind in _kinds(hint) if isinstance(kind, type) and issubclass(kind, enum.Enum)]
    return tuple(str(member.value) for kind in enums for member in kind)


def _takes(hint: Any) -> str:
    if get_origin(hint) is tuple:
        return f"a list of {_plural(_takes(get_args(hint)[0]))}"
    if get_origin(hint) is dict:
        return "a mapping"
    if Auto in _kinds(hint):
        return f"a whole number or {Auto.AUTO.value}"
    if hint == int | str:
        return "a whole number or a share"
    names = {
        str: "a string",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        Secret: "a secret string",
    }
    for kind in _kinds(hint):
        if get_origin(kind) in (tuple, dict):
            return _takes(kind)
        if kind in names:
            return names[kind]
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return "one of these words"
        if attrs.has(kind):
            return "a mapping"
    return "a value"


def _plural(text: str) -> str:
    return {"a string": "strings", "a mapping": "mappings"}.get(text, f"values, each {text}")


def _default(value: Any) -> str | None:
    if value is attrs.NOTHING or value is None or value == () or isinstance(value, attrs.Factory):  # type: ignore[arg-type]
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return str(value.value if isinstance(value, enum.Enum) else value)
