"""``python -m portl``: the command line."""

from __future__ import annotations

from portl.cli import main

main()
