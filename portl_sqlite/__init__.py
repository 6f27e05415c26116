"""The SQLite connector, on the standard library's ``sqlite3`` alone.

``plugin`` is the entry point. ``catalog`` says what tables there are, ``values`` how Python values are stored,
``source`` and ``destination`` are the two sides, ``writer`` writes rows, ``ledger`` records runs in the same file, and
``locking`` keeps two processes from running one job. Imports only public names of ``portl``. A change here may affect
how values are stored in files that exist.
"""
