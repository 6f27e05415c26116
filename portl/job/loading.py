"""Load a job, from a file or a dict, into the models of ``portl.config``.

All problems of a job are reported at once, each with its line and path.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from portl.config.models import MigrationConfig
from portl.job.document import Path as KeyPath
from portl.job.document import Tree, YAMLProblem
from portl.job.environment import interpolated
from portl.job.scalars import shown
from portl.job.structuring import misplaced, structure
from portl.values.errors import ConfigError


def load(
    job: str | os.PathLike[str] | Mapping[str, Any] | MigrationConfig,
    *,
    overrides: Mapping[str, str] | None = None,
) -> MigrationConfig:
    """Return the models of a job.

    Args:
        job: the path of a YAML file, a dict with the same keys, or the models themselves.
        overrides: maps the dotted path of a key to its new value as YAML text, as ``--set`` does.

    Raises:
        ConfigError: with all problems of the job.
    """
    if isinstance(job, MigrationConfig):
        if overrides:
            raise ConfigError(["overrides need a file or a dict, not a MigrationConfig"])
        if problems := misplaced(job):
            raise ConfigError([f"{'.'.join(map(str, path))}: {text}" for path, text in problems], origin="job")
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
    """Return the parsed file, or why it cannot be read."""
    from portl.job import yaml  # not needed if the job is a dict; importing ruamel.yaml takes 20 ms

    try:
        if path.stat().st_size > yaml.MAX_BYTES:
            return None, f"the file is larger than {yaml.MAX_BYTES:,} bytes"
        tree = yaml.parse(path.read_text(encoding="utf-8-sig"))
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
    """Deep-copy a caller's dict, with keys as strings, so that it is neither shared nor changed."""
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

    @property
    def problems(self) -> list[str]:
        """Every problem once, in line order."""
        return list(dict.fromkeys(text for _, text in sorted(self._found, key=lambda found: found[0])))

    def load(self, overrides: Mapping[str, str]) -> MigrationConfig | None:
        """Return the models, or None if there are problems."""
        for dotted, text in overrides.items():
            self._override(dotted, text)
        data = interpolated(self._tree.root, (), self._report)
        if self._name is not None:
            data.setdefault("name", self._name)
        config, problems = structure(data)
        for path, message in problems:
            self._report(path, message)
        return config

    def _override(self, dotted: str, text: str) -> None:
        from portl.job import yaml  # see ``_read``

        path = tuple(dotted.split("."))
        node = self._tree.root
        for part in path[:-1]:
            node[part] = {} if node.get(part) is None else node[part]
            node = node[part]
            if not isinstance(node, dict):
                self._found.append((0, f"--set {dotted}: {part!r} is not a mapping"))
                return
        try:
            tree = yaml.parse(text)
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
