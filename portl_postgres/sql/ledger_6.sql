-- The ledger's sixth layout: how many rows of the destination a chunk has deleted, or marked as deleted.
ALTER TABLE :"schema".:"chunks" ADD COLUMN IF NOT EXISTS deleted bigint NOT NULL DEFAULT 0;
COMMENT ON TABLE :"schema".:"migrations" IS 'portl''s ledger, layout 6';
