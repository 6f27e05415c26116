-- The relations of a database for a job of many tables, whether the role may read them or not: without those of the
-- system and of extensions, partitions, temporary ones and portl's ledger.
SELECT n.nspname::text,
       c.relname::text,
       c.relkind::text,
       c.reltuples::float8
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
   AND NOT c.relispartition
   AND n.nspname !~ '^pg_'
   AND n.nspname <> 'information_schema'
   AND coalesce(pg_catalog.obj_description(c.oid, 'pg_class'), '')
       !~ '^(portl''s ledger|the state of each chunk of portl''s runs)'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY n.nspname = 'public' DESC, n.nspname, c.relname
