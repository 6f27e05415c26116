-- Views and materialized views; the latter are made empty, and refreshed when their tables have their rows.
SELECT 'pg_catalog.pg_class'::regclass::oid AS class,
       c.oid,
       CASE c.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END AS kind,
       n.nspname::text AS schema,
       c.relname::text AS name,
       c.oid AS relation,
       ARRAY[format('CREATE %sVIEW %I.%I%s AS%s%s%s', CASE c.relkind WHEN 'v' THEN '' ELSE 'MATERIALIZED ' END,
                    n.nspname, c.relname,
                    CASE WHEN am.amname <> 'heap' THEN format(' USING %I', am.amname) ELSE '' END
                    || CASE WHEN o.text IS NOT NULL THEN format(' WITH (%s)', o.text) ELSE '' END,
                    E'\n', rtrim(pg_catalog.pg_get_viewdef(c.oid), E'; \n'),
                    CASE WHEN c.relkind = 'm' THEN E'\n  WITH NO DATA'
                         WHEN 'check_option=local' = ANY (c.reloptions) THEN E'\n  WITH LOCAL CHECK OPTION'
                         WHEN 'check_option=cascaded' = ANY (c.reloptions) THEN E'\n  WITH CASCADED CHECK OPTION'
                         ELSE '' END)] AS statements
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_am AS am ON am.oid = c.relam
 CROSS JOIN LATERAL (
     SELECT string_agg(format('%s=%L', split_part(x.text, '=', 1), substr(x.text, strpos(x.text, '=') + 1)), ', '
                       ORDER BY x.place) AS text
       FROM unnest(c.reloptions) WITH ORDINALITY AS x(text, place)
      WHERE x.text !~ '^check_option=') AS o
 WHERE c.relkind IN ('v', 'm') AND c.relpersistence <> 't'
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
UNION ALL
SELECT 'pg_catalog.pg_class'::regclass::oid,
       c.oid,
       'refresh',
       n.nspname::text,
       c.relname::text,
       c.oid,
       ARRAY[format('REFRESH MATERIALIZED VIEW %I.%I', n.nspname, c.relname)]
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind = 'm' AND c.relispopulated
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
