-- The ledger's fourth layout: what the caller calls a run, whether they were told of its outcome, and how many rows of a
-- chunk keep a value of their own in a column that could not be set.
ALTER TABLE :"schema".:"migrations"
    ADD COLUMN IF NOT EXISTS idempotency_key text,      -- escaped as in a JSON string
    ADD COLUMN IF NOT EXISTS acknowledged timestamptz;  -- when the outcome of the finished run was handed over
ALTER TABLE :"schema".:"chunks" ADD COLUMN IF NOT EXISTS kept bigint NOT NULL DEFAULT 0;
-- Of runs that ended under an earlier layout nobody knows; they are taken as told.
UPDATE :"schema".:"migrations" SET acknowledged = ended WHERE state = 'done' AND acknowledged IS NULL;
COMMENT ON TABLE :"schema".:"migrations" IS 'portl''s ledger, layout 4';
