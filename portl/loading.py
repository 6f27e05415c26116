"""Turn a job file, or the dict in its place, into the models of ``portl.config``.

Every error comes with its file, line and path, and all errors of a job come at once. ``${NAME}`` and
``${NAME:-default}`` in a string take a variable of the environment, ``$$`` is a dollar. What comes from the
environment is never parsed as YAML and never printed: it may be a secret.
"""

from __future__ import annotations

import difflib
import enum
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn


from portl import plugins, yamltree
from portl.config import Conflict, DestinationConfig, FieldError, MigrationConfig, SourceConfig, TypeRule
from portl.connectors import Connector
from portl.errors import ConfigError, PluginError
from portl.secret import Secret
from portl.yamltree import Path as KeyPath
from portl.yamltree import Written

_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}]*)?\}|\{(?P<bad>[^}]*)\}?)")


class Mismatch(ValueError):
    """A value is not of the kind that the model wants."""


class _FromEnvironment(str):
    """A text with a variable in it: it may mean a number, and it must not be printed."""


class _Unknown:
    """Stands for a value whose variable is missing: that is reported once, and nothing follows from it."""


class _AlreadyReported(ValueError):
    pass


def load(
    job: str | os.PathLike[str] | Mapping[str, Any] | MigrationConfig,
    *,
    overrides: Mapping[str, str] | None = None,
) -> MigrationConfig:
    """Return the models of a job.

    Args:
        job: the path of a YAML file, a dict with the same keys, or the models themselves.
        overrides: dotted path of a key to the YAML text of its new value, as ``--set`` gives them.

    Raises:
        ConfigError: with all problems of the job.
    """
    if isinstance(job, MigrationConfig):
        if overrides:
            raise ConfigError(["overrides go with a file or a dict, not with a MigrationConfig"])
        return job
    if isinstance(job, Mapping):
        return _Loader(origin="job", tree=yamltree.Tree(_plain(job)), name=None).load(overrides or {})
    path = Path(job)
    return _Loader(origin=str(path), tree=_read(path), name=path.stem).load(overrides or {})


def _read(path: Path) -> yamltree.Tree:
    try:
        if path.stat().st_size > yamltree.MAX_BYTES:
            raise ConfigError([f"the file is larger than {yamltree.MAX_BYTES:,} bytes"], origin=str(path))
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError([f"cannot be read: {error.strerror}"], origin=str(path)) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"is not UTF-8 at byte {error.start}"], origin=str(path)) from None
    try:
        tree = yamltree.parse(text)
    except yamltree.YAMLProblem as error:
        where = f"line {error.line}: " if error.line else ""
        raise ConfigError([f"{where}{error}"], origin=str(path)) from None
    if not isinstance(tree.root, dict):
        raise ConfigError(["expected a mapping with the keys source and destination"], origin=str(path))
    return tree


