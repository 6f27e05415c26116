"""The source: one state of a table, view or query, its division into chunks, and checks before reading.

Imports ``wire``, ``verification`` and the packages below them, and nothing from ``destination``. Writes nothing.
"""
