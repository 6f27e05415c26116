"""Parse YAML and keep the spelling of every scalar and the line of every key.

A loader that resolves types right away would turn the password ``012`` into a number. Here, a scalar stays a
``Written`` until the model decides its type. Refused: files over a megabyte, duplicate keys, tags, and aliases that
contain themselves or expand beyond ``MAX_NODES``. No message repeats a value, as it may be a password.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from portl.job.document import Path, Tree, YAMLProblem, scalar

MAX_BYTES = 1_000_000
MAX_NODES = 20_000

_TAG = "tag:yaml.org,2002:"
# The tags that the parser assigns to untagged nodes.
_PLAIN_TAGS = {
    _TAG + name for name in ("null", "bool", "int", "float", "timestamp", "str", "seq", "map", "merge", "value")
}


def parse(text: str) -> Tree:
    """Parse one YAML document.

    Raises:
        YAMLProblem: with the line.
    """
    if len(text.encode()) > MAX_BYTES:
        raise YAMLProblem(f"the file is larger than {MAX_BYTES:,} bytes")
    found = _compose(text)
    if isinstance(found, YAMLProblem):
        raise found  # raised here, where no exception being handled holds the text
    tree = Tree()
    if found is not None:
        tree.root = _Builder(tree).build(found, (), ())
    return tree


def _compose(text: str) -> Node | YAMLProblem | None:
    try:
        return YAML(typ="safe", pure=True).compose(text)  # type: ignore[no-any-return]  # Node or None
    except MarkedYAMLError as error:
        return _in_words(error)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        return YAMLProblem(f"not valid YAML: the character U+{code:04X} is not allowed", line)
    except RecursionError:
        return YAMLProblem("not valid YAML: nested too deeply")


# The parser's problem, or the context it names, and our message for it. The text of an alias or a tag is not repeated:
# it may be an unquoted password.
_WORDS = (
    (
        "found undefined alias",
        "an alias (*) of something that is not defined above; a string that begins with * needs quotes",
    ),
    ("tag", "a tag (!) is not allowed; a string that begins with ! needs quotes"),
    ("anchor", "an anchor (&) is malformed or defined twice; a string that begins with & needs quotes"),
    (r"'\t'", "a tab cannot indent a line; use spaces"),
    ("cannot start any token", "a string that begins with @, ` or % needs quotes"),
    ("mapping values are not allowed", "a second `: ` in one line; a string that contains `: ` needs quotes"),
    ("another document", "a second document begins here (---); a job file has only one"),
    ("expected the node content", "a value is missing here, or needs quotes"),
    (
        "expected <block end>",
        "this does not fit the indentation of the lines above or the value before it",
    ),
)
_CONTEXTS = (
    ("flow sequence", "a list that begins with [ has no ], or a comma is missing"),
    ("flow mapping", "a mapping that begins with { has no }, or a comma is missing"),
    ("simple key", "a colon is missing after a key"),
    ("quoted scalar", "a quoted string has no closing quote, or contains an invalid escape"),
)


def _in_words(error: MarkedYAMLError) -> YAMLProblem:
    problem, context = str(error.problem), str(error.context)
    mark = error.problem_mark or error.context_mark
    text = next((words for key, words in _WORDS if key in problem), None)
    if text is None and error.context_mark is not None:
        text = next((words for key, words in _CONTEXTS if key in context), None)
        mark = error.context_mark if text else mark
    text = text or next((words for key, words in _WORDS if key in context), None)
    return YAMLProblem(f"not valid YAML: {text or problem}", mark.line + 1 if mark else 0)


class _Builder:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._nodes = 0

    def build(self, node: Node, path: Path, ancestors: tuple[Node, ...]) -> Any:
        line = node.start_mark.line + 1
        self._count(node, ancestors)
        if str(node.tag) not in _PLAIN_TAGS:
            self._complain("a tag (!) is not allowed; a string that begins with ! needs quotes", line)
        if isinstance(node, ScalarNode) and node.anchor and not node.value and not node.style:
            self._complain("an anchor (&) with nothing after it; a string that begins with & needs quotes", line)
        self._tree.lines.setdefault(path, line)
        if isinstance(node, ScalarNode):
            return node.value if node.style else scalar(node.value)
        inner = (*ancestors, node)
        if isinstance(node, SequenceNode):
            return [self.build(item, (*path, index), inner) for index, item in enumerate(node.value)]
        result: dict[str, Any] = {}
        assert isinstance(node, MappingNode)
        for name, key, value in self._entries(node, ancestors):
            if name not in result:
                self._tree.lines[(*path, name)] = key.start_mark.line + 1
                result[name] = self.build(value, (*path, name), inner)
        return result

    def _count(self, node: Node, ancestors: tuple[Node, ...]) -> None:
        line = node.start_mark.line + 1
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise YAMLProblem(f"the file has more than {MAX_NODES:,} values, aliases included", line)
        if any(node is ancestor for ancestor in ancestors):
            raise YAMLProblem("this value contains an alias (*) to itself", line)

    def _complain(self, message: str, line: int) -> None:
        self._tree.problems.append(YAMLProblem(message, line))

    def _entries(self, node: MappingNode, ancestors: tuple[Node, ...]) -> list[tuple[str, Node, Node]]:
        """Return the keys and values of a mapping: its own, then those merged into it by ``<<``."""
        own: dict[str, tuple[str, Node, Node]] = {}
        merged: list[tuple[str, Node, Node]] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                self._complain("a key must be a string; a value that begins with { or [ needs quotes", line)
            elif key.value == "<<" and not key.style:
                for target in self._merged(value, line):
                    self._count(target, (*ancestors, node))
                    merged += self._entries(target, (*ancestors, node))
            elif key.value in own:
                first = own[key.value][1].start_mark.line + 1
                self._complain(f"the key {key.value!r} is already in line {first}", line)
            else:
                own[key.value] = (str(key.value), key, value)
        return [*own.values(), *merged]

    def _merged(self, value: Node, line: int) -> Iterator[MappingNode]:
        for target in value.value if isinstance(value, SequenceNode) else [value]:
            if isinstance(target, MappingNode):
                yield target
            else:
                self._complain("<< needs a mapping", line)
