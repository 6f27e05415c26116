-- Defaults that need a function or an operator of the user's own, of tables and of views: set once those are there.
SELECT 'pg_catalog.pg_attrdef'::regclass::oid AS class,
       f.oid,
       'default' AS kind,
       n.nspname::text AS schema,
       format('%s.%s', c.relname, a.attname) AS name,
       c.oid AS relation,
       ARRAY[format('ALTER %s %I.%I ALTER COLUMN %I SET DEFAULT %s',
                    CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE ONLY' END, n.nspname, c.relname, a.attname,
                    pg_catalog.pg_get_expr(f.adbin, f.adrelid))] AS statements
  FROM pg_catalog.pg_attrdef AS f
  JOIN pg_catalog.pg_class AS c ON c.oid = f.adrelid AND c.relkind IN ('r', 'p', 'v') AND c.relpersistence <> 't'
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = f.adnum AND a.attgenerated = ''
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND (c.relkind = 'v'
        OR EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid
                      AND d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass)))
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
