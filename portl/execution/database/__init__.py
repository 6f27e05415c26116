"""Carry out a job of many tables: what is created, the rows of all tables, keys and indexes, foreign keys, the rest.

==========  =============================================================================
``run``     the stages, one after the other
``tables``  a table on its way, and the queue that workers take pieces of work from
``worker``  moves chunks of any table over its own sessions, and creates objects
==========  =============================================================================

Imports ``execution.chunks``, ``execution.workers`` and what they import.
"""
