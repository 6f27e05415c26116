-- The ledger's third layout: which table was filled, and which ledger wrote that down.
ALTER TABLE :"schema".:"migrations"
    ADD COLUMN IF NOT EXISTS incarnation text,       -- OID of the destination's table
    ADD COLUMN IF NOT EXISTS ledger oid;             -- OID of this table: restored from a dump, both have new ones
COMMENT ON TABLE :"schema".:"migrations" IS 'portl''s ledger, layout 3';
