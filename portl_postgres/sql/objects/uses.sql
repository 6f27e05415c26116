-- What objects use ($1: their classes and oids, as a query): a column of a table by its name, a table by its schema and
-- name, or something else of the database's own. The index of a constraint stands for the constraint.
SELECT DISTINCT g.class, g.oid,
       CASE WHEN k.oid IS NOT NULL THEN 'pg_catalog.pg_constraint'::regclass::oid
            ELSE coalesce(e.refclassid, d.refclassid) END AS used_class,
       coalesce(k.oid, e.refobjid, d.refobjid) AS used_oid,
       coalesce(a.attname::text, '') AS name_of_column,
       coalesce(n.nspname::text, '') AS schema,
       coalesce(c.relname::text, '') AS name
  FROM (SELECT o.class, o.oid, o.class AS by_class, o.oid AS by_oid FROM $1 AS o
        UNION ALL
        SELECT o.class, o.oid, 'pg_catalog.pg_class'::regclass::oid, x.conindid FROM $1 AS o
          JOIN pg_catalog.pg_constraint AS x ON o.class = 'pg_catalog.pg_constraint'::regclass AND x.oid = o.oid
           AND x.contype IN ('p', 'u', 'x')) AS g
  JOIN pg_catalog.pg_depend AS d ON d.classid = g.by_class AND d.objid = g.by_oid AND d.deptype IN ('n', 'a')
  LEFT JOIN pg_catalog.pg_depend AS e ON e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e'
  LEFT JOIN pg_catalog.pg_class AS c ON d.refclassid = 'pg_catalog.pg_class'::regclass AND c.oid = d.refobjid
   AND c.relkind IN ('r', 'p')
  LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_constraint AS k ON d.refclassid = 'pg_catalog.pg_class'::regclass AND k.conindid = d.refobjid
   AND k.contype IN ('p', 'u', 'x')
  LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid AND d.refobjsubid > 0
 WHERE d.refobjid >= 16384
