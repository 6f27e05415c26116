"""The source: one state of a table, view or query; how it is cut into chunks; what keeps it from being read.

Imports ``wire``, ``verification`` and what lies below, and nothing of ``destination``. Writes nothing.
"""
