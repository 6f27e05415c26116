"""The JSON Schema of the job file, for editors, generated from the models of the installed connectors.

It does not check everything: only ``portl run`` knows which keys exclude or require each other (``table`` or
``query``). Any plain value may be an environment variable instead, ``${NAME}``.
"""

from __future__ import annotations

import enum
import types
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs

from portl.config.documentation import field_docs
from portl.config.models import (
    Auto,
    Conflict,
    DestinationConfig,
    MigrationConfig,
    SourceConfig,
    Strategy,
    TableChoice,
    Tables,
    TypeRule,
)
from portl.config.validators import key_of
from portl.connectors import registry
from portl.connectors.connector import Connector
from portl.values.secrets import Secret

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_VARIABLE = {"$ref": "#/$defs/variable"}
_PLAIN: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def schema_of_jobs() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a job file."""
    connectors = [registry.load(found.name) for found in registry.installed() if found.error is None]
    builder = _Builder(connectors)
    return {
        "$schema": DIALECT,
        "title": "portl job",
        **builder.model(MigrationConfig),
        "if": {"not": {"required": ["tables"]}},
        "then": {"properties": {"destination": {"allOf": builder.required()}}},
        "$defs": {"variable": {"type": "string", "pattern": r"\$\{"}, **builder.definitions},
    }


class _Builder:
    def __init__(self, connectors: list[Connector]) -> None:
        self._connectors = connectors
        self.definitions: dict[str, Any] = {}

    def required(self) -> list[dict[str, Any]]:
        """Return the keys that a job of one table must set for its destination, by type."""
        models = {c.name: c.destination_config.ONE_TABLE for c in self._connectors if c.destination_config}
        return [
            {"if": {"properties": {"type": {"const": name}}}, "then": {"required": list(keys)}}
            for name, keys in models.items()
        ]

    def model(self, cls: type) -> dict[str, Any]:
        """Return the schema of an attrs class."""
        docs, hints = field_docs(cls), get_type_hints(cls)
        fields = attrs.fields(cls)
        return {
            "type": "object",
            "properties": {key_of(f): self._field(f, hints[f.name], docs.get(f.name, "")) for f in fields},
            "required": [key_of(f) for f in fields if f.default is attrs.NOTHING],
            "additionalProperties": False,
        }

    def _field(self, field: attrs.Attribute[Any], hint: Any, text: str) -> dict[str, Any]:
        found = {"description": text, **self._value(hint)}
        default = field.default
        if isinstance(default, (str, int, float, bool)):
            found["default"] = default.value if isinstance(default, enum.Enum) else default
        return found

    def _value(self, hint: Any) -> dict[str, Any]:
        """Return the schema of a value from the annotation of its field."""
        if hint is SourceConfig or hint is DestinationConfig:
            return self._side("source" if hint is SourceConfig else "destination")
        if hint is Conflict:
            return {"anyOf": [self._value(Strategy), self._named("conflict", Conflict)]}
        if hint == Tables | tuple[TableChoice, ...] | None:
            entry = {"type": "object", "properties": {"table": {"type": "string"}, "query": {"type": "string"}}}
            names = {"type": "array", "items": {"anyOf": [{"type": "string"}, entry]}}
            return {"anyOf": [{"enum": [word.value for word in Tables]}, names]}
        if hint == tuple[TypeRule, ...]:
            rules = {"type": "array", "items": self._named("type_rule", TypeRule)}
            return {"anyOf": [rules, {"type": "object", "additionalProperties": {"type": "string"}}]}
        origin, arguments = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType):
            return self._any([self._value(part) for part in arguments if part is not type(None)])
        if origin is tuple:
            return {"type": "array", "items": self._value(arguments[0])}
        if origin is dict:
            return {"type": "object", "additionalProperties": self._value(arguments[1])}
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            return self._any([{"enum": [member.value for member in hint]}, *([] if hint is Auto else [_VARIABLE])])
        if hint is Secret:
            return {"type": "string"}
        if hint is str:
            # The model decides what a scalar means: a string takes it as spelled.
            return {"type": ["string", "number", "boolean"]}
        if hint in _PLAIN:
            return self._any([{"type": _PLAIN[hint]}, _VARIABLE])
        return self._named(hint.__name__.lower(), hint)

    @staticmethod
    def _any(schemas: list[dict[str, Any]]) -> dict[str, Any]:
        flat = [part for found in schemas for part in found.get("anyOf", [found])]
        unique = [part for number, part in enumerate(flat) if part not in flat[:number]]
        return unique[0] if len(unique) == 1 else {"anyOf": unique}

    def _named(self, name: str, cls: type) -> dict[str, Any]:
        if name not in self.definitions:
            self.definitions[name] = {}  # ends the recursion if a model contains itself
            self.definitions[name] = self.model(cls)
        return {"$ref": f"#/$defs/{name}"}

    def _side(self, side: str) -> dict[str, Any]:
        """Return the schema of ``source`` or ``destination``, whose keys depend on ``type``."""
        models = {c.name: getattr(c, f"{side}_config") for c in self._connectors if getattr(c, f"{side}_config")}
        cases = [
            {
                "if": {"properties": {"type": {"const": name}}},
                "then": self._named(f"{name}_{side}", model),
            }
            for name, model in models.items()
        ]
        return {
            "type": "object",
            "required": ["type"],
            "properties": {"type": {"enum": list(models)}},
            "allOf": cases,
        }
