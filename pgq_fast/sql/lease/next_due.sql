-- Time until the first queued job of the entrypoints $1 may run: at most zero where one may run now,
-- NULL where none is queued. One index probe an entrypoint and table. And what tells of transactions
-- whose jobs this does not see: none below `oldest` is in progress. For the first look after a
-- registration, its own transaction, which is later than all that have begun.
-- See compat/claim.sql for `fan` and for the second limit.
SELECT
    CASE WHEN EXISTS (
        SELECT
        FROM unnest((SELECT $1::text[])) AS wanted (entrypoint)
        CROSS JOIN LATERAL (
            SELECT
            FROM (
                SELECT
                FROM {ready_table} AS ready
                CROSS JOIN generate_series(1, (SELECT 1)) AS fan
                WHERE ready.entrypoint >= wanted.entrypoint
                    AND ready.entrypoint <= wanted.entrypoint
                ORDER BY ready.entrypoint
                LIMIT (SELECT 1)
            ) AS line
            LIMIT 1
        ) AS first
    ) THEN interval '0' ELSE (
        -- include lease/parts/first_deferred entrypoints=$1
    ) END AS due,
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest,
    -- [first
    -- Not what the snapshot calls the next one: there may be others from there on that have begun.
    pg_current_xact_id()::text::bigint AS own
    -- first]
    -- [again
    NULL::bigint AS own
    -- again]
