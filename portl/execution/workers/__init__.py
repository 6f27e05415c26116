"""Several chunks at the same time.

==============  ==========================================================
``count``       how many workers
``pool``        runs them, each in a thread
``worker``      what a worker does
``executor``    a worker that has an executor of the caller's do it
``task``        what that executor is given
==============  ==========================================================

Imports ``execution.chunks`` and ``execution.tracking``.
"""
