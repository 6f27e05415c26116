"""The command line: each command parses, calls one function of the library, prints what it returns."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line, or say what it needs."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError:
        sys.exit("the portl command needs its extra: python -m pip install 'portl[cli]'")
    from portl.cli.app import app

    code = app()
    sys.stdout.flush()
    sys.stderr.flush()
    # The ledger says by now that the outcome is known. Whatever takes Python time to tidy up, about 30 ms, would only
    # give a kill more time to hide it from whoever waits for the exit code (docs/reliability.md).
    os._exit(code)
