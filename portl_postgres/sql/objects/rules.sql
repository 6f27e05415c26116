-- Rules, but for those that make a view, and whether they are on.
SELECT 'pg_catalog.pg_rewrite'::regclass::oid AS class,
       r.oid,
       'rule' AS kind,
       n.nspname::text AS schema,
       format('%s on %s', r.rulename, c.relname) AS name,
       c.oid AS relation,
       ARRAY[rtrim(pg_catalog.pg_get_ruledef(r.oid), ';')]
       || CASE WHEN r.ev_enabled <> 'O'
               THEN ARRAY[format('ALTER TABLE %I.%I %s RULE %I', n.nspname, c.relname,
                                 CASE r.ev_enabled WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS'
                                                   ELSE 'ENABLE REPLICA' END, r.rulename)]
               ELSE '{}' END AS statements
  FROM pg_catalog.pg_rewrite AS r
  JOIN pg_catalog.pg_class AS c ON c.oid = r.ev_class AND c.relpersistence <> 't'
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND r.rulename <> '_RETURN'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
