-- How far indexes are that sessions build: by process, the phase, and what of it is done (manual, 27.4.4).
-- $1: the processes.
SELECT p.pid,
    regexp_replace(p.phase, '^building index: ', ''),
    CASE -- while tuples are sorted, the counts are those of the scan before
        WHEN p.phase LIKE '%sorting%' THEN NULL
        WHEN p.phase LIKE '%loading%' AND p.tuples_total > 0 THEN p.tuples_done::float8 / p.tuples_total
        WHEN p.blocks_total > 0 THEN p.blocks_done::float8 / p.blocks_total
    END
FROM pg_catalog.pg_stat_progress_create_index AS p
WHERE p.pid = ANY ($1::int[])
