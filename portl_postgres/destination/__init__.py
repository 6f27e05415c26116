"""The destination: what is created, how rows are written, conflicts, the quarantine, what keeps a job from writing.

Imports ``wire``, ``ledger``, ``verification`` and what lies below, and nothing of ``source``.
"""
