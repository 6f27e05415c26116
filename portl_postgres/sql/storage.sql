-- The size of one relation (its oid is $1) with its partitions and children, and whether it can be cut by blocks.
WITH RECURSIVE tree(oid) AS (
    SELECT $1::oid
     UNION
    SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i JOIN tree AS t ON t.oid = i.inhparent
), part AS (
    SELECT c.oid,
           c.relpages,
           c.reltuples,
           -- NULL for what another session has dropped meanwhile.
           coalesce(pg_catalog.pg_relation_size(c.oid), 0) / current_setting('block_size')::bigint AS blocks,
           coalesce(pg_catalog.pg_table_size(c.oid), 0) AS bytes
      FROM tree AS t
      JOIN pg_catalog.pg_class AS c ON c.oid = t.oid
     WHERE c.relkind IN ('r', 'm')
)
SELECT (SELECT count(*) > 1 FROM tree),
       -- Another access method may number its rows in another way; the heap's oid is 2, and before version 12 it is 0.
       c.relkind IN ('r', 'm') AND c.relam IN (0, 2)
           AND pg_catalog.has_column_privilege(c.oid, 'ctid', 'SELECT'),
       coalesce((SELECT sum(blocks) FROM part), 0)::bigint,
       coalesce((SELECT sum(bytes) FROM part), 0)::bigint,
       -- NULL where something was never analyzed.
       (SELECT CASE WHEN bool_and(blocks = 0 OR (relpages > 0 AND reltuples >= 0))
                    THEN sum(CASE WHEN relpages > 0 THEN reltuples / relpages * blocks ELSE 0 END) END
          FROM part)::float8,
       current_setting('block_size')::int
  FROM pg_catalog.pg_class AS c
 WHERE c.oid = $1
