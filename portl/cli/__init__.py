"""The command line: each command parses its arguments, calls one function of the library, and prints the result.

Imports everything but ``testing``. Anything beyond that belongs in the library.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line, or report missing packages."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError:
        sys.exit("the portl command needs its extra: python -m pip install 'portl[cli]'")
    from portl.cli.app import app

    code = app()
    sys.stdout.flush()
    sys.stderr.flush()
    # By now the ledger has recorded that the result was delivered. Python's cleanup, about 30 ms, would only allow more
    # time for a kill to hide the exit code from the caller (docs/reliability.md).
    os._exit(code)
