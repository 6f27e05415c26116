-- The columns of one relation (its oid is $1), in order. Run it with search_path = pg_catalog, so that every name
-- outside pg_catalog is printed with its schema.
SELECT a.attname::text,
       a.atttypid,
       a.atttypmod,
       pg_catalog.format_type(a.atttypid, a.atttypmod),
       a.attnotnull,
       pg_catalog.pg_get_expr(d.adbin, d.adrelid),
       to_jsonb(a) ->> 'attidentity',
       coalesce(to_jsonb(a) ->> 'attgenerated', ''),
       CASE WHEN a.attcollation <> t.typcollation AND a.attcollation <> 0
            THEN (SELECT quote_ident(n.nspname) || '.' || quote_ident(k.collname)
                    FROM pg_catalog.pg_collation AS k
                    JOIN pg_catalog.pg_namespace AS n ON n.oid = k.collnamespace
                   WHERE k.oid = a.attcollation) END,
       pg_catalog.col_description(a.attrelid, a.attnum),
       -- What the default needs beyond built-in things: functions, sequences, types.
       ARRAY(SELECT CASE p.refclassid
                    WHEN 'pg_catalog.pg_proc'::regclass THEN 'function'
                    WHEN 'pg_catalog.pg_class'::regclass THEN 'relation'
                    WHEN 'pg_catalog.pg_type'::regclass THEN 'type'
                    ELSE 'other' END
               FROM pg_catalog.pg_depend AS p
              WHERE p.classid = 'pg_catalog.pg_attrdef'::regclass AND p.objid = d.oid
                AND p.refobjid <> a.attrelid),
       -- The columns that a generated column is made of.
       ARRAY(SELECT u.attname::text
               FROM pg_catalog.pg_depend AS p
               JOIN pg_catalog.pg_attribute AS u ON u.attrelid = p.refobjid AND u.attnum = p.refobjsubid
              WHERE p.refclassid = 'pg_catalog.pg_class'::regclass AND p.refobjid = a.attrelid
                AND p.refobjsubid <> a.attnum
                AND (p.classid = 'pg_catalog.pg_attrdef'::regclass AND p.objid = d.oid)),
       pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT'),
       pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'INSERT'),
       pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'UPDATE'),
       -- Whether the collation takes only identical texts for equal: all do before version 12.
       coalesce((SELECT (to_jsonb(k) ->> 'collisdeterministic')::boolean
                   FROM pg_catalog.pg_collation AS k WHERE k.oid = a.attcollation), true)
  FROM pg_catalog.pg_attribute AS a
  JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum
