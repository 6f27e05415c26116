-- How rows of a relation (its oid is $1) are found again in one state: by ctid, by tableoid and ctid, or not at all.
WITH RECURSIVE tree(oid) AS (
    SELECT $1::oid
     UNION
    SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i JOIN tree AS t ON t.oid = i.inhparent
)
SELECT CASE
           -- Other access methods number rows in another way; the heap's oid is 2. Foreign tables have another state.
           WHEN bool_or(c.relkind NOT IN ('r', 'm', 'p') OR (c.relkind <> 'p' AND c.relam <> 2)
                        OR NOT pg_catalog.has_column_privilege(c.oid, 'ctid', 'SELECT')) THEN 'none'
           WHEN count(*) > 1 THEN 'partition'
           ELSE 'row'
       END
  FROM tree AS t
  JOIN pg_catalog.pg_class AS c ON c.oid = t.oid
