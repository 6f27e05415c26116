-- The ledger's fifth layout: the tables of a run that has many, each with the numbers of its chunks.
ALTER TABLE :"schema".:"migrations" ADD COLUMN IF NOT EXISTS tables json;
COMMENT ON TABLE :"schema".:"migrations" IS 'portl''s ledger, layout 5';
