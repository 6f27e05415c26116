"""SQL text: named queries (``*.sql``, each can be run in psql), quoting, and embedding a user's SQL safely.

Imports nothing else from this package.
"""
