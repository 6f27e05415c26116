-- The ledger's fourth layout: what the caller calls a run, and whether they were told of its outcome.
ALTER TABLE :"schema".:"migrations"
    ADD COLUMN IF NOT EXISTS idempotency_key text,      -- escaped as in a JSON string
    ADD COLUMN IF NOT EXISTS acknowledged timestamptz;  -- when the outcome of the finished run was handed over
-- Of runs that ended under an earlier layout nobody knows; they are taken as told.
UPDATE :"schema".:"migrations" SET acknowledged = ended WHERE state = 'done' AND acknowledged IS NULL;
COMMENT ON TABLE :"schema".:"migrations" IS 'portl''s ledger, layout 4';
