-- Enums, domains, composite types and ranges. A base type is C code and comes with an extension, or not at all.
WITH own AS (
    SELECT t.*, n.nspname
      FROM pg_catalog.pg_type AS t
      JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
     WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                        WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
), made AS (
    SELECT t.oid, t.nspname, t.typname,
           format('CREATE TYPE %I.%I AS ENUM (%s)', t.nspname, t.typname,
                  (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
                     FROM pg_catalog.pg_enum AS e WHERE e.enumtypid = t.oid)) AS statement
      FROM own AS t
     WHERE t.typtype = 'e'
    UNION ALL
    SELECT t.oid, t.nspname, t.typname,
           format('CREATE TYPE %I.%I AS (%s)', t.nspname, t.typname,
                  (SELECT string_agg(format('%I %s%s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
                                            CASE WHEN a.attcollation NOT IN (0, b.typcollation)
                                                 THEN format(' COLLATE %I.%I', ln.nspname, l.collname) ELSE '' END),
                                     ', ' ORDER BY a.attnum)
                     FROM pg_catalog.pg_attribute AS a
                     JOIN pg_catalog.pg_type AS b ON b.oid = a.atttypid
                     LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = a.attcollation
                     LEFT JOIN pg_catalog.pg_namespace AS ln ON ln.oid = l.collnamespace
                    WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped))
      FROM own AS t
      JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid AND c.relkind = 'c'
     WHERE t.typtype = 'c'
    UNION ALL
    SELECT t.oid, t.nspname, t.typname,
           format('CREATE DOMAIN %I.%I AS %s%s%s%s%s', t.nspname, t.typname,
                  pg_catalog.format_type(t.typbasetype, t.typtypmod),
                  CASE WHEN t.typcollation NOT IN (0, b.typcollation)
                       THEN format(' COLLATE %I.%I', ln.nspname, l.collname) ELSE '' END,
                  CASE WHEN t.typdefault IS NOT NULL
                       THEN ' DEFAULT ' || coalesce(pg_catalog.pg_get_expr(t.typdefaultbin, 0),
                                                    quote_literal(t.typdefault)) ELSE '' END,
                  CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END,
                  (SELECT coalesce(string_agg(format(' CONSTRAINT %I %s', k.conname,
                                                     pg_catalog.pg_get_constraintdef(k.oid)), '' ORDER BY k.conname), '')
                     FROM pg_catalog.pg_constraint AS k
                    WHERE k.contypid = t.oid AND k.contype = 'c' AND k.convalidated))
      FROM own AS t
      JOIN pg_catalog.pg_type AS b ON b.oid = t.typbasetype
      LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = t.typcollation
      LEFT JOIN pg_catalog.pg_namespace AS ln ON ln.oid = l.collnamespace
     WHERE t.typtype = 'd'
    UNION ALL
    SELECT t.oid, t.nspname, t.typname,
           format('CREATE TYPE %I.%I AS RANGE (subtype = %s, subtype_opclass = %I.%I%s%s%s%s)', t.nspname, t.typname,
                  pg_catalog.format_type(r.rngsubtype, NULL), oc_n.nspname, oc.opcname,
                  CASE WHEN r.rngcollation NOT IN (0, b.typcollation)
                       THEN format(', collation = %I.%I', ln.nspname, l.collname) ELSE '' END,
                  CASE WHEN r.rngcanonical <> 0 THEN ', canonical = ' || r.rngcanonical::text ELSE '' END,
                  CASE WHEN r.rngsubdiff <> 0 THEN ', subtype_diff = ' || r.rngsubdiff::text ELSE '' END,
                  coalesce((SELECT format(', multirange_type_name = %I.%I', t.nspname, m.typname)
                              FROM pg_catalog.pg_type AS m
                             WHERE m.oid = (pg_catalog.to_jsonb(r) ->> 'rngmultitypid')::oid), ''))
      FROM own AS t
      JOIN pg_catalog.pg_range AS r ON r.rngtypid = t.oid
      JOIN pg_catalog.pg_type AS b ON b.oid = r.rngsubtype
      JOIN pg_catalog.pg_opclass AS oc ON oc.oid = r.rngsubopc
      JOIN pg_catalog.pg_namespace AS oc_n ON oc_n.oid = oc.opcnamespace
      LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = r.rngcollation
      LEFT JOIN pg_catalog.pg_namespace AS ln ON ln.oid = l.collnamespace
     WHERE t.typtype = 'r'
)
SELECT 'pg_catalog.pg_type'::regclass::oid AS class,
       oid,
       'type' AS kind,
       nspname::text AS schema,
       typname::text AS name,
       0::oid AS relation,
       ARRAY[statement] || ARRAY(
           SELECT format('ALTER DOMAIN %I.%I ADD CONSTRAINT %I %s', nspname, typname, k.conname,
                         pg_catalog.pg_get_constraintdef(k.oid))
             FROM pg_catalog.pg_constraint AS k
            WHERE k.contypid = made.oid AND k.contype = 'c' AND NOT k.convalidated
            ORDER BY k.conname) AS statements
  FROM made
