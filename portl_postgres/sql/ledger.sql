-- The ledger's tables. For psql: -v schema=portl -v migrations=migrations -v chunks=chunks
CREATE TABLE IF NOT EXISTS :"schema".:"migrations" (
    id              uuid PRIMARY KEY,
    job             text NOT NULL,                   -- escaped as in a JSON string
    identity        json NOT NULL,                   -- what decides which rows go where, without secrets
    fingerprint     text NOT NULL,                   -- SHA-256 of identity
    idempotency_key text,                            -- the caller's id of the run, escaped as in a JSON string
    attempt         integer NOT NULL,
    state           text NOT NULL,
    source          text NOT NULL,
    destination     text NOT NULL,
    incarnation     text,                            -- OID of the destination's table
    ledger          oid,                             -- OID of this table: restored from a dump, both have new ones
    tables          json,                            -- of a run of many tables, each with the numbers of its chunks
    snapshots       json NOT NULL,                   -- by attempt
    resumable       boolean NOT NULL,
    started         timestamptz NOT NULL,
    taken           timestamptz,                     -- when the last attempt began
    host            text,                            -- where it runs, or ran
    pid             integer,                         -- its process there
    version         text,                            -- of portl
    ended           timestamptz,
    error           text,
    total_rows      bigint,                          -- totals as of the end of the last attempt
    total_bytes     bigint,
    total_rejected  bigint,
    acknowledged    timestamptz                      -- when the result of the finished run was delivered
);
-- A line is usually updated once: the fill factor leaves room for the new version beside the old one.
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
    deleted   bigint NOT NULL DEFAULT 0,             -- or marked as deleted
    kept      bigint NOT NULL DEFAULT 0,             -- with their own value in a column that could not be set
    rejected  bigint NOT NULL DEFAULT 0,
    written   timestamptz,
    finished  timestamptz,
    PRIMARY KEY (run, number)
) WITH (fillfactor = 50);
COMMENT ON TABLE :"schema".:"chunks" IS 'the state of each chunk of portl''s runs';
COMMENT ON TABLE :"schema".:"migrations" IS 'portl''s ledger, layout 1';
