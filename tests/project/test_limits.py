"""The house keeps its limits: rooms, modules, classes, functions, the direction of imports, and words.

An attribute of a class is what the class sets on itself, and a field of an attrs class that can change. The fields of a
frozen attrs class are data, not state: a job, a plan or a result has as many as there is to say.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("portl", "portl_postgres", "portl_sqlite")
MODULES, LINES, FUNCTION_LINES, ATTRIBUTES = 14, 450, 60, 14

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def nodes() -> Iterator[tuple[str, ast.AST]]:
    """Every node of the packages' code, with its place."""
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node


def test_no_room_has_too_many_modules() -> None:
    found = Counter(path.parent.relative_to(ROOT) for path in modules() if path.name != "__init__.py")
    assert {str(folder): count for folder, count in found.items() if count > MODULES} == {}


def test_every_room_says_what_it_is_for_and_what_it_may_import() -> None:
    rooms = {path.parent for path in modules()} - {ROOT / package for package in PACKAGES}
    silent = [
        room for room in rooms if len(ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or "") < 60
    ]
    assert [str(room.relative_to(ROOT)) for room in silent] == []


def test_no_module_is_too_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert {name: length for name, length in lengths.items() if length > LINES} == {}


def test_no_function_is_too_long() -> None:
    lengths = {
        f"{where} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for where, node in nodes()
        if isinstance(node, Function)
    }
    assert {name: length for name, length in lengths.items() if length > FUNCTION_LINES} == {}


def attributes(cls: ast.ClassDef) -> set[str]:
    stored = {
        node.attr
        for node in ast.walk(cls)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    if any("attrs.define" in ast.unparse(decorator) for decorator in cls.decorator_list):
        stored |= {
            node.target.id for node in cls.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
    return stored


def test_no_class_has_too_much_state() -> None:
    found = {f"{where} {node.name}": attributes(node) for where, node in nodes() if isinstance(node, ast.ClassDef)}
    assert {name: sorted(own) for name, own in found.items() if len(own) > ATTRIBUTES} == {}


def test_imports_have_one_direction() -> None:
    call = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


#: Home-made words, as patterns, and the terms to use instead.
WORDS = {
    "lanes?": "worker",
    r"(?:take|takes|taken|taking|took) (?:\w+ ){0,3}up(?! to)": "resume",
    r"(?:put|puts|putting) (?:\w+ ){0,4}aside": "quarantine",
    "lent|lend|lends|lending": "caller-supplied",
    "blam(?:e|ed|es|ing)": "bad-row search",
    "parcels?": "task",
    "siblings?": "worker session",
    "both ends|either end|each end|other end|two ends": "both sides, source and destination",
    "reaching": "connect errors",
    "he|his|him|himself": "they, the user, the caller",
    "comes? to (?:its|their|an) ends?|came to (?:its|their|an) ends?": "end, finish",
    "let(?:s|ting)? go of": "release",
    "mend(?:s|ed|ing)?": "fix, correct",
    "said of": "say what it is",
    "for people": "for display",
    '"""Tell whether': "Return whether",
}
#: What a line may hold all the same: "The other end" of a socket is what tcp(7) calls the peer, names in tests' data.
ALLOWED = re.compile(r"tcp\(7\)|he said \"no\"")
SUFFIXES = {".py", ".md", ".sql", ".txt", ".yml"}


def texts() -> Iterator[Path]:
    yield from sorted(ROOT.glob("*.md"))
    for folder in (*PACKAGES, "tests", "docs", "examples", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and path != Path(__file__):
                yield path


def test_words_are_those_of_the_field() -> None:
    # A phrase may go on in the next line, behind the mark of a comment or the quotes of a string.
    gap = r'(?:\s|[#:"*])+'
    patterns = {re.compile(rf"(?<![a-z])(?:{word.replace(' ', gap)})(?![a-z])", re.I): WORDS[word] for word in WORDS}
    found = []
    for path in texts():
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        for pattern, better in patterns.items():
            for match in pattern.finditer(text):
                number = text.count("\n", 0, match.start())
                if not ALLOWED.search(lines[number]):
                    found.append(f"{path.relative_to(ROOT)}:{number + 1}: {match[0]!r} (better: {better})")
    assert found == []
