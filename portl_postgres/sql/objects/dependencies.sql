-- Who needs whom, by class and oid: what needs something, whose part it is where it is made with that (a default or a
-- check with its table), and what it needs. The rule of a view stands for the view, an array for its element, a row
-- type for its table, the index of a constraint for the constraint, an extension for what is part of it.
SELECT DISTINCT a.class, a.oid, a.owner_class, a.owner_oid,
       coalesce(e.refclassid, b.class) AS needed_class, coalesce(e.refobjid, b.oid) AS needed_oid
  FROM pg_catalog.pg_depend AS d
  LEFT JOIN pg_catalog.pg_rewrite AS r
    ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = d.objid AND r.rulename = '_RETURN'
  LEFT JOIN pg_catalog.pg_attrdef AS f ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND f.oid = d.objid
  LEFT JOIN pg_catalog.pg_constraint AS ak ON d.classid = 'pg_catalog.pg_class'::regclass AND ak.conindid = d.objid
   AND ak.contype IN ('p', 'u', 'x')
  LEFT JOIN pg_catalog.pg_constraint AS bk ON d.refclassid = 'pg_catalog.pg_class'::regclass
   AND bk.conindid = d.refobjid AND bk.contype IN ('p', 'u', 'x')
  LEFT JOIN pg_catalog.pg_constraint AS k ON d.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = d.objid
   AND k.contype = 'c'
 CROSS JOIN LATERAL (
     SELECT CASE WHEN r.oid IS NOT NULL THEN 'pg_catalog.pg_class'::regclass::oid
                 WHEN ak.oid IS NOT NULL THEN 'pg_catalog.pg_constraint'::regclass::oid ELSE d.classid END AS class,
            coalesce(r.ev_class, ak.oid, d.objid) AS oid,
            CASE WHEN k.contypid <> 0 THEN 'pg_catalog.pg_type'::regclass::oid
                 ELSE 'pg_catalog.pg_class'::regclass::oid END AS owner_class,
            coalesce(f.adrelid, nullif(k.contypid, 0), nullif(k.conrelid, 0), 0) AS owner_oid) AS a
  LEFT JOIN pg_catalog.pg_type AS given ON d.refclassid = 'pg_catalog.pg_type'::regclass AND given.oid = d.refobjid
  LEFT JOIN pg_catalog.pg_type AS t
    ON t.oid = CASE WHEN given.typelem <> 0 AND given.typlen = -1 THEN given.typelem ELSE given.oid END
  LEFT JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid
 CROSS JOIN LATERAL (
     SELECT CASE WHEN c.relkind <> 'c' THEN 'pg_catalog.pg_class'::regclass::oid
                 WHEN bk.oid IS NOT NULL THEN 'pg_catalog.pg_constraint'::regclass::oid ELSE d.refclassid END AS class,
            CASE WHEN c.relkind <> 'c' THEN t.typrelid ELSE coalesce(bk.oid, t.oid, d.refobjid) END AS oid) AS b
  LEFT JOIN pg_catalog.pg_depend AS e ON e.classid = b.class AND e.objid = b.oid AND e.deptype = 'e'
 WHERE d.deptype IN ('n', 'a', 'i', 'P', 'S')
   AND d.refobjid >= 16384 AND d.objid >= 16384
   AND (a.class, a.oid) <> (b.class, b.oid)
   -- A sequence is dropped with its column, and made before its table.
   AND NOT (d.deptype = 'a' AND d.classid = 'pg_catalog.pg_class'::regclass AND d.refobjsubid > 0)
