"""Turn a job file, or the dict in its place, into the models of ``portl.config``.

Every error comes with its file, line and path, and all errors of a job come at once: a model's validators all run, also
where some of its fields are wrong already. ``${NAME}`` and ``${NAME:-default}`` in a string take a variable of the
environment, ``$$`` is a dollar. What comes from the environment is never parsed as YAML and never printed: it may be a
secret. For the same reason errors are raised where no handled exception and no local variable holds the job's values.
"""

from __future__ import annotations

import difflib
import enum
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import attrs
import cattrs
from cattrs.errors import AttributeValidationNote, IterableValidationNote

from portl.config.models import Auto, Conflict, DestinationConfig, FieldError, MigrationConfig, SourceConfig, TypeRule
from portl.connectors import registry as plugins
from portl.connectors.connector import Connector
from portl.job.document import Path as KeyPath
from portl.job.document import Tree, Written, YAMLProblem
from portl.job.scalars import (
    AlreadyReported,
    FromEnvironment,
    Mismatch,
    Unknown,
    as_choice,
    as_integer,
    as_text,
    but,
    expect_mapping,
    is_enum,
    shown,
    structure_scalar,
    structure_secret,
)
from portl.values.errors import ConfigError, PluginError
from portl.values.secrets import Secret

_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}]*)?\}|\{(?P<bad>[^}]*)\}?)")

#: Keys that the message for an unknown one lists; of more than these, the list hides what else is wrong.
MOST_KEYS = 8

Found = list[tuple[KeyPath, str]]


class _Problems(ValueError):
    """What is wrong below one place of the job; empty where all of it is reported already."""

    def __init__(self, found: Found) -> None:
        super().__init__("; ".join(text for _, text in found))
        self.found = found


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
        return _finish(_Loader(tree=Tree(_plain(job))), overrides, "job")
    path = Path(job)
    tree, problem = _read(path)
    if tree is None:
        raise ConfigError([problem], origin=str(path))
    return _finish(_Loader(tree=tree, name=path.stem), overrides, str(path))


def _finish(loader: _Loader, overrides: Mapping[str, str] | None, origin: str) -> MigrationConfig:
    config = loader.load(overrides or {})
    if config is None or loader.problems:
        raise ConfigError(loader.problems, origin=origin)
    return config


def _read(path: Path) -> tuple[Tree | None, str]:
    """Return the document of a file, or what keeps it from being read."""
    from portl.job import yaml as yamltree

    try:
        if path.stat().st_size > yamltree.MAX_BYTES:
            return None, f"the file is larger than {yamltree.MAX_BYTES:,} bytes"
        text = path.read_text(encoding="utf-8-sig")
        tree = yamltree.parse(text)
    except OSError as error:
        return None, f"cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        return None, f"line {line}: the file is not UTF-8 (byte {error.start:,})"
    except YAMLProblem as error:
        return None, f"line {error.line}: {error}" if error.line else str(error)
    if tree.root is None:
        return None, "the file is empty; expected a mapping with the keys source and destination"
    if not isinstance(tree.root, dict):
        return None, f"expected a mapping with the keys source and destination, found {shown(tree.root)}"
    return tree, ""


