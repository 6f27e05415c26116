"""How rows get into the table: the writer and its three ways, ``straight``, ``staged`` and ``server_side``.

``transitions`` says which way is taken when; ``target`` handles the table itself. Imports ``destination.quarantine``
and ``destination.due_key``; the checks before a run are in ``destination.checks``. This is the fast path: run the
benchmark after any change.
"""
