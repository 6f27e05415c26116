-- The unique indexes of one relation (its oid is $1) that an ON CONFLICT can name by columns: valid, neither partial
-- nor over expressions, nor WITHOUT OVERLAPS. The primary key comes first.
SELECT coalesce(k.conname, c.relname)::text,
       i.indisprimary,
       NOT i.indimmediate,
       coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false),
       ARRAY(SELECT a.attname::text
               FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS x(num, place)
               JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = x.num
              WHERE x.place <= i.indnkeyatts
              ORDER BY x.place)
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
  LEFT JOIN pg_catalog.pg_constraint AS k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u')
 WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
   AND NOT i.indisexclusion
 ORDER BY i.indisprimary DESC, 1
