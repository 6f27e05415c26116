"""What the system catalogs say: tables, columns, keys, types, sequences; whether a table was altered meanwhile.

Imports ``session`` and what lies below. Reads; writes nothing.
"""
