-- Extensions, but for plpgsql, which every database has.
SELECT 'pg_catalog.pg_extension'::regclass::oid AS class,
       e.oid,
       'extension' AS kind,
       n.nspname::text AS schema,
       e.extname::text AS name,
       0::oid AS relation,
       ARRAY[format('CREATE EXTENSION IF NOT EXISTS %I WITH SCHEMA %I', e.extname, n.nspname)] AS statements
  FROM pg_catalog.pg_extension AS e
  JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
 WHERE e.extname <> 'plpgsql'
