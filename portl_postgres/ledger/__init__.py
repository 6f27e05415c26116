"""The ledger, in tables at the destination: its location, its rows, the locks of jobs.

Imports ``catalog`` and what lies below. A change of the tables is a new step, ``sql/ledger_N.sql``.
"""
