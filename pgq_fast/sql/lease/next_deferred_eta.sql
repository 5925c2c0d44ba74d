-- Time until the first of the deferred jobs of the entrypoints $1 becomes due. One index probe an
-- entrypoint; see compat/claim.sql for what holds the plan.
-- Later than Python has years is as good as never.
SELECT least(first.execute_after, timestamptz '9999-12-31 UTC') - now() AS eta
FROM unnest((SELECT $1::text[])) AS wanted (entrypoint)
CROSS JOIN LATERAL (
    SELECT deferred.execute_after
    FROM {deferred_table} AS deferred
    CROSS JOIN generate_series(1, (SELECT 1)) AS fan
    WHERE deferred.entrypoint >= wanted.entrypoint AND deferred.entrypoint <= wanted.entrypoint
        AND deferred.execute_after > now()
    ORDER BY deferred.entrypoint, deferred.execute_after
    LIMIT (SELECT 1)
) AS first
ORDER BY first.execute_after
LIMIT 1
