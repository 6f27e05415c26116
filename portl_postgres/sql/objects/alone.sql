-- Constraints of tables that are created by themselves: every check, and the foreign keys that a parent hands down.
SELECT 'pg_catalog.pg_constraint'::regclass::oid AS class,
       k.oid,
       CASE k.contype WHEN 'f' THEN 'foreign key' ELSE 'check' END AS kind,
       n.nspname::text AS schema,
       format('%s on %s', k.conname, c.relname) AS name,
       c.oid AS relation,
       ARRAY[format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s', n.nspname, c.relname, k.conname,
                    pg_catalog.pg_get_constraintdef(k.oid))] AS statements
  FROM pg_catalog.pg_constraint AS k
  JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_constraint AS p ON p.oid = k.conparentid
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND (k.contype = 'c' OR (k.contype = 'f' AND k.conparentid <> 0 AND p.conrelid <> k.conrelid))
