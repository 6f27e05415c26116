-- Extended statistics.
SELECT 'pg_catalog.pg_statistic_ext'::regclass::oid AS class,
       s.oid,
       'statistics' AS kind,
       n.nspname::text AS schema,
       s.stxname::text AS name,
       s.stxrelid AS relation,
       array_remove(ARRAY[
           pg_catalog.pg_get_statisticsobjdef(s.oid),
           CASE WHEN (pg_catalog.to_jsonb(s) ->> 'stxstattarget')::int >= 0
                THEN format('ALTER STATISTICS %I.%I SET STATISTICS %s', n.nspname, s.stxname,
                            pg_catalog.to_jsonb(s) ->> 'stxstattarget') END], NULL) AS statements
  FROM pg_catalog.pg_statistic_ext AS s
  JOIN pg_catalog.pg_namespace AS n ON n.oid = s.stxnamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
