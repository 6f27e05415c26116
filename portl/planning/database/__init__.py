"""Plan many tables at once: which they are, what comes with them, and a task for each.

===============  =====================================================================
``selection``    the tables of a job, and the job of each
``objects``      what is created at the destination beside rows
``planner``      puts them together
===============  =====================================================================

Imports the modules of ``planning`` for one table, which know nothing of this room.
"""
