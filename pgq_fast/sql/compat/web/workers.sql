-- The $1 first workers that hold jobs, and of each by looking at $2 jobs at most: as many or more
-- then.
WITH RECURSIVE worker AS (
    (
        SELECT queue_manager_id, 1 AS n FROM {queue_table}
        WHERE queue_manager_id IS NOT NULL
        ORDER BY queue_manager_id
        LIMIT 1
    )
    UNION ALL
    SELECT next.queue_manager_id, worker.n + 1
    FROM worker
    CROSS JOIN LATERAL (
        SELECT queue_manager_id FROM {queue_table}
        WHERE queue_manager_id IS NOT NULL AND queue_manager_id > worker.queue_manager_id
        ORDER BY queue_manager_id
        LIMIT 1
    ) AS next
    WHERE worker.n < $1::integer
)
SELECT worker.queue_manager_id, held.*
FROM worker
CROSS JOIN LATERAL (
    SELECT count(*) AS jobs, NULL::bigint AS leases, min(updated) AS since,
        extract(epoch FROM now() - min(heartbeat))::float8 AS silent,
        array_to_json((array_agg(DISTINCT entrypoint))[:20])::text AS entrypoints
    FROM (
        SELECT updated, heartbeat, entrypoint, status FROM {queue_table} AS job
        WHERE job.queue_manager_id = worker.queue_manager_id
        LIMIT $2::bigint
    ) AS job
    WHERE status = 'picked'
) AS held
WHERE held.jobs > 0
ORDER BY worker.n
