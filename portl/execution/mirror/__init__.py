"""Execute ``mode: mirror``: compare both sides, move the rows that differ, and remove those the source does not have.

===============  ===================================================================================================
``by_rows``      compares sides whose servers have no digest in common
``comparison``   finds the rows that differ, by buckets, then by pairs, and splits them into chunks
``run``          a table's chunks: the comparison, rows to fetch, rows to remove; each a transaction with its line
===============  ===================================================================================================

Imports ``execution.chunks``, ``execution.workers`` and what they import.
"""