def _plain(value: Any) -> Any:
    """Copy a caller's dict, with text for keys, so that nothing of it is shared or changed."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


class _Loader:
    def __init__(self, *, tree: Tree, name: str | None = None) -> None:
        self._tree = tree
        self._name = name
        self._found: list[tuple[int, str]] = [(p.line, f"line {p.line}: {p}") for p in tree.problems]
        self._set: set[KeyPath] = set()
        self._converter = _converter(plugins.load)

    @property
    def problems(self) -> list[str]:
        """Every problem once, in the order of the lines."""
        return list(dict.fromkeys(text for _, text in sorted(self._found, key=lambda found: found[0])))

    def load(self, overrides: Mapping[str, str]) -> MigrationConfig | None:
        """Return the models, or None where there are problems."""
        for dotted, text in overrides.items():
            self._override(dotted, text)
        data = self._interpolate(self._tree.root, ())
        if self._name is not None:
            data.setdefault("name", self._name)
        try:
            return self._converter.structure(data, MigrationConfig)
        except Exception as error:
            for path, message in _below((), error):
                self._report(path, message)
        return None

    def _override(self, dotted: str, text: str) -> None:
        from portl.job import yaml as yamltree

        path = tuple(dotted.split("."))
        node = self._tree.root
        for part in path[:-1]:
            node[part] = {} if node.get(part) is None else node[part]
            node = node[part]
            if not isinstance(node, dict):
                self._found.append((0, f"--set {dotted}: {part!r} is not a mapping"))
                return
        try:
            tree = yamltree.parse(text)
        except YAMLProblem as error:
            self._found.append((0, f"--set {dotted}: {error}"))
            return
        self._found += [(0, f"--set {dotted}: {problem}") for problem in tree.problems]
        self._set.add(path)
        node[path[-1]] = tree.root

    def _report(self, path: KeyPath, message: str) -> None:
        ways = [path[:length] for length in range(len(path), -1, -1)]
        dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        made = path not in self._tree.lines and any(given[: len(path)] == path for given in self._set)
        if path and (made or any(way in self._set for way in ways)):
            self._found.append((0, f"--set {dotted}: {message}"))
            return
        line = next((self._tree.lines[way] for way in ways if way in self._tree.lines), 0)
        where = ": ".join(part for part in (f"line {line}" if line else "", dotted) if part)
        self._found.append((line, f"{where}: {message}" if where else message))

    def _interpolate(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: self._interpolate(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._interpolate(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or isinstance(value, enum.Enum) or "$" not in value:
            return value
        return self._expand(value, path)

    def _expand(self, text: str, path: KeyPath) -> Any:
        missing = False
        names: list[str] = []

        def replace(match: re.Match[str]) -> str:
            nonlocal missing
            if match[0] == "$$":
                return "$"
            name, default = match["name"], match["default"]
            if name is None:
                missing = True
                self._report(path, "a ${ must go on as ${NAME} or ${NAME:-default}; a dollar itself is written $$")
                return ""
            names.append(name)
            value = os.environ.get(name)
            if default is not None:
                return value or default[2:]
            if value is None:
                missing = True
                self._report(
                    path,
                    f"the environment variable {name} is not set; set it, or write a default: ${{{name}:-default}}",
                )
                return ""
            return value

        result = _VARIABLE.sub(replace, text)
        if missing:
            return Unknown()
        if not names:
            return result
        found = FromEnvironment(result)
        found.names = tuple(dict.fromkeys(names))
        return found


def _converter(find: Callable[[str], Connector]) -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    converter.register_structure_hook_factory(attrs.has, lambda cls: _Model(cls, converter))
    # cattrs looks for a hook by class before any other, and finds that of a base class too: an enum of strings is a
    # string to it, and a bool is an int.
    for kind in (str, int, float, Path):
        converter.register_structure_hook(kind, structure_scalar)
    converter.register_structure_hook_func(is_enum, as_choice)
    converter.register_structure_hook_func(_exactly(Secret), _structurer(structure_secret))
    converter.register_structure_hook_func(_is_tuple, lambda value, cls: _sequence(value, cls, converter))
    converter.register_structure_hook_func(_is_mapping, lambda value, cls: _mapping(value, cls, converter))
    converter.register_structure_hook_func(_exactly(SourceConfig), _End("source", SourceConfig, find, converter))
    converter.register_structure_hook_func(
        _exactly(DestinationConfig), _End("destination", DestinationConfig, find, converter)
    )
    converter.register_structure_hook_func(lambda cls: cls == int | Auto, lambda value, _: _number_or_auto(value))
    conflict = _Model(Conflict, converter)
    converter.register_structure_hook_func(
        _exactly(Conflict),
        lambda value, cls: conflict(value, cls) if isinstance(value, (Mapping, Conflict)) else _strategy(value),
    )
    rules = tuple[TypeRule, ...]
    converter.register_structure_hook_func(
        lambda cls: cls == rules,
        lambda value, cls: _type_rules(value) if isinstance(value, Mapping) else _sequence(value, cls, converter),
    )
    return converter


def _exactly(kind: type) -> Callable[[Any], bool]:
    return lambda cls: cls is kind


def _structurer(convert: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda value, _: convert(value)


class _End:
    """Structure ``source`` or ``destination`` into the class that the plugin named by ``type`` offers."""

    def __init__(self, kind: str, base: type, find: Callable[[str], Connector], converter: cattrs.Converter) -> None:
        self._kind = kind
        self._base = base
        self._find = find
        self._converter = converter

    def __call__(self, value: Any, _: Any) -> Any:
        if isinstance(value, self._base):
            return value
        expect_mapping(value)
        if "type" not in value:
            names = ", ".join(sorted(plugins.available())) or "none"
            raise FieldError("type", f"missing: the name of a connector; installed: {names}")
        try:
            connector = self._find(as_text(value["type"]))
        except PluginError as error:
            raise FieldError("type", error.message) from None
        except Mismatch as error:
            raise FieldError("type", str(error)) from None
        model = getattr(connector, f"{self._kind}_config")
        if model is None:
            other = {"source": "write to", "destination": "read from"}[self._kind]
            raise FieldError("type", f"the connector {connector.name!r} is no {self._kind}: it can only {other}")
        return self._converter.structure(value, model)


class _Model:
    """Structure one attrs class, and gather all that is wrong with it.

    attrs stops at the first validator that raises, and runs none where an argument is missing. So the fields that are
    right are put into a trial object, the validators run on that, and one that asks for a field that is wrong says
    nothing. Only then is the object made.
    """

    def __init__(self, cls: type, converter: cattrs.Converter) -> None:
        self._cls = cls
        self._converter = converter
        self._types = get_type_hints(cls)
        self._fields = {field.name: field for field in attrs.fields(cls) if field.init}

    def __call__(self, value: Any, _: Any) -> Any:
        if isinstance(value, self._cls):
            return value
        expect_mapping(value)
        meant = {key: self._meant(key) for key in value if key not in self._fields}
        found: Found = [((key,), self._unknown(near)) for key, near in meant.items()]
        values: dict[str, Any] = {}
        failed = bool(found)
        for name, field in self._fields.items():
            try:
                if name in value:
                    values[name] = self._converter.structure(value[name], self._types[name])
                elif field.default is attrs.NOTHING and name not in meant.values():
                    found.append(((name,), "missing; it is required"))
            except Exception as error:
                failed = True
                found += _below((name,), error)
        found += self._refused(values, {*value, *meant.values(), *(path[0] for path, _ in found)})
        if failed or found:
            raise _Problems(found)
        return self._cls(**{self._fields[name].alias: item for name, item in values.items()})

    def _meant(self, key: str) -> str | None:
        """Return the key that an unknown one is a misspelling of: then that one is not complained of as missing."""
        return next(iter(difflib.get_close_matches(key, self._fields, n=1)), None)

    def _unknown(self, near: str | None) -> str:
        suggestion = f"did you mean `{near}`? " if near else ""
        few = len(self._fields) <= MOST_KEYS
        known = f"allowed here: {', '.join(self._fields)}" if few else "`portl explain` lists all keys"
        return f"unknown key; {suggestion}{known}"

    def _refused(self, values: Mapping[str, Any], mentioned: Iterable[object]) -> Found:
        """Return what the validators say against the fields in ``values``.

        Args:
            values: the fields that are right.
            mentioned: the fields that the job gives; those of them that are not in ``values`` are wrong.
        """
        if any(field.converter for field in self._fields.values()):
            return []  # a validator expects what the converter makes: making the object will tell
        trial: Any = object.__new__(self._cls)
        absent = set(mentioned) - set(values)
        for name, field in self._fields.items():
            if name not in absent:
                object.__setattr__(trial, name, values[name] if name in values else _default(field, trial))
        found: Found = []
        for name, field in self._fields.items():
            if field.validator is None or name in absent:
                continue
            try:
                field.validator(trial, field, getattr(trial, name))
            except AttributeError as error:
                if error.obj is not trial or error.name not in absent:
                    raise
            except Exception as error:
                found += _below((), error)
        return found


def _default(field: attrs.Attribute[Any], instance: object) -> Any:
    default: Any = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class, which attrs' stubs call a function
        return default.factory(instance) if default.takes_self else default.factory()
    return default


def _below(path: KeyPath, error: BaseException) -> Found:
    """Return the problems that an exception stands for, each with its path; ``path`` is where it was raised.

    Raises:
        BaseException: the error itself, if it is a defect of a model and not of the job.
    """
    if isinstance(error, _Problems):
        return [((*path, *inside), text) for inside, text in error.found]
    if isinstance(error, FieldError):
        return [((*path, *error.path), error.text)]
    if isinstance(error, ExceptionGroup):  # several FieldErrors of one validator, or what cattrs gathers
        return [found for inner in error.exceptions for found in _below((*path, *_noted(inner)), inner)]
    if isinstance(error, AlreadyReported):
        return []
    if isinstance(error, ValueError):
        return [(path, str(error))]
    raise error


def _noted(error: BaseException) -> KeyPath:
    """Return the place that cattrs notes on an exception."""
    for text in getattr(error, "__notes__", ()):
        if isinstance(text, AttributeValidationNote):
            return (text.name,)
        if isinstance(text, IterableValidationNote):
            return (text.index,)
    return ()


def _is_tuple(cls: Any) -> bool:
    return get_origin(cls) is tuple


def _is_mapping(cls: Any) -> bool:
    return get_origin(cls) is dict


def _number_or_auto(value: Any) -> int | Auto:
    text = value.text if isinstance(value, Written) else value
    if isinstance(text, str) and text.strip() == Auto.AUTO.value:
        return Auto.AUTO
    try:
        return as_integer(value)
    except Mismatch as error:
        problem = str(error).replace("a whole number", "a whole number or auto", 1)
    raise Mismatch(problem)


def _strategy(value: Any) -> Conflict:
    if value is None or isinstance(value, list):
        raise Mismatch(f"expected a strategy or a mapping with the key strategy, {but(value)}")
    return Conflict(strategy=as_choice(value, get_type_hints(Conflict)["strategy"]))


def _type_rules(value: Mapping[str, Any]) -> tuple[TypeRule, ...]:
    """Return the rules of the short form, a mapping of type to type."""
    return tuple(TypeRule(type=name, to=to) for name, to in _each(value.items(), as_text))


def _sequence(value: Any, cls: Any, converter: cattrs.Converter) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise Mismatch(f"expected a list, {but(value)}")
    kind = get_args(cls)[0]
    return tuple(item for _, item in _each(enumerate(value), lambda item: converter.structure(item, kind)))


def _mapping(value: Any, cls: Any, converter: cattrs.Converter) -> dict[str, Any]:
    expect_mapping(value)
    kind = get_args(cls)[1]
    return dict(_each(value.items(), lambda item: converter.structure(item, kind)))


def _each(items: Iterable[tuple[Any, Any]], convert: Callable[[Any], Any]) -> Iterator[tuple[Any, Any]]:
    """Convert every value, and only then fail for those that are wrong."""
    found: Found = []
    failed = False
    for key, item in items:
        try:
            yield key, convert(item)
        except Exception as error:
            failed = True
            found += _below((key,), error)
    if failed:
        raise _Problems(found)
