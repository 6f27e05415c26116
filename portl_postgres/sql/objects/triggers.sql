-- Triggers, and whether they are on. Those that a partitioned table hands down come with it.
SELECT 'pg_catalog.pg_trigger'::regclass::oid AS class,
       t.oid,
       'trigger' AS kind,
       n.nspname::text AS schema,
       format('%s on %s', t.tgname, c.relname) AS name,
       c.oid AS relation,
       CASE WHEN j.parent = 0 THEN ARRAY[pg_catalog.pg_get_triggerdef(t.oid)] ELSE '{}' END
       || CASE WHEN t.tgenabled <> CASE WHEN j.parent = 0 THEN 'O' ELSE p.tgenabled END
               THEN ARRAY[format('ALTER TABLE %I.%I %s TRIGGER %I', n.nspname, c.relname,
                                 CASE t.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS'
                                                  WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE' END, t.tgname)]
               ELSE '{}' END AS statements
  FROM pg_catalog.pg_trigger AS t
 CROSS JOIN LATERAL (SELECT coalesce((pg_catalog.to_jsonb(t) ->> 'tgparentid')::oid, 0) AS parent) AS j
  LEFT JOIN pg_catalog.pg_trigger AS p ON p.oid = j.parent
  JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid AND c.relkind IN ('r', 'p', 'v') AND c.relpersistence <> 't'
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT t.tgisinternal
   AND (j.parent = 0 OR t.tgenabled <> p.tgenabled)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_trigger'::regclass AND d.objid = t.oid AND d.deptype = 'e')
