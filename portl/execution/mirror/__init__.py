"""Carry out ``mode: mirror``: compare both sides, then move what differs and remove what the source does not have.

===============  ===================================================================================================
``by_rows``      the comparison of sides whose servers have no digest in common
``comparison``   buckets, then pairs: which rows differ, and the chunks that they make
``run``          a table's chunks: what was compared, rows to fetch, rows to remove; each a transaction with its line
===============  ===================================================================================================

Imports ``execution.chunks``, ``execution.workers`` and what they import.
"""
