"""The destination: what is created, how rows are written, conflicts, the quarantine, and checks before writing.

Imports ``wire``, ``ledger``, ``verification`` and the packages below them, and nothing from ``source``.
"""
