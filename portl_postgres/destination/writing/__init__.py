"""How rows get into the table: the writer, its three ways (``straight``, ``staged``, ``server_side``), the statements.

``transitions`` says which way is taken when, ``target`` knows the table itself. Imports ``destination.quarantine`` and
``destination.due_key``; what is checked before a run is in ``destination.checks``. This is the fast path: a change
here comes with a run of the benchmark.
"""
