"""Look at both sides and say what a run will do, as plain values: ``Plan``, with a ``TableTask`` for each table.

Imports ``job`` and what lies below. Writes nothing to either side. What keeps a job from running is found here, as a
problem with a remedy; what carries the plan out is for ``portl.execution``.
"""
