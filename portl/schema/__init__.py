"""Generic types, columns, keys and tables, and the verdict on converting one type to another.

Imports nothing of portl. A change here changes what a type means to every connector.
"""
