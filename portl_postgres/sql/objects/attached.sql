-- What makes a table a partition of another.
SELECT 'pg_catalog.pg_class'::regclass::oid AS class,
       c.oid,
       'partition' AS kind,
       n.nspname::text AS schema,
       c.relname::text AS name,
       c.oid AS relation,
       ARRAY[format('ALTER TABLE ONLY %I.%I ATTACH PARTITION %I.%I %s', pn.nspname, p.relname, n.nspname, c.relname,
                    pg_catalog.pg_get_expr(c.relpartbound, c.oid))] AS statements
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = c.oid
  JOIN pg_catalog.pg_class AS p ON p.oid = i.inhparent
  JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.relnamespace
 WHERE c.relispartition AND c.relkind IN ('r', 'p')
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
