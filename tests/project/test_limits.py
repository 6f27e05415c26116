"""The house keeps its limits: rooms, modules, classes, functions, words, and the direction of imports.

What counts as an attribute of a class is what it sets on itself, and the fields of an attrs class that can change. The
fields of a frozen value are data, not state: a plan or a job has as many as there is to say.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("portl", "portl_postgres")
MODULES, LINES, FUNCTION_LINES, ATTRIBUTES = 14, 450, 60, 14


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def nodes(kind: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kind):
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node


def test_no_room_has_more_modules_than_one_finds_one_s_way_in() -> None:
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
    found = [
        (where, node.name)  # type: ignore[attr-defined]  # of both kinds
        for where, node in nodes((ast.FunctionDef, ast.AsyncFunctionDef))  # type: ignore[arg-type]  # isinstance takes it
        if (node.end_lineno or 0) - node.lineno > FUNCTION_LINES  # type: ignore[attr-defined]
    ]
    assert found == []


def attributes(cls: ast.ClassDef) -> set[str]:
    stored = {
        node.attr
        for node in ast.walk(cls)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    decorated = [ast.unparse(decorator) for decorator in cls.decorator_list]
    if any("attrs.define" in text for text in decorated):
        stored |= {
            node.target.id for node in cls.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
    return stored


def test_no_class_has_more_than_one_state() -> None:
    found = {
        f"{where} {node.name}": sorted(own)
        for where, node in nodes(ast.ClassDef)
        if isinstance(node, ast.ClassDef) and len(own := attributes(node)) > ATTRIBUTES
    }
    assert found == {}


def test_imports_have_one_direction() -> None:
    pytest.importorskip("importlinter", reason="nox -s lint has it")
    call = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


#: Home-made words, and the field's: docs/architecture.md has the glossary.
WORDS = {
    "lane": "worker",
    "lanes": "workers",
    "parcel": "task",
    "taken up": "resumed",
    "takes up": "resumes",
    "put aside": "quarantined",
    "puts aside": "quarantines",
    "both ends": "both sides",
    "either end": "either side",
    "sibling": "worker session",
    "siblings": "worker sessions",
    "a lent": "a caller-supplied",
}


def test_words_are_the_field_s() -> None:
    texts = [*modules(), *(ROOT / "docs").glob("*.md"), *(ROOT / "tests").rglob("*.py"), ROOT / "README.md"]
    found = []
    for path in texts:
        if path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            words = " ".join("".join(c if c.isalnum() else " " for c in line.lower()).split())
            found += [
                f"{path.relative_to(ROOT)}:{number}: {word} (better: {better})"
                for word, better in WORDS.items()
                if f" {word} " in f" {words} "
            ]
    assert found == []
