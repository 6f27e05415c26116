"""The names of ``portl``: imported when they are used, and there for whoever looks before that."""

from __future__ import annotations

import ast
import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import portl
from portl import _HOMES


def fresh(code: str) -> str:
    """Return what a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_type_checkers_are_shown_what_a_program_gets() -> None:
    """The names are the same in the imports that type checkers read and in the table that a program reads."""
    tree = ast.parse(Path(str(portl.__file__)).read_text(encoding="utf-8"))
    shown = {
        alias.asname or alias.name: (node.module, alias.name)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    listed = {name: module for module, names in _HOMES.items() for name in names.split()}
    assert {name: module for name, (module, _) in shown.items()} == listed
    for name, (module, original) in shown.items():
        assert getattr(portl, name) is getattr(importlib.import_module(str(module)), original)


def test_importing_portl_imports_no_other_package() -> None:
    packages = fresh(
        "import sys; before = set(sys.modules); import portl;"
        "new = {name.split('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(new - set(sys.stdlib_module_names)), [n for n in sys.modules if n.startswith('portl.')])"
    )
    assert packages == "['portl'] ['portl._version']\n"


def test_every_name_is_listed_before_it_is_imported() -> None:
    assert fresh("import portl; print(set(portl.__all__) <= set(dir(portl)))") == "True\n"
    assert (
        fresh("from portl import *; print(migrate.__module__, Error.__module__)") == "portl.api portl.values.errors\n"
    )


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'portl' has no attribute 'migrat'"):
        portl.migrat  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'migrat' from 'portl'"):
        from portl import migrat  # type: ignore[attr-defined]  # noqa: F401


def test_what_was_pickled_is_read_by_a_process_that_has_used_no_name_yet() -> None:
    error = pickle.dumps(portl.ConnectionFailed("gone", hint="wait", transient=True)).hex()
    read = f"import pickle; e = pickle.loads(bytes.fromhex('{error}')); print(type(e).__module__, e.hint, e.transient)"
    assert fresh(read) == "portl.values.errors wait True\n"


def test_the_version_is_shown_without_importing_what_runs_jobs() -> None:
    code = (
        "import sys; from portl.cli.app import app; app(['--version']);"
        "print([n for n in ('attrs', 'pluggy', 'rich.console', 'portl.api', 'portl.connectors') if n in sys.modules])"
    )
    assert fresh(code).splitlines()[1:] == ["[]"]
