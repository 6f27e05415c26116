"""Read YAML as what was written: every scalar with its own text, every key with its line.

A loader that resolves types at once cannot take ``012`` as the text of a password. Here a scalar stays a ``Written``
until the model says what it wants. Refused: files over a megabyte, duplicate keys, tags, aliases that contain
themselves or multiply beyond ``MAX_NODES``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import attrs
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_BYTES = 1_000_000
MAX_NODES = 20_000

Path = tuple[str | int, ...]

# The core schema of YAML 1.2, chapter 10.3.2.
_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


class YAMLProblem(ValueError):
    """The text cannot be read. ``line`` counts from 1, 0 where it is unknown."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


@attrs.frozen
class Written:
    """A plain scalar that means something other than its text: a number or a truth value."""

    text: str
    value: bool | int | float


@attrs.define
class Tree:
    """A document: plain dicts, lists, strings, None and ``Written``, and the line of each path."""

    root: Any = None
    lines: dict[Path, int] = attrs.Factory(dict)


def parse(text: str) -> Tree:
    """Parse one YAML document.

    Raises:
        YAMLProblem: with the line.
    """
    if len(text.encode()) > MAX_BYTES:
        raise YAMLProblem(f"the file is larger than {MAX_BYTES:,} bytes")
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YAMLProblem(f"not valid YAML: {error.problem or error.context}", mark.line + 1 if mark else 0) from None
    except (ValueError, RecursionError) as error:  # ruamel reports forbidden characters as ReaderError, a ValueError
        raise YAMLProblem(f"not valid YAML: {str(error).splitlines()[0]}") from None
    tree = Tree()
    if node is not None:
        tree.root = _Builder(tree).build(node, (), ())
    return tree


def scalar(text: str) -> Any:
    """Resolve a plain scalar by the core schema of YAML 1.2."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return Written(text, bool(_TRUE.fullmatch(text)))
    if _INT.fullmatch(text):
        return Written(text, int(text))
    if _FLOAT.fullmatch(text):
        return Written(text, float(text))
    return text


class _Builder:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._nodes = 0

    def build(self, node: Node, path: Path, ancestors: tuple[Node, ...]) -> Any:
        line = node.start_mark.line + 1
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise YAMLProblem("aliases multiply the document beyond all bounds", line)
        if any(node is ancestor for ancestor in ancestors):
            raise YAMLProblem("an alias contains itself", line)
        if not str(node.tag).startswith("tag:yaml.org,2002:"):
            raise YAMLProblem(f"the tag {node.tag} is not allowed", line)
        self._tree.lines.setdefault(path, line)
        if isinstance(node, ScalarNode):
            return node.value if node.style else scalar(node.value)
        inner = (*ancestors, node)
        if isinstance(node, SequenceNode):
            return [self.build(item, (*path, index), inner) for index, item in enumerate(node.value)]
        return self._mapping(node, path, inner)

    def _mapping(self, node: Node, path: Path, ancestors: tuple[Node, ...]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in self._entries(node):
            name = self._key(key)
            if name in result:
                raise YAMLProblem(f"the key {name!r} stands twice", key.start_mark.line + 1)
            self._tree.lines[(*path, name)] = key.start_mark.line + 1
            result[name] = self.build(value, (*path, name), ancestors)
        for merged in self._merged(node):
            for name, item in self.build(merged, (*path, "<<"), ancestors).items():
                result.setdefault(name, item)
        return result

    @staticmethod
    def _key(key: Node) -> str:
        if not isinstance(key, ScalarNode):
            raise YAMLProblem("a key must be a plain text", key.start_mark.line + 1)
        return str(key.value)

    @staticmethod
    def _entries(node: Node) -> Iterator[tuple[Node, Node]]:
        return ((key, value) for key, value in node.value if key.value != "<<")

    @staticmethod
    def _merged(node: Node) -> Iterator[MappingNode]:
        for key, value in node.value:
            if key.value != "<<":
                continue
            for target in value.value if isinstance(value, SequenceNode) else [value]:
                if not isinstance(target, MappingNode):
                    raise YAMLProblem("<< needs a mapping", key.start_mark.line + 1)
                yield target
