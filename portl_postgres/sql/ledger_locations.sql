-- The tables of a ledger at each possible location, by schemas ($1), names of the table of migrations ($2) and of the
-- table of chunks ($3), and what the current role may do with them.
SELECT n.oid IS NOT NULL,
       coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false),
       coalesce(pg_catalog.has_schema_privilege(n.oid, 'CREATE'), false),
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
       m.relkind::text,
       pg_catalog.obj_description(m.oid, 'pg_class'),
       c.relkind::text,
       coalesce(pg_catalog.has_table_privilege(m.oid, 'SELECT')
                AND pg_catalog.has_table_privilege(c.oid, 'SELECT'), false),
       coalesce(pg_catalog.has_table_privilege(m.oid, 'INSERT') AND pg_catalog.has_table_privilege(m.oid, 'UPDATE')
                AND pg_catalog.has_table_privilege(c.oid, 'INSERT')
                AND pg_catalog.has_table_privilege(c.oid, 'UPDATE'), false)
  FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS p(schema, migrations, chunks, place)
  LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = p.schema
  LEFT JOIN pg_catalog.pg_class AS m ON m.relnamespace = n.oid AND m.relname = p.migrations
  LEFT JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = p.chunks
 ORDER BY p.place
