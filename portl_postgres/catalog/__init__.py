"""Read the system catalogs: tables, columns, keys, types, sequences, and changes to a table.

Imports ``session`` and the packages below it. Writes nothing.
"""
