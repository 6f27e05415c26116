-- Schemas: all but those of the system and of extensions. $1 restricts them to these names; null: all.
SELECT 'pg_catalog.pg_namespace'::regclass::oid AS class,
       n.oid,
       'schema' AS kind,
       n.nspname::text AS schema,
       n.nspname::text AS name,
       0::oid AS relation,
       ARRAY[format('CREATE SCHEMA IF NOT EXISTS %I', n.nspname)] AS statements
  FROM pg_catalog.pg_namespace AS n
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')
