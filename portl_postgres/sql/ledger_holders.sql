-- Who holds the advisory locks of some 64-bit keys ($1) in this database. What the role may not see is null.
SELECT k.key,
       l.pid,
       a.usename::text,
       nullif(a.application_name, ''),
       pg_catalog.host(a.client_addr),
       pg_catalog.to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
  FROM unnest($1::int8[]) AS k(key)
  JOIN pg_catalog.pg_locks AS l
    ON l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
   AND l.classid::int8 = (k.key >> 32) & 4294967295 AND l.objid::int8 = k.key & 4294967295
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
