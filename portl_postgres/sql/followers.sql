-- The tables whose foreign keys to a table (its oid is $1) change rows when a row there is deleted, and how.
SELECT DISTINCT c.conrelid::regclass::text, c.confdeltype::text
  FROM pg_catalog.pg_constraint AS c
 WHERE c.contype = 'f' AND c.confrelid = $1 AND c.confdeltype IN ('c', 'n', 'd')
 ORDER BY 1, 2
