-- Time until the first queued job of the entrypoints $1 may run: at most zero where one may run
-- now, NULL where none is queued. One index probe an entrypoint; see claim.sql for what holds the
-- plan. A time that somebody has written beyond those that Python has counts as the last or first.
SELECT min(
    greatest(least(first.execute_after, timestamptz '9999-12-31 UTC'), timestamptz '0001-01-02 UTC')
) - now() AS due
FROM unnest((SELECT $1::text[])) AS wanted (entrypoint)
CROSS JOIN LATERAL (
    SELECT execute_after
    FROM (
        SELECT queue.execute_after
        FROM {queue_table} AS queue
        CROSS JOIN generate_series(1, (SELECT 1)) AS fan
        WHERE queue.entrypoint >= wanted.entrypoint AND queue.entrypoint <= wanted.entrypoint
            AND queue.status = 'queued'
        ORDER BY queue.entrypoint, queue.execute_after
        LIMIT (SELECT 1)
    ) AS line
    LIMIT 1
) AS first
