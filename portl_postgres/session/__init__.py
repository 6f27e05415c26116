"""Connections: parameters, connect errors, sessions and their settings, silent servers, errors.

Imports ``config`` and ``sql``. psycopg's errors are translated in ``errors`` and nowhere else. A change here affects
every connection that portl opens.
"""
