"""One chunk on its way: read, written in a transaction with its ledger line, and what becomes of rows that are refused.

Imports ``planning`` and what lies below; nothing of the rest of ``execution``. ``load`` is where to begin.
"""
