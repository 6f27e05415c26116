"""The ledger, in tables at the destination: its location, its rows, the locks of jobs.

Imports ``catalog`` and what lies below. The tables are in ``sql/ledger.sql``.
"""
