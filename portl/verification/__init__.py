"""Compare both sides, match rows that differ, and copy them again: ``portl.verify``.

Imports ``planning`` and the packages below it. What counts as equal is decided here.
"""
