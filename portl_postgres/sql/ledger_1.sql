-- The ledger's first layout. For psql: -v schema=portl -v migrations=migrations -v chunks=chunks
CREATE TABLE IF NOT EXISTS :"schema".:"migrations" (
    id          uuid PRIMARY KEY,
    job         text NOT NULL,                   -- escaped as in a JSON string
    identity    json NOT NULL,                   -- what decides which rows go where, without secrets
    fingerprint text NOT NULL,                   -- SHA-256 of identity
    attempt     integer NOT NULL,
    state       text NOT NULL,
    source      text NOT NULL,
    destination text NOT NULL,
    snapshots   json NOT NULL,                   -- by attempt
    resumable   boolean NOT NULL,
    started     timestamptz NOT NULL,
    ended       timestamptz,
    error       text
);
-- A line is written about once after it was made: there is room for the new version beside the old one.
CREATE TABLE IF NOT EXISTS :"schema".:"chunks" (
    run       uuid NOT NULL,
    number    integer NOT NULL,
    bounds    json,
    state     text NOT NULL DEFAULT 'pending',
    attempt   integer NOT NULL DEFAULT 0,
    rows      bigint NOT NULL DEFAULT 0,
    bytes     bigint NOT NULL DEFAULT 0,
    batches   bigint NOT NULL DEFAULT 0,
    inserted  bigint NOT NULL DEFAULT 0,
    updated   bigint NOT NULL DEFAULT 0,
    unchanged bigint NOT NULL DEFAULT 0,
    skipped   bigint NOT NULL DEFAULT 0,
    rejected  bigint NOT NULL DEFAULT 0,
    written   timestamptz,
    finished  timestamptz,
    PRIMARY KEY (run, number)
) WITH (fillfactor = 50);
COMMENT ON TABLE :"schema".:"chunks" IS 'what became of each chunk of portl''s runs';
COMMENT ON TABLE :"schema".:"migrations" IS 'portl''s ledger, layout 1';
