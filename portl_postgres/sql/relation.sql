-- One relation by schema ($1) and name ($2): what it is, how large, and what the current role may do with it. Run it
-- with search_path = pg_catalog, so that every name is printed with its schema.
SELECT c.oid,
       c.relkind::text,
       pg_catalog.row_security_active(c.oid),
       c.reltuples::float8,
       pg_catalog.obj_description(c.oid, 'pg_class'),
       pg_catalog.has_table_privilege(c.oid, 'SELECT') OR pg_catalog.has_any_column_privilege(c.oid, 'SELECT'),
       ARRAY(SELECT i.inhrelid::regclass::text
               FROM pg_catalog.pg_inherits AS i
              WHERE i.inhparent = c.oid AND c.relkind = 'r'
              ORDER BY 1),
       ARRAY(SELECT t.tgname::text
               FROM pg_catalog.pg_trigger AS t
              WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
              ORDER BY t.tgname),
       ARRAY(SELECT r.rulename::text
               FROM pg_catalog.pg_rewrite AS r
              WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN' AND r.ev_enabled IN ('O', 'A')
              ORDER BY r.rulename),
       (SELECT count(*) FROM pg_catalog.pg_constraint AS k WHERE k.conrelid = c.oid AND k.contype = 'f')
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
