-- The unique keys of one relation (its oid is $1) that its rows can be ranged by, the best first: no NULLs, checked at
-- once, and an index in the very order that ORDER BY means, under the columns' own collations.
WITH RECURSIVE root(type, base) AS (
    SELECT DISTINCT a.atttypid, a.atttypid FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = $1 AND a.attnum > 0
     UNION
    SELECT r.type, t.typbasetype
      FROM root AS r
      JOIN pg_catalog.pg_type AS t ON t.oid = r.base
     WHERE t.typtype = 'd'
)
SELECT array_agg(a.attname::text ORDER BY x.place)
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_am AS m ON m.oid = c.relam AND m.amname = 'btree'
 CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[], i.indcollation::oid[], i.indoption::int2[])
            WITH ORDINALITY AS x(num, class, coll, option, place)
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = x.num
  JOIN root AS r ON r.type = a.atttypid
  JOIN pg_catalog.pg_type AS t ON t.oid = r.base AND t.typtype <> 'd'
  JOIN pg_catalog.pg_opclass AS o ON o.oid = x.class
 WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate
   AND i.indpred IS NULL AND i.indexprs IS NULL AND NOT i.indisexclusion
   AND x.place <= i.indnkeyatts
 GROUP BY i.indexrelid, i.indisprimary, i.indnkeyatts
HAVING count(*) = i.indnkeyatts
   AND bool_and(a.attnotnull AND pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT')
                -- The collation and the operator class of ORDER BY: any other class may call other values equal.
                AND x.coll = a.attcollation
                AND o.opcdefault
                AND (o.opcintype = t.oid
                     OR NOT EXISTS (SELECT FROM pg_catalog.pg_opclass AS d
                                     WHERE d.opcmethod = m.oid AND d.opcdefault AND d.opcintype = t.oid))
                -- Their texts depend on settings, or on which names are in sight.
                AND t.typname <> 'money' AND t.typname NOT LIKE 'reg%'
                -- Under SQL_ASCII a text may hold bytes that cannot be written down.
                AND (t.typcollation = 0 OR current_setting('server_encoding') <> 'SQL_ASCII'))
   AND (bool_and(x.option = 0) OR bool_and(x.option = 3))
 ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid
