-- Move up to $2 jobs of each of the entrypoints $1 that have become due to where they are claimed;
-- how many it was. See compat/claim.sql for `fan` and for the second limit.
WITH
due AS (
    SELECT job.place
    FROM unnest((SELECT $1::text[])) AS wanted (entrypoint)
    CROSS JOIN LATERAL (
        SELECT place
        FROM (
            SELECT deferred.ctid AS place
            FROM {deferred_table} AS deferred
            CROSS JOIN generate_series(1, (SELECT 1)) AS fan
            WHERE deferred.entrypoint >= wanted.entrypoint
                AND deferred.entrypoint <= wanted.entrypoint
                AND deferred.execute_after <= now()
            ORDER BY deferred.entrypoint, deferred.execute_after
            LIMIT (SELECT $2::bigint)
            FOR UPDATE OF deferred SKIP LOCKED
        ) AS line
        LIMIT 5000
    ) AS job
),
moved AS (
    DELETE FROM {deferred_table}
    WHERE ctid = ANY(ARRAY(SELECT place FROM due))
    RETURNING id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload,
        headers
),
ready AS (
    INSERT INTO {ready_table} (
        id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers
    )
    SELECT * FROM moved
)
SELECT count(*) AS jobs FROM moved
