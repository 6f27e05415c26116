"""Move one chunk: read it, write it in a transaction with its ledger line, and deal with bad rows.

==================  ===============================================================================
``work``            what to move, and over which sessions
``load``            reads the chunk's batches and holds them in memory; start reading here
``transaction``     the destination's transaction, and the chunk's line in it
``recovery``        writes refused batches again in smaller parts
``bad_rows``        finds the bad row of a batch
``progress``        counts and progress reports
==================  ===============================================================================

Imports ``planning`` and the packages below it, and nothing else from ``execution``.
"""
