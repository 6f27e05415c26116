"""Carry a job out, from the first attempt to the last row.

======================  ==============================================================================
``attempts``            opens both sides, plans and carries out, again after a failure that passes
``engine``              carries out a plan
``table_run``           one table: its first transaction, its other chunks, what comes after the rows
``first_transaction``   the first chunks of a table that portl creates
``chunks``              one chunk
``workers``             several chunks at the same time
``database``            many tables at the same time, and what comes with them
``record``              the run and its chunk lines, as the ledger has them
``tracking``            what the observers are told
``counting``            what the result says
``rejected``            quarantined rows, written after all
======================  ==============================================================================

Imports ``planning`` and ``verification``. The ledger line of a chunk is written in the transaction of its rows, by
``chunks.transaction`` and nowhere else; a change to this room is not done before the kill tests have passed.
"""
