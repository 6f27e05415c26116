"""The pictures of a terminal on the first pages show what portl prints."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "docs"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("terminal", FOLDER / "terminal.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


terminal = script()


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    found: dict[str, str] = terminal.pictures()
    return found


@pytest.mark.parametrize("name", ["terminal-plan.svg", "terminal-run.svg"])
def test_a_picture_shows_what_is_printed_now(drawn: dict[str, str], name: str) -> None:
    committed = (FOLDER / name).read_text(encoding="utf-8")
    assert terminal.texts(committed) == terminal.texts(drawn[name]), "python docs/terminal.py draws them anew"


@pytest.mark.parametrize("name", ["terminal-plan.svg", "terminal-run.svg"])
def test_a_picture_fetches_nothing(name: str) -> None:
    committed = (FOLDER / name).read_text(encoding="utf-8")
    assert committed.replace("http://www.w3.org/2000/svg", "").count("http") == 0
    assert "url(" not in committed.replace("url(#", "")
