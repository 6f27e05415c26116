-- The relations that a role may use, without system relations, partitions, temporary ones and portl's ledger.
-- $1  the privilege: SELECT or INSERT
SELECT n.nspname::text,
       c.relname::text,
       c.relkind::text,
       c.reltuples::float8
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND (to_jsonb(c) ->> 'relispartition') IS DISTINCT FROM 'true'
  AND n.nspname !~ '^pg_'
  AND n.nspname <> 'information_schema'
  AND coalesce(pg_catalog.obj_description(c.oid, 'pg_class'), '')
      !~ '^(portl''s ledger|the state of each chunk of portl''s runs)'
  AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
  AND pg_catalog.has_any_column_privilege(c.oid, $1)
ORDER BY n.nspname = 'public' DESC, n.nspname, c.relname
