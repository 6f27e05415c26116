"""The command line: each command parses, calls one function of the library, prints what it returns."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say what it needs."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError:
        sys.exit("the portl command needs its extra: python -m pip install 'portl[cli]'")
    from portl.cli.app import app

    sys.exit(app())
