-- Foreign keys, but for those that a partitioned table hands down: the names of the table, of the table that it refers to
-- and of the key; its definition and comment; whether it is valid, whether it can be made without looking at rows, and
-- whether the role may make it.
SELECT n.nspname::text, c.relname::text, fn.nspname::text, f.relname::text, k.conname::text,
       pg_catalog.pg_get_constraintdef(k.oid),
       pg_catalog.obj_description(k.oid, 'pg_constraint'),
       k.convalidated,
       c.relkind = 'r' AND f.relkind = 'r' AND coalesce((pg_catalog.to_jsonb(k) ->> 'conenforced')::boolean, true),
       pg_catalog.pg_has_role(c.relowner, 'USAGE'),
       pg_catalog.has_table_privilege(f.oid, 'REFERENCES')
  FROM pg_catalog.pg_constraint AS k
  JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_class AS f ON f.oid = k.confrelid
  JOIN pg_catalog.pg_namespace AS fn ON fn.oid = f.relnamespace
 WHERE k.contype = 'f' AND k.conparentid = 0
 ORDER BY 1, 2, 5
