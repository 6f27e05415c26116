-- Constraints that are made after the rows: keys, exclusions, foreign keys, checks that are not valid or that need
-- something of the user's own. Those that a parent hands down come with the parent's.
SELECT 'pg_catalog.pg_constraint'::regclass::oid AS class,
       k.oid,
       CASE k.contype WHEN 'f' THEN 'foreign key' WHEN 'c' THEN 'check' WHEN 'x' THEN 'exclusion'
                      WHEN 'p' THEN 'primary key' ELSE 'unique' END AS kind,
       n.nspname::text AS schema,
       format('%s on %s', k.conname, c.relname) AS name,
       c.oid AS relation,
       ARRAY[format('ALTER TABLE %s%I.%I ADD CONSTRAINT %I %s',
                    -- A foreign key of a partitioned table is handed down to its partitions.
                    CASE WHEN k.contype = 'f' AND c.relkind = 'p' THEN '' ELSE 'ONLY ' END,
                    n.nspname, c.relname, k.conname, pg_catalog.pg_get_constraintdef(k.oid))
             || CASE WHEN k.contype = 'f' AND v.apart THEN ' NOT VALID' ELSE '' END] AS statements
  FROM pg_catalog.pg_constraint AS k
  JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
  LEFT JOIN pg_catalog.pg_class AS f ON f.oid = k.confrelid
 CROSS JOIN LATERAL (
     -- Of partitioned tables a foreign key that is not valid is refused, or not validated as a whole.
     SELECT k.convalidated AND c.relkind = 'r' AND f.relkind = 'r'
            AND coalesce((pg_catalog.to_jsonb(k) ->> 'conenforced')::boolean, true) AS apart) AS v
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND (k.contype IN ('p', 'u', 'x')
        OR (k.contype = 'f' AND k.conparentid = 0)
        OR (k.contype = 'c' AND (k.conislocal OR c.relispartition)
            AND (NOT k.convalidated
                 OR EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                             WHERE d.classid = 'pg_catalog.pg_constraint'::regclass AND d.objid = k.oid
                               AND d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass)))))
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
UNION ALL
-- Foreign keys are made without looking at rows, and validated by themselves: other tables are not locked meanwhile.
SELECT 'pg_catalog.pg_constraint'::regclass::oid,
       k.oid,
       'validation',
       n.nspname::text,
       format('%s on %s', k.conname, c.relname),
       c.oid,
       ARRAY[format('ALTER TABLE %I.%I VALIDATE CONSTRAINT %I', n.nspname, c.relname, k.conname)]
  FROM pg_catalog.pg_constraint AS k
  JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid AND c.relkind = 'r' AND c.relpersistence <> 't'
  JOIN pg_catalog.pg_class AS f ON f.oid = k.confrelid AND f.relkind = 'r'
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND k.contype = 'f' AND k.conparentid = 0 AND k.convalidated
   AND coalesce((pg_catalog.to_jsonb(k) ->> 'conenforced')::boolean, true)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
