-- Row security policies, and whether row security is on.
SELECT 'pg_catalog.pg_policy'::regclass::oid AS class,
       p.oid,
       'policy' AS kind,
       n.nspname::text AS schema,
       format('%s on %s', p.polname, c.relname) AS name,
       c.oid AS relation,
       ARRAY[format('CREATE POLICY %I ON %I.%I%s%s TO %s%s%s', p.polname, n.nspname, c.relname,
                    CASE WHEN p.polpermissive THEN '' ELSE ' AS RESTRICTIVE' END,
                    CASE p.polcmd WHEN 'r' THEN ' FOR SELECT' WHEN 'a' THEN ' FOR INSERT' WHEN 'w' THEN ' FOR UPDATE'
                                  WHEN 'd' THEN ' FOR DELETE' ELSE '' END,
                    (SELECT string_agg(CASE WHEN r.oid = 0 THEN 'PUBLIC'
                                            ELSE quote_ident(pg_catalog.pg_get_userbyid(r.oid)) END, ', ' ORDER BY r.place)
                       FROM unnest(p.polroles) WITH ORDINALITY AS r(oid, place)),
                    CASE WHEN p.polqual IS NOT NULL
                         THEN format(' USING (%s)', pg_catalog.pg_get_expr(p.polqual, p.polrelid)) ELSE '' END,
                    CASE WHEN p.polwithcheck IS NOT NULL
                         THEN format(' WITH CHECK (%s)', pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))
                         ELSE '' END)] AS statements
  FROM pg_catalog.pg_policy AS p
  JOIN pg_catalog.pg_class AS c ON c.oid = p.polrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
UNION ALL
SELECT 'pg_catalog.pg_class'::regclass::oid,
       c.oid,
       'row security',
       n.nspname::text,
       c.relname::text,
       c.oid,
       array_remove(ARRAY[
           CASE WHEN c.relrowsecurity
                THEN format('ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY', n.nspname, c.relname) END,
           CASE WHEN c.relforcerowsecurity
                THEN format('ALTER TABLE ONLY %I.%I FORCE ROW LEVEL SECURITY', n.nspname, c.relname) END], NULL)
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND (c.relrowsecurity OR c.relforcerowsecurity)
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
UNION ALL
SELECT 'pg_catalog.pg_class'::regclass::oid,
       c.oid,
       'replica identity',
       n.nspname::text,
       c.relname::text,
       c.oid,
       ARRAY[format('ALTER TABLE ONLY %I.%I REPLICA IDENTITY %s', n.nspname, c.relname,
                    CASE c.relreplident WHEN 'f' THEN 'FULL' ELSE 'NOTHING' END)]
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND c.relreplident IN ('f', 'n')
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
