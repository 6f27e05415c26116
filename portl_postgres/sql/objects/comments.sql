-- Comments, of every object that has one. class and oid are those of the object, or of what it is created with: a
-- composite type for its column, a domain for its constraint, a constraint for its index.
SELECT CASE WHEN t.oid IS NOT NULL OR k.contypid <> 0 THEN 'pg_catalog.pg_type'::regclass::oid
            WHEN x.oid IS NOT NULL THEN 'pg_catalog.pg_constraint'::regclass::oid ELSE d.classoid END AS class,
       coalesce(t.oid, nullif(k.contypid, 0), x.oid, d.objoid) AS oid,
       'comment' AS kind,
       '' AS schema,
       i.identity AS name,
       coalesce(k.conrelid, 0) AS relation,
       ARRAY[format('COMMENT ON %s %s IS %L',
                    CASE i.type
                         WHEN 'table column' THEN 'COLUMN' WHEN 'view column' THEN 'COLUMN'
                         WHEN 'materialized view column' THEN 'COLUMN' WHEN 'composite type column' THEN 'COLUMN'
                         WHEN 'composite type' THEN 'TYPE'
                         WHEN 'table constraint' THEN 'CONSTRAINT' WHEN 'domain constraint' THEN 'CONSTRAINT'
                         WHEN 'statistics object' THEN 'STATISTICS'
                         ELSE upper(i.type) END,
                    CASE WHEN i.type = 'domain constraint'
                         THEN regexp_replace(i.identity, ' on ', ' ON DOMAIN ')
                         WHEN i.type IN ('table constraint', 'trigger', 'rule', 'policy')
                         THEN regexp_replace(i.identity, ' on ', ' ON ') ELSE i.identity END,
                    d.description)] AS statements
  FROM pg_catalog.pg_description AS d
  LEFT JOIN pg_catalog.pg_class AS c
    ON d.classoid = 'pg_catalog.pg_class'::regclass AND c.oid = d.objoid AND c.relkind = 'c'
  LEFT JOIN pg_catalog.pg_type AS t ON t.typrelid = c.oid
  LEFT JOIN pg_catalog.pg_constraint AS k ON d.classoid = 'pg_catalog.pg_constraint'::regclass AND k.oid = d.objoid
  LEFT JOIN pg_catalog.pg_constraint AS x
    ON d.classoid = 'pg_catalog.pg_class'::regclass AND x.conindid = d.objoid AND x.contype IN ('p', 'u', 'x')
 CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classoid, d.objoid, d.objsubid) AS i
 WHERE d.objoid >= 16384 AND i.identity IS NOT NULL
   AND coalesce(i.schema, '') !~ '^pg_'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                    WHERE e.classid = d.classoid AND e.objid = d.objoid AND e.deptype = 'e')
