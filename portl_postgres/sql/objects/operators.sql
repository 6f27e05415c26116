-- Operators, and casts, which have no schema.
SELECT 'pg_catalog.pg_operator'::regclass::oid AS class,
       o.oid,
       'operator' AS kind,
       n.nspname::text AS schema,
       format('%s (%s, %s)', o.oprname, coalesce(pg_catalog.format_type(nullif(o.oprleft, 0), NULL), 'NONE'),
              pg_catalog.format_type(o.oprright, NULL)) AS name,
       0::oid AS relation,
       ARRAY[format('CREATE OPERATOR %I.%s (%s)', n.nspname, o.oprname, array_to_string(array_remove(ARRAY[
           format('FUNCTION = %s', o.oprcode::regproc),
           CASE WHEN o.oprleft <> 0 THEN format('LEFTARG = %s', pg_catalog.format_type(o.oprleft, NULL)) END,
           format('RIGHTARG = %s', pg_catalog.format_type(o.oprright, NULL)),
           CASE WHEN o.oprcom <> 0 THEN format('COMMUTATOR = OPERATOR(%s)', o.oprcom::regoper) END,
           CASE WHEN o.oprnegate <> 0 THEN format('NEGATOR = OPERATOR(%s)', o.oprnegate::regoper) END,
           CASE WHEN o.oprrest <> 0 THEN format('RESTRICT = %s', o.oprrest::regproc) END,
           CASE WHEN o.oprjoin <> 0 THEN format('JOIN = %s', o.oprjoin::regproc) END,
           CASE WHEN o.oprcanhash THEN 'HASHES' END,
           CASE WHEN o.oprcanmerge THEN 'MERGES' END], NULL), ', '))] AS statements
  FROM pg_catalog.pg_operator AS o
  JOIN pg_catalog.pg_namespace AS n ON n.oid = o.oprnamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND o.oprcode <> 0
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                    WHERE e.classid = 'pg_catalog.pg_operator'::regclass AND e.objid = o.oid AND e.deptype = 'e')
 UNION ALL
SELECT 'pg_catalog.pg_cast'::regclass::oid,
       c.oid,
       'cast',
       '',
       format('%s to %s', pg_catalog.format_type(c.castsource, NULL), pg_catalog.format_type(c.casttarget, NULL)),
       0::oid,
       ARRAY[format('CREATE CAST (%s AS %s) %s%s', pg_catalog.format_type(c.castsource, NULL),
                    pg_catalog.format_type(c.casttarget, NULL),
                    CASE c.castmethod WHEN 'i' THEN 'WITH INOUT' WHEN 'b' THEN 'WITHOUT FUNCTION'
                                      ELSE format('WITH FUNCTION %s', c.castfunc::regprocedure) END,
                    CASE c.castcontext WHEN 'a' THEN ' AS ASSIGNMENT' WHEN 'i' THEN ' AS IMPLICIT' ELSE '' END)]
  FROM pg_catalog.pg_cast AS c
 WHERE c.oid >= 16384
   -- A multirange type has a cast from its range of its own.
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                    WHERE e.classid = 'pg_catalog.pg_cast'::regclass AND e.objid = c.oid AND e.deptype IN ('e', 'i'))
