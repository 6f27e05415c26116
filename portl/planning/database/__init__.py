"""Plan a job of many tables: which tables, the objects that go with them, and a task for each.

===============  =====================================================================
``selection``    the tables of a job, and the job of each
``objects``      what is created at the destination besides rows
``planner``      combines them into a plan
===============  =====================================================================

Imports the modules of ``planning`` for one table, which do not import this package.
"""
