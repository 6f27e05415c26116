-- Collations of the user's own. Columns that a version lacks are read through JSON.
SELECT 'pg_catalog.pg_collation'::regclass::oid AS class,
       l.oid,
       'collation' AS kind,
       n.nspname::text AS schema,
       l.collname::text AS name,
       0::oid AS relation,
       ARRAY[format('CREATE COLLATION %I.%I (provider = %s%s%s%s)', n.nspname, l.collname,
                    CASE l.collprovider WHEN 'c' THEN 'libc' WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin'
                                        ELSE 'default' END,
                    CASE WHEN NOT l.collisdeterministic THEN ', deterministic = false' ELSE '' END,
                    CASE WHEN coalesce(j.row ->> 'colllocale', j.row ->> 'colliculocale') IS NOT NULL
                         THEN format(', locale = %L', coalesce(j.row ->> 'colllocale', j.row ->> 'colliculocale'))
                         ELSE format(', lc_collate = %L, lc_ctype = %L', j.row ->> 'collcollate',
                                     j.row ->> 'collctype') END,
                    CASE WHEN j.row ->> 'collicurules' IS NOT NULL
                         THEN format(', rules = %L', j.row ->> 'collicurules') ELSE '' END)] AS statements
  FROM pg_catalog.pg_collation AS l
  JOIN pg_catalog.pg_namespace AS n ON n.oid = l.collnamespace
 CROSS JOIN LATERAL pg_catalog.to_jsonb(l) AS j(row)
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_collation'::regclass AND d.objid = l.oid AND d.deptype = 'e')