def _plain(value: Any) -> Any:
    """Copy a caller's dict, with text for keys, so that nothing of it is shared or changed."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


class _Loader:
    def __init__(self, *, origin: str, tree: yamltree.Tree, name: str | None) -> None:
        self._origin = origin
        self._tree = tree
        self._name = name
        self._problems: list[tuple[int, str]] = []
        self._converter = _converter(self._connector)

    def load(self, overrides: Mapping[str, str]) -> MigrationConfig:
        for dotted, text in overrides.items():
            self._override(dotted, text)
        data = self._interpolate(self._tree.root, ())
        if self._name is not None and isinstance(data, dict):
            data.setdefault("name", self._name)
        config: MigrationConfig | None = None
        try:
            config = self._converter.structure(data, MigrationConfig)
        except (BaseValidationError, ValueError) as error:
            for path, message in _messages(error, ()):
                self._report(path, message)
        if self._problems or config is None:
            texts = list(dict.fromkeys(text for _, text in sorted(self._problems, key=lambda p: p[0])))
            raise ConfigError(texts, origin=self._origin) from None
        return config

    def _override(self, dotted: str, text: str) -> None:
        *parents, last = dotted.split(".")
        node = self._tree.root
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError([f"--set {dotted}: {parent!r} is not a mapping"], origin=self._origin)
        try:
            node[last] = yamltree.parse(text).root
        except yamltree.YAMLProblem as error:
            raise ConfigError([f"--set {dotted}: {error}"], origin=self._origin) from None

    def _report(self, path: KeyPath, message: str) -> None:
        line = next((self._tree.lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self._tree.lines), 0)
        dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        where = ": ".join(part for part in (f"line {line}" if line else "", dotted) if part)
        self._problems.append((line, f"{where}: {message}" if where else message))

    def _interpolate(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: self._interpolate(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._interpolate(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or "$" not in value:
            return value
        return self._expand(value, path)

    def _expand(self, text: str, path: KeyPath) -> Any:
        missing = False
        from_environment = False

        def replace(match: re.Match[str]) -> str:
            nonlocal missing, from_environment
            if match[0] == "$$":
                return "$"
            name, default = match["name"], match["default"]
            if name is None:
                missing = True
                self._report(path, f"${{{match['bad']}}} is no variable: expected ${{NAME}} or ${{NAME:-default}}")
                return ""
            from_environment = True
            value = os.environ.get(name)
            if default is not None:
                return value or default[2:]
            if value is None:
                missing = True
                self._report(
                    path, f"the environment variable {name} is not set; set it, or give a default: ${{{name}:-...}}"
                )
                return ""
            return value

        result = _VARIABLE.sub(replace, text)
        if missing:
            return _Unknown()
        return _FromEnvironment(result) if from_environment else result

    def _connector(self, name: str) -> Connector:
        return plugins.load(name)


def _converter(find: Callable[[str], Connector]) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_structure_hook_func(_is_enum, _choice)
    converter.register_structure_hook_factory(attrs.has, lambda cls: _model(cls, converter))
    for kind, convert in ((str, _text), (int, _integer), (float, _number), (bool, _truth)):
        converter.register_structure_hook(kind, _structurer(convert))
    converter.register_structure_hook(Secret, lambda value, _: _secret(value))
    converter.register_structure_hook_func(_is_tuple, lambda value, cls: _sequence(value, cls, converter))
    converter.register_structure_hook_func(_is_mapping, lambda value, cls: _mapping(value, cls, converter))

    def end(kind: str) -> Callable[[Any, Any], Any]:
        def structure(value: Any, _: Any) -> Any:
            _expect_mapping(value)
            if "type" not in value:
                names = ", ".join(sorted(plugins.available()))
                raise FieldError("type", f"missing: the connector's name; installed: {names}")
            try:
                connector = find(_text(value["type"]))
            except PluginError as error:
                raise FieldError("type", error.message) from None
            model = getattr(connector, f"{kind}_config")
            if model is None:
                raise FieldError("type", f"the connector {connector.name!r} has no {kind}")
            return converter.structure(value, model)

        return structure

    converter.register_structure_hook_func(lambda cls: cls is SourceConfig, end("source"))
    converter.register_structure_hook_func(lambda cls: cls is DestinationConfig, end("destination"))
    conflict = _model(Conflict, converter)
    converter.register_structure_hook_func(
        lambda cls: cls is Conflict,
        lambda value, cls: conflict(value if isinstance(value, Mapping) else {"strategy": value}, cls),
    )
    rules = tuple[TypeRule, ...]
    converter.register_structure_hook_func(
        lambda cls: cls == rules,
        lambda value, cls: _sequence(
            [{"type": k, "to": v} for k, v in value.items()] if isinstance(value, Mapping) else value, cls, converter
        ),
    )
    return converter


def _structurer(convert: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    # cattrs dispatches by class, so that an enum of strings comes here as a string.
    return lambda value, cls: _choice(value, cls) if _is_enum(cls) else convert(value)


def _secret(value: Any) -> Secret:
    return value if isinstance(value, Secret) else Secret(_text(value))


def _model(cls: type, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    inner = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)

    def structure(value: Any, _: Any) -> Any:
        if isinstance(value, cls):
            return value
        _expect_mapping(value)
        return inner(value, cls)

    return structure


def _expect_mapping(value: Any) -> None:
    if not isinstance(value, Mapping):
        raise Mismatch(f"expected a mapping of keys to values, found {_shown(value)}")


def _is_enum(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, enum.Enum)


def _is_tuple(cls: Any) -> bool:
    return get_origin(cls) is tuple


def _is_mapping(cls: Any) -> bool:
    return get_origin(cls) is dict


def _shown(value: Any) -> str:
    """Return a value for an error message, unless it may be a secret."""
    if isinstance(value, _Unknown):
        raise _AlreadyReported
    if isinstance(value, _FromEnvironment):
        return "something else in the environment variable"
    if value is None:
        return "nothing"
    if isinstance(value, Written):
        return value.text
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, Secret):
        return "a secret"
    return repr(value if not isinstance(value, str) or len(value) <= 60 else value[:57] + "...")


def _text(value: Any) -> str:
    if isinstance(value, Written):
        return value.text
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return str(value)
    raise Mismatch(f"expected a text, found {_shown(value)}")


def _integer(value: Any) -> int:
    if isinstance(value, Written) and type(value.value) is int:
        return value.value
    if type(value) is int:
        return value
    if isinstance(value, _FromEnvironment) and re.fullmatch(r"\s*[-+]?[0-9]+\s*", value):
        return int(value)
    raise Mismatch(f"expected a whole number, found {_shown(value)}")


def _number(value: Any) -> float:
    if isinstance(value, Written) and type(value.value) in (int, float):
        return float(value.value)
    if type(value) in (int, float):
        return float(value)
    if isinstance(value, _FromEnvironment):
        try:
            return float(value)
        except ValueError:
            pass
    raise Mismatch(f"expected a number, found {_shown(value)}")


def _truth(value: Any) -> bool:
    if isinstance(value, Written) and type(value.value) is bool:
        return value.value
    if type(value) is bool:
        return value
    if isinstance(value, _FromEnvironment) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise Mismatch(f"expected true or false, found {_shown(value)}")


def _choice(value: Any, cls: Any) -> Any:
    if isinstance(value, cls):
        return value
    allowed = [member.value for member in cls]
    text = _text(value)
    if text in allowed:
        return cls(text)
    near = difflib.get_close_matches(text, allowed, n=1)
    suggestion = f"; did you mean {near[0]!r}?" if near else ""
    raise Mismatch(f"expected one of {', '.join(allowed)}, found {_shown(value)}{suggestion}")


def _sequence(value: Any, cls: Any, converter: cattrs.Converter) -> Any:
    if not isinstance(value, (list, tuple)):
        raise Mismatch(f"expected a list, found {_shown(value)}")
    return tuple(converter.structure(list(value), list[get_args(cls)[0]]))  # type: ignore[misc]  # a run-time type


def _mapping(value: Any, cls: Any, converter: cattrs.Converter) -> Any:
    _expect_mapping(value)
    result, errors = {}, []
    for key, item in value.items():
        try:
            result[key] = converter.structure(item, get_args(cls)[1])
        except Exception as error:
            errors.append(FieldError(key, str(error)))
    if errors:
        raise ExceptionGroup("mapping", errors)
    return result


def _messages(error: BaseException, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path and the text of each error in the groups that cattrs raises."""
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from _messages(inner, (*path, *_note(inner)))
    elif isinstance(error, ForbiddenExtraKeysError):
        fields = [field.name for field in attrs.fields(error.cl)]
        for key in sorted(error.extra_fields):
            yield (*path, key), _unknown_key(key, fields)
    elif isinstance(error, FieldError):
        yield (*path, error.field), error.text
    elif isinstance(error, KeyError):
        yield path, "missing; it is required"
    elif not isinstance(error, ValueError):
        raise error  # a defect of a model, not of the job
    elif not isinstance(error, _AlreadyReported):
        yield path, str(error)


def _note(error: BaseException) -> KeyPath:
    for text in getattr(error, "__notes__", ()):
        if isinstance(text, AttributeValidationNote):
            return (text.name,)
        if isinstance(text, IterableValidationNote):
            return (text.index,)
    return ()


def _unknown_key(key: str, fields: list[str]) -> str:
    near = difflib.get_close_matches(key, fields, n=1, cutoff=0.6)
    suggestion = f"did you mean `{near[0]}`? " if near else ""
    return f"unknown key; {suggestion}allowed here: {', '.join(fields)}"
