"""Execute a job of many tables: create objects, move the rows, then keys, indexes, foreign keys and the rest.

==========  =============================================================================
``run``     the stages, in order
``tables``  the state of a table, and the queue that workers take pieces of work from
``worker``  moves chunks of any table over its own sessions, and creates objects
==========  =============================================================================

Imports ``execution.chunks``, ``execution.workers`` and what they import.
"""
