"""Connections: parameters, connecting and why it failed, the session with its settings, silent servers, errors.

Imports ``config`` and ``sql``. The one boundary that psycopg's errors cross is ``errors``. A change here touches every
connection that portl opens.
"""
