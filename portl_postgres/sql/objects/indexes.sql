-- Indexes, but for those that a constraint makes.
SELECT 'pg_catalog.pg_class'::regclass::oid AS class,
       x.oid,
       'index' AS kind,
       n.nspname::text AS schema,
       x.relname::text AS name,
       i.indrelid AS relation,
       ARRAY[pg_catalog.pg_get_indexdef(i.indexrelid)] AS statements
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid AND c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
  JOIN pg_catalog.pg_namespace AS n ON n.oid = x.relnamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND (i.indisvalid OR x.relkind = 'I')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS k
                    WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
UNION ALL
-- What tells a table's rows apart in a stream of changes, and by which index it was ordered; the targets of statistics
-- of an index's expressions.
SELECT CASE WHEN k.oid IS NULL THEN 'pg_catalog.pg_class' ELSE 'pg_catalog.pg_constraint' END::regclass::oid,
       coalesce(k.oid, x.oid),
       'index option',
       n.nspname::text,
       x.relname::text,
       i.indrelid,
       array_remove(ARRAY[
           CASE WHEN i.indisclustered
                THEN format('ALTER TABLE %I.%I CLUSTER ON %I', cn.nspname, c.relname, x.relname) END,
           CASE WHEN i.indisreplident
                THEN format('ALTER TABLE ONLY %I.%I REPLICA IDENTITY USING INDEX %I', cn.nspname, c.relname,
                            x.relname) END], NULL)
       || ARRAY(SELECT format('ALTER INDEX %I.%I ALTER COLUMN %s SET STATISTICS %s', n.nspname, x.relname, a.attnum,
                              pg_catalog.to_jsonb(a) ->> 'attstattarget')
                  FROM pg_catalog.pg_attribute AS a
                 WHERE a.attrelid = x.oid AND (pg_catalog.to_jsonb(a) ->> 'attstattarget')::int >= 0
                 ORDER BY a.attnum)
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid AND c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
  JOIN pg_catalog.pg_namespace AS n ON n.oid = x.relnamespace
  JOIN pg_catalog.pg_namespace AS cn ON cn.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_constraint AS k ON k.conindid = x.oid AND k.contype IN ('p', 'u', 'x')
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND (i.indisclustered OR i.indisreplident
        OR EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
                    WHERE a.attrelid = x.oid AND (pg_catalog.to_jsonb(a) ->> 'attstattarget')::int >= 0))
UNION ALL
-- An index of a partition that is part of its parent's.
SELECT CASE WHEN k.oid IS NULL THEN 'pg_catalog.pg_class' ELSE 'pg_catalog.pg_constraint' END::regclass::oid,
       coalesce(k.oid, x.oid),
       'index partition',
       n.nspname::text,
       x.relname::text,
       i.indrelid,
       ARRAY[format('ALTER INDEX %I.%I ATTACH PARTITION %I.%I', pn.nspname, p.relname, n.nspname, x.relname)]
  FROM pg_catalog.pg_inherits AS h
  JOIN pg_catalog.pg_class AS x ON x.oid = h.inhrelid AND x.relkind IN ('i', 'I')
  JOIN pg_catalog.pg_index AS i ON i.indexrelid = x.oid
  JOIN pg_catalog.pg_class AS p ON p.oid = h.inhparent
  JOIN pg_catalog.pg_namespace AS n ON n.oid = x.relnamespace
  JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.relnamespace
  LEFT JOIN pg_catalog.pg_constraint AS k ON k.conindid = x.oid AND k.contype IN ('p', 'u', 'x')
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
