"""Objects of a database besides rows, and the statements that create them, in dependency order.

Imports ``catalog`` and the packages below it. ``reading`` reads the catalogs, with a number of queries that does not
grow with the number of tables (``sql/objects``); ``making`` executes the statements at the destination. Wherever the
server can print a statement itself (``pg_get_indexdef`` etc.), that is used; for the rest, pg_dump is the reference.
"""
