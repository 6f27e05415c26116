"""Run the command line: ``python -m portl``."""

from __future__ import annotations

from portl.cli import main

main()
