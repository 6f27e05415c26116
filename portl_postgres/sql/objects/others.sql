-- What is there besides, and is not carried over: for the plan to name.
SELECT x.class::regclass::oid AS class, x.oid, x.kind, x.schema::text, x.name::text, 0::oid AS relation, '{}'::text[]
  FROM (
    SELECT 'pg_catalog.pg_opclass' AS class, o.oid, 'operator class' AS kind, n.nspname AS schema, o.opcname::text AS name
      FROM pg_catalog.pg_opclass AS o JOIN pg_catalog.pg_namespace AS n ON n.oid = o.opcnamespace
    UNION ALL
    SELECT 'pg_catalog.pg_type', t.oid, 'base type', n.nspname, t.typname
      FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
     WHERE t.typtype = 'b' AND t.typelem = 0
    UNION ALL
    SELECT 'pg_catalog.pg_class', c.oid, 'foreign table', n.nspname, c.relname
      FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relkind = 'f'
    UNION ALL
    SELECT 'pg_catalog.pg_conversion', c.oid, 'conversion', n.nspname, c.conname
      FROM pg_catalog.pg_conversion AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.connamespace
    UNION ALL
    SELECT 'pg_catalog.pg_event_trigger', e.oid, 'event trigger', '', e.evtname FROM pg_catalog.pg_event_trigger AS e
    UNION ALL
    SELECT 'pg_catalog.pg_publication', p.oid, 'publication', '', p.pubname FROM pg_catalog.pg_publication AS p
    UNION ALL
    SELECT 'pg_catalog.pg_foreign_server', s.oid, 'foreign server', '', s.srvname FROM pg_catalog.pg_foreign_server AS s
    UNION ALL
    SELECT 'pg_catalog.pg_foreign_data_wrapper', w.oid, 'foreign-data wrapper', '', w.fdwname
      FROM pg_catalog.pg_foreign_data_wrapper AS w
    UNION ALL
    SELECT 'pg_catalog.pg_language', l.oid, 'language', '', l.lanname FROM pg_catalog.pg_language AS l WHERE l.oid >= 16384
  ) AS x
 WHERE x.schema !~ '^pg_' AND x.schema <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = x.class::regclass AND d.objid = x.oid AND d.deptype IN ('e', 'i'))
