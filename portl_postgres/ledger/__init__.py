"""The ledger in tables at the destination: where it stands, its lines, the locks of jobs.

Imports ``catalog`` and what lies below. A change of the tables is a new step, ``sql/ledger_N.sql``.
"""
