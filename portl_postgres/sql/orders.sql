-- The operators <, >= and <= of the default order of the types $1. A type without a class of its own has the operators of
-- pg_catalog, those of the type that it is made of or of all enums, arrays, ranges and rows.
SELECT c.opcintype,
       max('OPERATOR(' || quote_ident(n.nspname) || '.' || p.oprname || ')') FILTER (WHERE a.amopstrategy = 1),
       max('OPERATOR(' || quote_ident(n.nspname) || '.' || p.oprname || ')') FILTER (WHERE a.amopstrategy = 4),
       max('OPERATOR(' || quote_ident(n.nspname) || '.' || p.oprname || ')') FILTER (WHERE a.amopstrategy = 2)
  FROM pg_catalog.pg_opclass AS c
  JOIN pg_catalog.pg_am AS m ON m.oid = c.opcmethod AND m.amname = 'btree'
  JOIN pg_catalog.pg_amop AS a ON a.amopfamily = c.opcfamily
       AND a.amoplefttype = c.opcintype AND a.amoprighttype = c.opcintype AND a.amopstrategy IN (1, 2, 4)
  JOIN pg_catalog.pg_operator AS p ON p.oid = a.amopopr
  JOIN pg_catalog.pg_namespace AS n ON n.oid = p.oprnamespace
 WHERE c.opcdefault AND c.opcintype = ANY($1::oid[])
 GROUP BY c.opcintype
