"""What a database holds beside its rows, and the statements that create it, in the order of what needs what.

Imports ``catalog`` and what lies below. ``reading`` reads the catalogs by queries whose number does not grow with the
tables (``sql/objects``); ``making`` executes the statements at the destination. Wherever the server has words of its
own for a statement (``pg_get_indexdef`` and its like) they are used; for the rest, what pg_dump does is the reference.
"""
