"""The text of SQL: named queries (``*.sql``, each runs in psql as it is), quoting, embedding a user's SQL safely.

Imports nothing of this package.
"""
