"""How rows travel: COPY, the messages on the socket, its binary and text formats, the SELECT list that feeds it.

Imports ``catalog`` and what lies below. This is the fast path: a change here comes with a run of the benchmark.
"""
