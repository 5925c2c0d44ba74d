-- Whether promote.sql would move any of the entrypoints $1. To be asked first: a statement that could
-- insert jobs tells those who wait even if it inserts none.
SELECT EXISTS (
    SELECT
    FROM unnest((SELECT $1::text[])) AS wanted (entrypoint)
    CROSS JOIN LATERAL (
        SELECT
        FROM {deferred_table} AS deferred
        CROSS JOIN generate_series(1, (SELECT 1)) AS fan
        WHERE deferred.entrypoint >= wanted.entrypoint AND deferred.entrypoint <= wanted.entrypoint
            AND deferred.execute_after <= now()
        ORDER BY deferred.entrypoint, deferred.execute_after
        LIMIT (SELECT 1)
    ) AS first
) AS due
