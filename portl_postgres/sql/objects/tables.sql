-- Tables and partitioned tables: columns, defaults and checks that need nothing of the user's own, storage, options.
-- What needs more comes later (defaults.sql, checks.sql). A partition is made as a table and attached (attached.sql).
WITH own AS (
    SELECT c.*, n.nspname, pg_catalog.to_jsonb(c) AS j
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
       AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                        WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
), plain AS (  -- defaults and checks that need nothing but columns of their own, sequences, and what the system has
    SELECT o.classid, o.oid
      FROM (SELECT 'pg_catalog.pg_attrdef'::regclass::oid AS classid, oid FROM pg_catalog.pg_attrdef
            UNION ALL
            SELECT 'pg_catalog.pg_constraint'::regclass::oid, oid FROM pg_catalog.pg_constraint WHERE contype = 'c') AS o
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                        WHERE d.classid = o.classid AND d.objid = o.oid
                          AND d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass))
), columns AS (
    SELECT c.oid AS relation, a.attnum, c.reloftype <> 0 AS typed,
           format('%I', a.attname)
           || CASE WHEN c.reloftype <> 0 THEN ' WITH OPTIONS'
                   ELSE ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod) END
           || CASE WHEN a.attcollation NOT IN (0, t.typcollation)
                   THEN format(' COLLATE %I.%I', ln.nspname, l.collname) ELSE '' END
           || CASE WHEN a.attgenerated <> ''
                   THEN format(' GENERATED ALWAYS AS (%s)%s', pg_catalog.pg_get_expr(f.adbin, f.adrelid),
                               CASE WHEN a.attgenerated = 's' THEN ' STORED' ELSE ' VIRTUAL' END)
                   WHEN a.attidentity <> ''
                   THEN format(' GENERATED %s AS IDENTITY (SEQUENCE NAME %I.%I START WITH %s INCREMENT BY %s'
                               ' MINVALUE %s MAXVALUE %s CACHE %s%s)',
                               CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END,
                               sn.nspname, sc.relname, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
                               CASE WHEN s.seqcycle THEN ' CYCLE' ELSE '' END)
                   WHEN p.oid IS NOT NULL THEN ' DEFAULT ' || pg_catalog.pg_get_expr(f.adbin, f.adrelid)
                   ELSE '' END
           -- What a parent hands down is said again for a partition alone.
           || CASE WHEN a.attnotnull AND (c.relispartition OR CASE WHEN nn.oid IS NOT NULL THEN nn.conislocal ELSE NOT EXISTS (
                            SELECT FROM pg_catalog.pg_inherits AS i
                              JOIN pg_catalog.pg_attribute AS pa ON pa.attrelid = i.inhparent
                             WHERE i.inhrelid = c.oid AND pa.attname = a.attname AND pa.attnotnull) END)
                   THEN CASE WHEN nn.oid IS NOT NULL THEN format(' CONSTRAINT %I', nn.conname) ELSE '' END
                        || ' NOT NULL'
                        || CASE WHEN nn.connoinherit THEN ' NO INHERIT' ELSE '' END ELSE '' END AS text
      FROM own AS c
      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
      LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = a.attcollation
      LEFT JOIN pg_catalog.pg_namespace AS ln ON ln.oid = l.collnamespace
      LEFT JOIN pg_catalog.pg_attrdef AS f ON f.adrelid = c.oid AND f.adnum = a.attnum
      LEFT JOIN plain AS p ON p.classid = 'pg_catalog.pg_attrdef'::regclass AND p.oid = f.oid
      LEFT JOIN pg_catalog.pg_depend AS d ON a.attidentity <> '' AND d.classid = 'pg_catalog.pg_class'::regclass
       AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid = a.attnum
       AND d.deptype = 'i'
      LEFT JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = d.objid
      LEFT JOIN pg_catalog.pg_class AS sc ON sc.oid = s.seqrelid
      LEFT JOIN pg_catalog.pg_namespace AS sn ON sn.oid = sc.relnamespace
      -- From version 18 on NOT NULL is a constraint with a name.
      LEFT JOIN pg_catalog.pg_constraint AS nn ON nn.conrelid = c.oid AND nn.contype = 'n' AND nn.conkey = ARRAY[a.attnum]
     WHERE a.attislocal OR c.relispartition
), checks AS (
    SELECT k.conrelid AS relation, k.conname,
           format('CONSTRAINT %I %s', k.conname, pg_catalog.pg_get_constraintdef(k.oid)) AS text
      FROM pg_catalog.pg_constraint AS k
      JOIN own AS c ON c.oid = k.conrelid
      JOIN plain AS p ON p.classid = 'pg_catalog.pg_constraint'::regclass AND p.oid = k.oid
     WHERE k.contype = 'c' AND k.convalidated AND (k.conislocal OR c.relispartition)
), bodies AS (
    SELECT x.relation, string_agg(x.text, ', ' ORDER BY x.rank, x.place, x.name) AS text
      FROM (SELECT k.relation, 1 AS rank, k.attnum::int AS place, '' AS name, k.text FROM columns AS k
             WHERE NOT (k.typed AND k.text ~ ' WITH OPTIONS$')
             UNION ALL
            SELECT k.relation, 2, 0, k.conname::text, k.text FROM checks AS k) AS x
     GROUP BY x.relation
), options AS (
    SELECT x.relation, string_agg(format('%s=%L', split_part(x.text, '=', 1), substr(x.text, strpos(x.text, '=') + 1)), ', '
                                  ORDER BY x.prefix, x.place) AS text
      FROM (SELECT c.oid AS relation, '' AS prefix, o.text, o.place
              FROM own AS c CROSS JOIN LATERAL unnest(c.reloptions) WITH ORDINALITY AS o(text, place)
            UNION ALL
            SELECT c.oid, 'toast.', 'toast.' || o.text, o.place
              FROM own AS c JOIN pg_catalog.pg_class AS t ON t.oid = c.reltoastrelid
             CROSS JOIN LATERAL unnest(t.reloptions) WITH ORDINALITY AS o(text, place)) AS x
     GROUP BY x.relation
)
SELECT 'pg_catalog.pg_class'::regclass::oid AS class,
       c.oid,
       'table' AS kind,
       c.nspname::text AS schema,
       c.relname::text AS name,
       c.oid AS relation,
       ARRAY[
           format('CREATE %sTABLE %I.%I %s%s%s%s%s%s',
                  CASE WHEN c.relpersistence = 'u' THEN 'UNLOGGED ' ELSE '' END, c.nspname, c.relname,
                  CASE WHEN c.reloftype <> 0 THEN format('OF %s ', pg_catalog.format_type(c.reloftype, NULL)) ELSE '' END,
                  CASE WHEN c.reloftype <> 0 AND body.text IS NULL THEN '' ELSE format('(%s)', body.text) END,
                  CASE WHEN NOT c.relispartition AND parents.text IS NOT NULL
                       THEN format(' INHERITS (%s)', parents.text) ELSE '' END,
                  CASE WHEN c.relkind = 'p' THEN ' PARTITION BY ' || pg_catalog.pg_get_partkeydef(c.oid) ELSE '' END,
                  CASE WHEN am.amname <> 'heap' THEN format(' USING %I', am.amname) ELSE '' END,
                  CASE WHEN o.text IS NOT NULL THEN format(' WITH (%s)', o.text) ELSE '' END)
       ] || ARRAY(
           SELECT format('ALTER TABLE ONLY %I.%I ALTER COLUMN %I SET %s', c.nspname, c.relname, a.attname, x.text)
             FROM pg_catalog.pg_attribute AS a
             JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
            CROSS JOIN LATERAL (VALUES
                (CASE WHEN a.attstorage <> t.typstorage
                      THEN 'STORAGE ' || CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL'
                                              WHEN 'x' THEN 'EXTENDED' ELSE 'MAIN' END END),
                (CASE pg_catalog.to_jsonb(a) ->> 'attcompression'
                      WHEN 'p' THEN 'COMPRESSION pglz' WHEN 'l' THEN 'COMPRESSION lz4' END),
                (CASE WHEN (pg_catalog.to_jsonb(a) ->> 'attstattarget')::int >= 0
                      THEN 'STATISTICS ' || (pg_catalog.to_jsonb(a) ->> 'attstattarget') END),
                (CASE WHEN a.attoptions IS NOT NULL
                      THEN format('(%s)', array_to_string(a.attoptions, ', ')) END)) AS x(text)
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND x.text IS NOT NULL
            ORDER BY a.attnum
       ) || ARRAY(  -- an inherited column's own default, and NOT NULL that the parent does not have
           SELECT format('ALTER TABLE ONLY %I.%I ALTER COLUMN %I SET DEFAULT %s', c.nspname, c.relname, a.attname,
                         pg_catalog.pg_get_expr(f.adbin, f.adrelid))
             FROM pg_catalog.pg_attribute AS a
             JOIN pg_catalog.pg_attrdef AS f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
             JOIN plain AS p ON p.classid = 'pg_catalog.pg_attrdef'::regclass AND p.oid = f.oid
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
              AND NOT (a.attislocal OR c.relispartition)
              AND pg_catalog.pg_get_expr(f.adbin, f.adrelid) IS DISTINCT FROM (
                  SELECT pg_catalog.pg_get_expr(pf.adbin, pf.adrelid)
                    FROM pg_catalog.pg_inherits AS i
                    JOIN pg_catalog.pg_attribute AS pa ON pa.attrelid = i.inhparent AND pa.attname = a.attname
                    JOIN pg_catalog.pg_attrdef AS pf ON pf.adrelid = pa.attrelid AND pf.adnum = pa.attnum
                   WHERE i.inhrelid = c.oid ORDER BY i.inhseqno LIMIT 1)
            ORDER BY a.attnum
       ) AS statements
  FROM own AS c
  LEFT JOIN pg_catalog.pg_am AS am ON am.oid = c.relam
  LEFT JOIN options AS o ON o.relation = c.oid
  LEFT JOIN bodies AS body ON body.relation = c.oid
 CROSS JOIN LATERAL (
     SELECT string_agg(format('%I.%I', pn.nspname, p.relname), ', ' ORDER BY i.inhseqno) AS text
       FROM pg_catalog.pg_inherits AS i
       JOIN pg_catalog.pg_class AS p ON p.oid = i.inhparent
       JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.relnamespace
      WHERE i.inhrelid = c.oid) AS parents
