"""Turn the plain data of a job into the models of ``portl.config``, and report everything wrong with it at once.

All validators of a model run, even if some of its fields are already wrong. Errors are raised where neither an
exception being handled nor a local variable holds the job's values, any of which may be a secret.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast, get_args, get_origin, get_type_hints

import attrs
import cattrs
from cattrs.errors import AttributeValidationNote, IterableValidationNote

from portl.config.models import (
    Auto,
    Conflict,
    DestinationConfig,
    MigrationConfig,
    SourceConfig,
    TableChoice,
    Tables,
    TypeRule,
)
from portl.config.objects import ObjectGroup, Objects
from portl.config.validators import FieldError, key_of
from portl.connectors import registry
from portl.job.document import Path as KeyPath
from portl.job.document import Written
from portl.job.scalars import (
    AlreadyReported,
    Mismatch,
    as_choice,
    as_integer,
    as_text,
    but,
    expect_mapping,
    is_enum,
    structure_scalar,
    structure_secret,
)
from portl.job.tables import choices, with_jobs
from portl.values.errors import PluginError
from portl.values.secrets import Secret
from portl.values.text import nearest

#: The most keys to list in the message for an unknown key; a longer list would hide the other problems.
MOST_KEYS = 8

_TABLES = Tables | tuple[TableChoice, ...] | None
_OBJECTS = Objects | tuple[ObjectGroup, ...]

#: Problems, each with the path of the key that it is about.
Problems = list[tuple[KeyPath, str]]


class _Wrong(ValueError):
    """The problems in one part of the job; empty if all of them have already been reported."""

    def __init__(self, problems: Problems) -> None:
        super().__init__("; ".join(text for _, text in problems))
        self.problems = problems


def structure(data: Any) -> tuple[MigrationConfig | None, Problems]:
    """Return the models of a job, or None and the problems.

    Args:
        data: plain data, its variables replaced.
    """
    many = isinstance(data, Mapping) and data.get("tables") is not None
    config, problems = _structured(data, many=many)
    if config is None or not many:
        return config, problems
    config, problems = with_jobs(config, data, functools.partial(_structured, many=True))
    return config, [*problems, *misplaced(config)]


def _structured(data: Any, *, many: bool) -> tuple[MigrationConfig | None, Problems]:
    try:
        return _converter(many=many).structure(data, MigrationConfig), []
    except Exception as error:
        return None, _problems((), error)


def misplaced(config: MigrationConfig) -> Problems:
    """Return the keys that are missing for a job of one table, or out of place in a job of many."""
    found: Problems = []
    for name, side in (("source", config.source), ("destination", config.destination)):
        lacks = side.lacks
        if config.tables is None and lacks is not None:
            found.append(((name, *lacks.path), lacks.text))
        elif config.tables is not None and lacks is None:
            found.append(((name,), "names a table, and so does `tables`: remove one of the two"))
    return found


@functools.cache
def _converter(*, many: bool) -> cattrs.Converter:
    """Return a converter for jobs; if ``many``, ``source`` and ``destination`` need not name a table."""
    converter = cattrs.Converter(detailed_validation=True)
    converter.register_structure_hook_factory(attrs.has, lambda cls: _Model(cls, converter, many=many))
    # cattrs looks up hooks by class first, base classes included: to it, an enum of strings is a string, and a bool is
    # an int.
    for kind in (str, int, float, Path):
        converter.register_structure_hook(kind, structure_scalar)
    converter.register_structure_hook_func(is_enum, as_choice)
    converter.register_structure_hook_func(_exactly(Secret), lambda value, _: structure_secret(value))
    converter.register_structure_hook_func(_of(tuple), lambda value, cls: _sequence(value, cls, converter))
    converter.register_structure_hook_func(_of(dict), lambda value, cls: _mapping(value, cls, converter))
    for side, base in (("source", SourceConfig), ("destination", DestinationConfig)):
        converter.register_structure_hook_func(_exactly(base), _Side(side, base, converter))
    converter.register_structure_hook_func(lambda cls: cls == int | Auto, lambda value, _: _number_or_auto(value))
    converter.register_structure_hook_func(lambda cls: cls == int | str, lambda value, _: _number_or_text(value))
    conflict = _Model(Conflict, converter, many=many)
    converter.register_structure_hook_func(
        _exactly(Conflict),
        lambda value, cls: conflict(value, cls) if isinstance(value, (Mapping, Conflict)) else _strategy(value),
    )
    converter.register_structure_hook_func(lambda cls: cls == _TABLES, lambda value, _: choices(value))
    converter.register_structure_hook_func(lambda cls: cls == _OBJECTS, lambda value, cls: _groups(value, converter))
    rules = tuple[TypeRule, ...]
    converter.register_structure_hook_func(
        lambda cls: cls == rules,
        lambda value, cls: _type_rules(value) if isinstance(value, Mapping) else _sequence(value, cls, converter),
    )
    return converter


def _exactly(kind: type) -> Callable[[Any], bool]:
    return lambda cls: cls is kind


def _of(generic: type) -> Callable[[Any], bool]:
    return lambda cls: get_origin(cls) is generic


class _Side:
    """Structures ``source`` or ``destination`` into the class of the connector that ``type`` names."""

    def __init__(self, side: str, base: type, converter: cattrs.Converter) -> None:
        self._side = side
        self._base = base
        self._converter = converter

    def __call__(self, value: Any, _: Any) -> Any:
        if isinstance(value, self._base):
            return value
        expect_mapping(value)
        if "type" not in value:
            names = ", ".join(sorted(registry.available())) or "none"
            raise FieldError("type", f"missing: the name of a connector; installed: {names}")
        try:
            connector = registry.load(as_text(value["type"]))
        except PluginError as error:
            raise FieldError("type", error.message) from None
        except Mismatch as error:
            raise FieldError("type", str(error)) from None
        model = getattr(connector, f"{self._side}_config")
        if model is None:
            other = {"source": "write to", "destination": "read from"}[self._side]
            raise FieldError("type", f"the connector {connector.name!r} is no {self._side}: it can only {other}")
        return self._converter.structure(value, model)


class _Model:
    """Structures one attrs class, and collects everything wrong with it.

    attrs stops at the first validator that raises, and runs none if an argument is missing. So the valid fields are set
    on a trial object and the validators run on that; one that accesses an invalid field is ignored. Only then is the
    real object made.
    """

    def __init__(self, cls: type, converter: cattrs.Converter, *, many: bool) -> None:
        self._cls = cls
        self._converter = converter
        self._complete = issubclass(cls, (SourceConfig, DestinationConfig)) and not many
        self._types = get_type_hints(cls)
        self._fields = {key_of(field): field for field in attrs.fields(cls) if field.init}

    def __call__(self, value: Any, _: Any) -> Any:
        if isinstance(value, self._cls):
            return value
        expect_mapping(value)
        # If an unknown key looks like a misspelling of a field, the field is not reported as missing.
        meant = {key: nearest(key, self._fields) for key in value if key not in self._fields}
        found: Problems = [((key,), self._unknown(near)) for key, near in meant.items()]
        values: dict[str, Any] = {}
        failed = bool(found)
        for name, field in self._fields.items():
            try:
                if name in value:
                    values[name] = self._converter.structure(value[name], self._types[field.name])
                elif field.default is attrs.NOTHING and name not in meant.values():
                    found.append(((name,), "missing; it is required"))
            except Exception as error:
                failed = True
                found += _problems((name,), error)
        found += self._refused(values, {*value, *meant.values(), *(path[0] for path, _ in found)})
        if failed or found:
            raise _Wrong(found)
        return self._cls(**{self._fields[name].alias: item for name, item in values.items()})

    def _unknown(self, near: str | None) -> str:
        suggestion = f"did you mean `{near}`? " if near else ""
        few = len(self._fields) <= MOST_KEYS
        known = f"allowed here: {', '.join(self._fields)}" if few else "`portl explain` lists all keys"
        return f"unknown key; {suggestion}{known}"

    def _refused(self, values: Mapping[str, Any], mentioned: Iterable[object]) -> Problems:
        """Return the objections of validators to the fields in ``values``.

        Args:
            values: the valid fields.
            mentioned: the fields that the job sets; those that are not in ``values`` are invalid.
        """
        if any(field.converter for field in self._fields.values()):
            return []  # validators expect converted values, so they run when the object is made
        trial: Any = object.__new__(self._cls)
        absent = set(mentioned) - set(values)
        for name, field in self._fields.items():
            if name not in absent:
                object.__setattr__(trial, field.name, values[name] if name in values else _default(field, trial))
        found: Problems = []
        for name, field in self._fields.items():
            if field.validator is None or name in absent:
                continue
            try:
                field.validator(trial, field, getattr(trial, field.name))
            except AttributeError as error:
                if error.obj is not trial or error.name not in absent:
                    raise
            except Exception as error:
                found += _problems((), error)
        return [*found, *self._lacks(trial)]

    def _lacks(self, trial: Any) -> Problems:
        """Return what is missing to read or write one table, as far as the valid fields tell."""
        try:
            lacks = trial.lacks if self._complete else None
        except AttributeError:
            return []
        return _problems((), lacks) if lacks is not None else []


def _default(field: attrs.Attribute[Any], instance: object) -> Any:
    default: Any = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class, which attrs' stubs call a function
        return default.factory(instance) if default.takes_self else default.factory()
    return default


def _problems(path: KeyPath, error: BaseException) -> Problems:
    """Return the problems that an exception stands for, each with its path; ``path`` is where it was raised.

    Raises:
        BaseException: the error itself, if the fault is the model's and not the job's.
    """
    if isinstance(error, _Wrong):
        return [((*path, *inside), text) for inside, text in error.problems]
    if isinstance(error, FieldError):
        return [((*path, *error.path), error.text)]
    if isinstance(error, ExceptionGroup):  # several FieldErrors of one validator, or errors collected by cattrs
        return [found for inner in error.exceptions for found in _problems((*path, *_noted(inner)), inner)]
    if isinstance(error, AlreadyReported):
        return []
    if isinstance(error, ValueError):
        return [(path, str(error))]
    raise error


def _noted(error: BaseException) -> KeyPath:
    """Return the location that cattrs noted on an exception."""
    for text in getattr(error, "__notes__", ()):
        if isinstance(text, AttributeValidationNote):
            return (text.name,)
        if isinstance(text, IterableValidationNote):
            return (text.index,)
    return ()


def _number_or_text(value: Any) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = as_text(value).strip()
    return int(text) if text.isdecimal() else text


def _number_or_auto(value: Any) -> int | Auto:
    text = value.text if isinstance(value, Written) else value
    if isinstance(text, str) and text.strip() == Auto.AUTO.value:
        return Auto.AUTO
    try:
        return as_integer(value)
    except Mismatch as error:
        problem = str(error).replace("a whole number", "a whole number or auto", 1)
    raise Mismatch(problem)


def _groups(value: Any, converter: cattrs.Converter) -> Objects | tuple[ObjectGroup, ...]:
    if isinstance(value, (list, tuple)):
        return cast("tuple[ObjectGroup, ...]", _sequence(value, tuple[ObjectGroup, ...], converter))
    try:
        return Objects(as_choice(value, Objects))
    except Mismatch as error:
        problem = f"{error}, or a list"
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
    """Convert every value, and only then fail for the invalid ones."""
    found: Problems = []
    failed = False
    for key, item in items:
        try:
            yield key, convert(item)
        except Exception as error:
            failed = True
            found += _problems((key,), error)
    if failed:
        raise _Wrong(found)
