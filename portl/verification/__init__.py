"""Compare both sides, match rows that differ, and copy them again: ``portl.verify``.

Imports ``planning`` and what lies below. A change here decides what counts as equal.
"""
