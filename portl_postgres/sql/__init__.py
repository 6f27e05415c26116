"""The text of SQL: named queries (``*.sql``, each runs in psql as it stands), quoting, a user's SQL embedded safely.

Imports nothing of this package.
"""
