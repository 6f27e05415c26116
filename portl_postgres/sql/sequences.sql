-- The sequences behind the columns of one relation (its oid is $1): those of serial and identity columns, and those that
-- a default calls nextval() of. Run it with search_path = pg_catalog, so that their names are printed with the schema.
SELECT DISTINCT ON (x.num)
       a.attname::text,
       s.seqrelid::regclass::text,
       s.seqstart,
       s.seqincrement,
       s.seqmin,
       s.seqmax,
       s.seqcache,
       s.seqcycle,
       pg_catalog.has_sequence_privilege(s.seqrelid, 'SELECT'),
       pg_catalog.has_sequence_privilege(s.seqrelid, 'UPDATE')
  FROM (SELECT p.refobjsubid AS num, p.objid AS sequence, 1 AS rank
          FROM pg_catalog.pg_depend AS p
         WHERE p.classid = 'pg_catalog.pg_class'::regclass AND p.deptype IN ('a', 'i')
           AND p.refclassid = 'pg_catalog.pg_class'::regclass AND p.refobjid = $1 AND p.refobjsubid > 0
         UNION ALL
        SELECT d.adnum, p.refobjid, 2
          FROM pg_catalog.pg_attrdef AS d
          JOIN pg_catalog.pg_depend AS p ON p.classid = 'pg_catalog.pg_attrdef'::regclass AND p.objid = d.oid
           AND p.refclassid = 'pg_catalog.pg_class'::regclass
         WHERE d.adrelid = $1) AS x
  JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = x.sequence
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = $1 AND a.attnum = x.num
 ORDER BY x.num, x.rank
