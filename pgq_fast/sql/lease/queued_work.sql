-- 1 if a job of the entrypoints $1 is queued, else 0; a count would read the whole backlog. One
-- index probe an entrypoint; see compat/claim.sql for what holds the plan.
SELECT EXISTS (
    SELECT FROM unnest((SELECT $1::text[])) AS wanted (entrypoint)
    CROSS JOIN LATERAL (
        SELECT FROM {ready_table} AS ready
        CROSS JOIN generate_series(1, (SELECT 1)) AS fan
        WHERE ready.entrypoint >= wanted.entrypoint AND ready.entrypoint <= wanted.entrypoint
        ORDER BY ready.entrypoint, ~ready.priority, ready.id
        LIMIT (SELECT 1)
    ) AS first
    UNION ALL
    SELECT FROM unnest((SELECT $1::text[])) AS wanted (entrypoint)
    CROSS JOIN LATERAL (
        SELECT FROM {deferred_table} AS deferred
        CROSS JOIN generate_series(1, (SELECT 1)) AS fan
        WHERE deferred.entrypoint >= wanted.entrypoint
            AND deferred.entrypoint <= wanted.entrypoint
            -- [eligible
            AND deferred.execute_after <= now()
            -- eligible]
        ORDER BY deferred.entrypoint, deferred.execute_after
        LIMIT (SELECT 1)
    ) AS first
)::int AS queued_work
