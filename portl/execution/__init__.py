"""Carry a plan out: attempts, tables, chunks, workers, retries, bad rows, what comes after the rows.

Imports ``planning`` and ``verification``. The ledger line of a chunk is written in the transaction of its rows, here
and nowhere else; a change here is not done before the kill tests have passed.
"""
