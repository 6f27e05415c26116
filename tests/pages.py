"""The pages of the documentation and the examples on them."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run_code(page: Path, folder: Path, **names: object) -> None:
    """Run the Python of a page, a block after the other; each is a program of its own."""
    codes = blocks(page, "python")
    assert codes
    for number, code in enumerate(codes):
        script = folder / f"block{number}.py"
        script.write_text(code, encoding="utf-8")
        runpy.run_path(str(script), init_globals=names)
