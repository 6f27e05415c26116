"""The text of SQL: the named queries (``*.sql``, each runs in psql as it stands), quoting, and user SQL embedded safely.

Imports nothing of this package.
"""
