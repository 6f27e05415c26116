-- The ledger's second layout: who is at work on a run, since when, and what it came to.
ALTER TABLE :"schema".:"migrations"
    ADD COLUMN IF NOT EXISTS taken timestamptz,      -- when the last attempt began
    ADD COLUMN IF NOT EXISTS host text,              -- where it runs, or ran
    ADD COLUMN IF NOT EXISTS pid integer,            -- the process there
    ADD COLUMN IF NOT EXISTS version text,           -- of portl
    ADD COLUMN IF NOT EXISTS total_rows bigint,      -- as of the end of the last attempt, as the two that follow
    ADD COLUMN IF NOT EXISTS total_bytes bigint,
    ADD COLUMN IF NOT EXISTS total_rejected bigint;
UPDATE :"schema".:"migrations" AS m
   SET taken = coalesce(m.taken, m.started),
       total_rows = t.rows,
       total_bytes = t.bytes,
       total_rejected = t.rejected
  FROM (SELECT run, sum(rows)::bigint AS rows, sum(bytes)::bigint AS bytes, sum(rejected)::bigint AS rejected
          FROM :"schema".:"chunks"
         GROUP BY run) AS t
 WHERE t.run = m.id AND m.ended IS NOT NULL;
COMMENT ON TABLE :"schema".:"migrations" IS 'portl''s ledger, layout 2';
