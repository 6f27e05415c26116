"""Where rejected rows go: a table, what a row in it looks like, a file of JSON lines, what stands in their way.

Imports ``wire`` and what lies below, and nothing of the rest of ``destination``.
"""
