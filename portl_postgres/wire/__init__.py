"""How rows travel: COPY, its messages on the socket, its binary and text formats, and the SELECT list that feeds it.

Imports ``catalog`` and the packages below it. This is the fast path: run the benchmark after any change.
"""
