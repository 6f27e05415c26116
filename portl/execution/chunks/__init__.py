"""One chunk on its way: read, written in a transaction with its ledger line, and what is done about bad rows.

==================  ===============================================================================
``work``            what there is to move, and over which sessions
``load``            reads the chunk's batches; what is in memory; begin here
``transaction``     the destination's transaction, and the chunk's line in it
``recovery``        batches that were refused together, written again in smaller parts
``bad_rows``        which row of a batch is bad
``progress``        what is counted and reported
==================  ===============================================================================

Imports ``planning`` and what lies below; nothing of the rest of ``execution``.
"""
