-- Functions, procedures, window functions and aggregates.
SELECT 'pg_catalog.pg_proc'::regclass::oid AS class,
       p.oid,
       CASE WHEN p.prokind = 'a' THEN 'aggregate' ELSE 'function' END AS kind,
       n.nspname::text AS schema,
       format('%s(%s)', p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)) AS name,
       0::oid AS relation,
       ARRAY[CASE WHEN p.prokind <> 'a' THEN pg_catalog.pg_get_functiondef(p.oid)
             ELSE format('CREATE AGGREGATE %I.%I(%s) (%s)', n.nspname, p.proname,
                  CASE WHEN a.aggkind = 'n' AND p.pronargs = 0 THEN '*'
                       ELSE pg_catalog.pg_get_function_arguments(p.oid) END,
                  array_to_string(array_remove(ARRAY[
                      format('SFUNC = %s', a.aggtransfn::regproc),
                      format('STYPE = %s', pg_catalog.format_type(a.aggtranstype, NULL)),
                      CASE WHEN a.aggtransspace <> 0 THEN format('SSPACE = %s', a.aggtransspace) END,
                      CASE WHEN a.agginitval IS NOT NULL THEN format('INITCOND = %L', a.agginitval) END,
                      CASE WHEN a.aggfinalfn <> 0 THEN format('FINALFUNC = %s', a.aggfinalfn::regproc) END,
                      CASE WHEN a.aggfinalextra THEN 'FINALFUNC_EXTRA' END,
                      CASE WHEN a.aggfinalfn <> 0 AND a.aggfinalmodify <> CASE WHEN a.aggkind = 'n' THEN 'r' ELSE 'w' END::"char"
                           THEN 'FINALFUNC_MODIFY = ' || CASE a.aggfinalmodify WHEN 'r' THEN 'READ_ONLY'
                                WHEN 's' THEN 'SHAREABLE' ELSE 'READ_WRITE' END END,
                      CASE WHEN a.aggcombinefn <> 0 THEN format('COMBINEFUNC = %s', a.aggcombinefn::regproc) END,
                      CASE WHEN a.aggserialfn <> 0 THEN format('SERIALFUNC = %s', a.aggserialfn::regproc) END,
                      CASE WHEN a.aggdeserialfn <> 0 THEN format('DESERIALFUNC = %s', a.aggdeserialfn::regproc) END,
                      CASE WHEN a.aggmtransfn <> 0 THEN format('MSFUNC = %s', a.aggmtransfn::regproc) END,
                      CASE WHEN a.aggminvtransfn <> 0 THEN format('MINVFUNC = %s', a.aggminvtransfn::regproc) END,
                      CASE WHEN a.aggmtranstype <> 0
                           THEN format('MSTYPE = %s', pg_catalog.format_type(a.aggmtranstype, NULL)) END,
                      CASE WHEN a.aggmtransspace <> 0 THEN format('MSSPACE = %s', a.aggmtransspace) END,
                      CASE WHEN a.aggmfinalfn <> 0 THEN format('MFINALFUNC = %s', a.aggmfinalfn::regproc) END,
                      CASE WHEN a.aggmfinalextra THEN 'MFINALFUNC_EXTRA' END,
                      CASE WHEN a.aggmfinalfn <> 0 AND a.aggmfinalmodify <> CASE WHEN a.aggkind = 'n' THEN 'r' ELSE 'w' END::"char"
                           THEN 'MFINALFUNC_MODIFY = ' || CASE a.aggmfinalmodify WHEN 'r' THEN 'READ_ONLY'
                                WHEN 's' THEN 'SHAREABLE' ELSE 'READ_WRITE' END END,
                      CASE WHEN a.aggminitval IS NOT NULL THEN format('MINITCOND = %L', a.aggminitval) END,
                      CASE WHEN a.aggsortop <> 0 THEN format('SORTOP = OPERATOR(%s)', a.aggsortop::regoper) END,
                      CASE WHEN a.aggkind = 'h' THEN 'HYPOTHETICAL' END,
                      CASE p.proparallel WHEN 's' THEN 'PARALLEL = SAFE' WHEN 'r' THEN 'PARALLEL = RESTRICTED' END
                  ], NULL), ', ')) END] AS statements
  FROM pg_catalog.pg_proc AS p
  JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
  LEFT JOIN pg_catalog.pg_aggregate AS a ON a.aggfnoid = p.oid
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   -- Those of extensions, and those that come with a range type.
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype IN ('e', 'i'))
