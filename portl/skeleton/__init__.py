"""Write the skeleton of a connector package, for ``portl new-connector NAME``."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from portl._version import __version__
from portl.values.errors import ConfigError

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def new_connector(name: str, into: Path | str = ".") -> Path:
    """Write a connector package whose tests pass; return its folder.

    Args:
        name: the ``type`` in job files: lower-case letters, digits and dashes.
        into: the folder to create ``portl-NAME`` in.

    Raises:
        ConfigError: the name is not valid, or the folder exists already.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            [f"the name: expected lower-case letters, digits and dashes, a letter first; found {name!r}"],
            origin="new-connector",
        )
    folder = Path(into) / f"portl-{name}"
    if folder.exists():
        raise ConfigError([f"{str(folder)!r} exists already"], origin="new-connector")
    package = f"portl_{name.replace('-', '_')}"
    words = {
        "@NAME@": name,
        "@PACKAGE@": package,
        "@CLASS@": "".join(part.capitalize() for part in name.split("-")),
        "@VERSION@": __version__,
    }
    for template, target in (
        ("pyproject.toml.txt", "pyproject.toml"),
        ("README.md.txt", "README.md"),
        ("init.py.txt", f"{package}/__init__.py"),
        ("plugin.py.txt", f"{package}/plugin.py"),
        ("connector.py.txt", f"{package}/connector.py"),
        ("test_connector.py.txt", "tests/test_connector.py"),
    ):
        text = files(__package__).joinpath(template).read_text(encoding="utf-8")
        for word, value in words.items():
            text = text.replace(word, value)
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder
