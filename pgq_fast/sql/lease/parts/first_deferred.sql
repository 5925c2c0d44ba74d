-- Time until the first of the deferred jobs of <entrypoints> may run; NULL where there is none.
-- As in compat/next_due.sql.
SELECT min(
    greatest(least(first.execute_after, timestamptz '9999-12-31 UTC'), timestamptz '0001-01-02 UTC')
) - now() AS due
FROM unnest((SELECT <entrypoints>::text[])) AS wanted (entrypoint)
CROSS JOIN LATERAL (
    SELECT execute_after
    FROM (
        SELECT deferred.execute_after
        FROM {deferred_table} AS deferred
        CROSS JOIN generate_series(1, (SELECT 1)) AS fan
        WHERE deferred.entrypoint >= wanted.entrypoint
            AND deferred.entrypoint <= wanted.entrypoint
        ORDER BY deferred.entrypoint, deferred.execute_after
        LIMIT (SELECT 1)
    ) AS line
    LIMIT 1
) AS first
