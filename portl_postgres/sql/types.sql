-- The types with the oids $1 and every type they are made of: elements, base types, subtypes of ranges, attributes.
-- Run it with search_path = pg_catalog.
WITH RECURSIVE wanted AS (
    SELECT unnest($1::oid[]) AS oid
    UNION
    SELECT made_of.oid
      FROM wanted AS w
      JOIN pg_catalog.pg_type AS t ON t.oid = w.oid
     CROSS JOIN LATERAL (
           SELECT e.oid FROM pg_catalog.pg_type AS e WHERE e.oid = t.typelem AND e.typarray = t.oid
            UNION ALL SELECT t.typbasetype WHERE t.typbasetype <> 0
            UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range AS r WHERE r.rngtypid = t.oid
            UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute AS a
                       WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped
           ) AS made_of(oid)
)
SELECT t.oid,
       n.nspname::text,
       t.typname::text,
       -- With -1, not NULL: "bpchar" and "bit" without a length, where character and bit would mean a length of 1.
       pg_catalog.format_type(t.oid, -1),
       -- A true array is what its element names as its array: not a vector, nor a domain over an array.
       CASE WHEN e.oid IS NOT NULL THEN 'A' ELSE t.typtype::text END,
       coalesce(e.oid, 0::oid),
       t.typbasetype,
       t.typtypmod,
       coalesce(r.rngsubtype, 0::oid),
       t.typsend::oid <> 0 AND t.typreceive::oid <> 0,
       ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum AS e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder),
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
              WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped
              ORDER BY a.attnum),
       ARRAY(SELECT a.atttypid FROM pg_catalog.pg_attribute AS a
              WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped
              ORDER BY a.attnum),
       CASE WHEN t.typbasetype <> 0 THEN pg_catalog.format_type(t.typbasetype, t.typtypmod) END,
       ARRAY(SELECT pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute AS a
              WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped
              ORDER BY a.attnum),
       t.typnotnull,
       pg_catalog.pg_get_expr(t.typdefaultbin, 0),
       ARRAY(SELECT pg_catalog.pg_get_constraintdef(k.oid)
               FROM pg_catalog.pg_constraint AS k
              WHERE k.contypid = t.oid AND k.contype = 'c' AND k.convalidated
              ORDER BY k.conname),
       (SELECT x.extname::text
          FROM pg_catalog.pg_depend AS p
          JOIN pg_catalog.pg_extension AS x ON x.oid = p.refobjid
         WHERE p.classid = 'pg_catalog.pg_type'::regclass AND p.objid = t.oid AND p.deptype = 'e'
           AND p.refclassid = 'pg_catalog.pg_extension'::regclass
         LIMIT 1),
       t.typdelim::text
  FROM wanted AS w
  JOIN pg_catalog.pg_type AS t ON t.oid = w.oid
  LEFT JOIN pg_catalog.pg_type AS e ON e.oid = t.typelem AND e.typarray = t.oid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
  LEFT JOIN pg_catalog.pg_range AS r ON r.rngtypid = t.oid
