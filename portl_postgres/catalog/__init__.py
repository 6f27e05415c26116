"""What the system catalogs say: tables, columns, keys, types, sequences; whether a table has changed since.

Imports ``session`` and what lies below. Reads; writes nothing.
"""
