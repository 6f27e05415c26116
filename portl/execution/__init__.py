"""Execute a job, from the first attempt to the last row.

======================  ==============================================================================
``attempts``            opens both sides, plans and executes; repeats this after a transient failure
``engine``              executes a plan
``table_run``           one table: its first transaction, its other chunks, the steps after the rows
``first_transaction``   the first chunks of a table that portl creates
``chunks``              one chunk
``workers``             several chunks at the same time
``database``            many tables at the same time, and the objects that go with them
``record``              the run and its chunk lines, as recorded in the ledger
``tracking``            the progress events of a table
``counting``            the counts in the result
``rejected``            retries quarantined rows
======================  ==============================================================================

Imports ``planning`` and ``verification``. The ledger line of a chunk is written in the transaction of its rows, by
``chunks.transaction`` and nowhere else. Run the kill tests after every change to this package.
"""
