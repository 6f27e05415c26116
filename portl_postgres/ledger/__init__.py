"""The ledger in tables at the destination: its location, its rows, the locks of jobs.

Imports ``catalog`` and the packages below it. The tables are in ``sql/ledger.sql``.
"""
