"""Move several chunks concurrently.

==============  ==========================================================
``count``       how many workers
``pool``        runs them, each in a thread
``worker``      moves chunks over sessions
``executor``    a worker that delegates to the caller's executor
``task``        a chunk as a task for that executor
==============  ==========================================================

Imports ``execution.chunks`` and ``execution.tracking``.
"""
