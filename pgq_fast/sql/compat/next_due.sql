-- Time until the first queued job of the entrypoints $1 may run: at most zero where one may run
-- now, NULL where none is queued. One index probe an entrypoint.
SELECT min(first.execute_after) - now() AS due
FROM unnest($1::text[]) AS wanted (entrypoint)
CROSS JOIN LATERAL (
    SELECT execute_after
    FROM {queue_table}
    WHERE entrypoint = wanted.entrypoint AND status = 'queued'
    ORDER BY execute_after
    LIMIT 1
) AS first
