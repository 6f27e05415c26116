-- The unique indexes of one relation (its oid is $1), the primary key first; and why an ON CONFLICT cannot name an index
-- by its columns.
SELECT coalesce(k.conname, c.relname)::text,
       i.indisprimary,
       NOT i.indimmediate,
       coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false),
       ARRAY(SELECT coalesce(a.attname::text, pg_catalog.pg_get_indexdef(i.indexrelid, x.place::int, true))
               FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS x(num, place)
               LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = x.num AND x.num <> 0
              WHERE x.place <= i.indnkeyatts
              ORDER BY x.place),
       CASE WHEN i.indisexclusion THEN 'is WITHOUT OVERLAPS: it compares by overlap, not by equality'
            WHEN i.indpred IS NOT NULL THEN 'applies only WHERE ' || pg_catalog.pg_get_expr(i.indpred, i.indrelid)
            WHEN i.indexprs IS NOT NULL THEN 'is over an expression'
            WHEN NOT i.indisvalid THEN 'is invalid until it is built again' END
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
  -- conrelid has an index, conindid has none
  LEFT JOIN pg_catalog.pg_constraint AS k
    ON k.conrelid = i.indrelid AND k.conindid = i.indexrelid AND k.contype IN ('p', 'u')
 WHERE i.indrelid = $1 AND i.indisunique
 ORDER BY i.indisprimary DESC, 1
