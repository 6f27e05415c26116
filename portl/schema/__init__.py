"""Generic types, columns, keys and tables, and the verdict on converting one type to another.

Imports nothing else from portl. A change here changes what a type means to every connector.
"""
