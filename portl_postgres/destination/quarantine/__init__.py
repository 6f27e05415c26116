"""Where rejected rows go: a table, the form of its rows, a file of JSON lines, and checks before a run.

Imports ``wire`` and the packages below it, and nothing else from ``destination``.
"""
