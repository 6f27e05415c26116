-- Where sequences are: those that stand alone or belong to a serial column, and those of identity columns, which are
-- created with their tables. Instead of a statement, each has its qualified name.
SELECT 'pg_catalog.pg_class'::regclass::oid AS class,
       CASE WHEN i.refobjid IS NULL THEN c.oid ELSE i.refobjid END AS oid,
       'position' AS kind,
       n.nspname::text AS schema,
       c.relname::text AS name,
       coalesce(i.refobjid, c.oid) AS relation,
       ARRAY[format('%I.%I', n.nspname, c.relname)] AS statements
  FROM pg_catalog.pg_sequence AS s
  JOIN pg_catalog.pg_class AS c ON c.oid = s.seqrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_depend AS i ON i.classid = 'pg_catalog.pg_class'::regclass AND i.objid = c.oid
   AND i.refclassid = 'pg_catalog.pg_class'::regclass AND i.refobjsubid > 0 AND i.deptype = 'i'
 WHERE c.relpersistence <> 't'
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND pg_catalog.has_sequence_privilege(s.seqrelid, 'SELECT')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
